"""What the Spark side says and does before, or without, Spark."""

import ast
import sys
import zipfile
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from click.testing import CliRunner

import recsys
import recsys.spark
from recsys.app.cli import main
from recsys.app.spark.columns import holdable
from recsys.app.spark.reading import address_of
from recsys.app.spark.session import is_local, need_spark
from recsys.app.spark.shipping import _packed
from recsys.core.errors import ConfigError


def test_what_is_missing_is_said_with_its_remedy(
    monkeypatch: pytest.MonkeyPatch, messy: Path, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "pyspark", None)
    with pytest.raises(ConfigError, match=r"pip install 'recsys-engine\[spark\]'"):
        need_spark()
    options = ["--interactions", "log", "--engine", "spark", "--output", str(tmp_path / "out")]
    result = CliRunner().invoke(main, ["score", str(messy), *options])
    assert (result.exit_code, "needs pyspark, which is not installed" in result.output) == (2, True)


def test_the_names_for_type_checkers_are_those_that_there_are() -> None:
    stub = Path(recsys.spark.__file__).with_suffix(".pyi").read_text()
    imported = [node for node in ast.parse(stub).body if isinstance(node, ast.ImportFrom)]
    assert {one.asname for node in imported for one in node.names} == set(dir(recsys.spark))
    with pytest.raises(AttributeError, match="no attribute 'fit'"):
        recsys.spark.fit  # type: ignore[attr-defined]  # noqa: B018


@pytest.mark.parametrize(
    "given",
    ["s3a://shop/lists/x", "gs://shop/x", "hdfs:/x/y", "dbfs:/x", "file:/tmp/x", "/tmp/x", "x/y"],
)
def test_addresses_are_those_that_were_given(given: str) -> None:
    assert address_of(Path(given)) == given


def test_columns_are_in_types_that_spark_has() -> None:
    text = pa.large_string()
    found = holdable(
        pa.schema(
            {
                "user": text,
                "items": pa.large_list(pa.dictionary(pa.int32(), text)),
                "at": pa.timestamp("ns", "UTC"),
                "count": pa.uint64(),
                "none": pa.null(),
                "score": pa.float32(),
            }
        )
    )
    assert [str(one.type) for one in found] == [
        "string",
        "list<item: string>",
        "timestamp[us, tz=UTC]",
        "int64",
        "string",
        "float",
    ]


def test_a_session_without_a_context_is_on_other_machines() -> None:
    class Remote:
        @property
        def sparkContext(self) -> Any:  # noqa: N802
            raise AttributeError("of Spark Connect")

    assert not is_local(Remote())


def test_an_archive_holds_the_bundle_and_the_tables_that_are_files(
    messy: Path, tmp_path: Path
) -> None:
    block = pd.DataFrame({"user": ["u1"], "item": ["i01"]})
    block.to_parquet(tmp_path / "block.parquet")
    items = pd.DataFrame({"item": ["i01", "i02"]})
    (tmp_path / "items").mkdir()
    items.to_parquet(tmp_path / "items" / "part-0.parquet")
    tables: dict[str, Any] = {"items": tmp_path / "items"}
    function = recsys.batch_function(messy, block=tmp_path / "block.parquet", tables=tables)
    names = set(zipfile.ZipFile(_packed(function)).namelist())
    files = {path.relative_to(messy).as_posix() for path in messy.rglob("*") if path.is_file()}
    more = {"tables/block/block.parquet", "tables/items/items/part-0.parquet"}
    assert names == {f"bundle/{messy.name}/{name}" for name in files} | more
    globbed = recsys.batch_function(messy, tables={"items": tmp_path / "items" / "*.parquet"})
    with pytest.raises(ConfigError, match=r"\*\.parquet: a file or a folder is sent"):
        _packed(globbed)
