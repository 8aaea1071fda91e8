"""A search in MLflow: one run for the search, a run nested in it for each trial.

A trial writes its journal and continues; a thread behind all of them delivers finished journals, so
that a store that is slow or down costs the search nothing. What it misses, `deliver_search` sends.
"""

import logging
import queue
import threading
import time
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from recsys.core.events import Event, PointLogged
from recsys.core.tracking_store import JOURNAL, sqlite_path, store_uri
from recsys.training.config.experiment import ExperimentConfig
from recsys.training.engine.run_home import local_folder
from recsys.training.jobs.runs import TrackingListener
from recsys.training.search.store import INTERRUPTED, Tried
from recsys.training.tracking.background import (
    DELIVER_EVERY_SECONDS,
    FINISH_SECONDS,
    LONGEST_PAUSE_SECONDS,
    SERVER_PATIENCE_SECONDS,
)
from recsys.training.tracking.run import Delivered, Tracker, deliver, start_run

TRIALS_FOLDER = "trials"
_STATUS = {"done": "FINISHED", "failed": "FAILED"}
_log = logging.getLogger(__name__)


class SearchTracking:
    """The runs of a search; `folder` None: a new one."""

    def __init__(
        self,
        config: ExperimentConfig,
        folder: Path | None,
        name: str,
        facts: Mapping[str, Any],
        before: Iterable[Tried],
    ) -> None:
        self.config = config
        stamp = f"{datetime.now():%Y%m%d-%H%M%S-%f}"
        self.run_dir = folder or local_folder(config.output) / f"tune-{name}-{stamp}"
        self.run_dir.mkdir(parents=True, exist_ok=True)
        self.uri = store_uri(config.tracking.uri) if config.tracking.enabled else None
        self.tracker = start_run(
            config.tracking,
            run_dir=self.run_dir,
            name=self.run_dir.name,
            params={f"space/{key}": entry for key, entry in facts["space"].items()}
            | {"metric": config.training.metric, "seed": facts["seed"]},
            tags={"kind": "tuning", "model_kind": config.model.kind},
        )
        self._best: float | None = max(
            (one.value for one in before if one.state == "done" and one.value is not None),
            default=None,
        )
        for one in before:  # of a process that was killed: its journal has no end
            if one.state == INTERRUPTED and (self._folder(one.number) / JOURNAL).is_file():
                self._journal(one.number, {}).finish("KILLED")
        self._courier = _Courier(self.uri, self.tracker) if self.uri else None
        if self._courier:
            for earlier in sorted(self.run_dir.glob(f"{TRIALS_FOLDER}/*")):
                self._courier.folders.put(earlier)
            self._courier.start()

    def dataset(self, name: str, fingerprint: str, facts: Mapping[str, object]) -> None:
        """Say on which data the trials train."""
        self.tracker.dataset(name, fingerprint, facts)

    def trial(self, number: int, values: Mapping[str, Any]) -> "TrialTracking":
        """Begin the run of a trial; it listens to the training."""
        return TrialTracking(number, self._journal(number, values))

    def ended(self, trial: "TrialTracking", state: str, value: float | None) -> None:
        """End the run of a trial, and note on the search's own how it went."""
        metric = self.config.training.metric
        trial.tracker.tag("trial_state", state)
        if value is not None:
            trial.tracker.metrics({f"best_validation/{metric}": value}, trial.last_step)
        trial.tracker.finish(_STATUS.get(state, "KILLED"))
        if self._courier:
            self._courier.folders.put(self._folder(trial.number))
        if state == "done" and value is not None:
            self._best = value if self._best is None else max(self._best, value)
        if value is not None and state != INTERRUPTED:
            found = {f"trials/{metric}": value}
            found |= {} if self._best is None else {f"best/{metric}": self._best}
            self.tracker.metrics(found, trial.number)

    def finish(self, status: str) -> None:
        """End the search's run and wait a little for what is not delivered."""
        self.tracker.finish(status)
        if self._courier:
            missing = self._courier.finish()
            if missing:
                _log.warning(
                    "MLflow lacks %d of the trials (%s); deliver them later: recsys sync %s",
                    missing,
                    self._courier.why or "no answer yet",
                    self.run_dir,
                )

    def _folder(self, number: int) -> Path:
        return self.run_dir / TRIALS_FOLDER / f"{number:04d}"

    def _journal(self, number: int, values: Mapping[str, Any]) -> Tracker:
        return start_run(
            self.config.tracking.model_copy(update={"enabled": False, "uri": self.uri}),
            run_dir=self._folder(number),
            name=f"{self.run_dir.name}-{number:04d}",
            params=values,
            tags={"kind": self.config.model.kind, "trial": str(number)},
            parent=self.run_dir,
        )


