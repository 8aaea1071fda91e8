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
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recsys.core.tracking_store import (
    RUN_KEY,
    artifact_root,
    dataset_fields,
    first_use,
    http_limits,
    quieten,
    store_uri,
)
from recsys.training.tracking.background import Delivery, GotOn, first_line
from recsys.training.tracking.journal import (
    Journal,
    Record,
    delivering,
    load_position,
    parent_tag,
    read,
    save_position,
)

if TYPE_CHECKING:
    from recsys.training.config.sections import TrackingConfig

_METRICS_AT_ONCE, _TAGS_AT_ONCE = 1000, 100
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
        self._delivery = Delivery(journal.path.parent, uri, _send) if uri else None
        if self._delivery:
            self._delivery.start()

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


def deliver(run_dir: Path, uri: str | None = None) -> Delivered:
    """Send what MLflow has not got of the run in `run_dir`; every record arrives once.

    Args:
        run_dir: the folder of a run.
        uri: another store than the run was started with; it gets the whole run.

    Raises:
        NotFoundError: `run_dir` holds no journal.
        ConfigError: the store's address cannot be one.
    """
    start = next(read(run_dir), None)
    if start is None:
        return Delivered(0, 0)
    store = store_uri(uri or start[0]["uri"])
    before, why = load_position(run_dir, store), ""
    with http_limits(retries=1, timeout=30), delivering(run_dir, timeout=30) as mine:
        if mine:
            try:
                _send(run_dir, store, lambda run_id: None)
            except Exception as error:
                why = first_line(error)
        else:
            why = "another process is delivering this run"
    after = load_position(run_dir, store)
    left = sum(1 for _ in read(run_dir, after.offset))
    return Delivered(after.sent - before.sent, left, why, tuple(after.problems))


def _send(run_dir: Path, uri: str, got_on: GotOn) -> None:
    quieten()
    import mlflow.entities  # noqa: F401  # here, in the thread: 2 to 3 s of processor time

    got_on(None)
    _Sender(run_dir, uri, got_on).send()


