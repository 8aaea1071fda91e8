"""A run belongs to one process at a time."""

from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from recsys.core.errors import ConfigError
from recsys.training.jobs.runs import tracked


def test_a_run_that_another_process_is_at_is_refused_before_anything_is_done(
    tmp_path: Path,
) -> None:
    nothing: Any = None
    said = "another process is training this run; wait until"
    with FileLock(tmp_path / ".lock"), pytest.raises(ConfigError, match=said):
        tracked(nothing, tmp_path, nothing, {}, nothing)
    assert [one.name for one in tmp_path.iterdir() if one.name != ".lock"] == []
    with pytest.raises(AttributeError):  # let go of, the run is begun
        tracked(nothing, tmp_path, nothing, {}, nothing)
