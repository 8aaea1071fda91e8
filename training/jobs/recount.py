"""The job behind `recsys recount`: a trained model with what it counts taken from a newer log."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from recsys.bundle.directory import RUN_BUNDLES, bundles_of_run
from recsys.core.errors import ConfigError, NotFoundError
from recsys.core.remote.path import path_at
from recsys.features.bundle.files import (
    read_request_probe,
    write_config,
    write_items,
    write_metrics,
    write_request_probe,
)
from recsys.features.bundle.lists import ListModel
from recsys.features.bundle.measured import Kept
from recsys.features.bundle.request_probe import longest_list, with_answers, without_answers
from recsys.features.bundle.writing import write_renewed
from recsys.features.tables.checked import source_fingerprint
from recsys.training.config.file import dump_config
from recsys.training.families.family import Family
from recsys.training.families.opened import RECOUNTED, OpenedModel
from recsys.training.families.recounting import NewLog, Renewed, Rows, read_new_log
from recsys.training.families.registry import family_of
from recsys.training.jobs.opening import open_model


@dataclass(frozen=True)
class Recount:
    """What was counted and written.

    bundle: folder of the new model. parent: id of the model it came from. rows: counted ones.
    items: those that have one, of `catalogue`. unknown_rows, unknown_items: left out, of items that
    the model does not know; first_unknown: one of them. words: what else is known, by name.
    """

    bundle: Path
    parent: str
    rows: int
    items: int
    catalogue: int
    unknown_rows: int
    unknown_items: int
    first_unknown: Any
    words: dict[str, str]


def recount(
    path: Path,
    log: str,
    output: Path,
    *,
    rows: Rows = "training",
    settings: Mapping[str, Any] | None = None,
) -> Recount:
    """Write the model at `path` with its counts taken from `log`, below `output`.

    Weights, catalogue and vocabulary stay; the answers of the probe are made anew. The metrics of
    the model before are not those of this one, which is not evaluated.

    Args:
        path: folder of the bundle.
        log: path of the interactions.
        output: folder, as that of a run: the bundle is in it.
        rows: which rows are counted.
        settings: other policies for the log than in training, by full key.

    Raises:
        ConfigError: the model holds no counts, `output` holds a model, or a setting is wrong.
        DataError, NotFoundError: of the log.
        IntegrityError: a file of the bundle is not what was written.
    """
    if bundles_of_run(output):
        raise ConfigError(f"{output} holds a model already: name another folder")
    opened = open_model(path).with_settings(settings)
    family: Family[Any] = family_of(opened.config)
    if family.recount is None:
        raise ConfigError(
            f"{path}: {family.plural} are not counted anew as they are: train it on the newer log, "
            "a pipeline with its sources"
        )
    model = ListModel.open(path)
    new = read_new_log(opened, log, rows)
    renewed = family.recount(opened, model.found_by, new)
    facts = {RECOUNTED: {"rows": rows, "until": new.until}}
    counted = _on(opened, log, unknown=new.unknown_rows > 0)
    bundle = _write(output / RUN_BUNDLES, model, counted, new, renewed, facts)
    ListModel.open(bundle)
    counts = new.data.train_counts
    return Recount(
        bundle=bundle,
        parent=opened.bundle.model_id,
        rows=int(counts.sum()),
        items=int((counts > 0).sum()),
        catalogue=len(counts),
        unknown_rows=new.unknown_rows,
        unknown_items=new.unknown_items,
        first_unknown=new.first_unknown,
        words=renewed.words,
    )


def _on(opened: OpenedModel, log: str, *, unknown: bool) -> OpenedModel:
    """Return the model with the new log in its configuration, and how it was read.

    unknown: whether rows of items that the model does not know were left out, as they are to be
    where it is evaluated.
    """
    data = opened.config.data.model_copy(update={"interactions": str(path_at(log).absolute())})
    left_out = {"unknown_items": "drop"} if unknown else {}
    changes = {"data": data, "policies": opened.policies.model_copy(update=left_out)}
    return replace(opened, config=opened.config.model_copy(update=changes))


def _write(
    parent: Path,
    model: ListModel,
    opened: OpenedModel,
    new: NewLog,
    renewed: Renewed,
    facts: Mapping[str, Any],
) -> Path:
    text, none = dump_config(opened.config), Kept(test={})
    probe = _answered(model, renewed)

    def write(folder: Path) -> None:
        renewed.write(folder)
        write_config(folder, text)
        write_items(folder, new.data.tables.items, new.data.train_counts)
        write_metrics(folder, none.to_json())
        write_request_probe(folder, probe)

    about = {
        "data_fingerprint": _fingerprint(opened, new),
        "config_sha256": hashlib.sha256(text.encode()).hexdigest(),
        "metrics": {"test": none.test},
    }
    return write_renewed(parent, opened.bundle, write, {**about, **facts})


def _answered(model: ListModel, renewed: Renewed) -> pa.Table:
    """Return the requests of the probe with the answers of the renewed model."""
    before = read_request_probe(model.bundle)
    asked = without_answers(before)
    requests = model.encode(asked)
    renewed_model = replace(model, found_by=renewed.search)
    found = renewed_model.search(requests, longest_list(before), filter_seen=True, exact=True)
    return with_answers(asked, model.item_ids, found.scores, found.rows)


def _fingerprint(opened: OpenedModel, new: NewLog) -> str:
    """Return the hash of all tables of the configuration; where some are gone, of the log."""
    try:
        return source_fingerprint(opened.schema, opened.config.data)
    except NotFoundError:
        return new.data.tables.fingerprint