class TrialTracking(TrackingListener):
    """Listens to the training of one trial."""

    def __init__(self, number: int, tracker: Tracker) -> None:
        super().__init__(tracker)
        self.number, self.last_step = number, 0

    def __call__(self, event: Event) -> None:
        """Note one point of the curves."""
        if isinstance(event, PointLogged):
            self.last_step = int(event.values["step"])
        super().__call__(event)


class _Courier(threading.Thread):
    """Delivers the journals of trials that ended, in turn; after a failure it pauses longer."""

    def __init__(self, uri: str, around: Tracker) -> None:
        super().__init__(name="mlflow-trials", daemon=True)
        self.uri, self.around, self.why = uri, around, ""
        self.folders: queue.Queue[Path | None] = queue.Queue()
        self._left: list[Path] = []
        self._progress = time.monotonic()

    def run(self) -> None:
        """Deliver until the search has ended and all has arrived, or once more has not helped."""
        finishing, failures = False, 0
        while not finishing:
            pause = min(DELIVER_EVERY_SECONDS * 2**failures, LONGEST_PAUSE_SECONDS)
            finishing = self._collect(pause if self._left else None)
            # A store without the search's own run takes no run nested in it, and two threads that
            # import MLflow and make its tables at once are in each other's way.
            while self._left and self.around.run_id is not None:
                sent = deliver(self._left[0], self.uri)
                self._progress = time.monotonic()
                if sent.left or sent.why:
                    failures, self.why = min(failures + 1, 10), sent.why
                    break
                failures, self.why = 0, ""
                self._left.pop(0)

    def finish(self) -> int:
        """Wait while the delivery gets on; return how many trials have not arrived."""
        self.folders.put(None)
        self._progress, end = time.monotonic(), time.monotonic() + FINISH_SECONDS
        patient = sqlite_path(self.uri) is not None  # a local database always answers in the end
        while self.is_alive() and time.monotonic() < end:
            self.join(0.05)
            if not patient and time.monotonic() - self._progress > SERVER_PATIENCE_SECONDS:
                break
        return len(self._left) + self.folders.qsize()

    def _collect(self, pause: float | None) -> bool:
        """Take what has come, waiting for it; return whether it was the last."""
        try:
            folder = self.folders.get(timeout=pause)
            while folder is not None:
                self._left.append(folder)
                folder = self.folders.get_nowait()
        except queue.Empty:
            return False
        return True


def deliver_search(run_dir: Path, uri: str | None = None) -> Delivered:
    """Send what MLflow has not got of the run in `run_dir` and of those nested in it.

    Raises:
        NotFoundError: `run_dir` holds no journal.
        ConfigError: the store's address cannot be one.
    """
    parts = [deliver(run_dir, uri)]
    parts += [deliver(trial, uri) for trial in sorted(run_dir.glob(f"{TRIALS_FOLDER}/*"))]
    return Delivered(
        sum(part.sent for part in parts),
        sum(part.left for part in parts),
        next((part.why for part in parts if part.why), ""),
        tuple(problem for part in parts for problem in part.problems),
    )
