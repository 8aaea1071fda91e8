"""What became of a shared table: who reads which rows, who meets whom, what was learnt there.

The two kinds of collision are those of Coleman et al. 2023, section 3: *intra*-feature, two
values of one feature in one row, which the model cannot tell apart by that lookup, and
*inter*-feature, rows that several features read, which it can learn to tell apart by where they
come out. Section 4 argues that the shared space then splits into components, one a feature;
`FeatureDiagnosis.overlap` measures that.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from recsys.embeddings.plan import EmbeddingPlan
from recsys.metrics.representation import rankme

BUCKETS = ((1, 1), (2, 9), (10, 99), (100, 999), (1000, None))
"""How often a value stands in training, from and to."""
_SAMPLE = 4096
_VARIANCE = 0.9


@dataclass(frozen=True, eq=False)
class FeatureValues:
    """The distinct value hashes (V,) int64 of a feature, and how often each was seen (V,) int64."""

    name: str
    values: Tensor
    counts: Tensor


@dataclass(frozen=True)
class FeatureDiagnosis:
    """One feature in the table; shares are of its (value, lookup) pairs, in [0, 1].

    intra: share that meets another value of the same feature; `expected_intra` by chance.
    indistinguishable: share of values that meet one other value in *every* lookup.
    inter: share whose row another feature reads too; `expected_inter` by chance; `inter_traffic`
    the same, weighted by how often each value was seen.
    effective_rank: exp of the entropy of the singular values of its vectors, 1 to `width`.
    nearest, overlap: the feature whose component lies closest, and how much of the smaller
    component lies within the larger one: 0 orthogonal, 1 contained. A component is spanned by
    the directions that hold 90 % of the variance of the feature's rows. `random_overlap` is
    what two random subspaces of these sizes share.
    """

    name: str
    cardinality: int
    multiplicity: int
    width: int
    intra: float
    expected_intra: float
    indistinguishable: float
    inter: float
    expected_inter: float
    inter_traffic: float
    effective_rank: float
    nearest: str
    overlap: float
    random_overlap: float


@dataclass(frozen=True)
class Diagnosis:
    """The table after a training.

    rows_used: share of the rows that any value reads. load_factor: (feature, value, lookup)
    triples a row. norms: (from, to, values, mean L2 norm of their vectors) by frequency.
    """

    num_rows: int
    rows_used: float
    load_factor: float
    features: tuple[FeatureDiagnosis, ...]
    norms: tuple[tuple[int, int | None, int, float], ...]

    def metrics(self) -> dict[str, float]:
        """Return the main figures as name -> value, for a tracker."""
        found = {
            "embedding/rows_used": self.rows_used,
            "embedding/load_factor": self.load_factor,
        }
        for one in self.features:
            found[f"embedding/{one.name}/intra_collisions"] = one.intra
            found[f"embedding/{one.name}/inter_collisions"] = one.inter
            found[f"embedding/{one.name}/effective_rank"] = one.effective_rank
            found[f"embedding/{one.name}/overlap"] = one.overlap
        for low, _, values, norm in self.norms:
            if values:
                found[f"embedding/norm_from_{low}"] = norm
        return {name: value for name, value in found.items() if value == value}  # no NaN


@torch.no_grad()
def diagnose(plan: EmbeddingPlan, features: Sequence[FeatureValues], weight: Tensor) -> Diagnosis:
    """Return what `features` do in a table.

    Args:
        plan: which rows they read.
        features: those of the plan with their training values; others are left out.
        weight: (total_rows, dim) of the trained table.
    """
    known = dict(plan.features)
    present = [one for one in features if one.name in known and len(one.values)]
    rows = {one.name: plan.rows_of(one.name, one.values) for one in present}
    readers = torch.zeros(plan.total_rows, dtype=torch.int32)
    for read in rows.values():
        readers[read.flatten().unique()] += 1
    components = {one.name: _component(weight, rows[one.name], one) for one in present}
    triples = sum(read.numel() for read in rows.values())
    return Diagnosis(
        num_rows=plan.total_rows,
        rows_used=float((readers > 0).float().mean()),
        load_factor=triples / plan.total_rows,
        features=tuple(
            _diagnose(plan, one, rows[one.name], readers, present, components, weight)
            for one in present
        ),
        norms=_norms(present, rows, weight),
    )


def _diagnose(
    plan: EmbeddingPlan,
    one: FeatureValues,
    rows_VM: Tensor,
    readers: Tensor,
    present: Sequence[FeatureValues],
    components: dict[str, Tensor],
    weight: Tensor,
) -> FeatureDiagnosis:
    count, multiplicity = rows_VM.shape
    _, num_rows = plan.range_of(one.name)
    met = torch.stack([_repeated(column) for column in rows_VM.T], dim=1).float()
    shared = (readers[rows_VM] > 1).float()
    traffic = one.counts.float().unsqueeze(1).expand_as(shared)
    nearest, overlap, chance = _nearest(one.name, components, plan.dim)
    width = multiplicity * plan.dim
    return FeatureDiagnosis(
        name=one.name,
        cardinality=count,
        multiplicity=multiplicity,
        width=width,
        intra=float(met.mean()),
        expected_intra=1 - (1 - 1 / num_rows) ** (count - 1),
        indistinguishable=float(_repeated(_fingerprint(rows_VM)).float().mean()),
        inter=float(shared.mean()),
        expected_inter=_expected_inter(plan, one, present),
        inter_traffic=float((shared * traffic).sum() / traffic.sum().clamp(min=1)),
        effective_rank=_effective_rank(weight, _most_frequent(rows_VM, one.counts)),
        nearest=nearest,
        overlap=overlap,
        random_overlap=chance,
    )


def _repeated(keys: Tensor) -> Tensor:
    """Return which of the keys (V,) stand there more than once, (V,) bool."""
    _, inverse, counts = keys.unique(return_inverse=True, return_counts=True)
    return counts[inverse] > 1


def _fingerprint(rows_VM: Tensor) -> Tensor:
    """Return one int64 for all rows of a value; unlike rows give unlike numbers, nearly surely."""
    mixed = torch.zeros(len(rows_VM), dtype=torch.int64)
    for column in rows_VM.T:
        mixed = (mixed ^ column) * 0x5851F42D4C957F2D + 0x14057B7EF767814F
    return mixed


def _expected_inter(
    plan: EmbeddingPlan, one: FeatureValues, present: Sequence[FeatureValues]
) -> float:
    """Chance that a row of this feature is read by any other of the same range of rows."""
    lookups, own = dict(plan.features), plan.range_of(one.name)
    free = 1.0
    for other in present:
        if other.name != one.name and plan.range_of(other.name) == own:
            free *= (1 - 1 / own[1]) ** (len(other.values) * lookups[other.name])
    return 1 - free


def _most_frequent(rows_VM: Tensor, counts: Tensor) -> Tensor:
    if len(rows_VM) <= _SAMPLE:
        return rows_VM
    return rows_VM[counts.topk(_SAMPLE).indices]


def _effective_rank(weight: Tensor, rows_VM: Tensor) -> float:
    if len(rows_VM) < 2:
        return 1.0
    return float(rankme(weight[rows_VM].flatten(1)))


def _component(weight: Tensor, rows_VM: Tensor, one: FeatureValues) -> Tensor:
    """Return an orthonormal basis (dim, k) of the directions that hold most of the variance."""
    vectors = weight[_most_frequent(rows_VM, one.counts).flatten()].double()
    _, sizes, directions = torch.linalg.svd(vectors - vectors.mean(0), full_matrices=False)
    share = sizes.square().cumsum(0) / sizes.square().sum().clamp(min=1e-30)
    k = int((share < _VARIANCE).sum()) + 1
    return directions[:k].T


def _nearest(name: str, components: dict[str, Tensor], dim: int) -> tuple[str, float, float]:
    """Return the feature whose component overlaps most beyond chance, the overlap, the chance."""
    own = components[name]
    found = [("", 0.0, 0.0)]
    for other, basis in components.items():
        if other == name:
            continue
        small = min(own.shape[1], basis.shape[1])
        overlap = float((own.T @ basis).square().sum()) / small
        found.append((other, overlap, max(own.shape[1], basis.shape[1]) / dim))
    return max(found[1:] or found, key=lambda one: one[1] - one[2])


def _norms(
    present: Sequence[FeatureValues], rows: dict[str, Tensor], weight: Tensor
) -> tuple[tuple[int, int | None, int, float], ...]:
    total = torch.zeros(len(BUCKETS), dtype=torch.float64)
    values = torch.zeros(len(BUCKETS), dtype=torch.int64)
    starts = torch.tensor([low for low, _ in BUCKETS])
    for one in present:
        for chunk in torch.arange(len(one.values)).split(262_144):
            norm = weight[rows[one.name][chunk]].flatten(1).norm(dim=1).double()
            bucket = torch.bucketize(one.counts[chunk].clamp(min=1), starts, right=True) - 1
            total.index_add_(0, bucket, norm)
            values.index_add_(0, bucket, torch.ones_like(bucket))
    return tuple(
        (low, high, int(count), float(norm / count) if count else float("nan"))
        for (low, high), norm, count in zip(BUCKETS, total, values, strict=True)
    )
