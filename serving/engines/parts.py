"""A job that writes one Parquet part for each piece of its input, exactly once.

A part has a name that its input determines, is written under another name and renamed, so it
is complete or absent; `_SUCCESS` comes last. A job that was killed continues where
it stopped: parts that exist are not written again. `_job.json` says whose the folder is, from the
first part on: a job that failed before it had one leaves the folder to the next.
"""

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from recsys.core.atomic import whole_file
from recsys.core.errors import ConfigError
from recsys.core.events import Listener, PartDone, ignore
from recsys.core.folders import check_folder

JOB, SUCCESS = "_job.json", "_SUCCESS"
_STAGING = re.compile(r"\.(_job\.json|part-.*)\..*")


Makers = Mapping[str, Callable[[], pa.Table]]
"""File name of a part -> what makes its content."""


class Helping(Protocol):
    """What writes parts with further processes (`recsys.serving.engines.workers`)."""

    def write(
        self,
        output: Path,
        claim: Mapping[str, Any],
        makers: Makers,
        written: Callable[[], None],
    ) -> None:
        """Write every part; call `written` after each, in this thread."""


def write_parts(
    output: Path,
    job: Mapping[str, Any],
    parts: Makers,
    listener: Listener = ignore,
    helping: Helping | None = None,
) -> int:
    """Write every part that is not there yet; return how many were.

    Args:
        output: folder of the parts.
        job: JSON facts that identify this job.
        parts: file name -> what makes its content.
        listener: called with each `PartDone`.
        helping: further processes; None: this one alone.

    Raises:
        ConfigError: `output` is named as a file or holds another job's files, or another job
            claimed it meanwhile.
    """
    claim = {**job, "parts": list(parts)}
    _claim(output, claim)
    missing = {name: make for name, make in parts.items() if not (output / name).is_file()}
    there = done = len(parts) - len(missing)
    for number in range(there):
        listener(PartDone(number + 1, len(parts)))

    def written() -> None:
        nonlocal done
        done += 1
        listener(PartDone(done, len(parts)))

    if helping is not None:
        helping.write(output, claim, missing, written)
        return there
    for name, make in missing.items():
        write_part(output / name, claim, make)
        written()
    return there


def write_part(path: Path, claim: Mapping[str, Any], make: Callable[[], pa.Table]) -> None:
    """Write one part, whole.

    Args:
        path: of the part.
        claim: what `_job.json` next to it says while the folder is this job's.
        make: makes its content.

    Raises:
        ConfigError: another job claimed the folder meanwhile.
    """
    answers = make()
    with whole_file(path) as staging:
        pq.write_table(answers, staging, write_page_checksum=True)
        _check_claim(path.parent, claim)


def mark_done(output: Path, summary: Mapping[str, Any]) -> None:
    """Write `_SUCCESS`, which holds the summary."""
    _write_text(output / SUCCESS, json.dumps({**summary, "output": output.name}, indent=1))


def _claim(output: Path, job: dict[str, Any]) -> None:
    """Make `output` this job's, or find that it is already.

    The folder belongs to another job as soon as one part of it is finished.
    """
    check_folder(output, "Parquet parts")
    path = output / JOB
    if path.is_file() and json.loads(path.read_text()) == job:
        return
    # A job killed while it wrote a file left that file's staging copy, whose name is hidden.
    names = [p.name for p in output.iterdir()] if output.is_dir() else []
    held = [name for name in names if name != JOB and not _STAGING.fullmatch(name)]
    if held and JOB in names:
        raise ConfigError(
            f"{output}: holds the scores of another job (model, requests, policies, filters, k or "
            "whether seen items are left out differ); choose another --output, or remove the "
            "folder to start again"
        )
    if held:
        raise ConfigError(f"{output}: not empty and not a scoring job; choose another --output")
    output.mkdir(parents=True, exist_ok=True)
    _write_text(path, json.dumps(job, indent=1))


def _check_claim(output: Path, job: Mapping[str, Any]) -> None:
    """Refuse to add a part where another job claimed the folder before there was one."""
    path = output / JOB
    if not path.is_file() or json.loads(path.read_text()) != job:
        raise ConfigError(
            f"{output}: another job claimed this folder while this one ran; give each job an "
            "--output of its own"
        )


def _write_text(path: Path, text: str) -> None:
    with whole_file(path) as staging:
        staging.write_text(text)
