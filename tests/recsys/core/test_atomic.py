"""Files and folders under their final name are whole, flushed, or not there."""

import os
from pathlib import Path

import pytest

from recsys.core import atomic
from recsys.core.atomic import publish, staged_folder, whole_file


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
