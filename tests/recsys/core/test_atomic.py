"""Files and folders under their final name are whole, flushed, or not there."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from recsys.core import atomic
from recsys.core.atomic import (
    publish,
    remove_whole,
    staged_folder,
    sweep,
    whole_file,
    write_whole,
)


def test_a_file_has_its_name_only_once_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    for text in ("one", "two"):
        before = path.read_text() if path.exists() else None
        with whole_file(path) as staging:
            staging.write_text(text)
            assert (path.read_text() if path.exists() else None) == before
        assert path.read_text() == text

    def fail() -> None:
        with whole_file(path) as staging:
            staging.write_text("half")
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        fail()
    assert path.read_text() == "two"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_everything_is_flushed_before_the_rename_and_the_rename_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, flushed = tmp_path / "done", []

    def note(path: Path) -> None:
        flushed.append((path.name, target.exists()))

    monkeypatch.setattr(atomic, "sync", note)
    with staged_folder(tmp_path, "done") as staging:
        (staging / "deep").mkdir()
        (staging / "deep" / "a").write_text("x")
        (staging / "b").write_text("y")
        publish(staging, target)
    before = {name for name, there in flushed if not there}
    assert {"a", "b", "deep"} <= before
    assert [name for name, there in flushed if there] == [tmp_path.name]
    assert os.listdir(tmp_path) == ["done"]


def test_the_next_writer_removes_what_a_killed_one_left_and_nothing_else(tmp_path: Path) -> None:
    program = """
import os, sys
from pathlib import Path
from recsys.core.atomic import staged_folder, whole_file
here = Path(sys.argv[1])
with whole_file(here / "file") as one, staged_folder(here, "folder") as two:
    one.write_text("half")
    (two / "a").write_text("half")
    os._exit(9)
"""
    assert subprocess.run([sys.executable, "-c", program, str(tmp_path)]).returncode == 9
    left = sorted(os.listdir(tmp_path))
    assert [name[: name.rindex("-")] for name in left] == [
        f".file.{atomic._MACHINE}",
        f".folder.{atomic._MACHINE}",
    ]
    others = [".file.elsewhere-1", f".file.{atomic._MACHINE}-{os.getppid()}", ".filed.x-1"]
    for name in others:
        (tmp_path / name).write_text("")
    with whole_file(tmp_path / "file") as staging:
        staging.write_text("whole")
    assert sorted(os.listdir(tmp_path)) == sorted([*others, left[1], "file"])
    sweep(tmp_path / "folder")
    assert sorted(os.listdir(tmp_path)) == sorted([*others, "file"])


def test_a_folder_that_is_removed_loses_its_name_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "a").write_text("x")
    with monkeypatch.context() as killed:
        killed.setattr(atomic.shutil, "rmtree", lambda *args, **options: None)
        remove_whole(tmp_path / "old")
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".old.gone.")
    ended = left.with_name(f"{left.name[: left.name.rindex('-')]}-{2**22 - 1}")  # nobody's number
    left.rename(ended)
    sweep(tmp_path / "old")
    assert os.listdir(tmp_path) == []


def test_a_link_and_the_permissions_of_a_file_stay(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    path, link = tmp_path / "there" / "a.txt", tmp_path / "link"
    path.write_text("one")
    path.chmod(0o640)
    link.symlink_to(path)
    write_whole(link, "two")
    assert (link.is_symlink(), path.read_text()) == (True, "two")
    assert path.stat().st_mode & 0o777 == 0o640
    assert os.listdir(tmp_path / "there") == ["a.txt"]


def test_a_pipe_gets_the_content_and_stays_one(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reading = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        write_whole(pipe, b"content")
        assert os.read(reading, 100) == b"content"
    finally:
        os.close(reading)
    assert pipe.is_fifo()
    assert os.listdir(tmp_path) == ["pipe"]


def test_threads_of_a_process_write_apart(tmp_path: Path) -> None:
    path, names = tmp_path / "a", []

    def write() -> None:
        with whole_file(path) as staging:
            names.append(staging.name)
            staging.write_text("x")

    with whole_file(path) as staging:
        staging.write_text("main")
        thread = threading.Thread(target=write)
        thread.start()
        thread.join()
        assert names != [staging.name]
        assert path.read_text() == "x"
    assert path.read_text() == "main"
    assert os.listdir(tmp_path) == ["a"]
