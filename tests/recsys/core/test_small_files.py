"""Files that are read whole are small and regular, or refused before they are read."""

import os
from pathlib import Path

import pytest

from recsys.core.errors import ConfigError, IntegrityError
from recsys.core.hashed_files import HashedFiles
from recsys.core.self_hashed import read_self_hashed
from recsys.core.small_files import parse_json, read_small
from recsys.core.strict_yaml import read_yaml_file


def test_what_is_small_and_regular_is_read(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"{}")
    assert read_small(tmp_path / "a", "again") == b"{}"


def test_pipes_devices_and_holes_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    (tmp_path / "holes").touch()
    os.truncate(tmp_path / "holes", 1 << 40)
    for name in ("pipe", "zero"):
        with pytest.raises(IntegrityError, match=f"{name}: not a regular file; write it again"):
            read_small(tmp_path / name, "write it again")
        with pytest.raises(IntegrityError, match="not a regular file; get the bundle again"):
            HashedFiles(tmp_path, [], "list", "bundle")._hash_file(name)
    with pytest.raises(IntegrityError, match="1,099,511,627,776 bytes, no such file has so many"):
        read_self_hashed(tmp_path / "holes", "write it again")
    with pytest.raises(ConfigError, match="1,099,511,627,776 bytes are too many"):
        read_yaml_file(tmp_path / "holes")


def test_depth_is_an_error_like_any_other() -> None:
    with pytest.raises(ValueError, match="nested too deeply"):
        parse_json("[" * 100_000)
