"""Has a retrieval model's space collapsed, and why? Without labels beyond the interactions.

Contrastive training can end in vectors that are all similar, or that span a few directions;
the loss still falls and the ranking is poor. Effective rank, alignment and uniformity
(`recsys.metrics.representation`) show it at every validation; `collapse_warning` describes it.

Shape letters: N items, Q queries, E width of their vectors.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from recsys.core.distinct import distinct_codes
from recsys.data.batch import Jagged
from recsys.metrics.representation import alignment, rankme, uniformity

LOW_RANK_SHARE = 0.2
"""Effective rank below this share of what the vectors could have is an alarm. Two-towers that
rank well keep half of it; one direction for each of a few categories stays below a tenth."""
ALIKE = -1.0
"""Uniformity above this is an alarm: by Jensen's inequality it is at least -4 (1 - c) with c the
mean cosine of two items, so it is above -1 wherever c is above 3/4. Vectors spread at random have
nearly -4, two-towers that rank well -1.6 and less."""
SAME_PLACE, MANY_TWINS = 1e-5, 0.5
"""Items of equal features end within rounding of each other, others hardly ever so near, not even
5,000 of them on one circle; half of all is many."""
HIGH_TEMPERATURE = 0.3
"""Above it a softmax over cosines from -1 to 1 barely distinguishes candidates: exp(2 / 0.3) is
800, so that of 1,000 candidates the best possible one gets less than half."""
SMALL_GROUP_SPREAD = 0.1
"""Squared distance within a category as a share of that between any two items."""
FELL_TO = 0.5
"""The effective rank fell if it is below this share of its largest value."""
_MAX_ROWS = 5000


def representation_metrics(
    items_NE: Tensor, query_QE: Tensor, relevant: Jagged, *, temperature: float | None = None
) -> dict[str, float]:
    """Return what can be seen of a space without ranking.

    Args:
        items_NE: (N, E) points of the catalogue, on the unit sphere or inside it, N >= 2.
        query_QE: (Q, E) points, or (Q, I, E): the interest nearest to the relevant item counts.
        relevant: Q rows of the relevant items of each query; a query's first item is its pair.
        temperature: the model's, to be kept with the others.

    Returns:
        "rankme" and "uniformity" of the items; "alignment" of queries with their relevant items,
        where any query has one; "twins", the share of the items with another one at the same place;
        "temperature".
    """
    has_items = relevant.lengths() > 0
    found = {"rankme": rankme(items_NE), "uniformity": uniformity(items_NE)}
    if bool(has_items.any()):
        first = relevant.values[relevant.offsets[:-1][has_items]].to(items_NE.device)
        asked, positive = query_QE[has_items.to(query_QE.device)], items_NE[first]
        if asked.ndim == 3:
            nearest = torch.einsum("qie,qe->qi", asked, positive).argmax(1)
            asked = asked[torch.arange(len(asked), device=asked.device), nearest]
        found["alignment"] = alignment(asked, positive)
    found["twins"] = _twins(items_NE)
    return found if temperature is None else {**found, "temperature": temperature}


def group_spread(items_NE: Tensor, groups: Sequence[str]) -> float | None:
    """Return the mean squared distance of two items of a group over that of any two items.

    About 1 where the groups mean nothing to the vectors, 0 where items of one group share a
    vector; None where all items are in one place or no group has two items.

    Args:
        items_NE: (N, E).
        groups: N names.
    """
    names, code = distinct_codes(np.asarray(groups))
    code_N = torch.from_numpy(code)
    size_G = torch.bincount(code_N, minlength=len(names)).double()
    wide_NE = items_NE.detach().cpu().double()
    sum_GE = torch.zeros(len(names), wide_NE.shape[1], dtype=torch.float64)
    sum_GE.index_add_(0, code_N, wide_NE)
    squares_N = wide_NE.square().sum(1)
    # Over ordered pairs: sum |x - y|^2 = 2 n sum |x|^2 - 2 |sum x|^2.
    squares_G = torch.zeros_like(size_G).index_add_(0, code_N, squares_N)
    inside = float((2 * size_G * squares_G - 2 * sum_GE.square().sum(1)).sum())
    pairs = float((size_G * (size_G - 1)).sum())
    count = len(wide_NE)
    whole = float(2 * count * squares_N.sum() - 2 * sum_GE.sum(0).square().sum())
    if pairs == 0 or whole <= 1e-9 * count * float(squares_N.sum()):
        return None
    return (inside / pairs) / (whole / (count * (count - 1)))


def collapse_warning(
    history: Sequence[Mapping[str, float]],
    dim: int,
    num_items: int,
    *,
    spread: float | None = None,
) -> str | None:
    """Describe that the space has collapsed, with the likeliest cause; None if it has not.

    Args:
        history: logged points, of which those with "validation/rankme" count (or "rankme");
            the last one is checked.
        dim: width of the vectors.
        num_items: size of the catalogue.
        spread: `group_spread` by an attribute of the items, where they have one.
    """
    points = [_plain(point) for point in history]
    points = [point for point in points if "rankme" in point]
    if not points:
        return None
    last, most = points[-1], min(dim, num_items)
    limit = max(LOW_RANK_SHARE * most, min(1.5, 0.5 * most))
    low = last["rankme"] < limit
    alike = last.get("uniformity", -np.inf) > ALIKE
    if not low and not alike:
        return None
    seen = f"the item vectors use {last['rankme']:.1f} of {most} possible dimensions"
    if alike:
        seen += f" and mostly point the same way (uniformity {last['uniformity']:.2f})"
    return f"The representation has collapsed: {seen}. {_cause(points, limit, spread, alike)}"


def _cause(
    points: Sequence[Mapping[str, float]], limit: float, spread: float | None, alike: bool
) -> str:
    """Return the likeliest cause and what to do: what is certain first, what is usual last."""
    last = points[-1]
    peak = max(point["rankme"] for point in points)
    if peak >= limit and last["rankme"] < FELL_TO * peak:
        return (
            f"It was {peak:.1f} before and fell during training: most likely the learning rate is "
            "too high; lower training.learning_rate and embedding.learning_rate."
        )
    if last.get("twins", 0.0) >= MANY_TWINS:
        return (
            f"{last['twins']:.0%} of the items share their place with another: their features do "
            "not distinguish them; give the items a feature that does (their id, a text), or look "
            "whether one that did is null, constant or masked (training.id_dropout)."
        )
    temperature = next((p["temperature"] for p in reversed(points) if "temperature" in p), 0.0)
    if temperature > HIGH_TEMPERATURE:
        return (
            f"The temperature is {temperature:.2f}: too high for the loss to "
            "distinguish candidates; set model.temperature to 0.05 to 0.1."
        )
    if spread is not None and spread < SMALL_GROUP_SPREAD:
        return (
            f"Items of one category are {spread:.0%} as far apart as any two: most likely one "
            "feature alone decides; look at the others, ids above all (null, masked, too few "
            "table rows)."
        )
    if alike:
        return (
            "It was so from the first evaluation on: most likely the learning rate is too high, "
            "or the features of the items hardly differ; lower training.learning_rate, then look "
            "at the features."
        )
    return (
        "It was so from the first evaluation on: most likely few features of the items carry "
        "anything, or the model has hardly learnt yet; look at the features, then raise "
        "training.uniform_negatives or lower model.temperature."
    )


def _plain(point: Mapping[str, float]) -> dict[str, float]:
    return {name.removeprefix("validation/"): value for name, value in point.items()}


def _twins(items_NE: Tensor) -> float:
    """Return the share of the items, of evenly spaced ones above `_MAX_ROWS`, with a twin."""
    count = min(len(items_NE), _MAX_ROWS)
    rows = torch.linspace(0, len(items_NE) - 1, count, dtype=torch.float64).round().long()
    chosen_NE = items_NE.detach()[rows.to(items_NE.device)].double().cpu()
    # Those in one place have one projection onto any line, so they are neighbours in its order.
    line_E = torch.sin(torch.arange(1, chosen_NE.shape[1] + 1, dtype=torch.float64) ** 2)
    chosen_NE = chosen_NE[(chosen_NE @ line_E).argsort()]
    same = (chosen_NE[1:] - chosen_NE[:-1]).norm(dim=1) < SAME_PLACE
    off = torch.zeros(1, dtype=torch.bool)
    return float((torch.cat([same, off]) | torch.cat([off, same])).double().mean())
