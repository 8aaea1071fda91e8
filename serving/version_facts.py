"""What a version in MLflow's registry shows: metrics of its model, its data set, a description.

A metric of a logged model belongs to a run: the one that trained it, or where the store has none,
one that holds these metrics alone.
"""

import time
from typing import Any

import yaml

from recsys.bundle.directory import Bundle
from recsys.core.tracking_store import dataset_fields
from recsys.features.bundle.files import CONFIG, read_config, read_description
from recsys.features.bundle.measured import TRACKED, Kept
from recsys.features.tables.sources import log_name

MOST_METRICS = 15
_LONGEST = 5000
"""Most letters of a version's description in MLflow."""
_TRIES = 3


def data_name(bundle: Bundle) -> str:
    """Return what the log that a model was trained on is called."""
    if not bundle.has(CONFIG):
        return "log"
    return log_name(yaml.safe_load(read_config(bundle))["data"]["interactions"])


def log_facts(client: Any, bundle: Bundle, logged: Any, run_id: str | None) -> None:
    """Log the headline metrics of a model and its data set with the logged model.

    Args:
        client: of the store.
        bundle: where they are kept; one without any logs none.
        logged: the logged model that holds the bundle.
        run_id: the run that trained it; None: a run is made for the metrics.
    """
    from mlflow.entities import Dataset, DatasetInput, InputTag, Metric

    kept = Kept.of(bundle)
    if kept.part is None:
        return
    name, fingerprint = data_name(bundle), str(bundle.manifest["facts"]["data_fingerprint"])
    own = run_id
    if own is None:
        tags = {"mlflow.source.name": "recsys", "mlflow.source.type": "LOCAL"}
        own = client.create_run(logged.experiment_id, tags=tags, run_name=logged.name).info.run_id
    dataset = Dataset(**dataset_fields(name, fingerprint, kept.protocol))
    context = [InputTag("mlflow.data.context", kept.part)]
    _log_data(client, own, DatasetInput(dataset, context))
    now = int(time.time() * 1000)
    metrics = []
    for metric, value in kept.headline(MOST_METRICS).items():
        key = f"{TRACKED[kept.part]}/{metric}"
        # The same point as the training's, where there is one: the run's curve keeps its length.
        when, step = now, 0
        if run_id is not None:
            known = client.get_metric_history(run_id, key)
            when, step = (known[-1].timestamp, known[-1].step) if known else (now, 0)
        of_data = {"dataset_name": name, "dataset_digest": dataset.digest}
        metrics.append(Metric(key, value, when, step, model_id=logged.model_id, **of_data))
    client.log_batch(own, metrics=metrics)
    if run_id is None:
        client.set_terminated(own, "FINISHED")


def description_of(bundle: Bundle) -> str:
    """Return what a version is, in Markdown: model, data, metrics with intervals, best baseline."""
    kept, kind = Kept.of(bundle), read_description(bundle).kind
    facts = bundle.manifest["facts"]
    lines = [f"**{kind}**, trained on `{data_name(bundle)}`"]
    if "data_fingerprint" in facts:
        lines[0] += f" (data fingerprint `{str(facts['data_fingerprint'])[:12]}`)"
    lines += [f"- {name}: {words}" for name, words in kept.protocol.items()]
    lines += _figures(kept)
    chosen = kept.chosen_by
    if chosen is not None:
        lines += [
            "",
            f"**Final model**, trained on all rows: it has no test figures. {chosen.words} chose "
            "its settings; what follows is of the run that chose, not of this model.",
            *_figures(chosen.kept),
        ]
    lines += ["", f"Bundle `{bundle.model_id}`, engine {bundle.manifest['engine_version']}."]
    return "\n".join(lines)[:_LONGEST]


def _figures(kept: Kept) -> list[str]:
    """Return a table of metrics in Markdown, with the best baseline; empty where there are none."""
    if kept.part is None:
        return []
    lines = ["", f"| on the {kept.part} part | value | 95 % interval |", "|---|---|---|"]
    for name, value in kept.headline(MOST_METRICS).items():
        between = kept.intervals.get(name)
        shown = f"{between[0]:.4f} to {between[1]:.4f}" if between else ""
        decides = " (decides)" if name == kept.decides else ""
        lines.append(f"| {name}{decides} | {value:.4f} | {shown} |")
    best = kept.best_baseline
    if best is not None:
        lines += ["", f"Best plain model: {best[0]}, {kept.decides} {best[1]:.4f}."]
    if kept.doubt is not None:
        lines.append(f"**Warning**: {kept.doubt}.")
    return lines


def marks_of(bundle: Bundle) -> dict[str, str]:
    """Return the tags of a version: that its model was trained on all rows, and whom it meets."""
    facts = bundle.manifest["facts"]
    names = ("final", "trained_on", "chosen_by")
    found = {name: str(facts[name]) for name in names if name in facts}
    if "compatible_since" in facts:
        found["compatible_since"] = ", ".join(facts["compatible_since"])
    return found


def _log_data(client: Any, run_id: str, data: Any) -> None:
    """Name the data of a run; again where another process has named the same at this moment.

    MLflow looks whether a data set is there before it adds it, so that of two one may fail.
    """
    from mlflow.exceptions import MlflowException

    for left in reversed(range(_TRIES)):
        try:
            client.log_inputs(run_id, [data])
        except MlflowException:
            if not left:
                raise
            time.sleep(0.1)
        else:
            return
