"""Files and folders that are no tables: one error that names the file, and nothing hangs."""

import bz2
import gzip
import lzma
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

import recsys
from recsys.app.cli import main

ROWS = 36
TABLE = pa.table(
    {
        "user": np.repeat(np.arange(1, 7), 6),
        "item": np.arange(ROWS) % 9 + 1,
        "time": 1_600_000_000 + np.arange(ROWS) * 3600,
    }
)
LINES = ["user,item,time", *(",".join(map(str, row.values())) for row in TABLE.to_pylist())]
CSV = "\n".join(LINES) + "\n"
RAW = CSV.encode()


def check(path: Path | str, **columns: str) -> Any:
    roles = {"user": "user", "item": "item", "time": {"column": "time", "unit": "s"}} | columns
    feature = {"name": roles["item"], "table": "items", "kind": "categorical"}
    return recsys.check(
        {
            "data": {"interactions": str(path)},
            "schema": {"interactions": roles, "features": [feature]},
            "split": {"kind": "leave_one_out"},
            "model": {"kind": "popularity"},
            "tracking": {"enabled": False},
        }
    )


def parquet(table: pa.Table = TABLE) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return sink.getvalue().to_pybytes()


def one_line(old: str, new: str) -> bytes:
    assert old in CSV
    return CSV.replace(old, new, 1).encode()


