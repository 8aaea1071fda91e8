"""MLflow tracking that never slows or stops a training.

Whatever is tracked goes to the run's journal (`recsys.training.tracking.journal`) and no other
place as far as training waits. A background thread, the only one that knows MLflow, delivers the
journal batch by batch; where the store is slow or down it tries again ever more rarely, and
`deliver` sends later what was missed. MLflow drops a metric that it has with equal key, step, value
and time, a run is found by the key in its journal before one is created, and all else overwrites
itself: what is sent twice is there once.

Example:
    tracker = start_run(config.tracking, run_dir=run_dir, name="run", params={"dim": 64})
    tracker.metrics({"train/loss": 2.3}, step=20)
    tracker.finish("FINISHED")
"""

import logging
import math
import os
import posixpath
import re
import threading
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from recsys.core.errors import IntegrityError
from recsys.core.tracking_store import (
    JOURNAL,
    http_limits,
    store_uri,
)
from recsys.training.tracking.background import Delivery, first_line
from recsys.training.tracking.journal import (
    DAMAGED,
    Journal,
    Record,
    delivering,
    load_position,
    read,
)
from recsys.training.tracking.sending import send_pending

if TYPE_CHECKING:
    from recsys.training.config.sections import TrackingConfig

_KEY_LENGTH, _PARAM_LENGTH, _TAG_LENGTH = 250, 6000, 8000
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Delivered:
    """What a delivery sent and left, in records; `why` it left any; what it had to skip."""

    sent: int
    left: int
    why: str = ""
    problems: tuple[str, ...] = ()


def start_run(
    config: "TrackingConfig",
    *,
    run_dir: Path,
    name: str,
    params: Mapping[str, object],
    tags: Mapping[str, str] | None = None,
    parent: Path | None = None,
) -> "Tracker":
    """Start tracking into `run_dir`, or continue where the journal there ends.

    Args:
        config: the store and the experiment; not enabled: the journal alone is written.
        run_dir: the folder of the run.
        name: the run's name in MLflow.
        params: hyper-parameters, written as text.
        tags: more labels.
        parent: the folder of the run that this one is nested in.

    Raises:
        ConfigError: the store's address cannot be one.
    """
    uri = store_uri(config.uri) if config.enabled else None
    journal = Journal(run_dir)
    if journal.old:
        start: Record = {"kind": "resume"}
    else:
        start = {
            "kind": "run",
            "key": uuid.uuid4().hex,
            "name": name,
            "uri": uri or config.uri,
            "experiment": config.experiment,
            "params": {_key(key): str(value)[:_PARAM_LENGTH] for key, value in params.items()},
            "tags": {_key(key): str(value)[:_TAG_LENGTH] for key, value in (tags or {}).items()},
            **({} if parent is None else {"parent": os.path.relpath(parent, run_dir)}),
        }
    return Tracker(journal, start, uri)


