"""Which features deserve which multiplicity: the study behind `recsys tune embedding`.

DNIS (`recsys.embeddings.selection`) on a ranker whose features all read `max_lookups` rows. The
weights learn on training batches and the gates on validation batches, in turn. Then each lookup
is closed by itself, and what the validation loss rises by is what the lookup is worth; the best
ones within the budget make the plan. To confirm the plan, it is trained again and compared with two
that need no search, with an equal table: shared out evenly, and by cardinality (`multiplicity:
auto`, which leaves lookups unused where more would distinguish no more values).

The validation rows are halved, batch by batch. Gates and worths come from one half, the three plans
are compared on the other, which the search has not seen: on rows that it chose by, it would win
where there is nothing to learn. It is recommended where the 95 % interval over rows of what it
gains is above 0, and else the better of the plans that need no search.
"""

import logging
import math
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recsys.core.errors import ConfigError, NumericalError
from recsys.data.batch import FeatureLayout, RankingBatch
from recsys.embeddings.plan import allocate
from recsys.embeddings.selection import (
    GatedEmbedding,
    Selected,
    evenly,
    normalised,
    recommended,
    stepped,
)
from recsys.features.dataset.split import TRAIN, VALIDATION
from recsys.features.encoding.feature_values import block_feature_values
from recsys.losses.ranking import binary_cross_entropy
from recsys.metrics.classification import Interval, auc
from recsys.models.rankers import of_label
from recsys.training.engine.checkpoint import Checkpoints
from recsys.training.engine.loop import fit
from recsys.training.engine.machine import keep_freed_memory, pick_device, seed_generators
from recsys.training.engine.optim import build_optimizer
from recsys.training.engine.parts import on_device
from recsys.training.engine.ranks import World
from recsys.training.families.ranker.config import RankerExperiment
from recsys.training.families.ranker.half_loader import halved
from recsys.training.families.ranker.rows import RankingRows, open_rows
from recsys.training.families.ranker.task import (
    Predictions,
    build_ranker,
    predictions,
    ranking_task,
)

LOG = logging.getLogger(__name__)

GATE_RATE = 0.02
"""Step of the gates, whose gradient has a mean size of 1."""
EVALUATED_ROWS = 100_000
"""Validation rows at most on which a lookup's worth, and the spread of a gain, are measured."""
SEARCH, COMPARE = 0, 1
"""The halves of the validation rows: which batch of each two."""
_SAMPLES = 200
COUNTED_BLOCKS = 32
SEARCHED, BY_CARDINALITY, EVEN = "searched", "by cardinality", "even"


@dataclass(frozen=True)
class Trial:
    """A plan that was trained: feature -> lookups, and how it did on the validation rows."""

    plan: dict[str, int]
    auc: float
    log_loss: float


@dataclass(frozen=True)
class Study:
    """What came out; `best` is the recommended one of `trials`, `cardinalities` by feature.

    gain: AUC of the searched plan less that of the better of the others, on the rows that compare.
    """

    lookups: int
    cardinalities: dict[str, int]
    selected: list[Selected]
    trials: dict[str, Trial]
    best: str
    gain: Interval

    @property
    def plan(self) -> dict[str, int]:
        """The recommended multiplicities."""
        return self.trials[self.best].plan

    def verdict(self) -> str:
        """Return in a sentence what the search was worth."""
        gain = self.gain
        shown = f"{gain.value:+.4f} AUC, 95 % of resampled rows {gain.low:+.4f} to {gain.high:+.4f}"
        if self.best == SEARCHED:
            return f"the searched plan is better than both others ({shown})"
        return (
            f"the search found nothing that is surely better than the plan '{self.best}' ({shown})"
        )

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return {**asdict(self), "plan": self.plan, "verdict": self.verdict()}


