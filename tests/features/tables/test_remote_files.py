"""Tables in a store: the same files by the same rules as on this machine."""

import gzip
import io
import lzma
import uuid
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from recsys.core.errors import DataError, NotFoundError, UserError
from recsys.core.remote.moving import send_folder
from recsys.core.remote.path import RemotePath, path_at
from recsys.features.tables.reading import fingerprint, open_table


class Counting(MemoryFileSystem):
    """A store that keeps files as memory:// does, and counts the bytes that are read."""

    protocol = "counting"
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    num_bytes: ClassVar[list[int]] = []

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return MemoryFileSystem._strip_protocol(path.removeprefix("counting://"))

    def _open(self, path: str, mode: str = "rb", **how: Any) -> Any:
        opened = super()._open(path, mode, **how)
        if mode != "rb":
            return opened
        return Counted(opened.getvalue())


class Counted(io.BytesIO):
    """A file whose reads are noted."""

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size)
        Counting.num_bytes.append(len(data))
        return data


fsspec.register_implementation("counting", Counting, clobber=True)
ROWS = pa.table({"user": ["a", "b"], "item": [1, 2]})


@pytest.fixture
def tree(tmp_path: Path) -> tuple[Path, RemotePath]:
    """A tree of files here, and the same in a store."""
    here = tmp_path / "here"
    for name in (
        "log/day=1/a.parquet",
        "log/day=2/b.parquet",
        "log/_SUCCESS",
        "log/.hidden/c.parquet",
        "log/day=2/_temporary/d.parquet",
        "flat/x1.parquet",
        "flat/x2.parquet",
        "flat/data [v2]/y.parquet",
        "one.parquet",
        "empty/_SUCCESS",
    ):
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(ROWS, here / name)
    there = path_at(f"memory://bucket-{uuid.uuid4().hex}")
    assert isinstance(there, RemotePath)
    send_folder(here, there, "")
    return here, there


@pytest.mark.parametrize(
    "given",
    [
        "one.parquet",
        "log",
        "log/day=2",
        "log/*/*.parquet",
        "log/**/*.parquet",
        "log/day=*",
        "flat/*.parquet",
        "flat/x[12].parquet",
        "flat/data [v2]",
        "flat/data [v2]/*.parquet",
        "flat",
        "**/x1.parquet",
        # errors
        "empty",
        "flat/*.csv",
        "flats",
        "one.parqet",
        "nowhere/x.parquet",
    ],
)
def test_the_same_files_as_on_this_machine(tree: tuple[Path, RemotePath], given: str) -> None:
    def found(root: Path) -> tuple[list[str], tuple[str, ...], list[object]] | str:
        try:
            files = open_table(str(root / given), "log")
        except UserError as error:
            return f"{type(error).__name__} {str(error).replace(str(root), '')}"
        names = [str(path.relative_to(root)) for path in files.paths]
        rows = [batch.table.to_pydict() for batch in files.batches(files.columns)]
        return names, files.columns, rows

    here, there = map(found, tree)
    assert here == there
    assert here


def test_of_parquet_only_the_columns_that_are_asked_for_are_fetched() -> None:
    random = np.random.default_rng(0)
    table = pa.table({f"c{n}": random.integers(0, 1 << 60, 20_000) for n in range(20)})
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    path = path_at(f"counting://bucket-{uuid.uuid4().hex}/x.parquet")
    path.write_bytes(buffer.getvalue())
    files = open_table(str(path), "log")
    fingerprint([files])
    Counting.num_bytes.clear()
    (batch,) = files.batches(["c3"])
    assert batch.table.column("c3").equals(table.column("c3"))
    share = sum(Counting.num_bytes) / len(buffer.getvalue())
    assert 1 / 20 < share < 1 / 10


def test_csv_is_read_as_it_comes(tmp_path: Path) -> None:
    root = path_at(f"memory://bucket-{uuid.uuid4().hex}")
    text = "user;item\n" + "".join(f"u{n};i{n % 7}\n" for n in range(1000))
    (root / "a.csv").write_text(text)
    (root / "b.csv.gz").write_bytes(gzip.compress(text.encode()))
    (root / "c.csv.xz").write_bytes(lzma.compress(text.encode(), preset=0))
    files = open_table(str(root), "log")
    read = [batch.table for batch in files.batches(["user", "item"])]
    assert pa.concat_tables(read).column("user").to_pylist() == [f"u{n}" for n in range(1000)] * 3
    (root / "b.csv.gz").write_bytes(gzip.compress(text.encode())[:-9])
    with pytest.raises(DataError, match=r"memory://.*b\.csv\.gz: its gzip data are damaged"):
        list(open_table(str(root), "log").batches(["user"]))
    (root / "b.csv.gz").write_bytes(b"user;item\nx;y\nx;y;z\n")
    with pytest.raises(DataError, match=r"memory://.*b\.csv\.gz row 2: 3 fields where"):
        list(open_table(str(root), "log").batches(["user"]))


def test_what_is_no_parquet(tmp_path: Path) -> None:
    root = path_at(f"memory://bucket-{uuid.uuid4().hex}")
    (root / "a.parquet").write_bytes(b"PAR1 and no more PAR1")
    with pytest.raises(DataError, match=r"memory://.*a\.parquet: not a readable Parquet file"):
        open_table(str(root), "log")
    (root / "a.parquet").unlink()
    (root / "readme").write_text("hello")
    with pytest.raises(DataError, match=r"memory://.*readme: neither Parquet nor CSV"):
        open_table(str(root), "log")


@pytest.mark.parametrize(
    ("mark", "kind"),
    [
        ("_delta_log/0.json", "Delta"),
        (".hoodie/x", "Hudi"),
        ("metadata/v1.metadata.json", "Iceberg"),
    ],
)
@pytest.mark.parametrize("given", ["t/day=1", "t/day=1/*.parquet", "t/day=1/a.parquet", "", "t/**"])
def test_files_of_a_lake_are_refused(
    tree: tuple[Path, RemotePath], mark: str, kind: str, given: str
) -> None:
    root = tree[1] / "lake"
    for name in ("t/day=1/a.parquet", f"t/{mark}"):
        (root / name).write_bytes((tree[0] / "one.parquet").read_bytes())
    with pytest.raises(DataError, match=f"a file of the {kind} table memory://.*/t, whose log"):
        open_table(str(root / given), "log")


def test_a_file_that_changed_has_another_fingerprint(tree: tuple[Path, RemotePath]) -> None:
    def found() -> str:
        return fingerprint([open_table(str(tree[1] / "flat"), "log")])

    before = found()
    assert found() == before
    pq.write_table(ROWS.slice(1), tree[0] / "one.parquet")
    (tree[1] / "flat" / "x2.parquet").write_bytes((tree[0] / "one.parquet").read_bytes())
    assert found() != before


def test_a_folder_that_nobody_made() -> None:
    with pytest.raises(NotFoundError, match=r"memory://nowhere/x: this path .* does not exist and"):
        open_table("memory://nowhere/x", "log")