class _Sender:
    """Sends the journal from its position on. Whatever fails raises; what was sent counts."""

    def __init__(self, run_dir: Path, uri: str, got_on: GotOn) -> None:
        self.run_dir, self.uri, self.got_on = run_dir, uri, got_on
        self.position = load_position(run_dir, uri)
        self.metrics: list[Any] = []
        self.tags: list[Any] = []
        self.reached = (self.position.offset, self.position.sent)

    def send(self) -> None:
        """Deliver every record that the journal holds now."""
        pending = read(self.run_dir, self.position.offset)
        first = next(pending, None)
        if first is None:
            return
        self.client = _connect(self.uri)
        for record, end in (first, *pending):
            if record["kind"] == "metrics":
                self._add_metrics(record)
            elif record["kind"] == "tag":
                self._add_tag(record)
            else:
                self._flush()
                self._send_one(record)
            self.reached = (end, self.reached[1] + 1)
            if len(self.metrics) >= _METRICS_AT_ONCE or len(self.tags) >= _TAGS_AT_ONCE:
                self._flush()
            elif not self.metrics and not self.tags:
                self._save()
        self._flush()

    def _add_metrics(self, record: Record) -> None:
        from mlflow.entities import Metric

        for name, value in record["values"].items():
            if value is not None:
                self.metrics.append(Metric(name, value, record["time"], record["step"]))

    def _add_tag(self, record: Record) -> None:
        from mlflow.entities import RunTag

        self.tags.append(RunTag(record["key"], record["value"]))

    def _flush(self) -> None:
        for start in range(0, len(self.metrics), _METRICS_AT_ONCE):
            self._batch(metrics=self.metrics[start : start + _METRICS_AT_ONCE])
        if self.tags:
            self._batch(tags=self.tags)
        if self.metrics or self.tags:
            self.metrics, self.tags = [], []
            self._save()

    def _batch(self, **entities: list[Any]) -> None:
        """Send one batch; find what the store refuses in it by halving, and skip that."""
        (kind, batch), *_ = entities.items()
        try:
            self.client.log_batch(self.position.run_id, **{kind: batch})
        except Exception as error:
            if not _refused(error):
                raise
            if len(batch) == 1:
                self._problem(f"{kind} '{batch[0].key}': {first_line(error)}")
                return
            middle = len(batch) // 2
            self._batch(**{kind: batch[:middle]})
            self._batch(**{kind: batch[middle:]})

    def _send_one(self, record: Record) -> None:
        send: Callable[[Record], None] = {
            "run": self._run,
            "resume": self._resume,
            "artifact": self._artifact,
            "dataset": self._dataset,
            "finish": self._finish,
        }[record["kind"]]
        try:
            send(record)
        except Exception as error:
            if not _refused(error) or self.position.run_id is None:
                raise
            self._problem(f"{record['kind']}: {first_line(error)}")

    def _run(self, record: Record) -> None:
        from mlflow.entities import Param, RunTag

        tags = record["tags"] | parent_tag(self.run_dir, record, self.uri)
        if self.position.run_id is None:
            self.position.run_id = _find_or_create_run(self.client, record, self.uri)
            save_position(self.run_dir, self.uri, self.position)
            self.got_on(self.position.run_id)
        params = [Param(key, value) for key, value in record["params"].items()]
        for start in range(0, len(params), _TAGS_AT_ONCE):
            self._batch(params=params[start : start + _TAGS_AT_ONCE])
        if tags:
            self._batch(tags=[RunTag(key, value) for key, value in tags.items()])

    def _resume(self, record: Record) -> None:
        self.client.update_run(self.position.run_id, "RUNNING")

    def _finish(self, record: Record) -> None:
        self.client.set_terminated(self.position.run_id, record["status"], record["time"])

    def _artifact(self, record: Record) -> None:
        path = self.run_dir / record["path"]
        if path.is_dir():
            self.client.log_artifacts(self.position.run_id, str(path), record["folder"])
        elif path.is_file():
            self.client.log_artifact(self.position.run_id, str(path), record["folder"])
        else:
            self._problem(f"artifact '{path}' is gone")

    def _dataset(self, record: Record) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        fields = dataset_fields(record["name"], record["fingerprint"], record["facts"])
        tag = InputTag("mlflow.data.context", record.get("context", record["name"]))
        self.client.log_inputs(self.position.run_id, [DatasetInput(Dataset(**fields), [tag])])

    def _problem(self, text: str) -> None:
        self.position.problems = [*self.position.problems, text][:20]
        _log.warning("MLflow refused %s", text)

    def _save(self) -> None:
        self.position.offset, self.position.sent = self.reached
        save_position(self.run_dir, self.uri, self.position)
        self.got_on(self.position.run_id)


def _connect(uri: str) -> Any:
    """Return a client of the store; its tables are there."""
    from mlflow import MlflowClient

    for name in ("mlflow.store.db.utils", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    with first_use(uri):
        client = MlflowClient(tracking_uri=uri, registry_uri=uri)
        client.search_experiments(max_results=1)
    return client


def _find_or_create_run(client: Any, record: Record, uri: str) -> str:
    """Return the run of this journal; an answer that was lost may have created it already."""
    experiment = _experiment(client, record["experiment"], uri)
    wanted = f"tags.`{RUN_KEY}` = '{record['key']}'"
    for run in client.search_runs([experiment], wanted, max_results=1):
        return str(run.info.run_id)
    tags = {RUN_KEY: record["key"], "mlflow.source.name": "recsys", "mlflow.source.type": "LOCAL"}
    run = client.create_run(experiment, record["time"], tags, record["name"])
    return str(run.info.run_id)


def _experiment(client: Any, name: str, uri: str) -> str:
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return str(client.create_experiment(name, artifact_root(uri)))
        except MlflowException:  # somebody else was quicker, or it raises again below
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
    return str(found.experiment_id)


def _refused(error: Exception) -> bool:
    """Whether the store will never take this (a wrong value), as opposed to not now."""
    status = getattr(error, "get_http_status_code", None)
    return status is not None and status() == 400


def _key(name: str) -> str:
    """Return `name` as MLflow takes it: `@` and other signs become `_`."""
    clean = re.sub(r"[^\w\-./ ]", "_", str(name))[:_KEY_LENGTH]
    return posixpath.normpath(clean).lstrip("./") or "_"