def study(
    config: RankerExperiment,
    *,
    lookups: int | None = None,
    epochs: int = 2,
    max_lookups: int = 4,
) -> Study:
    """Search, compare, recommend.

    Args:
        config: the experiment; a ranker.
        lookups: table reads a row for all features searched; None: twice as many as features.
        epochs: of the search, and at most of each training that compares.
        max_lookups: most lookups of a feature.

    Raises:
        ConfigError: the budget or the model does not go with the features.
    """
    _check(config, epochs)
    keep_freed_memory()
    world = World(device=pick_device(config.training.device))
    rows = open_rows(config, world)
    features = searched_features(config, rows.layout)
    budget = 2 * len(features) if lookups is None else lookups
    if not features or not len(features) <= budget <= max_lookups * len(features):
        raise ConfigError(
            f"--lookups {budget}: {len(features)} features can be searched (categorical, "
            f"multi_categorical and text), so {len(features)} to {max_lookups * len(features)} "
            f"lookups with --max-lookups {max_lookups}"
        )
    cardinalities = _cardinalities(rows, features)
    size = config.training.batch_size
    seen, unseen = halved(rows, SEARCH, size), halved(rows, COMPARE, size)
    selected = _search(config, seen, features, budget, epochs, max_lookups, world)
    plans = {
        SEARCHED: {one.feature: one.multiplicity for one in selected},
        BY_CARDINALITY: allocate(cardinalities, budget),
        EVEN: evenly(cardinalities, budget),
    }
    trials: dict[str, Trial] = {}
    said: dict[str, Predictions] = {}
    for name, plan in plans.items():
        known = next((done for done, trial in trials.items() if trial.plan == plan), None)
        if known is None:
            trials[name], said[name] = _tried(config, unseen, plan, epochs, world)
        else:
            trials[name], said[name] = trials[known], said[known]
        auc, loss = trials[name].auc, trials[name].log_loss
        LOG.info(f"{name}: validation AUC {auc:.4f}, log loss {loss:.4f}")
    other = max((EVEN, BY_CARDINALITY), key=lambda name: trials[name].auc)
    gain = gained(said[SEARCHED], said[other], seed=config.training.seed)
    best = SEARCHED if gain.low > 0 else other
    return Study(budget, cardinalities, selected, trials, best, gain)


def _check(config: RankerExperiment, epochs: int) -> None:
    """Refuse, before any work, what cannot be searched or compared."""
    if epochs < 1:
        raise ConfigError(f"a study has at least 1 epoch, got {epochs}")
    if getattr(config.model, "combine", "project") == "sum":
        raise ConfigError(
            "model.combine: sum needs equal multiplicities: set model.combine: project"
        )


def gained(ours: Predictions, theirs: Predictions, *, seed: int) -> Interval:
    """Return by how much our AUC is above theirs on the same rows, with its 95 % interval.

    The rows are resampled for both at once, which leaves out what is hard for both. What another
    seed of the training would change is not in it.
    """
    step = -(-len(ours.label) // EVALUATED_ROWS)
    label, weight = ours.label[::step], ours.weight[::step].astype(np.float64)
    pair = (ours.logit[::step], theirs.logit[::step])
    rng = np.random.default_rng(seed)
    drawn = np.empty(_SAMPLES)
    for sample in range(_SAMPLES):
        weights = weight * rng.poisson(1.0, len(weight))
        own, other = (auc(logit, label, weights) for logit in pair)
        drawn[sample] = own - other
    whole = auc(ours.logit, label=ours.label, weight=ours.weight)
    value = whole - auc(theirs.logit, label=theirs.label, weight=theirs.weight)
    low, high = np.nanquantile(drawn, (0.025, 0.975))
    return Interval(value, float(low), float(high))


def searched_features(config: RankerExperiment, layout: FeatureLayout) -> list[str]:
    """Return the features whose multiplicity can be chosen freely, in the layout's order."""
    free = {feature.name for feature in config.schema_.features if feature.has_multiplicity}
    return [name for name, _ in layout.features if name in free]


def with_lookups(rows: RankingRows, plan: Mapping[str, int]) -> RankingRows:
    """Return the same rows for a model that reads `plan`: encoding knows no multiplicity."""
    old = rows.layout
    single, multi = (
        tuple((name, plan.get(old.source_of(name), m)) for name, m in pairs)
        for pairs in (old.single, old.multi)
    )
    return replace(rows, layout=replace(old, single=single, multi=multi))


def _cardinalities(rows: RankingRows, features: list[str]) -> dict[str, int]:
    batches = islice(rows.loader.ordered(TRAIN, 65_536), COUNTED_BLOCKS)
    found = block_feature_values(rows.layout, (batch.features for batch in batches))
    counts = {one.name: len(one.values) for one in found}
    return {name: counts[name] for name in features}


def _tried(
    config: RankerExperiment,
    rows: RankingRows,
    plan: dict[str, int],
    epochs: int,
    world: World,
) -> tuple[Trial, Predictions]:
    """Train `plan` as `recsys train` would; return how the best epoch did, and what it said."""
    training = config.training.model_copy(update={"epochs": epochs, "patience": epochs})
    task = ranking_task(
        config.model_copy(update={"training": training}), with_lookups(rows, plan), world
    )
    with tempfile.TemporaryDirectory(prefix="recsys-study-") as folder:
        state = fit(task, training, Checkpoints(Path(folder)))
    points = [p for p in state.history if p["step"] == state.best_step and "validation/auc" in p]
    said = predictions(task.trained.model, rows, VALIDATION, training.batch_size, world)
    return Trial(plan, points[-1]["validation/auc"], points[-1]["validation/log_loss"]), said


def _search(
    config: RankerExperiment,
    rows: RankingRows,
    features: list[str],
    budget: int,
    epochs: int,
    max_lookups: int,
    world: World,
) -> list[Selected]:
    wide = with_lookups(rows, dict.fromkeys(features, max_lookups))
    model: Any = build_ranker(config, wide, world)
    gated = model.embedding = GatedEmbedding(model.embedding)
    learn(model, wide, config, epochs, world)
    names = gated.selection.features
    free = [row for row, name in enumerate(names) if name in features]
    worth_L, size_LD = worths(model, wide, config.training.batch_size, world, free)
    gates_LD = gated.selection.gates_LD.detach().cpu()
    return recommended(
        [names[row] for row in free],
        worth_L[free],
        gates_LD[free],
        (size_LD * gates_LD)[free],
        budget,
    )


def learn(
    model: Any,
    rows: RankingRows,
    config: RankerExperiment,
    epochs: int,
    world: World,
) -> None:
    """Train weights on training batches and gates on validation batches, in turn."""
    training = config.training
    optimizer = build_optimizer(
        model, learning_rate=training.learning_rate, weight_decay=training.weight_decay
    )
    validation = _forever(rows, training.batch_size, world)
    for epoch in range(epochs):
        for step, batch in enumerate(on_device(rows.loader.epoch(epoch), world.device)):
            seed_generators(training.seed * 1_000_003 + epoch * rows.loader.num_steps + step)
            model.train()
            optimizer.zero_grad(set_to_none=True)
            loss = mean_loss(model, batch)
            value = float(loss.detach())
            if not math.isfinite(value):
                raise NumericalError(
                    f"the loss of step {step + 1} (epoch {epoch + 1}) of the search is {value}; "
                    "lower training.learning_rate and embedding.learning_rate"
                )
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), training.clip_norm)
            optimizer.step()
            step_gates(model, next(validation))
        closed = float((model.embedding.selection.gates_LD < 0.5).float().mean())
        done = f"epoch {epoch + 1} of {epochs}"
        LOG.info(f"search: {done}, {closed:.0%} of the gates are half closed")