PARQUET = parquet()
BROKEN: dict[str, tuple[str, bytes, str]] = {
    "empty": ("log.csv", b"", "empty CSV file; it needs a first line of column names"),
    "white space": ("log.csv", b"  \n\n", "empty CSV file"),
    "names alone": ("log.csv", b"user,item,time\n", "the .*table is empty"),
    "names without a line end": ("log.csv", b"user,item,time", "the .*table is empty"),
    "one field more": ("log.csv", one_line("1,3,", "1,3,9,"), " row 3: 4 fields .* 3: .*quote"),
    "one field less": ("log.csv", one_line("1,3,1600007200", "1,3"), " row 3: 2 fields .*every"),
    "a name twice": ("log.csv", one_line("user,item", "item,item"), "two columns are named 'item'"),
    "a NUL": ("log.csv", one_line("1,3,", "1,3\0,"), "line 4 holds a NUL byte.*write the file"),
    "a NUL in a name": ("log.csv", one_line("item", "it\0em"), "line 1 holds a NUL byte"),
    "no encoding": ("log.csv", RAW + b"\x81\xe2\x28,2,3\n", "line 38 is neither UTF-8 nor.*encod"),
    "UTF-16 that is cut": ("log.csv", CSV.encode("utf-16")[:-1], "line 37 is not utf-16"),
    "gzip that is cut": ("log.csv.gz", gzip.compress(RAW)[:-20], "gzip data are .* cut off"),
    "gzip of other bytes": ("log.csv.gz", gzip.compress(RAW)[:-8] + b"\0" * 8, "gzip .*damaged"),
    "gzip with a tail": ("log.csv.gz", gzip.compress(RAW) + b"tail", "gzip data are damaged"),
    "gzip of nothing": ("log.csv.gz", gzip.compress(b""), "empty CSV file"),
    "gzip of gzip": ("log.csv.gz", gzip.compress(gzip.compress(RAW)), "NUL byte|no UTF-8|neither"),
    "bzip2 that is cut": ("log.csv.bz2", bz2.compress(RAW)[:-10], "bz2 data are .* cut off"),
    "xz that is cut": ("log.csv.xz", lzma.compress(RAW)[:-10], "xz data are .* cut off"),
    "xz of junk": ("log.csv.xz", b"\xfd7zXZ\0junk", "xz data are damaged"),
    "ZIP": ("log.csv", b"PK\x03\x04junk", "a ZIP archive .* unpack it"),
    "Excel": ("log.xlsx", b"PK\x03\x04junk", "neither Parquet nor CSV; name it"),
    "JSON": ("log.json", b'{"user": 1}\n', "neither Parquet nor CSV"),
    "no ending": ("log", RAW, "neither Parquet nor CSV"),
    "Parquet that is text": ("log.parquet", RAW, "not a readable Parquet file .* write it again"),
    "Parquet of no bytes": ("log.parquet", b"", "not a readable Parquet file"),
    "Parquet without a table": ("log.parquet", b"PAR1PAR1", "not a readable Parquet file"),
    "Parquet that is cut": ("log.parquet", PARQUET[:-30], "not a readable Parquet file"),
    "Parquet without its start": ("log.parquet", PARQUET[30:], "not a readable Parquet file"),
    "Parquet of zeros": (
        "log.parquet",
        PARQUET[:20] + b"\0" * 40 + PARQUET[60:],
        "not a readable Parquet file",
    ),
    "Parquet of a huge footer": (
        "log.parquet",
        PARQUET[:-8] + b"\xff\xff\xff\x7f" + PARQUET[-4:],
        "not a readable Parquet file",
    ),
    "Parquet whose text is no UTF-8": (
        "log.parquet",
        parquet(
            TABLE.set_column(1, "item", pa.array([b"\xff"] * ROWS, pa.binary()).view(pa.string()))
        ),
        "not a readable Parquet file",
    ),
    "Parquet called CSV": ("log.csv", PARQUET, "line 1 holds a NUL byte"),
    "Parquet without rows": ("log.parquet", parquet(TABLE.slice(0, 0)), "the .*table is empty"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_files_that_are_no_tables(tmp_path: Path, name: str) -> None:
    called, data, words = BROKEN[name]
    path = tmp_path / called
    path.write_bytes(data)
    for function in (check, lambda one: recsys.init(str(one), folder=str(tmp_path))):
        with pytest.raises(recsys.DataError, match=rf"{called}.*{words}") as refused:
            function(path)
        assert Path(refused.value.file).name == called


ODD_BUT_READ: dict[str, bytes] = {
    "blank lines": CSV.replace("\n", "\n\n", 5).encode(),
    "CR": CSV.replace("\n", "\r").encode(),
    "CR LF": CSV.replace("\n", "\r\n").encode(),
    "a delimiter at each end": CSV.replace("\n", ",\n").encode(),
    "UTF-8 with a mark": b"\xef\xbb\xbf" + RAW,
    "UTF-16": CSV.encode("utf-16"),
    "tabs": CSV.replace(",", "\t").encode(),
    "compressed, called otherwise": gzip.compress(RAW),
}


@pytest.mark.parametrize("name", ODD_BUT_READ)
def test_files_that_are_odd_and_read(tmp_path: Path, name: str) -> None:
    path = tmp_path / "log.csv"
    path.write_bytes(ODD_BUT_READ[name])
    found = check(path)
    assert (found.rows["interactions"], found.drops) == (ROWS, ())
    assert found.rows["users"] == 6


def test_many_columns_and_names_that_repeat_further_down(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    more = ",".join(map(str, range(5000)))
    path.write_text("\n".join(f"{line},{more}" for line in LINES))
    assert check(path).rows["interactions"] == ROWS
    path.write_text(CSV + CSV)
    with pytest.raises(recsys.DataError, match=r"log\.csv row 37, column 'time': .*'time'"):
        check(path)


@pytest.mark.parametrize("size", [5_000, 5_000_000])
def test_a_huge_cell(tmp_path: Path, size: int) -> None:
    path = tmp_path / "log.csv"
    path.write_text(CSV + "x" * size + ",2,1600000000\n")
    with pytest.raises(recsys.DataError, match=r"row 37, column 'user': .*longer than 4,096") as no:
        check(path)
    assert len(str(no.value)) < 500


NAMES = ["a b", 'q"', "q'", "[x]", "{y}", "a: #b", "-", "null", "1", "a.b", "n\nl", "\x1b[2J", "日"]


@pytest.mark.parametrize("kind", ["csv", "parquet"])
@pytest.mark.parametrize("name", NAMES)
def test_names_of_columns(tmp_path: Path, name: str, kind: str) -> None:
    """They are taken as they are, come back from the configuration, and steer no terminal."""
    path = tmp_path / f"log.{kind}"
    table = TABLE.rename_columns(["user_id", f"item_id{name}", "time"])
    if kind == "csv":
        quoted = f"item_id{name}".replace('"', '""')
        path.write_text(f'user_id,"{quoted}",time\n' + CSV.split("\n", 1)[1])
    else:
        pq.write_table(table, path)
    found = check(path, user="user_id", item=f"item_id{name}")
    assert (found.rows["items"], found.drops) == (9, ())
    with pytest.raises(recsys.DataError, match="no such column") as refused:
        check(path)
    assert str(refused.value).isprintable()


@pytest.mark.parametrize("name", NAMES)
def test_names_of_files(tmp_path: Path, name: str) -> None:
    path = tmp_path / f"log{name}.csv"
    path.write_bytes(RAW)
    out = tmp_path / "recsys.yaml"
    recsys.init(str(path), out=str(out))
    assert recsys.check(str(out)).rows["interactions"] == ROWS
    path.write_bytes(b"")
    for command in (["check", str(out)], ["init", str(path), "--out", str(out), "--force"]):
        said = CliRunner().invoke(main, command)
        assert (said.exit_code, said.output.strip().isprintable()) == (3, True)


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as one:
        there = Path.cwd()
        os.chdir(path.parent)  # the name of a socket is short
        try:
            one.bind(path.name)
        finally:
            os.chdir(there)


def _own_link(path: Path) -> None:
    path.symlink_to(path)


def _pair_of_links(path: Path) -> None:
    path.symlink_to(path.with_name("other"))
    path.with_name("other").symlink_to(path)


def _link_to_a_pipe(path: Path) -> None:
    _pipe(path.with_name("_pipe"))
    path.symlink_to(path.with_name("_pipe"))


@pytest.mark.parametrize("make", [_pipe, _socket, _own_link, _pair_of_links, _link_to_a_pipe])
@pytest.mark.parametrize("given", ["log.csv", "", "*.csv"])
def test_what_is_no_file_is_refused_and_nothing_waits(
    tmp_path: Path, make: Callable[[Path], None], given: str
) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "a.csv").write_bytes(RAW)
    make(folder / "log.csv")
    words = r"(log\.csv|other): (neither a file nor a folder|a link to .* which is not there)"
    for function in (check, lambda one: recsys.init(str(one), folder=str(tmp_path))):
        with pytest.raises(recsys.DataError, match=words):
            function(folder / given)


@pytest.mark.parametrize("device", ["/dev/null", "/dev/zero"])
def test_devices(device: str) -> None:
    with pytest.raises(recsys.DataError, match=f"{device}: neither a file nor a folder"):
        check(device)


def test_a_folder_that_leads_back_to_itself(tmp_path: Path) -> None:
    (tmp_path / "again").symlink_to(tmp_path)
    with pytest.raises(recsys.NotFoundError, match="folder holds no data file"):
        check(tmp_path)
    (tmp_path / "a.csv").write_bytes(RAW)
    assert check(tmp_path).rows["interactions"] == ROWS


def test_folders_without_files(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "x.csv").mkdir()
    (tmp_path / "_SUCCESS").touch()
    (tmp_path / ".log.csv").write_bytes(RAW)
    for given in (tmp_path, tmp_path / "x.csv", tmp_path / "*.csv", tmp_path / "["):
        with pytest.raises(recsys.NotFoundError, match=r"holds no data file|matches no file"):
            check(given)
    with pytest.raises(recsys.ArgumentError, match="the path of a table is empty"):
        recsys.init("", folder=str(tmp_path))
    with pytest.raises(recsys.ConfigError, match=r"data\.interactions"):
        check("")


PARTS: dict[str, tuple[dict[str, bytes], str]] = {
    "two formats": ({"b.parquet": PARQUET}, "mixes formats, .*a.csv.*b.parquet"),
    "a note": ({"b.txt": b"read me"}, r"b\.txt: neither Parquet nor CSV; .*leaves it out"),
    "an empty one": ({"b.csv": b""}, r"b\.csv: empty CSV file"),
    "another table": ({"b.csv": b"z\n1\n"}, r"b\.csv, column 'user': .*no such column"),
    "other letters": ({"b.csv": one_line("item", "Item")}, r"b\.csv, column 'item': .*'Item'"),
    "one that is cut": ({"b.csv": gzip.compress(RAW)[:-9]}, r"b\.csv: its gzip data"),
    "text ids": (
        {"a.csv": PARQUET, "b.parquet": parquet(TABLE.set_column(1, "item", [["x"] * ROWS]))},
        r"a\.parquet row 1; .*b\.parquet row 1, column 'item': ids are int64 in one file",
    ),
    "times of Arrow": (
        {
            "a.csv": PARQUET,
            "b.parquet": parquet(
                TABLE.set_column(2, "time", TABLE["time"].cast(pa.timestamp("s")))
            ),
        },
        r"b\.parquet row 1, column 'time': declared in s.*timestamp",
    ),
    "a column in two folders": (
        {"user=1/user=2/b.csv": RAW},
        r"b\.csv, column 'user': two folders above the file",
    ),
}


@pytest.mark.parametrize("name", PARTS)
def test_parts_that_do_not_go_together(tmp_path: Path, name: str) -> None:
    files, words = PARTS[name]
    for called, data in ({"a.csv": RAW} | files).items():
        path = tmp_path / (called.replace("csv", "parquet") if data is PARQUET else called)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    with pytest.raises(recsys.DataError, match=words):
        check(tmp_path)


@pytest.mark.parametrize("empty", [b"user,item,time\n", b"user,item,time"])
def test_parts_without_rows(tmp_path: Path, empty: bytes) -> None:
    (tmp_path / "a.csv").write_bytes(empty)
    (tmp_path / "b.csv").write_bytes(RAW)
    assert check(tmp_path).rows["interactions"] == ROWS
    folder = tmp_path / "parquet"
    folder.mkdir()
    nulls = TABLE.slice(0, 0).set_column(1, "item", pa.nulls(0))
    (folder / "a.parquet").write_bytes(parquet(nulls))
    (folder / "b.parquet").write_bytes(PARQUET)
    assert check(folder).rows["interactions"] == ROWS


def test_a_column_that_the_file_and_its_folder_give_is_said(tmp_path: Path) -> None:
    (tmp_path / "item=1").mkdir()
    (tmp_path / "item=1" / "a.csv").write_bytes(RAW)
    found = check(tmp_path)
    assert found.rows["items"] == 9
    assert any("'item' of the folder's name is not read" in one for one in found.notes)


def test_a_log_of_one_item_is_refused_from_the_beginning(tmp_path: Path) -> None:
    path = tmp_path / "log.parquet"
    path.write_bytes(parquet(TABLE.set_column(1, "item", pa.array([7] * ROWS))))
    for function in (check, lambda one: recsys.init(str(one), folder=str(tmp_path))):
        with pytest.raises(recsys.DataError, match=r"log\.parquet, column 'item': .* of one item"):
            function(path)
