"""What is sent to MLflow: the pending records of a journal, batch by batch.

MLflow drops a metric that it has with equal key, step, value and time, a run is found by the key in
its journal before one is created, and all else overwrites itself: what is sent twice is there once.
"""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from recsys.core.tracking_store import RUN_KEY, artifact_root, dataset_fields, first_use, quieten
from recsys.training.tracking.background import GotOn, first_line
from recsys.training.tracking.journal import (
    DAMAGED,
    Record,
    load_position,
    parent_tag,
    read,
    save_position,
)

_METRICS_AT_ONCE, _TAGS_AT_ONCE = 1000, 100
_log = logging.getLogger(__name__)


def send_pending(run_dir: Path, uri: str, got_on: GotOn) -> None:
    """Send what the store `uri` has not got of the journal in `run_dir`; raise where that fails."""
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
            DAMAGED: self._damaged,
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

    def _damaged(self, record: Record) -> None:
        self._problem(f"record {self.reached[1] + 1} of the journal: changed after it was written")

    def _problem(self, text: str) -> None:
        self.position.problems = [*self.position.problems, text][:20]
        _log.warning("not in MLflow: %s", text)

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