def step_gates(model: Any, batch: RankingBatch) -> None:
    """Move the gates down the loss of a validation batch, and nothing else."""
    selection = model.embedding.selection
    model.eval()
    selection.gates_LD.requires_grad_(True)
    try:
        (gradient_LD,) = torch.autograd.grad(mean_loss(model, batch), selection.gates_LD)
    finally:
        selection.gates_LD.requires_grad_(False)
    direction_LD = normalised(gradient_LD, selection.features)
    selection.gates_LD.copy_(stepped(selection.gates_LD, direction_LD, GATE_RATE))


def mean_loss(model: Any, batch: RankingBatch) -> Tensor:
    """Return the weighted mean of the label's cross-entropy, a scalar in nats."""
    losses_B = binary_cross_entropy(of_label(model(batch.features)), batch.label) * batch.weight
    return losses_B.sum() / batch.weight.sum().clamp(min=1e-12)


@torch.no_grad()
def worths(
    model: Any, rows: RankingRows, batch_size: int, world: World, lookups: list[int]
) -> tuple[Tensor, Tensor]:
    """Return what the validation loss rises by when a lookup alone is closed, and vectors' sizes.

    The first is (L,), 0 for lookups that are not asked for; the second (L, D), the mean absolute
    value of what each lookup reads.
    """
    model.eval()
    selection = model.embedding.selection
    gates_LD = selection.gates_LD
    worth_L, size_LD = torch.zeros(len(gates_LD)), torch.zeros(gates_LD.shape)
    batches = on_device(rows.loader.ordered(VALIDATION, batch_size), world.device)
    seen = 0
    for batch in batches:  # counted in rows: those of a half may be smaller than `batch_size`
        if seen >= EVALUATED_ROWS:
            break
        (embedded_NW,) = model.embedding.embedding([batch.features])
        size_LD += embedded_NW[:, : gates_LD.numel()].abs().sum(0).view_as(gates_LD).cpu()
        open_loss = float(mean_loss(model, batch))
        for lookup in lookups:
            kept = gates_LD[lookup].clone()
            gates_LD[lookup] = 0.0
            worth_L[lookup] += (float(mean_loss(model, batch)) - open_loss) * len(batch)
            gates_LD[lookup] = kept
        seen += len(batch)
    return worth_L / max(seen, 1), size_LD / max(seen, 1)


def _forever(rows: RankingRows, batch_size: int, world: World) -> Iterator[RankingBatch]:
    while True:
        yield from on_device(rows.loader.ordered(VALIDATION, batch_size), world.device)
