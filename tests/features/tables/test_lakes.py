"""Folders that keep old files: the version that counts is read, or the folder is refused."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys.core.errors import ConfigError, DataError
from recsys.features.tables import lakes
from recsys.features.tables.reading import fingerprint, open_table

deltalake = pytest.importorskip("deltalake")


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Two versions: the second replaced all rows of the first."""
    folder = tmp_path / "a log"
    for start in (0, 10):
        rows = pa.table({"n": [start, start + 1, start + 2], "day": ["1/2", "3", None]})
        deltalake.write_deltalake(folder, rows, mode="overwrite", partition_by=["day"])
    return folder


def rows_of(path: Path) -> list[tuple[int, str | None]]:
    found: list[tuple[int, str | None]] = []
    for batch in open_table(path, "log").batches(["n", "day"]):
        found += zip(*(column.to_pylist() for column in batch.table.columns), strict=True)
    return sorted(found)


def test_the_last_version_is_read_alone(table: Path) -> None:
    assert len(list(table.rglob("*.parquet"))) == 6
    assert rows_of(table) == [(10, "1/2"), (11, "3"), (12, None)]
    moved = table.rename(table.with_name("log [v2]"))
    assert rows_of(moved) == [(10, "1/2"), (11, "3"), (12, None)]


def test_deleted_rows_are_gone_and_the_fingerprint_tells(table: Path) -> None:
    before = fingerprint([open_table(table, "log")])
    deltalake.DeltaTable(str(table)).delete("n = 11")
    assert rows_of(table) == [(10, "1/2"), (12, None)]
    after = fingerprint([open_table(table, "log")])
    # A version of the same files is another version.
    deltalake.DeltaTable(str(table)).alter.set_table_properties({"delta.appendOnly": "false"})
    assert len({before, after, fingerprint([open_table(table, "log")])}) == 3


def test_its_files_are_not_read_without_its_log(table: Path) -> None:
    for given in (table / "*" / "*.parquet", table / "day=3", next(table.rglob("*.parquet"))):
        with pytest.raises(DataError, match=r"a file of the Delta table .*give the folder"):
            open_table(given, "log")
    with pytest.raises(DataError, match="a file of the Delta table"):
        open_table(table.parent, "log")


def test_a_file_that_is_gone_and_a_broken_log_are_named(table: Path) -> None:
    path = open_table(table, "log").paths[0]
    path.unlink()
    with pytest.raises(DataError, match="that is not there") as caught:
        open_table(table, "log")
    assert caught.value.file == str(path)
    for entry in (table / "_delta_log").iterdir():
        entry.write_text('{"add": {"path": "x.parquet"}}\n')
    with pytest.raises(DataError, match="a Delta table whose log cannot be read"):
        open_table(table, "log")


def test_column_mapping_is_refused(table: Path) -> None:
    log = sorted((table / "_delta_log").glob("*.json"))[0]
    text = log.read_text()
    assert '"configuration":{}' in text
    mapped = '"configuration":{"delta.columnMapping.mode":"name"}'
    log.write_text(text.replace('"configuration":{}', mapped))
    with pytest.raises(DataError, match=r"column mapping|cannot be read"):
        open_table(table, "log")


def test_without_the_library_the_remedy_is_named(
    table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lakes.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'recsys-engine\[delta\]'"):
        open_table(table, "log")


@pytest.mark.parametrize(
    ("name", "mark"),
    [("Iceberg", "metadata/v1.metadata.json"), ("Hudi", ".hoodie/hoodie.properties")],
)
def test_other_formats_are_refused_by_name(tmp_path: Path, name: str, mark: str) -> None:
    (tmp_path / mark).parent.mkdir()
    (tmp_path / mark).touch()
    (tmp_path / "data").mkdir()
    pq.write_table(pa.table({"n": [1]}), tmp_path / "data" / "0.parquet")
    for given in (tmp_path, tmp_path / "data", tmp_path / "data" / "0.parquet"):
        with pytest.raises(DataError, match=rf"{name}.*write the table as it is now to Parquet"):
            open_table(given, "log")
