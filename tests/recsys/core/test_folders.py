"""Folders of jobs: what is named as a file is refused, before any work and in words."""

from pathlib import Path

import pytest

from recsys.core.errors import ConfigError
from recsys.core.folders import check_folder


@pytest.mark.parametrize("name", ["out.csv", "OUT.PARQUET", "a.b/scores.tar.gz", "out.json"])
def test_a_name_that_ends_as_files_do_is_refused_with_one_that_does_not(
    name: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    with pytest.raises(ConfigError, match=r"is a folder of parts, not a .*leave out the ending: "):
        check_folder(path, "parts")
    check_folder(path.with_name("scores"), "parts")


@pytest.mark.parametrize("name", ["scores", "2026-01.5", "v1.2", "run.of.monday", ".hidden"])
def test_other_names_of_folders_may_have_dots(name: str, tmp_path: Path) -> None:
    check_folder(tmp_path / name, "parts")


def test_a_folder_that_is_there_keeps_its_name_and_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "out.csv").mkdir()
    check_folder(tmp_path / "out.csv", "parts")
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="file is a file; the output is a folder of parts: name"):
        check_folder(tmp_path / "file", "parts")
