"""`recsys score --engine spark`: the batch job, read and written by Spark."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from recsys.app.batch_function import BatchFunction, batch_function
from recsys.app.scoring import ListOptions
from recsys.app.spark.answering import counts, mapped
from recsys.app.spark.reading import (
    ROW_PLACE,
    address_of,
    names_in,
    numbered,
    place_of_rows,
    read_frame,
)
from recsys.app.spark.requests import as_written, requests_from
from recsys.app.spark.session import said_by_workers, session_of
from recsys.bundle.directory import Bundle
from recsys.core.errors import ConfigError, DataError
from recsys.core.events import Listener, PartDone, ignore
from recsys.features.bundle.files import read_description
from recsys.features.schema import Schema
from recsys.serving.engines.rows import RowSummary
from recsys.serving.engines.tally import Summary
from recsys.serving.recommend.rows import PROBABILITY, ROW
from recsys.serving.recommend.scorer import Scorer


def score_on_spark(
    folder: Path,
    output: Path,
    tables: Mapping[str, Any],
    lists: ListOptions | None = None,
    *,
    master: str | None = None,
    settings: Mapping[str, Any] | None = None,
    listener: Listener = ignore,
) -> dict[str, Any]:
    """Score everything that is asked on Spark; return the summary of the job on one machine.

    Spark's committer writes the parts and an empty `_SUCCESS`; a job that failed starts anew.

    Args:
        folder: of the bundle.
        output: folder for the parts, which may hold nothing yet.
        tables: paths as for `recsys.app.scoring.score_model`; requests, rows, the log and tables of
            users are Parquet or Delta.
        lists: of a retrieval model; None: the defaults.
        master: of Spark; None: as it is set up.
        settings: other policies than in training.
        listener: called with one `PartDone` at the end.

    Raises:
        UserError: the tables do not fit the model, or `output` holds files.
    """
    given = {name: str(path) for name, path in tables.items() if path is not None}
    _refuse_files(output, os.listdir(output) if output.is_dir() else ())
    gives_rows = read_description(Bundle.open(folder)).gives_rows
    score = _score_rows if gives_rows else _score_lists
    found = score(folder, output, given, lists or ListOptions(), settings, master)
    listener(PartDone(found["parts"], found["parts"]))
    return found


def _score_lists(
    folder: Path,
    output: Path,
    tables: dict[str, str],
    lists: ListOptions,
    settings: Mapping[str, Any] | None,
    master: str | None,
) -> dict[str, Any]:
    requests, log = tables.pop("requests", None), tables.pop("interactions", None)
    if (requests is None) == (log is None):
        raise ConfigError("score: give an interaction log or requests, one of the two")
    how = {name: one for name, one in vars(lists).items() if name != "rows_per_part"}
    items, block = {"items": tables.pop("items", None)}, tables.pop("block", None)
    function = batch_function(folder, **how, block=block, tables=items, settings=settings)
    if requests is not None and tables:
        raise ConfigError(f"{next(iter(tables))}: requests hold attributes: leave it out")
    spark = session_of(master, f"recsys score {folder.name}")
    with said_by_workers():
        if log is None:
            frame = _of_requests(spark, function, str(requests))
        else:
            frame = _of_log(spark, folder, log, tables, settings)
        return _lists(function, frame, address_of(output), lists.rows_per_part)


def _score_rows(
    folder: Path,
    output: Path,
    tables: dict[str, str],
    lists: ListOptions,
    settings: Mapping[str, Any] | None,
    master: str | None,
) -> dict[str, Any]:
    requests = tables.pop("requests", None)
    if requests is None or not lists.are_default:
        raise ConfigError("score: the model is a ranker: give the rows to score as requests alone")
    function = batch_function(folder, tables=tables, settings=settings)
    spark = session_of(master, f"recsys score {folder.name}")
    with said_by_workers():
        return _rows(spark, function, requests, address_of(output))


def _lists(function: BatchFunction, frame: Any, output: str, rows_per_part: int) -> dict[str, Any]:
    """Write the lists of requests."""
    spark, opened = frame.sparkSession, function.opened()
    counted = counts(spark)
    _write(mapped(function, frame, counts=counted), output, rows_per_part)
    assert isinstance(opened.scorer, Scorer)
    assert opened.filters is not None
    parts = len(spark.read.parquet(output).inputFiles())
    summary = Summary.of(
        counted.value,
        opened.scorer,
        opened.filters,
        output=output,
        parts=parts,
        parts_already_there=0,
    )
    return summary.facts()


def _rows(spark: Any, function: BatchFunction, given: str, output: str) -> dict[str, Any]:
    """Write the probabilities of rows, with the number of each over all files."""
    from pyspark.sql import functions

    frame = numbered(read_frame(spark, given, "requests"))
    answers = mapped(function, frame, keep=(ROW_PLACE,))
    names = [name for name in answers.columns if name != ROW_PLACE]
    names.insert(names.index(PROBABILITY), ROW_PLACE)
    chosen = [functions.col(f"`{one}`").alias(ROW if one == ROW_PLACE else one) for one in names]
    _write(answers.select(*chosen), output, None)
    written = spark.read.parquet(output)
    total, mean = written.agg(functions.count("*"), functions.avg(PROBABILITY)).first()
    parts = len(written.inputFiles())
    summary = RowSummary(output, function.model_id, parts, 0, total, mean or 0.0)
    return dict(vars(summary))


def _of_log(spark: Any, folder: Path, log: str, sides: Mapping[str, str], settings: Any) -> Any:
    """Return the requests of the users of a log."""
    frames = {name: read_frame(spark, path, name) for name, path in sides.items()}
    users = frames.pop("users", None)
    rows = read_frame(spark, log, "interactions")
    return requests_from(
        rows, folder, users=users, others=frames, position=place_of_rows(rows), settings=settings
    )


def _of_requests(spark: Any, function: BatchFunction, given: str) -> Any:
    """Return requests, of which each is of another user."""
    frame = read_frame(spark, given, "requests")
    scorer = function.opened().scorer
    assert isinstance(scorer, Scorer)
    schema: Schema = scorer.schema
    key = schema.user_key
    if key in frame.columns:
        _refuse_repeated(frame.select(f"`{key}`"), schema, given)
    return frame


def _refuse_repeated(keys: Any, schema: Schema, given: str) -> None:
    """Refuse a user who is in two rows; a null one is refused where rows are read."""
    from pyspark.sql import functions

    key = schema.user_key
    keys = as_written(keys, key, schema.ids.users)
    counted = keys.dropna().groupBy(f"`{key}`").agg(functions.count("*").alias("rows"))
    twice = counted.filter("rows > 1").orderBy(f"`{key}`").first()
    if twice is not None:
        raise DataError(
            f"user {twice[0]!r} is in {twice[1]} rows",
            file=given,
            column=key,
            remedy="keep one row a user",
        )


def _write(frame: Any, output: str, rows_per_part: int | None) -> None:
    _refuse_files(output, names_in(frame.sparkSession, output))
    writer = frame.write.mode("overwrite")
    if rows_per_part is not None:
        writer = writer.option("maxRecordsPerFile", rows_per_part)
    writer.parquet(output)


def _refuse_files(output: object, names: Iterable[str]) -> None:
    """Refuse a folder that holds files; what a Spark job that failed left is none.

    Raises:
        ConfigError: there are some.
    """
    if any(name[0] not in "._" for name in names):
        raise ConfigError(
            f"{output}: holds files already, and a Spark job does not continue another: choose "
            "another --output, or remove the folder"
        )
