"""What became of a shared table: who reads which rows, who meets whom, what was learnt there.

The two kinds of collision are those of Coleman et al. 2023, section 3: *intra*-feature, two
values of one feature in one row, which the model cannot distinguish by that lookup, and
*inter*-feature, rows that several features read, which it can learn to distinguish by where they
come out. Section 4 argues that a row is the sum of components, one a feature that reads it, and
that training turns these to be orthogonal; `FeatureDiagnosis.overlap` measures whether they are,
from the table alone.

Shape letters: V values of a feature, M lookups of it, R rows of the table, S sampled rows, D
width of a row, F features.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import expm1, isfinite, log1p

import torch
from torch import Tensor

from recsys.embeddings.plan import EmbeddingPlan
from recsys.metrics.representation import rankme

BUCKETS = ((1, 1), (2, 9), (10, 99), (100, 999), (1000, None))
"""How often a value occurs in training, from and to."""
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
    """One feature in the table; shares are in [0, 1], those of collisions a mean over lookups.

    intra: share of values that meet another of the same feature; `expected_intra` by chance.
    indistinguishable: share of values that meet one other value in *every* lookup, so that no
    model can distinguish them; `expected_indistinguishable` by chance.
    inter: share of values whose row another feature reads too; `expected_inter` by chance;
    `inter_traffic` the same, each value as often as it was seen.
    effective_rank: exp of the entropy of the singular values of the vectors of the 4096 most
    frequent values, from 1 to `width`.
    nearest, overlap: the feature whose component is closest, and how much of the smaller
    component is within the larger one, the mean squared cosine of their principal angles: 0
    orthogonal, 1 contained. `random_overlap` is that of two random subspaces of these sizes.
    Only features of the same rows are compared; without one, `nearest` is empty.

    The component of a feature is spanned by the fewest directions that hold 90 % of the variance
    of the rows its frequent values read, each row weighing the share of its reads that are this
    feature's. Where all features read the same rows equally often, that cannot distinguish them
    and the overlap is 1.
    """

    name: str
    cardinality: int
    multiplicity: int
    width: int
    intra: float
    expected_intra: float
    indistinguishable: float
    expected_indistinguishable: float
    inter: float
    expected_inter: float
    inter_traffic: float
    effective_rank: float
    nearest: str
    overlap: float
    random_overlap: float


@dataclass(frozen=True)
class NormBucket:
    """The values of all features seen `low` to `high` times; NaN where there are none.

    norm: mean L2 norm of a value's whole vector. lookup_norm: that of its vector divided by
    sqrt(M), which does not grow with the number of lookups and so compares between features.
    """

    low: int
    high: int | None
    num_values: int
    norm: float
    lookup_norm: float


@dataclass(frozen=True)
class Diagnosis:
    """The table after a training.

    rows_used: share of the rows that any value reads. load_factor: (feature, value, lookup)
    triples a row. overlap, random_overlap: means over all pairs of features that share rows, NaN
    without one; that of the nearest feature alone is the largest of many and so above chance.
    """

    num_rows: int
    rows_used: float
    load_factor: float
    overlap: float
    random_overlap: float
    features: tuple[FeatureDiagnosis, ...]
    norms: tuple[NormBucket, ...]

    def metrics(self) -> dict[str, float]:
        """Return the main figures as name -> value, for a tracker; only finite ones.

        Of a feature's name, what MLflow refuses becomes "_".
        """
        names = ("rows_used", "load_factor", "overlap", "random_overlap")
        found = {name: getattr(self, name) for name in names}
        for one in self.features:
            name = re.sub(r"[^A-Za-z0-9_\-. :/]", "_", one.name)
            found[f"intra_collisions/{name}"] = one.intra
            found[f"inter_collisions/{name}"] = one.inter
            found[f"indistinguishable/{name}"] = one.indistinguishable
            found[f"effective_rank/{name}"] = one.effective_rank
            if one.nearest:
                found[f"overlap/{name}"] = one.overlap
                found[f"random_overlap/{name}"] = one.random_overlap
        for bucket in self.norms:
            found[f"norm_from_{bucket.low}"] = bucket.norm
            found[f"lookup_norm_from_{bucket.low}"] = bucket.lookup_norm
        return {f"embedding/{name}": value for name, value in found.items() if isfinite(value)}


@torch.no_grad()
def diagnose(plan: EmbeddingPlan, features: Sequence[FeatureValues], weight: Tensor) -> Diagnosis:
    """Return what `features` do in a table.

    Args:
        plan: which rows they read.
        features: those of the plan with their training values; others are left out, as are
            features without a value.
        weight: (total_rows, dim) of the trained table, on any device.
    """
    known = dict(plan.features)
    reads = [_Read.of(plan, one) for one in features if one.name in known and len(one.values)]
    readers, shares = _readers(reads, plan.total_rows)
    components = [_component(weight, *sample) for sample in shares]
    overlap_FF, chance_FF = _overlaps(reads, components, plan.dim)
    is_pair_FF = overlap_FF.isfinite()
    scratch = torch.zeros(plan.total_rows, dtype=torch.int32)
    return Diagnosis(
        num_rows=plan.total_rows,
        rows_used=float((readers > 0).double().mean()),
        load_factor=sum(read.rows.numel() for read in reads) / plan.total_rows,
        overlap=float(overlap_FF[is_pair_FF].mean()),
        random_overlap=float(chance_FF[is_pair_FF].mean()),
        features=tuple(
            _diagnose(read, reads, readers, scratch, weight, _nearest(reads, overlaps, chances))
            for read, overlaps, chances in zip(reads, overlap_FF, chance_FF, strict=True)
        ),
        norms=_norms(reads, weight),
    )


@dataclass(frozen=True, eq=False)
class _Read:
    """What one feature reads: rows (V, M) of the `num_rows` from `first` on; counts (V,)."""

    name: str
    rows: Tensor
    counts: Tensor
    first: int
    num_rows: int

    @classmethod
    def of(cls, plan: EmbeddingPlan, one: FeatureValues) -> "_Read":
        rows = plan.rows_of(one.name, one.values.cpu())
        return cls(one.name, rows, one.counts.cpu(), *plan.range_of(one.name))

    def frequent(self) -> Tensor:
        """Return the rows of the most frequent values, (at most 4096, M)."""
        if len(self.rows) <= _SAMPLE:
            return self.rows
        return self.rows[self.counts.topk(_SAMPLE).indices]

    def traffic(self) -> Tensor:
        """Return how often each row is read by this feature, (V * M,) as the flat rows."""
        return self.counts.double().repeat_interleave(self.rows.shape[1])


def _readers(reads: Sequence[_Read], total_rows: int) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
    """Return by how many features each row is read, and which share of reads is a feature's.

    The first is (R,) int32, the second for each feature: rows of its frequent values (S,), and
    which share of all reads of these rows is its own (S,).
    """
    readers = torch.zeros(total_rows, dtype=torch.int32)
    traffic = torch.zeros(total_rows, dtype=torch.float64)
    sampled = []
    for read in reads:
        rows, rows_S = read.rows.flatten(), read.frequent().unique()
        seen = torch.zeros(total_rows, dtype=torch.bool)
        seen[rows] = True
        readers += seen
        before_S = traffic[rows_S]
        traffic.index_add_(0, rows, read.traffic())
        sampled.append((rows_S, traffic[rows_S] - before_S))
    return readers, [(rows, own / traffic[rows].clamp(min=1)) for rows, own in sampled]


def _diagnose(
    read: _Read,
    reads: Sequence[_Read],
    readers: Tensor,
    scratch: Tensor,
    weight: Tensor,
    nearest: tuple[str, float, float],
) -> FeatureDiagnosis:
    rows_VM, counts = read.rows, read.counts.double()
    cardinality, multiplicity = rows_VM.shape
    shared_V = (readers > 1)[rows_VM].double().mean(1)
    others = sum(other.rows.numel() for other in reads if _share(read, other))
    return FeatureDiagnosis(
        name=read.name,
        cardinality=cardinality,
        multiplicity=multiplicity,
        width=multiplicity * weight.shape[1],
        intra=_meeting(rows_VM, scratch),
        expected_intra=_chance(1 / read.num_rows, cardinality - 1),
        indistinguishable=_indistinguishable(rows_VM),
        expected_indistinguishable=_chance(read.num_rows**-multiplicity, cardinality - 1),
        inter=float(shared_V.mean()),
        expected_inter=_chance(1 / read.num_rows, others),
        inter_traffic=float((shared_V * counts).sum() / counts.sum().clamp(min=1)),
        effective_rank=rankme(weight[read.frequent()].flatten(1)),
        nearest=nearest[0],
        overlap=nearest[1],
        random_overlap=nearest[2],
    )


def _chance(probability: float, tries: int) -> float:
    """Return the chance that one of `tries` independent tries hits: 1 - (1 - p)^n."""
    if probability >= 1:
        return float(tries > 0)
    return -expm1(tries * log1p(-probability))


def _share(read: _Read, other: _Read) -> bool:
    """Return whether two features are not the same, but read the same range of rows."""
    return read is not other and read.first == other.first


def _meeting(rows_VM: Tensor, scratch: Tensor) -> float:
    """Return which share of values meets another one, a mean over lookups; scratch (R,) zeros."""
    meeting = 0
    one = torch.ones(len(rows_VM), dtype=scratch.dtype)
    for rows in rows_VM.T:
        scratch.index_add_(0, rows, one)
        meeting += int((scratch[rows] > 1).sum())
        scratch[rows] = 0
    return meeting / rows_VM.numel()


def _indistinguishable(rows_VM: Tensor) -> float:
    """Return which share of values shares all its rows with another one."""
    # One number for all rows of a value: other rows give another one, but for one in 2^64.
    keys = torch.zeros(len(rows_VM), dtype=torch.int64)
    for rows in rows_VM.T:
        keys = (keys ^ rows) * 0x5851F42D4C957F2D + 0x14057B7EF767814F
    _, counts = keys.unique(return_counts=True)
    return float(counts[counts > 1].sum()) / len(keys)


def _component(weight: Tensor, rows_S: Tensor, share_S: Tensor) -> Tensor:
    """Return an orthonormal basis (D, k) of a feature's component; k = 0 where nothing varies."""
    share_S1 = share_S.unsqueeze(1)
    vectors_SD = weight[rows_S].cpu().double()
    vectors_SD -= (vectors_SD * share_S1).sum(0) / share_S1.sum().clamp(min=1e-12)
    variances, directions = torch.linalg.eigh(vectors_SD.T @ (vectors_SD * share_S1))
    variances, directions = variances.flip(0).clamp(min=0), directions.flip(1)
    held = variances.cumsum(0) / variances.sum().clamp(min=1e-30)
    k = int((held < _VARIANCE).sum()) + 1 if float(variances.sum()) > 1e-30 else 0
    return directions[:, :k]


