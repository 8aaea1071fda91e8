"""What the answers of a ranker hang on, field by field and pair by pair, for any ranker.

A field is one feature at AutoInt's input (`recsys.embeddings.fields`): all columns of it change
together, the null indicator among them. What was derived from several, a cross, is a field of its
own and stays when one of them changes. Every function asks the model alone: fields of rows are
exchanged for those of other rows, the *donors*, and the logits compared.

    permutation_importance   what AUC and log loss lose when a field is permuted over the rows:
                             Breiman, "Random Forests", Machine Learning 45, 2001, section 10,
                             https://doi.org/10.1023/A:1010933404324
    pair_interactions        how much of the logit two fields make jointly, beyond what each makes:
                             the superset importance of Liu and Owen, "Estimating Mean
                             Dimensionality of ANOVA Decompositions", JASA 101, 2006
    contributions            of one row: what its logit would be had a field been another row's
    row_interactions         of one row: what two of its values add together beyond what each adds

Exchanged rows may be such as never occur (another user's age with this user's id): where fields
say the same, each looks less important than both are, and the model is asked where it was not
trained. That is so for every method of this family; importances are of the model, not of the world.

Shape letters: N rows, F fields, R repeats, P pairs, M donors.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys.data.batch import FeatureBlock, FeatureLayout
from recsys.embeddings.fields import dense_features
from recsys.metrics.classification import auc, log_loss

Score = Callable[[FeatureBlock], Tensor]
"""Logits (N,) of a block of N rows, without gradients, each independent of the other rows."""

Floats = NDArray[np.float64]
Probability = Callable[[Floats], Floats]
"""What makes probabilities of logits, of any shape."""
Pair = tuple[str, str]


def _logistic(logits: Floats) -> Floats:
    from scipy.special import expit

    probabilities: Floats = expit(logits)
    return probabilities


def field_names(layout: FeatureLayout) -> tuple[str, ...]:
    """Return the names of the fields of a block: sparse features first, then dense."""
    sparse = tuple(name for name, _ in layout.features)
    return sparse + tuple(name for name, _ in dense_features(layout.dense))


def exchanged(
    features: FeatureBlock, layout: FeatureLayout, names: Collection[str], donors: FeatureBlock
) -> FeatureBlock:
    """Return `features` with all columns of the fields `names` taken from `donors`, row by row.

    Raises:
        ValueError: a field that is not in `layout`, or another number of rows.
    """
    unknown = sorted(set(names) - set(field_names(layout)))
    if unknown or len(features) != len(donors):
        raise ValueError(
            f"{len(donors)} donors for {len(features)} rows; fields not in the layout: {unknown}"
        )
    device = features.single.device
    single = [name in names for name, _ in layout.single]
    dense = [name in names for name, count in dense_features(layout.dense) for _ in range(count)]
    jagged = zip(layout.multi, features.multi, donors.multi, strict=True)
    return FeatureBlock(
        torch.where(_mask(single, device), donors.single, features.single),
        tuple(theirs if name in names else own for (name, _), own, theirs in jagged),
        torch.where(_mask(dense, device), donors.dense, features.dense),
    )


@dataclass(frozen=True)
class Importance:
    """What it costs a ranker to lose each of its fields.

    names: F fields. auc, log_loss: of the rows as they are. auc_falls, log_loss_rises (R, F): how
    much worse they are with the field permuted, a row a permutation.
    """

    names: tuple[str, ...]
    auc: float
    log_loss: float
    auc_falls: Floats
    log_loss_rises: Floats

    @property
    def auc_fall(self) -> Floats:
        """Mean over the permutations, (F,)."""
        return self.auc_falls.mean(0)

    @property
    def auc_deviation(self) -> Floats:
        """Standard deviation over the permutations, (F,); 0 where there is one."""
        return self.auc_falls.std(0, ddof=min(1, len(self.auc_falls) - 1))

    @property
    def log_loss_rise(self) -> Floats:
        """Mean over the permutations, (F,)."""
        return self.log_loss_rises.mean(0)

    @property
    def ranking(self) -> tuple[str, ...]:
        """Fields, the most important first: by AUC, by log loss where all labels are the same."""
        key = self.log_loss_rise if np.isnan(self.auc) else self.auc_fall
        return tuple(self.names[field] for field in np.argsort(-key, kind="stable"))


def permutation_importance(
    score: Score,
    layout: FeatureLayout,
    features: FeatureBlock,
    label: Floats | NDArray[np.float32],
    weight: Floats | NDArray[np.float32] | None = None,
    *,
    repeats: int = 5,
    seed: int = 0,
    probability: Probability = _logistic,
) -> Importance:
    """Return how much worse the rows are ranked with one field permuted over them.

    Args:
        score: the ranker.
        layout: of `features`.
        features: N rows; F * repeats + 1 times as many are scored.
        label: (N,) 0 or 1.
        weight: (N,) of the rows in both metrics; None: all the same.
        repeats: permutations, the same ones for every field.
        seed: of the permutations.
        probability: of the logits, for log loss.
    """
    names = field_names(layout)

    def evaluated(rows: FeatureBlock) -> tuple[float, float]:
        logit = score(rows).double().cpu().numpy()
        return auc(logit, label, weight), log_loss(probability(logit), label, weight)

    whole = np.array(evaluated(features))
    worse = np.empty((repeats, len(names), 2))
    for repeat, order in enumerate(_orders(len(features), repeats, seed)):
        donors = features.take(order.to(features.single.device))
        for place, name in enumerate(names):
            worse[repeat, place] = evaluated(exchanged(features, layout, (name,), donors))
    falls, rises = whole[0] - worse[:, :, 0], worse[:, :, 1] - whole[1]
    return Importance(names, float(whole[0]), float(whole[1]), falls, rises)


@dataclass(frozen=True)
class Interactions:
    """Pairs of fields with the logits they make jointly: pairs and logits, P each."""

    pairs: tuple[Pair, ...]
    logits: Floats

    def strongest(self, count: int) -> list[tuple[Pair, float]]:
        """Return the `count` pairs that are furthest from zero, the strongest first."""
        order = np.argsort(-np.abs(self.logits), kind="stable")[:count]
        return [(self.pairs[place], float(self.logits[place])) for place in order]


def pair_interactions(
    score: Score,
    layout: FeatureLayout,
    features: FeatureBlock,
    names: Sequence[str],
    *,
    seed: int = 0,
) -> Interactions:
    """Return how much of the logit each two of the fields `names` make jointly.

    With z a donor of x and x[i] the row x with field i from z, the second difference

        d = f(x) - f(x[i]) - f(x[j]) + f(x[ij])

    is zero for every x and z exactly if the logit f is a sum of a part without i and a part
    without j. Returned is sqrt(mean(d^2)) / 2: for independent fields the standard deviation of
    all terms of f that hold both i and j, alone or with others, so a product of three fields
    counts for each of its three pairs. Main effects do not count, however strong.

    1 + F + P times N rows are scored, P the pairs of F fields.

    Args:
        score: the ranker.
        layout: of `features`.
        features: N rows; their donors are the same rows in another order. All weigh the same.
        names: F fields.
        seed: of the order.
    """
    (order,) = _orders(len(features), 1, seed)
    donors = features.take(order.to(features.single.device))
    found = _second_differences(score, layout, features, donors, names)
    logits = [float(difference.square().mean().sqrt()) / 2 for difference in found.values()]
    return Interactions(tuple(found), np.array(logits))


@dataclass(frozen=True)
class Contributions:
    """What the values of one row's F fields do to its logit.

    logit, probability: of the row. change (F,): its logit less the mean logit with the field from
    another row, above 0 where the value supports label 1. error (F,): standard error of `change`
    over the donors. otherwise (F,): the mean probability with the field from another row.
    """

    names: tuple[str, ...]
    logit: float
    probability: float
    change: Floats
    error: Floats
    otherwise: Floats


def contributions(
    score: Score,
    layout: FeatureLayout,
    row: FeatureBlock,
    background: FeatureBlock,
    probability: Probability = _logistic,
) -> Contributions:
    """Return how the answer to a row changes when one field at a time is another row's.

    A logit that is linear in a field gives its weight times the distance from the background's
    mean. Changes add up to the logit's distance from its mean only where nothing interacts.

    Args:
        score: the ranker.
        layout: of both blocks.
        row: one row.
        background: M rows, at least 2, that the fields are drawn from.
        probability: of the logits.
    """
    names = field_names(layout)
    rows = _repeated(row, background)
    logit_1 = score(row).double().cpu().numpy()
    other_FM = np.stack(
        [
            score(exchanged(rows, layout, (name,), background)).double().cpu().numpy()
            for name in names
        ]
    )
    return Contributions(
        names,
        float(logit_1[0]),
        float(probability(logit_1)[0]),
        logit_1 - other_FM.mean(1),
        other_FM.std(1, ddof=1) / len(background) ** 0.5,
        probability(other_FM).mean(1),
    )


def row_interactions(
    score: Score,
    layout: FeatureLayout,
    row: FeatureBlock,
    background: FeatureBlock,
    names: Sequence[str],
) -> Interactions:
    """Return what each two values of a row add to its logit together, beyond what each adds.

    The mean over the background of the second difference of `pair_interactions`: above 0 where
    the two values together support label 1 more than they do one by one.
    """
    rows = _repeated(row, background)
    found = _second_differences(score, layout, rows, background, names)
    return Interactions(
        tuple(found), np.array([float(difference.mean()) for difference in found.values()])
    )


@dataclass(frozen=True)
class Agreement:
    """Spearman's rank correlation of two orders of `count` things.

    correlation: 1 the same order, 0 no relation, -1 the reverse; NaN where one of the two orders
    nothing. chance: its standard deviation for unrelated orders without ties, 1 / sqrt(count - 1).
    """

    correlation: float
    chance: float
    count: int


def agreement(first: Floats, second: Floats) -> Agreement:
    """Return how far two scores of the same things, (K,) each, put them into the same order."""
    from scipy.stats import spearmanr

    count = len(first)
    ordered = count > 1 and np.ptp(first) > 0 and np.ptp(second) > 0
    correlation = float(spearmanr(first, second).statistic) if ordered else float("nan")
    return Agreement(correlation, (count - 1) ** -0.5 if count > 1 else float("nan"), count)


def _second_differences(
    score: Score,
    layout: FeatureLayout,
    features: FeatureBlock,
    donors: FeatureBlock,
    names: Sequence[str],
) -> dict[Pair, Tensor]:
    """Return the second difference of every row, (N,) float64, for each two of `names`."""

    def scored(fields: tuple[str, ...]) -> Tensor:
        return score(exchanged(features, layout, fields, donors)).double()

    whole, alone = scored(()), {name: scored((name,)) for name in names}
    return {(i, j): whole - alone[i] - alone[j] + scored((i, j)) for i, j in combinations(names, 2)}


def _repeated(row: FeatureBlock, background: FeatureBlock) -> FeatureBlock:
    if len(row) != 1 or len(background) < 2:
        raise ValueError(
            f"one row and a background of at least two, got {len(row)} and {len(background)}"
        )
    return row.take(torch.zeros(len(background), dtype=torch.int64, device=row.single.device))


def _orders(count: int, repeats: int, seed: int) -> list[Tensor]:
    rng = np.random.default_rng(seed)
    return [torch.from_numpy(rng.permutation(count)) for _ in range(repeats)]


def _mask(chosen: list[bool], device: torch.device) -> Tensor:
    return torch.tensor(chosen, dtype=torch.bool, device=device)
