"""What the unified embedding is compared with, as rows of one fused table each.

Coleman et al., "Unified Embedding: Battle-Tested Feature Representations for Web-Scale ML
Systems", NeurIPS 2023, https://arxiv.org/abs/2305.12102, section 5, asks which embedding predicts
best at a given number of parameters. Each method here turns one value of a feature into one
vector of `dim` floats, from a budget of floats for all features together.

Tables of their own, one a feature:

    collisionless       a row a value, and one for all unseen values: the reference, of fixed size
    hashing_trick       one hash into the feature's own rows (Weinberger et al. 2009)
    multi_hash          two hashes into them, half as wide, concatenated
    quotient_remainder  two rows multiplied, one each for a value's number div and mod R
    robe                `dim / 2` consecutive floats at each of two hashed places of an own array

Multiplexed (`MULTIPLEXED`): one table, whose rows all features share, told apart by salts:

    unified                         one hash: the hashing trick
    multi_hash_multiplexed          two hashes, half as wide, concatenated
    quotient_remainder_multiplexed  two hashed rows multiplied, without a vocabulary
    robe_multiplexed                two chunks of one array, as ROBE is published
    unified_auto                    rows half as wide; `allocate` gives a feature one to eight
    unified_fine                    rows a quarter as wide; `allocate` gives it one to eight
    unified_wide                    rows as wide as `dim`, as many lookups as of `unified_auto`

A feature's own rows are a range of the one table. They are shared out in proportion to how many
values the features have, after a row a value, up to a quarter of an equal share, for each; for
`quotient_remainder` after the rows that it needs to tell the values apart, if there are as many.

So optimizer, kernel and initial spread are the same for all methods, and the embedded row is as
wide: F x dim for F features. `unified_auto` and `unified_fine` move width from a feature of few
values to one of many, at the same sum, where all lookups can be placed; `unified_wide` alone has
up to twice the width, from as many floats in the table.

The vocabularies of `collisionless` and `quotient_remainder` are counted in no budget
(`StudyEmbedding.numbered_values`).

    embedding = build_embedding("robe", [layout], TableConfig(dim=16), parameters=10_000,
                                values={"user": hashes, "item": hashes}, device=cpu, seed=0)
    (embedded,) = embedding([block])   # (N, width)
"""

from collections.abc import Callable, Mapping, Sequence
from typing import cast

import torch
from embedding_methods.lookups import (
    Chunked,
    Enumerated,
    Hashed,
    Lookup,
    Product,
    QuotientRemainder,
    rows_to_split,
    split_number,
)
from embedding_methods.vocabulary import Vocabulary, share_rows
from torch import Tensor, nn
from torch.nn import functional as F

from recsys.core.strict import nearest
from recsys.data.batch import FeatureBlock, FeatureLayout, Jagged
from recsys.data.feature_options import HistoryPooling
from recsys.embeddings.backend import build_table
from recsys.embeddings.hashing import MAX_ROWS
from recsys.embeddings.plan import allocate
from recsys.embeddings.table import Table, TableConfig
from recsys.embeddings.unified import BagStream, check_block

NUM_HASHES = 2
"""Lookups of `multi_hash` and chunks of `robe` for one value."""


