"""Which features deserve which multiplicity: the study behind `recsys tune embedding`.

DNIS (`recsys.embeddings.selection`) on a ranker whose features all read `max_lookups` rows. The
weights learn on training batches and the gates on validation batches, in turn. Then each lookup
is closed by itself, and what the validation loss rises by is what the lookup is worth; the best
ones within the budget make the plan. So that the plan is no guess, it is trained anew beside two
that need no search, at equal lookups and table rows: shared out evenly, and by cardinality
(`multiplicity: auto`). The best of the three on the validation rows is recommended.
"""

import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from features.feature_values import block_feature_values
from features.split import TRAIN, VALIDATION
from recsys.batch import FeatureLayout, RankingBatch
from recsys.embeddings.plan import allocate
from recsys.embeddings.selection import (
    GatedEmbedding,
    Selected,
    evenly,
    normalised,
    recommended,
    stepped,
)
from recsys.errors import ConfigError
from recsys.losses.ranking import binary_cross_entropy
from recsys.models.rankers import RANKERS
from training.checkpoint import Checkpoints
from training.config import ExperimentConfig
from training.distributed import World
from training.loop import fit
from training.machine import keep_freed_memory, pick_device
from training.optim import build_optimizer
from training.parts import on_device
from training.ranking_rows import RankingRows, open_rows
from training.ranking_task import build_ranker, ranking_task

GATE_RATE = 0.02
"""Step of the gates, whose gradient has a mean size of 1."""
JUDGED_ROWS = 100_000
"""Validation rows on which a lookup's worth is measured."""
COUNTED_BLOCKS = 32
SEARCHED, BY_CARDINALITY, EVEN = "searched", "by cardinality", "even"
_SPARSE = ("categorical", "multi_categorical", "text")

Say = Callable[[str], None]


@dataclass(frozen=True)
class Trial:
    """A plan that was trained: feature -> lookups, and how it did on the validation rows."""

    plan: dict[str, int]
    auc: float
    log_loss: float


@dataclass(frozen=True)
class Study:
    """What came out; `best` is the name of the best of `trials`, `cardinalities` by feature."""

    lookups: int
    cardinalities: dict[str, int]
    selected: list[Selected]
    trials: dict[str, Trial]
    best: str

    @property
    def plan(self) -> dict[str, int]:
        """The recommended multiplicities."""
        return self.trials[self.best].plan

    def verdict(self) -> str:
        """Return in a sentence what the search was worth."""
        others = [trial.auc for name, trial in self.trials.items() if name != SEARCHED]
        gain = self.trials[SEARCHED].auc - max(others)
        if gain <= 0:
            return f"the search found nothing better than the plan '{self.best}' ({gain:+.4f} AUC)"
        return f"the searched plan is better than both others by {gain:.4f} AUC"

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return {**asdict(self), "plan": self.plan, "verdict": self.verdict()}


def study(
    config: ExperimentConfig,
    *,
    lookups: int | None = None,
    epochs: int = 2,
    max_lookups: int = 4,
    say: Say = lambda line: None,
) -> Study:
    """Search, compare, recommend.

    Args:
        config: the experiment; a ranker.
        lookups: table reads a row for all features searched; None: twice as many as features.
        epochs: of the search, and at most of each training that compares.
        max_lookups: most lookups of a feature.
        say: takes a line of progress at a time.

    Raises:
        ConfigError: the model is no ranker, or the budget does not go with the features.
    """
    if config.model.kind not in RANKERS:
        raise ConfigError(
            f"model.kind: {config.model.kind} is no ranker ({', '.join(RANKERS)}), and only these "
            "are studied: for others, set multiplicity: auto and embedding.lookups"
        )
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
    selected = _search(config, rows, features, budget, epochs, max_lookups, world, say)
    plans = {
        SEARCHED: {one.feature: one.multiplicity for one in selected},
        BY_CARDINALITY: allocate(cardinalities, budget),
        EVEN: evenly(cardinalities, budget),
    }
    trials: dict[str, Trial] = {}
    for name, plan in plans.items():
        known = next((done for done in trials.values() if done.plan == plan), None)
        trials[name] = known or _tried(config, rows, plan, epochs, world)
        say(f"{name}: validation AUC {trials[name].auc:.4f}, log loss {trials[name].log_loss:.4f}")
    # Of equals the plan that needs no search.
    best = max((EVEN, BY_CARDINALITY, SEARCHED), key=lambda name: trials[name].auc)
    return Study(budget, cardinalities, selected, trials, best)


