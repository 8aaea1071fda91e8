"""Files, globs and folders as one stream of rows, each with its place."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from recsys.core.errors import DataError, NotFoundError
from recsys.features.tables import csv_files, parquet_files
from recsys.features.tables.reading import open_table


def values(path: str | Path, *columns: str) -> list[tuple[object, ...]]:
    """All rows of a table, read batch by batch."""
    rows: list[tuple[object, ...]] = []
    numbers = []
    for batch in open_table(path, "items").batches(columns):
        rows += zip(*(batch.table[name].to_pylist() for name in columns), strict=True)
        numbers += batch.rows.tolist()
    assert numbers == list(range(len(rows)))
    return rows


def test_file_glob_and_folder_read_alike(tmp_path: Path) -> None:
    for part in range(3):
        table = pa.table({"a": [2 * part, 2 * part + 1], "b": ["x", "y"]})
        pq.write_table(table, tmp_path / f"part-{part}.parquet")
    (tmp_path / "_SUCCESS").touch()
    (tmp_path / ".part-0.parquet.crc").write_bytes(b"crc")
    wanted = [(k,) for k in range(6)]
    assert values(tmp_path, "a") == wanted
    assert values(tmp_path / "part-*.parquet", "a") == wanted
    assert values(tmp_path / "part-[01].parquet", "a") == wanted[:4]
    assert values(tmp_path / "part-2.parquet", "a") == wanted[4:]


def test_hive_partitions_are_columns(tmp_path: Path) -> None:
    table = pa.table(
        {"a": [1, 2, 3, 4], "land": ["de", "fr", "de", None], "day": ["1/2", "1/2", "3", "3"]}
    )
    ds.write_dataset(
        table, tmp_path, format="parquet", partitioning=["land", "day"], partitioning_flavor="hive"
    )
    rows = sorted(values(tmp_path, "a", "land", "day"))
    assert rows == [(1, "de", "1/2"), (2, "fr", "1/2"), (3, "de", "3"), (4, None, "3")]
    files = open_table(tmp_path, "items")
    assert files.columns == ("a", "land", "day")
    assert [files.is_untyped(name) for name in files.columns] == [False, True, True]


def test_a_partition_may_have_a_name_that_hides_a_file(tmp_path: Path) -> None:
    """Spark's temporary folders begin like a partition of a column `_day`; text stays text."""
    for folder, number in (("_day=007", 1), (".zone=x", 2), ("_temporary", 3), (".old", 4)):
        (tmp_path / folder).mkdir()
        pq.write_table(pa.table({"a": [number]}), tmp_path / folder / "part-0.parquet")
    assert [path.parent.name for path in open_table(tmp_path, "items").paths] == [
        ".zone=x",
        "_day=007",
    ]
    assert values(tmp_path / "_day=007", "a") == [(1,)]
    assert values(tmp_path / "_*" / "*.parquet", "a", "_day") == [(1, "007")]


def test_batches_are_small_and_places_are_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet_files, "_BATCH_ROWS", 4)
    for part, size in (("a", 10), ("b", 3)):
        pq.write_table(pa.table({"n": np.arange(size)}), tmp_path / f"{part}.parquet")
    files = open_table(tmp_path, "items")
    assert [len(batch.rows) for batch in files.batches(["n"])] == [4, 4, 2, 3]
    rows = np.array([0, 9, 10, 12])
    a, b = f"{tmp_path}/a.parquet", f"{tmp_path}/b.parquet"
    assert [str(row) for row in files.places(rows)] == [f"{a}:1", f"{a}:10", f"{b}:1", f"{b}:3"]
    error = DataError("bad", rows=files.places(rows[:3]), num_rows=7)
    assert str(error) == f"{a} rows 1, 10; {b} row 1 (7 rows in all): bad"