class StudyEmbedding(nn.Module):
    """Embeds the feature blocks of several sides, each feature by a `Lookup` of its own."""

    def __init__(
        self, layouts: Sequence[FeatureLayout], lookups: Mapping[str, Lookup], table: Table
    ) -> None:
        super().__init__()
        self.layouts = tuple(layouts)
        self.lookups = dict(lookups)
        self.table = table

    @property
    def num_parameters(self) -> int:
        """Floats of the table; the optimizer's state comes on top."""
        return self.table.num_rows * self.table.weight.shape[1]

    @property
    def numbered_values(self) -> int:
        """Values that vocabularies hold, 8 bytes each, to number them."""
        found = (getattr(lookup, "vocabulary", None) for lookup in self.lookups.values())
        return sum(len(one.values) for one in found if one is not None)

    def width(self, side: int) -> int:
        """Return how wide the embedded row of layout number `side` is, dense columns included."""
        layout = self.layouts[side]
        dim = self.table.weight.shape[1]
        widths = [self.lookups[name].num_vectors * dim for name, _ in layout.features]
        return sum(widths) + len(layout.dense)

    def forward(self, blocks: Sequence[FeatureBlock]) -> list[Tensor]:
        """Return one (N, width) float32 a side: features in declared order, then dense columns.

        Raises:
            ValueError: the blocks are not as the layouts say.
        """
        if len(blocks) != len(self.layouts):
            raise ValueError(f"there are {len(self.layouts)} sides, got {len(blocks)} blocks")
        stream = BagStream()
        for number, (layout, block) in enumerate(zip(self.layouts, blocks, strict=True)):
            check_block(number, layout, block)
            for (name, _), values in _columns(layout, block):
                stream.add_single(self.lookups[name].rows(values))
        pieces = iter(stream.pooled_by(self.table))
        return [
            self._joined(layout, block, [next(pieces) for _ in layout.features])
            for layout, block in zip(self.layouts, blocks, strict=True)
        ]

    def _joined(self, layout: FeatureLayout, block: FeatureBlock, read: list[Tensor]) -> Tensor:
        """Compose the vectors read for each feature (T, lookups * dim), pool, concatenate."""
        vectors = []
        for (feature, values), rows in zip(_columns(layout, block), read, strict=True):
            by_row = rows.unflatten(1, (-1, self.table.weight.shape[1]))
            vectors.append(self.lookups[feature[0]].compose(by_row, values))
        num_single = len(layout.single)
        multi = zip(vectors[num_single:], block.multi, layout.poolings, strict=True)
        pooled = [_pooled(vector, jagged, pooling) for vector, jagged, pooling in multi]
        return torch.cat([*vectors[:num_single], *pooled, block.dense], dim=1)


def _columns(layout: FeatureLayout, block: FeatureBlock) -> list[tuple[tuple[str, int], Tensor]]:
    """Return each feature with its values: (N,) of a single-valued one, (T,) of the others."""
    columns = [*block.single.unbind(1), *(jagged.values for jagged in block.multi)]
    return list(zip(layout.features, columns, strict=True))


def _pooled(vectors: Tensor, jagged: Jagged, pooling: HistoryPooling) -> Tensor:
    """Return (N, width) of the vectors (T, width) of a multi-valued feature's values."""

    def read(rows: Tensor, offsets: Tensor, weights: Tensor | None = None) -> Tensor:
        return F.embedding_bag(
            rows,
            vectors,
            offsets,
            mode="sum",
            include_last_offset=True,
            per_sample_weights=weights,
        )

    stream = BagStream()
    stream.add_multi(torch.arange(len(vectors), device=vectors.device)[:, None], jagged, pooling)
    return stream.pooled_by(cast(Table, read))[0]


class _Budget:
    """What a method builds from: the features with their values, and how many floats."""

    def __init__(self, values: Mapping[str, Tensor], dim: int, parameters: int) -> None:
        self.values, self.dim, self.parameters = values, dim, parameters
        self.cardinalities = {name: len(hashes) for name, hashes in values.items()}

    def rows(self, dim: int) -> int:
        """How many rows of `dim` there are."""
        return self.parameters // dim

    def allocated(self, each: int) -> dict[str, int]:
        """Share out `each` lookups for every feature by how many values they have."""
        return allocate(self.cardinalities, each * len(self.values))

    @property
    def half(self) -> int:
        """Half the width of a vector."""
        return self.part(NUM_HASHES)

    def part(self, count: int) -> int:
        """Return the width of a vector over `count`.

        Raises:
            ValueError: it is no whole number.
        """
        if self.dim % count:
            raise ValueError(f"this method cuts dim into {count} equal parts, and it is {self.dim}")
        return self.dim // count


_Design = tuple[int, int, dict[str, Lookup]]
"""Rows of the table, their width, the lookup of each feature."""


