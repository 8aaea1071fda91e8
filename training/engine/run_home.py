"""Runs whose folder is in a store: they work in a folder of this machine that is sent there.

A run with `output: s3://bucket/runs` has its working folder in `.recsys_cache/runs/s3/bucket/runs`,
whose name says where it belongs. What changed in it is sent at every checkpoint and at the end: the
files that close a folder (the list of a checkpoint, the manifest of a bundle) after all others, and
what is gone here is removed there last. So whoever reads finds whole checkpoints and bundles, or
none.

A store has no locks. Who starts or continues a run writes its name to `owner.json` there, and looks
before it sends whether that is still its own: of two that work on one run the earlier stops.
"""

import json
import logging
import platform
import shutil
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from recsys.bundle.directory import MANIFEST
from recsys.core.atomic import whole_file
from recsys.core.errors import ConfigError, NotFoundError, StoreError
from recsys.core.remote.moving import each, fetch_folder, send_file
from recsys.core.remote.path import RemotePath, path_at
from recsys.core.sealed import SEAL

WORK = Path(".recsys_cache") / "runs"
"""Where such runs work, below the working folder."""
OWNER = "owner.json"
LOCK = ".lock"
_SENT = ".sent.json"
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Home:
    """The working folder of a run, and the address where it belongs."""

    folder: Path
    address: RemotePath

    @property
    def record(self) -> Path:
        """Says who the owner is and what was sent: name -> [size, time of the change]."""
        return self.folder / _SENT

    def sent(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.record.read_text())
        return found

    def files(self) -> dict[str, list[int]]:
        """Return what belongs there: all but what is hidden, as half-written files are."""
        paths = [path for path in self.folder.rglob("*") if path.is_file()]
        names = {path.relative_to(self.folder): path.stat() for path in paths}
        return {
            name.as_posix(): [one.st_size, one.st_mtime_ns]
            for name, one in sorted(names.items())
            if not any(part.startswith(".") for part in name.parts)
        }


def local_folder(given: str | Path) -> Path:
    """Return the folder of this machine that stands for one in a store; others as they are."""
    path = path_at(given)
    return WORK.joinpath(path.scheme, *path.within) if isinstance(path, RemotePath) else path


def home_address(run_dir: Path) -> Path:
    """Return where people find a run: the address that its working folder belongs to, else it."""
    return _address_of(run_dir.absolute()) or run_dir


def begin_at(address: RemotePath, config: str) -> Path:
    """Make the working folder of a new run, and its folder in the store with the configuration.

    Raises:
        UserError: the store refuses it.
    """
    address.check_bucket()
    folder = local_folder(address)
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(config)
    home = _Home(folder, address)
    _claim(home, {})
    send_home(folder)
    return folder


def brought(run_dir: Path) -> Path:
    """Return the working folder of a run that is to be continued, as it is in the store.

    A folder of this machine is returned as it is.

    Raises:
        NotFoundError: there is no run.
        ConfigError: another process of this machine is at it.
    """
    if not isinstance(run_dir, RemotePath):
        return run_dir
    if not (run_dir / "config.yaml").is_file():
        raise NotFoundError(f"{run_dir}: no run to resume (config.yaml is missing)")
    folder = local_folder(run_dir)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / LOCK, timeout=0):
            for old in folder.iterdir():
                if old.name != LOCK:
                    shutil.rmtree(old) if old.is_dir() else old.unlink()
            fetch_folder(run_dir, folder)
            (folder / OWNER).unlink(missing_ok=True)
            home = _Home(folder, run_dir)
            _claim(home, home.files())
    except Timeout:
        raise ConfigError(
            f"{run_dir}: another process is training this run; wait until it ends, or stop it"
        ) from None
    return folder


def send_home(path: Path) -> Path | None:
    """Send what changed in the working folder that `path` is in; return its address.

    None: `path` is in no such folder.

    Raises:
        ConfigError: another process took the run over, or the store does not allow it.
        StoreError: the store does not answer; what is here stays.
    """
    home = _home_of(path)
    if home is None or not home.record.is_file():
        return None
    known = home.sent()
    _check_owner(home, known["token"])
    sent, files = known["files"], home.files()
    changed = [name for name, state in files.items() if sent.get(name) != state]
    for closing in (False, True):
        names = [one for one in changed if (one.split("/")[-1] in (SEAL, MANIFEST)) is closing]
        each(names, lambda name: send_file(home.folder / name, home.address / name))
    _remove_gone(home, set(sent) - set(files), set(files))
    _write_record(home, known["token"], files)
    return home.address


def send_checkpoint(path: Path) -> None:
    """Send what changed; a store that does not answer is tried again at the next checkpoint."""
    try:
        send_home(path)
    except StoreError as error:
        _LOG.warning(f"{error}; the checkpoint stays here and is sent with the next one")


def leave_work(run_dir: Path) -> None:
    """Remove the working folder of a run that was sent."""
    shutil.rmtree(run_dir, ignore_errors=True)


def _home_of(path: Path) -> _Home | None:
    """Return the working folder that a path is in: that of the whole run, not of a part of it."""
    whole = path.absolute()
    for folder in (whole, *whole.parents):
        address = _address_of(folder) if (folder / _SENT).is_file() else None
        if address is not None:
            return _Home(folder, address)
    return None


def _address_of(folder: Path) -> RemotePath | None:
    """Return the address that a working folder is named after; None: it is none."""
    parts, size = folder.parts, len(WORK.parts)
    starts = [at for at in range(len(parts)) if parts[at : at + size] == WORK.parts]
    inside = parts[starts[-1] + size :] if starts else ()
    return RemotePath(f"{inside[0]}:", *inside[1:]) if len(inside) > 2 else None


def _claim(home: _Home, files: dict[str, list[int]]) -> None:
    token = uuid.uuid4().hex
    facts = {"token": token, "machine": platform.node()}
    (home.address / OWNER).write_text(json.dumps(facts, indent=1))
    _write_record(home, token, files)


def _check_owner(home: _Home, token: str) -> None:
    owner = home.address / OWNER
    facts = json.loads(owner.read_text()) if owner.is_file() else {}
    if facts.get("token") != token:
        who = f" on {facts['machine']}" if facts.get("machine") else ""
        raise ConfigError(
            f"{home.address}: another process{who} continues this run; this one stops, and "
            f"what it did is in {home.folder}"
        )


def _remove_gone(home: _Home, gone: set[str], kept: set[str]) -> None:
    """Remove what is no longer here: without its list a checkpoint is none, so that goes first."""
    folders = {parent for name in kept for parent in Path(name).parents}
    whole: set[Path] = set()
    for name in sorted(gone, key=lambda name: not name.endswith(SEAL)):
        above = [one for one in (Path(name), *Path(name).parents) if one not in folders]
        whole.add(above[-1])
        if name.endswith(SEAL) or above[-1] == Path(name):
            (home.address / name).unlink(missing_ok=True)
    for folder in sorted(whole - {Path(name) for name in gone}):
        (home.address / folder).remove_folder()


def _write_record(home: _Home, token: str, files: dict[str, list[int]]) -> None:
    with whole_file(home.record) as staging:
        staging.write_text(json.dumps({"token": token, "files": files}))
