"""What is written aside and sent: one object at once, of a folder its manifest last."""

import json
import uuid
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from recsys.core.atomic import publish, staged_folder, whole_file
from recsys.core.errors import IntegrityError, UserError
from recsys.core.hashed_files import HashedFiles, entries_of
from recsys.core.remote.cached import fetched_folder
from recsys.core.remote.moving import fetch_folder, send_folder
from recsys.core.remote.path import RemotePath, path_at


class Failing(MemoryFileSystem):
    """A store that keeps files as memory:// does, and refuses those that are named `refused`."""

    protocol = "failing"
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return MemoryFileSystem._strip_protocol(path.removeprefix("failing://"))

    def _open(self, path: str, mode: str = "rb", **how: Any) -> Any:
        if path.endswith("refused") and "w" in mode:
            raise PermissionError(path)
        return super()._open(path, mode, **how)


fsspec.register_implementation("failing", Failing, clobber=True)


def address(scheme: str = "memory") -> RemotePath:
    path = path_at(f"{scheme}://bucket-{uuid.uuid4().hex}")
    assert isinstance(path, RemotePath)
    return path


def names(folder: RemotePath) -> list[str]:
    return [str(one.path.relative_to(folder)) for one in folder.entries(below=True) if one.is_file]


def test_a_file_is_whole_or_not_there() -> None:
    path = address() / "x.txt"

    def fail() -> None:
        with whole_file(path) as staging:
            staging.write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert not path.exists()
    with whole_file(path) as staging:
        staging.write_text("whole")
    assert path.read_text() == "whole"


def test_a_folder_is_sent_when_it_is_published() -> None:
    root = address()
    with staged_folder(root, "out") as staging:
        (staging / "sub").mkdir()
        (staging / "sub" / "a").write_text("1")
        (staging / "manifest").write_text("{}")
        assert not root.exists()
        publish(staging, root / "out", "manifest")
    assert names(root) == ["out/manifest", "out/sub/a"]


@pytest.mark.parametrize("other", ["a-refused", "z-refused"])
def test_without_all_files_there_is_no_manifest(other: str, tmp_path: Path) -> None:
    for name in (other, "manifest", "z"):
        (tmp_path / name).write_text(name)
    root = address("failing")
    with pytest.raises(UserError, match=f"{other}: the store does not allow it"):
        send_folder(tmp_path, root / "out", "manifest")
    assert "out/manifest" not in names(root)


def written(root: RemotePath, folder: Path) -> RemotePath:
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "a").write_text("content")
    (folder / "manifest").write_text(json.dumps(entries_of(folder)))
    send_folder(folder, root / "model", "manifest")
    return root / "model"


def checked(folder: Path, shown: Path) -> str:
    entries = json.loads((folder / "manifest").read_text())
    HashedFiles(folder, entries, "manifest", "bundle", shown).check()
    return "model"


def test_folders_come_back_as_they_were(tmp_path: Path) -> None:
    source = written(address(), tmp_path / "here")
    fetch_folder(source, tmp_path / "back")
    assert entries_of(tmp_path / "back") == entries_of(tmp_path / "here")


def test_a_copy_is_kept_by_its_content(tmp_path: Path) -> None:
    source, cache = written(address(), tmp_path / "here"), tmp_path / "cache"
    copy = fetched_folder(source, "manifest", checked, cache)
    assert (copy / "sub" / "a").read_text() == "content"
    (source / "sub" / "a").unlink()  # nothing more than the manifest is asked for
    assert fetched_folder(source, "manifest", checked, cache) == copy
    assert [one.name for one in cache.iterdir()] == [copy.parent.parent.name]


def test_a_copy_that_was_damaged_is_fetched_again(tmp_path: Path) -> None:
    source, cache = written(address(), tmp_path / "here"), tmp_path / "cache"
    copy = fetched_folder(source, "manifest", checked, cache)
    (copy / "sub" / "a").write_text("cOntent")
    again = fetched_folder(source, "manifest", checked, cache)
    assert (again / "sub" / "a").read_text() == "content"


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("sub/a", b"cOntent", "model/sub/a: 7 bytes with sha256"),
        ("more", b"x", "model/more: not a file of this bundle"),
    ],
)
def test_what_is_wrong_in_a_store_is_named_there(
    name: str, content: bytes, words: str, tmp_path: Path
) -> None:
    source = written(address(), tmp_path / "here")
    (source / name).write_bytes(content)
    with pytest.raises(IntegrityError, match=f"memory://.*{words}"):
        fetched_folder(source, "manifest", checked, tmp_path / "cache")
    assert not [*(tmp_path / "cache").rglob("a")]