def _collisionless(budget: _Budget) -> _Design:
    lookups: dict[str, Lookup] = {}
    first = 0
    for name, values in budget.values.items():
        vocabulary = Vocabulary(values)
        lookups[name] = Enumerated(vocabulary, first)
        first += len(vocabulary)
    if first * budget.dim > budget.parameters:
        raise ValueError(
            f"collisionless needs {first * budget.dim} parameters, got {budget.parameters}"
        )
    return first, budget.dim, lookups


def _hashing_trick(budget: _Budget) -> _Design:
    return _own_hashed(budget, budget.dim, 1)


def _multi_hash(budget: _Budget) -> _Design:
    return _own_hashed(budget, budget.half, NUM_HASHES)


def _own_hashed(budget: _Budget, dim: int, num_hashes: int) -> _Design:
    ranges = _own_ranges(budget, budget.rows(dim))
    lookups: dict[str, Lookup] = {
        name: Hashed(name, *found, num_hashes) for name, found in ranges.items()
    }
    return sum(count for _, count in ranges.values()), dim, lookups


def _own_ranges(budget: _Budget, num_rows: int) -> dict[str, tuple[int, int]]:
    """Share the rows out by how many values the features have, first row and number each."""
    # In proportion alone, a feature of few values has one row and tells nothing: on MovieLens-1M
    # at a tenth of the rows AUC 0.853 against 0.869, at a hundredth 0.707 against 0.785.
    floor = num_rows // (4 * len(budget.values))
    least = {name: max(min(count, floor), 1) for name, count in budget.cardinalities.items()}
    return share_rows(budget.cardinalities, least, num_rows)


def _quotient_remainder(budget: _Budget) -> _Design:
    num_rows = budget.rows(budget.dim)
    needed = {name: rows_to_split(count + 1) for name, count in budget.cardinalities.items()}
    if sum(needed.values()) <= num_rows:
        ranges = share_rows(budget.cardinalities, needed, num_rows)
    else:
        ranges = share_rows(needed, dict.fromkeys(needed, 2), num_rows)
    lookups: dict[str, Lookup] = {}
    for name, (first, count) in ranges.items():
        vocabulary = Vocabulary(budget.values[name])
        remainders = split_number(len(vocabulary), count)
        lookups[name] = QuotientRemainder(vocabulary, first, count, remainders)
    return sum(count for _, count in ranges.values()), budget.dim, lookups


def _robe(budget: _Budget) -> _Design:
    num_rows = _robe_rows(budget)
    ranges = _own_ranges(budget, num_rows)
    lookups: dict[str, Lookup] = {
        name: Chunked(name, *found, budget.half, NUM_HASHES) for name, found in ranges.items()
    }
    return sum(count for _, count in ranges.values()), budget.half, lookups


def _robe_multiplexed(budget: _Budget) -> _Design:
    num_rows = _robe_rows(budget)
    lookups: dict[str, Lookup] = {
        name: Chunked(name, 0, num_rows, budget.half, NUM_HASHES) for name in budget.values
    }
    return num_rows, budget.half, lookups


def _robe_rows(budget: _Budget) -> int:
    num_rows = budget.rows(budget.half)
    if num_rows * budget.half > MAX_ROWS:
        raise ValueError(f"robe has at most {MAX_ROWS} parameters, got {budget.parameters}")
    return num_rows


def _quotient_remainder_multiplexed(budget: _Budget) -> _Design:
    num_rows = budget.rows(budget.dim)
    return num_rows, budget.dim, {name: Product(name, 0, num_rows) for name in budget.values}


def _shared(budget: _Budget, dim: int, lookups: Mapping[str, int]) -> _Design:
    num_rows = budget.rows(dim)
    return num_rows, dim, {name: Hashed(name, 0, num_rows, m) for name, m in lookups.items()}


def _unified(budget: _Budget) -> _Design:
    return _shared(budget, budget.dim, dict.fromkeys(budget.values, 1))