class Tracker:
    """One run. No method raises on account of the store, or waits for it (but `finish`)."""

    def __init__(self, journal: Journal, start: Record, uri: str | None) -> None:
        self.journal = journal
        self._lock = threading.Lock()
        # A resumed training repeats the steps since its checkpoint; they are in the journal.
        self._known_steps: dict[str, int] = {}
        for record, _ in journal.old:
            for name in record.get("values", ()):
                self._known_steps[name] = record["step"]
        self._write(start)
        self._delivery = _delivery(journal.path.parent, uri) if uri else None

    @property
    def run_id(self) -> str | None:
        """The run's id in MLflow; None as long as the store has not answered."""
        return self._delivery.run_id if self._delivery else None

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Track numbers at a step; one that is not finite becomes a null and a tag."""
        clean: dict[str, float | None] = {}
        for name, value in values.items():
            key, number = _key(name), float(value)
            if step <= self._known_steps.get(key, -1):
                continue
            clean[key] = number if math.isfinite(number) else None
            if clean[key] is None:
                self.tag(f"not_finite/{key}", f"{number} at step {step}")
        if clean:
            self._write({"kind": "metrics", "step": int(step), "values": clean})

    def tag(self, key: str, value: str) -> None:
        """Label the run; a later value replaces an earlier one."""
        self._write({"kind": "tag", "key": _key(key), "value": str(value)[:_TAG_LENGTH]})

    def artifact(self, path: Path, folder: str | None = None) -> None:
        """Attach a file or a folder, as it is when its turn comes."""
        run_dir = self.journal.path.parent.resolve()
        full = path.resolve()
        inside = full.is_relative_to(run_dir)
        # Relative, so that a run folder that was moved can still be delivered.
        shown = full.relative_to(run_dir) if inside else full
        self._write({"kind": "artifact", "path": str(shown), "folder": folder})

    def earlier_fingerprint(self) -> str | None:
        """Return the hash of the data that this run was on before; None where it begins."""
        found = [one["fingerprint"] for one, _ in self.journal.old if one["kind"] == "dataset"]
        return str(found[-1]) if found else None

    def dataset(self, name: str, fingerprint: str, facts: Mapping[str, object]) -> None:
        """Say which data was trained on; the digest is our own fingerprint over every byte."""
        words = {key: str(value) for key, value in facts.items()}
        record = {"name": name, "context": "training", "fingerprint": fingerprint, "facts": words}
        self._write({"kind": "dataset", **record})

    def finish(self, status: str = "FINISHED") -> None:
        """End the run ("FINISHED", "FAILED", "KILLED") and wait a little for the delivery."""
        self._write({"kind": "finish", "status": status})
        try:
            self.journal.close()
        except OSError as error:
            _log.warning("%s: %s", self.journal.path, error)
        if self._delivery and not self._delivery.finish():
            _log.warning(
                "MLflow lacks a part of this run (%s); deliver it later: recsys sync %s",
                self._delivery.why or "no answer yet",
                self.journal.path.parent,
            )

    def _write(self, record: Record) -> None:
        with self._lock:
            try:
                self.journal.append({"time": int(time.time() * 1000), **record})
            except (OSError, ValueError) as error:  # a full disk, a run that is finished
                _log.warning("not tracked, %s: %s", self.journal.path, error)


def _delivery(run_dir: Path, uri: str) -> Delivery | None:
    """Start to deliver; None where what was delivered already cannot be known."""
    try:
        delivery = Delivery(run_dir, uri, send_pending)
    except IntegrityError as error:
        _log.warning("nothing is delivered to MLflow: %s", error)
        return None
    delivery.start()
    return delivery


def deliver(run_dir: Path, uri: str | None = None) -> Delivered:
    """Send what MLflow has not got of the run in `run_dir`; every record arrives once.

    Args:
        run_dir: the folder of a run.
        uri: another store than the run was started with; it gets the whole run.

    Raises:
        NotFoundError: `run_dir` holds no journal.
        ConfigError: the store's address cannot be one.
        IntegrityError: the journal's first line, or what was delivered already, is damaged.
    """
    start = next(read(run_dir), None)
    if start is None:
        return Delivered(0, 0)
    if start[0]["kind"] == DAMAGED:
        raise IntegrityError(
            f"{run_dir / JOURNAL}: its first line was changed after it was written, and with it "
            "the name of the run and of its store: the run cannot be delivered"
        )
    store = store_uri(uri or start[0]["uri"])
    before, why = load_position(run_dir, store), ""
    with http_limits(retries=1, timeout=30), delivering(run_dir, timeout=30) as mine:
        if mine:
            try:
                send_pending(run_dir, store, lambda run_id: None)
            except Exception as error:
                why = first_line(error)
        else:
            why = "another process is delivering this run"
    after = load_position(run_dir, store)
    left = sum(1 for _ in read(run_dir, after.offset))
    return Delivered(after.sent - before.sent, left, why, tuple(after.problems))


def _key(name: str) -> str:
    """Return `name` as MLflow takes it: `@` and other signs become `_`."""
    clean = re.sub(r"[^\w\-./ ]", "_", str(name))[:_KEY_LENGTH]
    return posixpath.normpath(clean).lstrip("./") or "_"