def test_only_the_columns_asked_for_are_read(tmp_path: Path) -> None:
    """The second column's bytes are broken; reading the first does not touch them."""
    path = tmp_path / "t.parquet"
    table = pa.table({"a": np.arange(10_000), "b": np.arange(10_000) + 10**12})
    pq.write_table(table, path, compression="none", use_dictionary=False)
    content = bytearray(path.read_bytes())
    start = pq.read_metadata(path).row_group(0).column(1).data_page_offset
    content[start : start + 20] = b"\xff" * 20
    path.write_bytes(content)
    assert values(path, "a")[-1] == (9_999,)
    with pytest.raises(DataError, match="not a readable Parquet file"):
        values(path, "b")


def test_quoted_line_breaks_in_any_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_files, "_BLOCK_BYTES", 64)
    path = tmp_path / "t.csv"
    path.write_text("a,b\n" + '1,"two\nlines, no more"\n' * 100)
    assert values(path, "a", "b") == [("1", "two\nlines, no more")] * 100


def test_csv_dialects(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes('\ufeffa;b;c,d\r\n1;"x\r\ny";\r\n\r\n2;"q;""r""";z\r\n'.encode())
    assert open_table(path, "items").columns == ("a", "b", "c,d")  # as the rows have it
    path.write_bytes('\ufeffa;b;c\r\n1;"x\r\ny";\r\n\r\n2;"q;""r""";z\r\n'.encode())
    assert values(path, "a", "b", "c") == [("1", "x\r\ny", None), ("2", 'q;"r"', "z")]
    tabs = tmp_path / "t.tsv.gz"
    with pa.CompressedOutputStream(str(tabs), "gzip") as stream:
        stream.write(b"a\tb\n007\tNA\n")
    assert values(tabs, "b", "a") == [("NA", "007")]


def test_csv_errors_name_the_row_in_any_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(csv_files, "_BLOCK_BYTES", 64)
    path = tmp_path / "t.csv"
    path.write_text("a,b\n" + "1,2\n" * 100 + "3\n" + "1,2\n" * 100)
    with pytest.raises(DataError, match=r"t\.csv row 101: 1 fields where .* names 2: '3'"):
        values(path, "a")
    path.write_bytes(b"a,b\n" + b"1,2\n" * 100 + b"3,\xff\n")
    with pytest.raises(DataError, match=r"t\.csv: line 102 is neither UTF-8 nor Windows-1252"):
        values(path, "b")
    monkeypatch.setattr(csv_files, "_HEAD_BYTES", 64)  # met while the rows are read
    with pytest.raises(DataError, match=r"t\.csv: line 102 is not UTF-8.*encoding: cp1252"):
        values(path, "b")


def test_formats_do_not_mix(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [1]}), tmp_path / "a.parquet")
    (tmp_path / "b.csv").write_text("a\n1\n")
    with pytest.raises(DataError, match=r"mixes formats, .*b\.csv \(csv\) and .*a\.parquet"):
        open_table(tmp_path, "items")
    (tmp_path / "b.csv").rename(tmp_path / "README.md")
    with pytest.raises(DataError, match=r"README\.md: neither Parquet nor CSV; .*/\*\.parquet"):
        open_table(tmp_path, "items")
    # A Parquet file needs no name of its own.
    (tmp_path / "README.md").unlink()
    (tmp_path / "a.parquet").rename(tmp_path / "part-00000")
    assert values(tmp_path, "a") == [(1,)]


def test_files_of_one_table_agree(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [1], "b": [1]}), tmp_path / "1.parquet")
    pq.write_table(pa.table({"a": [1]}), tmp_path / "2.parquet")
    with pytest.raises(
        DataError, match=r"2\.parquet, column 'b': the items table has no such column"
    ):
        values(tmp_path, "b")
    (tmp_path / "empty").mkdir()
    with pytest.raises(NotFoundError, match=r"does not exist$"):
        open_table(tmp_path / "empty" / "log.csv", "interactions")
    with pytest.raises(NotFoundError, match="neither does its folder"):
        open_table(tmp_path / "x" / "y.csv", "items")