def _overlaps(reads: Sequence[_Read], bases: Sequence[Tensor], dim: int) -> tuple[Tensor, Tensor]:
    """Return the overlap of each two components, and that of random ones, (F, F) float64.

    NaN where there is nothing to compare: a feature and itself, features without shared rows,
    a component without a direction.
    """
    if not reads:
        return torch.zeros(0, 0), torch.zeros(0, 0)
    # |A' B|^2 of two orthonormal bases is the inner product of their projections AA' and BB'.
    projections_FE = torch.stack([(basis @ basis.T).flatten() for basis in bases])
    sizes = torch.tensor([basis.shape[1] for basis in bases], dtype=torch.float64)
    first, second = sizes.unsqueeze(1), sizes.unsqueeze(0)
    is_pair = torch.tensor([[_share(read, other) for other in reads] for read in reads])
    is_pair &= (first > 0) & (second > 0)
    overlap_FF = (projections_FE @ projections_FE.T / torch.minimum(first, second)).clamp(0, 1)
    chance_FF = torch.maximum(first, second) / dim
    nan = torch.tensor(torch.nan, dtype=torch.float64)
    return torch.where(is_pair, overlap_FF, nan), torch.where(is_pair, chance_FF, nan)


def _nearest(
    reads: Sequence[_Read], overlaps_F: Tensor, chances_F: Tensor
) -> tuple[str, float, float]:
    """Return the feature that overlaps most beyond chance, the overlap, the chance."""
    excess_F = (overlaps_F - chances_F).nan_to_num(-torch.inf)
    best = int(excess_F.argmax())
    if not excess_F[best].isfinite():
        return "", 0.0, 0.0
    return reads[best].name, float(overlaps_F[best]), float(chances_F[best])


def _norms(reads: Sequence[_Read], weight: Tensor) -> tuple[NormBucket, ...]:
    sums = torch.zeros(len(BUCKETS), 2, dtype=torch.float64)
    sizes = torch.zeros(len(BUCKETS), dtype=torch.int64)
    starts = torch.tensor([low for low, _ in BUCKETS])
    square_R = torch.linalg.vector_norm(weight, dim=1).cpu().square()
    for read in reads:
        norm_V = square_R[read.rows].sum(1).sqrt().double()
        lookup_norm_V = norm_V / read.rows.shape[1] ** 0.5
        bucket_V = torch.bucketize(read.counts.clamp(min=1), starts, right=True) - 1
        sums.index_add_(0, bucket_V, torch.stack([norm_V, lookup_norm_V], dim=1))
        sizes += bucket_V.bincount(minlength=len(BUCKETS))
    means = (sums / sizes.unsqueeze(1)).tolist()  # 0 / 0 is NaN
    return tuple(
        NormBucket(low, high, count, *mean)
        for (low, high), count, mean in zip(BUCKETS, sizes.tolist(), means, strict=True)
    )