def _multi_hash_multiplexed(budget: _Budget) -> _Design:
    return _shared(budget, budget.half, dict.fromkeys(budget.values, NUM_HASHES))


def _unified_auto(budget: _Budget) -> _Design:
    return _shared(budget, budget.half, budget.allocated(NUM_HASHES))


def _unified_fine(budget: _Budget) -> _Design:
    return _shared(budget, budget.part(4), budget.allocated(4))


def _unified_wide(budget: _Budget) -> _Design:
    return _shared(budget, budget.dim, budget.allocated(NUM_HASHES))


METHODS: dict[str, Callable[[_Budget], _Design]] = {
    "collisionless": _collisionless,
    "hashing_trick": _hashing_trick,
    "multi_hash": _multi_hash,
    "quotient_remainder": _quotient_remainder,
    "robe": _robe,
    "unified": _unified,
    "multi_hash_multiplexed": _multi_hash_multiplexed,
    "quotient_remainder_multiplexed": _quotient_remainder_multiplexed,
    "robe_multiplexed": _robe_multiplexed,
    "unified_auto": _unified_auto,
    "unified_fine": _unified_fine,
    "unified_wide": _unified_wide,
}
"""By name; what each is stands at the top of this file."""
MULTIPLEXED = tuple(METHODS)[5:]
"""Those in which all features share the rows of one table."""


def collisionless_parameters(values: Mapping[str, Tensor], dim: int) -> int:
    """Return how many floats `collisionless` needs for these value hashes by feature."""
    return dim * sum(len(Vocabulary.fit(hashes)) for hashes in values.values())


def build_embedding(
    method: str,
    layouts: Sequence[FeatureLayout],
    config: TableConfig,
    *,
    parameters: int,
    values: Mapping[str, Tensor],
    device: torch.device,
    seed: int,
) -> StudyEmbedding:
    """Return an embedding of at most `parameters` floats by one of `METHODS`.

    Args:
        method: a name of `METHODS`.
        layouts: one a side. Their multiplicities are not looked at: the method has its own.
        config: `dim` is the width of a value's vector; `num_rows` and `groups` are not looked at.
        parameters: the budget for all features together, without the optimizer's state.
        values: feature -> value hashes (T,) int64 of the training rows.
        device: where table and vocabularies lie.
        seed: of the initial weights.

    Raises:
        ValueError: no such method, a feature without values or named twice, or a budget that is
            too small for the method (of collisionless: for the values).
    """
    if method not in METHODS:
        raise ValueError(
            f"no method '{method}', only {', '.join(METHODS)}{nearest(method, list(METHODS))}"
        )
    if any(layout.reads for layout in layouts):
        raise ValueError("features that read the rows of others are for the unified embedding")
    names = [name for layout in layouts for name, _ in layout.features]
    if len(set(names)) < len(names) or set(names) - set(values):
        raise ValueError(f"features need names of their own and values: {', '.join(names)}")
    distinct = {name: torch.unique(values[name].to(device)) for name in names}
    num_rows, dim, lookups = METHODS[method](_Budget(distinct, config.dim, parameters))
    if not 1 <= num_rows <= MAX_ROWS:
        raise ValueError(f"{parameters} parameters are {num_rows} rows of {dim}")
    scale = _initial_scale(config.init_scale, lookups)
    sizes = {"num_rows": num_rows, "dim": dim, "groups": {}, "init_scale": scale}
    table = build_table(config.model_copy(update=sizes), device=device, seed=seed)
    return StudyEmbedding(layouts, lookups, table)


def _initial_scale(init_scale: float, lookups: Mapping[str, Lookup]) -> float:
    """The table's, such that a vector's floats start out with the variance of `init_scale`.

    Of a uniform u in [-a, a] the variance is a^2 / 3; of a product of two of them a^4 / 9.
    """
    if any(isinstance(lookup, QuotientRemainder | Product) for lookup in lookups.values()):
        return float((init_scale * 3**0.5) ** 0.5)
    return init_scale
