"""Tables that Spark reads: Parquet and Delta, and where in the files their rows are."""

from pathlib import Path
from typing import Any

from recsys.core.errors import ConfigError, DataError, NotFoundError

ROW_PLACE = "_recsys_row"
"""Column with the number of a row over all files in reading order, from 0."""
_WITHOUT_HOST = ("file", "dbfs", "hdfs", "viewfs")
_OTHERS = (".csv", ".tsv", ".gz", ".bz2", ".zst", ".xz", ".txt", ".yaml", ".yml")


def read_frame(spark: Any, given: str, name: str) -> Any:
    """Return a table at a path: a file, a folder, a glob, or whatever Spark's file systems have.

    Raises:
        DataError: it is no Parquet or Delta table.
        NotFoundError: there is none.
    """
    from pyspark.errors import AnalysisException

    if given.lower().endswith(_OTHERS):
        raise DataError(
            f"on Spark the {name} table is read as Parquet or Delta",
            file=given,
            remedy="convert it, or score with --engine local",
        )
    lake = "_delta_log" in names_in(spark, given)
    try:
        return spark.read.format("delta" if lake else "parquet").load(given)
    except AnalysisException as error:
        reason = str(error).strip().splitlines()[0]
        if error.getCondition() == "PATH_NOT_FOUND":
            raise NotFoundError(f"{given}: no such {name} table") from None
        raise ConfigError(f"{given}: Spark does not read the {name} table ({reason})") from None


def names_in(spark: Any, folder: str) -> list[str]:
    """Return what is in a folder of any of Spark's file systems; nothing of a file or a glob."""
    if any(sign in folder for sign in "*?[{"):
        return []
    where = spark._jvm.org.apache.hadoop.fs.Path(folder)
    files = where.getFileSystem(spark._jsc.hadoopConfiguration())
    if not files.exists(where) or not files.getFileStatus(where).isDirectory():
        return []
    return [str(one.getPath().getName()) for one in files.listStatus(where)]


def address_of(folder: Path) -> str:
    """Return a folder as Spark reads it: a `Path` has lost a slash of `s3a://bucket/lists`."""
    given = str(folder)
    scheme, found, rest = given.partition(":/")
    has_host = found and scheme.isalnum() and scheme not in _WITHOUT_HOST
    return f"{scheme}://{rest.lstrip('/')}" if has_host else given


def place_of_rows(frame: Any) -> Any:
    """Return the expression by which rows of a Parquet table are in the order of its files.

    None where Spark knows of no files.
    """
    from pyspark.errors import AnalysisException
    from pyspark.sql import functions

    place = functions.struct(
        functions.split(functions.col("_metadata.file_path"), "/").alias("path"),
        functions.col("_metadata.row_index").alias("row"),
    )
    try:
        frame.select(place).schema  # noqa: B018 - is analysed
    except AnalysisException:
        return None
    return place


def numbered(frame: Any) -> Any:
    """Return the rows of a Parquet table with `ROW_PLACE`."""
    from pyspark.sql import functions

    path, row = functions.col("_metadata.file_path"), functions.col("_metadata.row_index")
    counted = frame.select(path.alias("path")).groupBy("path").count().collect()
    found = sorted((tuple(one["path"].split("/")), one["path"], one["count"]) for one in counted)
    first, starts = 0, []
    for _, name, count in found:
        starts += [functions.lit(name), functions.lit(first)]
        first += count
    if not starts:
        return frame.withColumn(ROW_PLACE, row)
    return frame.withColumn(ROW_PLACE, functions.create_map(*starts)[path] + row)
