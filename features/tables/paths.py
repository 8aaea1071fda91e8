"""The files behind a path: a file itself, those of a folder, those that a glob matches."""

from glob import glob, has_magic
from pathlib import Path
from urllib.parse import unquote

from recsys.core.errors import NotFoundError
from recsys.core.strict import nearest

_NULL_PARTITION = "__HIVE_DEFAULT_PARTITION__"


def find_files(given: str, table: str) -> tuple[Path, list[Path]]:
    """Return the folder that of the path, and its files in order.

    Not by `pyarrow.dataset`: it knows no globs, leaves out folders such as `_day=1` without a word,
    and makes a number of a partition's "007".
    """
    path = Path(given)
    if path.is_file():
        return path.parent, [path]
    if path.is_dir():
        root, found = path, sorted(path.rglob("*"))
    elif has_magic(given):
        fixed = next(parent for parent in path.parents if not has_magic(str(parent)))
        root, found = fixed, sorted(Path(name) for name in glob(given, recursive=True))
    else:
        siblings = [entry.name for entry in path.parent.glob("*")] if path.parent.is_dir() else []
        there = path.parent.is_dir()
        hint = nearest(path.name, siblings) or ("" if there else " and neither does its folder")
        # Tables of `init` have no role yet and are called by their files.
        what = "it" if table == path.name else f"this path of the {table} table"
        raise NotFoundError(f"{given}: {what} does not exist{hint}")
    files = [file for file in found if file.is_file() and not _is_hidden(file.relative_to(root))]
    if not files:
        what = "folder holds no data file" if path.is_dir() else "glob matches no file"
        raise NotFoundError(f"{given}: the {table} table's {what}; correct the path under 'data'")
    return root, files


def _is_hidden(path: Path) -> bool:
    """Spark's `_SUCCESS`, checksums and temporary folders are no data."""
    return any(part.startswith(("_", ".")) and "=" not in part for part in path.parts)


def partitions_of(path: Path, root: Path) -> dict[str, str | None]:
    """Return the values that the names of the folders between `root` and `path` give."""
    pairs = [part.split("=", 1) for part in path.relative_to(root).parts[:-1] if "=" in part]
    return {name: None if raw == _NULL_PARTITION else unquote(raw) for name, raw in pairs}