def searched_features(config: ExperimentConfig, layout: FeatureLayout) -> list[str]:
    """Return the features whose multiplicity can be chosen freely, in the layout's order."""
    free = {feature.name for feature in config.schema_.features if feature.kind in _SPARSE}
    return [name for name, _ in layout.features if name in free]


def with_lookups(rows: RankingRows, plan: Mapping[str, int]) -> RankingRows:
    """Return the same rows for a model that reads `plan`: encoding knows no multiplicity."""
    old = rows.layout
    single, multi = (
        tuple((name, plan.get(name, m)) for name, m in pairs) for pairs in (old.single, old.multi)
    )
    return replace(rows, layout=replace(old, single=single, multi=multi))


def _cardinalities(rows: RankingRows, features: list[str]) -> dict[str, int]:
    batches = islice(rows.loader.ordered(TRAIN, 65_536), COUNTED_BLOCKS)
    found = block_feature_values(rows.layout, (batch.features for batch in batches))
    counts = {one.name: len(one.values) for one in found}
    return {name: counts[name] for name in features}


def _tried(
    config: ExperimentConfig,
    rows: RankingRows,
    plan: dict[str, int],
    epochs: int,
    world: World,
) -> Trial:
    """Train `plan` as `recsys train` would; return how the best epoch did."""
    training = config.training.model_copy(update={"epochs": epochs, "patience": epochs})
    task = ranking_task(
        config.model_copy(update={"training": training}), with_lookups(rows, plan), world
    )
    with tempfile.TemporaryDirectory(prefix="recsys-study-") as folder:
        state = fit(task, training, Checkpoints(Path(folder)))
    points = [p for p in state.history if p["step"] == state.best_step and "validation/auc" in p]
    return Trial(plan, points[-1]["validation/auc"], points[-1]["validation/log_loss"])


def _search(
    config: ExperimentConfig,
    rows: RankingRows,
    features: list[str],
    budget: int,
    epochs: int,
    max_lookups: int,
    world: World,
    say: Say,
) -> list[Selected]:
    wide = with_lookups(rows, dict.fromkeys(features, max_lookups))
    model: Any = build_ranker(config, wide, world)
    gated = model.embedding = GatedEmbedding(model.embedding)
    learn(model, wide, config, epochs, world, say)
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
    config: ExperimentConfig,
    epochs: int,
    world: World,
    say: Say = lambda line: None,
) -> None:
    """Train weights on training batches and gates on validation batches, in turn."""
    training = config.training
    optimizer = build_optimizer(
        model, learning_rate=training.learning_rate, weight_decay=training.weight_decay
    )
    validation = _forever(rows, training.batch_size, world)
    for epoch in range(epochs):
        for step, batch in enumerate(on_device(rows.loader.epoch(epoch), world.device)):
            torch.manual_seed(training.seed * 1_000_003 + epoch * rows.loader.num_steps + step)
            model.train()
            optimizer.zero_grad(set_to_none=True)
            mean_loss(model, batch).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), training.clip_norm)
            optimizer.step()
            step_gates(model, next(validation))
        closed = float((model.embedding.selection.gates_LD < 0.5).float().mean())
        say(f"search: epoch {epoch + 1} of {epochs}, {closed:.0%} of the gates are half closed")


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
    """Return the weighted mean of the cross-entropy, a scalar in nats."""
    losses_B = binary_cross_entropy(model(batch.features), batch.label) * batch.weight
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
    for batch in islice(batches, max(1, JUDGED_ROWS // batch_size)):
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
