"""Every file is written aside first: what is opened to be written lies in a staging place.

Read from the code here; what commands really open is seen in `tests/recsys/app/test_faults.py`.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("recsys", "features", "training", "serving")
FILES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))
OF_PATHS = {"write_text", "write_bytes", "touch"}
TARGETS = {
    "write_table": 1,
    "write_csv": 1,
    "write_feather": 1,
    "save_file": 1,
    "copytree": 1,
    "copyfile": 1,
    "savefig": 0,
    "ParquetWriter": 0,
}
"""Function that writes a file -> the place of its name among the arguments."""
STAGED = ("staging", "folder")
"""How a place is called that becomes visible as a whole: by `whole_file` and `staged_folder`, or
the folder that a function is given to write into."""
ELSEWHERE = {
    "recsys/bundle/directory.py: path": "the copy of a bundle inside a staged one",
    "recsys/bundle/delta.py: path": "inside a staged delta or bundle",
    "recsys/core/remote/path.py: self": "an object of a store, which is there whole or not",
    "recsys/core/atomic.py: path": "a device or a pipe, which has no other name",
    "recsys/embeddings/shards_on_disk.py: path": "a file in the folder that it is given",
    "recsys/retrieval/index/hnswlib_hnsw.py: path": "in a temporary folder",
    "features/bundle/files.py: copy": "inside a staged bundle",
    "features/clicks/joining.py: target": "inside a staged entry of a cache",
    "features/clicks/spill.py: path": "in a temporary folder",
    "features/clicks/store.py: self._folder": "inside a staged entry of a cache",
    "features/tables/frames.py: buffer": "memory",
    "training/engine/checkpoint.py: tensors": "inside a staged checkpoint",
    "training/engine/checkpoint.py: loop": "inside a staged checkpoint",
    "training/tracking/journal.py: self.path": "the journal: it grows, each line has a checksum",
    "training/engine/run_home.py: home": "an object of a store, which is there whole or not",
    "serving/logged_model.py: path": "inside a model that is being saved, in a temporary folder",
    "serving/export/query_vectors.py: path": "inside a staged export",
    "serving/export/tuning_picture.py: path": "inside a staged export",
}


def place(node: ast.expr) -> str:
    """Return what a path begins with: `staging` of `Path(staging) / name`."""
    match node:
        case ast.BinOp(left=left):
            return place(left)
        case ast.Attribute(value=ast.Name(id="self")):
            return ast.unparse(node)
        case ast.Attribute(value=value) | ast.Subscript(value=value):
            return place(value)
        case ast.Call(func=ast.Name(), args=[first, *_]):
            return place(first)
        case ast.Call(func=func):
            return place(func)
    return ast.unparse(node)


def written(tree: ast.AST) -> Iterator[str]:
    """Yield what the path begins with of each call that writes a file."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        function = node.func
        of = function.value if isinstance(function, ast.Attribute) else None
        name = function.attr if isinstance(function, ast.Attribute) else ast.unparse(function)
        if name in OF_PATHS and of is not None:
            yield place(of)
        elif name in TARGETS and len(node.args) > TARGETS[name]:
            yield place(node.args[TARGETS[name]])
        elif name == "open":
            modes = [one.value for one in node.args if isinstance(one, ast.Constant)]
            if any(isinstance(mode, str) and set("wax+") & set(mode) for mode in modes[-1:]):
                yield place(node.args[0] if of is None else of)


def found() -> set[str]:
    return {
        f"{path.relative_to(ROOT).as_posix()}: {one}"
        for path in FILES
        for one in written(ast.parse(path.read_text()))
        if one not in STAGED
    }


def test_files_are_written_aside() -> None:
    assert found() == set(ELSEWHERE)


@pytest.mark.parametrize(
    ("code", "name"),
    [
        ("(out / 'a').write_text('x')", "out"),
        ("Path(out).open('wb')", "out"),
        ("open(out, 'w')", "out"),
        ("pq.write_table(table, Path(out) / 'a')", "out"),
        ("with whole_file(out) as staging: staging.write_bytes(b'')", "staging"),
    ],
)
def test_what_is_written_is_seen(code: str, name: str) -> None:
    assert list(written(ast.parse(code))) == [name]
