"""Start a training from an earlier model: a larger table, other features, newer rows.

What is carried over: the table's rows, re-derived for the new size (`recsys.embeddings.growth`),
with the state of their optimizer; the dense weights, column by column (`recsys.bundle.transfer`);
the scales of numbers and the ids that were known (`FeatureEncoder.continuing`). What is not: the
dense optimizer's state, so the learning rate warms up again.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from recsys.bundle.directory import bundles_of_run
from recsys.bundle.transfer import transferred
from recsys.bundle.weights import load_tensors, save_optimizer_state
from recsys.core.errors import ConfigError
from recsys.core.remote.path import path_at
from recsys.embeddings.growth import regrown, share_blended
from recsys.embeddings.plan import EmbeddingPlan
from recsys.embeddings.table import Table, initial_rows
from recsys.features.bundle.files import read_optimizer_state, read_weights
from recsys.features.bundle.model_bundle import ModelBundle
from recsys.features.encoding.encoder import FeatureEncoder
from recsys.models.kind import Axes
from recsys.models.registry import LEARNED
from recsys.training.config.experiment import LearnedExperiment


@dataclass(frozen=True)
class Earlier:
    """An earlier model, verified: all that a new training may take from it."""

    model_id: str
    kind: str
    plan: EmbeddingPlan
    optimizer: str
    encoder: FeatureEncoder
    table: Mapping[str, Tensor]
    """"weight" and the optimizer's state, if it was kept."""
    dense: Mapping[str, Tensor]


def open_earlier(config: LearnedExperiment) -> Earlier | None:
    """Return the model that `config` starts from, None where it starts from scratch.

    Raises:
        NotFoundError, IntegrityError: there is no such bundle, or it is damaged.
        ConfigError: it is of another kind or width, or predicts other outcomes.
    """
    if config.warm_start is None:
        return None
    found = ModelBundle.read(_bundle_in(path_at(config.warm_start)))
    bundle, described = found.bundle, found.description
    if described.kind != config.model.kind:
        raise ConfigError(
            f"warm_start: {bundle.path} is of kind {described.kind}, model.kind is "
            f"{config.model.kind}: start from a model of the same kind"
        )
    before, now = (one.interactions.outcome_names for one in (found.schema, config.schema_))
    if before != now:
        raise ConfigError(
            f"warm_start: schema.interactions.outcomes: the earlier model predicts "
            f"{', '.join(before) or 'none'}, this one {', '.join(now) or 'none'}: keep them, in "
            "their order"
        )
    settings = described.embedding
    assert settings is not None, "models that learn have a table"
    if settings.dim != config.embedding.dim:
        raise ConfigError(
            f"warm_start: rows of the earlier table are {settings.dim} wide, embedding.dim is "
            f"{config.embedding.dim}: set it to {settings.dim} (a feature grows by multiplicity)"
        )
    weight, dense = load_tensors(read_weights(bundle))
    return Earlier(
        model_id=bundle.model_id,
        kind=described.kind,
        plan=EmbeddingPlan.of(settings, described.layouts),
        optimizer=settings.optimizer,
        encoder=found.encoder,
        table={"weight": weight, **read_optimizer_state(bundle)},
        dense=dense,
    )


def kept_optimizer_state(config: LearnedExperiment, model: Any) -> bytes | None:
    """Return the state of the table's optimizer for a later start; None: it is not to be kept."""
    return save_optimizer_state(model.embedding.table) if config.keep_optimizer_state else None


def parent_of(earlier: Earlier | None) -> dict[str, str]:
    """Return what a bundle's manifest says of the model that its training started from."""
    return {} if earlier is None else {"parent": earlier.model_id}


@torch.no_grad()
def start_from(earlier: Earlier, config: LearnedExperiment, model: Any, table: Table) -> list[str]:
    """Put the earlier weights into `model` and `table`; return a description of what was done.

    Raises:
        ConfigError: the sizes of the models differ.
    """
    plan: EmbeddingPlan = model.embedding.plan
    axes = _axes(config, earlier.plan, plan)
    like, may_begin = model.state_dict(), LEARNED[config.model.kind].may_begin
    model.load_state_dict(transferred(earlier.plan, plan, axes, earlier.dense, like, may_begin))
    known = dict(earlier.table)
    if "last" in table.state and "last" not in known:  # no row of it has missed any decay
        known.setdefault("step", torch.zeros(1))
        known["last"] = known["step"].expand(len(known["weight"]))
    keeps_state = earlier.optimizer == config.embedding.optimizer and set(known) > set(table.state)
    if not keeps_state:
        known = {"weight": known["weight"]}
    grown = regrown(
        earlier.plan,
        plan,
        known,
        lambda first, count: initial_rows(config.embedding, config.training.seed, first, count),
    )
    own = slice(table.first_row, table.first_row + len(table.weight))
    table.weight.copy_(grown["weight"][own])
    if keeps_state:
        for name, state in table.state.items():
            state.copy_(grown[name] if name == "step" else grown[name][own])
    without = set(table.state) <= {"last", "step"}  # a clock alone makes no step large
    return _in_words(earlier, plan, keeps_state or without)


def _axes(config: LearnedExperiment, old: EmbeddingPlan, new: EmbeddingPlan) -> Axes:
    model = config.model
    axes = LEARNED[model.kind].axes(model)
    if axes is None and old.layouts != new.layouts:
        before, after = (", ".join(f"{n} x{m}" for n, m in plan.features) for plan in (old, new))
        raise ConfigError(
            f"warm_start: a model of kind {model.kind} continues with the features and lookups "
            f"that it had, in their order: {before}; not {after}"
        )
    return axes or {}


def _in_words(earlier: Earlier, plan: EmbeddingPlan, keeps_state: bool) -> list[str]:
    lines = [f"warm start: from model {earlier.model_id}"]
    old, new = earlier.plan.num_rows, plan.num_rows
    if old != new:
        blended = share_blended(old, new)
        lost = "nothing is lost" if blended == 0 else f"{blended:.1%} of them blend several"
        lines.append(f"warm start: {old:,} shared rows become {new:,}; {lost}")
    before, after = dict(earlier.plan.features), dict(plan.features)
    for names, what in ((after.keys() - before.keys(), "new"), (before.keys() - after, "dropped")):
        if names:
            lines.append(f"warm start: {what} features: {', '.join(sorted(names))}")
    if not keeps_state:
        lines.append(
            "warm start: the table's optimizer state is not carried over (another optimizer, or "
            "not kept in the bundle): its first steps will be large"
        )
    return lines


def _bundle_in(path: Path) -> Path:
    """Return `path`, or the bundle of the run in it."""
    inside = bundles_of_run(path)
    return inside[0] if len(inside) == 1 else path
