"""Which (query, item) pairs can still be among the k best: found cheaply, missing none.

A full sort of B x N scores costs several times their matrix product. Three ideas make the rest
cheap, and none of them can lose a pair that belongs to the answer:

1. *A guess, checked afterwards.* The scores of a sample of the items give, for every query, a
   score g that the k-th best will hardly fall below. Pairs below g are never looked at again.
   Whether g was safe is known in the end: it was if the k-th best found is at least g.
   Queries whose guess was too high are answered again, without one, by the caller.
2. *Products in bytes.* Vectors rounded to int8 multiply about three times as fast where the
   processor has VNNI. With q = q' + dq and x - m = x' + dx (m the mean item, primes rounded),

       |q (x - m) - q' x'| = |q dx + dq x'| <= |q| |dx| + |dq| |x'| =: bound,

   by Cauchy and Schwarz, so a pair with q' x' + bound < g - q m is out for certain. Items are
   sorted by their largest component, so that a tile of them shares one tight scale.
3. *One pass in cache.* A tile's scores are folded eightfold by maximum, and only the folded
   ones are compared.

Where int8 does not pay, or its bound is too wide for the data, float32 products take its place
with a bound that covers their rounding.

Shape letters: B queries of a chunk, N items, E width, T items of a tile, S pairs.
"""

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys.retrieval.pairs import Floats, Ints, kth_of_pairs

FOLD = 8
"""Scores that share one comparison."""


@dataclass(frozen=True)
class Excluded:
    """Pairs a chunk must not return: query (X,) and row (X,) int64."""

    query: Ints
    row: Ints

    def of(self, queries: Ints) -> "Excluded":
        """Return the pairs of some queries (M,), ascending, numbered by their place in it."""
        place = np.searchsorted(queries, self.query)
        place[place == len(queries)] = 0
        kept = queries[place] == self.query if len(queries) else np.zeros(0, bool)
        return Excluded(place[kept], self.row[kept])


@dataclass(frozen=True)
class Tiles:
    """Item vectors in tiles of T (the last may hold fewer), with what rounding them cost.

    vectors: (T, E) int8 or float32 a tile. scale, error, reach (tiles,) float64: what one unit
    of an int8 vector is worth, the largest |dx| and the largest |x'| in a tile. order (N,) int64
    gives the item row at each position, place (N,) the position of each row; None: the same.
    """

    vectors: tuple[Tensor, ...]
    size: int
    scale: NDArray[np.float64]
    error: NDArray[np.float64]
    reach: NDArray[np.float64]
    mean: Floats
    order: Ints | None = None
    place: Ints | None = None

    @property
    def in_bytes(self) -> bool:
        """Whether the vectors are int8."""
        return self.vectors[0].dtype == torch.int8


@dataclass(frozen=True)
class Catalogue:
    """Items prepared for screening: float32 tiles, a sample of every `stride`-th row of them."""

    sample: tuple[Tensor, ...]
    stride: int
    num_items: int
    size: int
    largest: float
    """The largest norm of an item."""

    def rank_of_guess(self, k: int) -> int:
        """Return which place in the sample the k-th best item will hardly fall below.

        Of the k best, `expected` +- its root are in the sample, as a Poisson number is.
        """
        expected = k / self.stride
        return math.ceil(expected + 2.5 * math.sqrt(expected)) + 1


def sample_items(items: Tensor, tile: int, largest: float) -> Catalogue:
    """Take about one item in 24, at least four tiles, evenly over the rows."""
    stride = max(1, len(items) // max(4 * tile, len(items) // 24))
    rows = items[::stride].contiguous()
    return Catalogue(rows.split(tile), stride, len(items), tile, largest)


def float_tiles(items: Tensor, tile: int) -> Tiles:
    """Return the items as they are, in tiles."""
    vectors = items.split(tile)
    ones, zeros = np.ones(len(vectors)), np.zeros(len(vectors))
    return Tiles(vectors, tile, ones, zeros, zeros, np.zeros(items.shape[1], np.float32))


def byte_tiles(items: Tensor, tile: int) -> Tiles:
    """Return the items less their mean, rounded to int8, those of like scale side by side."""
    mean = items.mean(0)
    centred = items - mean
    order = np.argsort(-centred.abs().amax(1).numpy(), kind="stable")
    vectors, scales, errors, reaches = [], [], [], []
    for start in range(0, len(order), tile):
        part = np.take(centred.numpy(), order[start : start + tile], axis=0)
        scale = max(float(np.abs(part[0]).max()) / 127, 1e-30)
        rounded = np.rint(part * np.float32(1 / scale))
        vectors.append(torch.from_numpy(rounded.astype(np.int8)))
        rounded *= np.float32(scale)
        part -= rounded
        scales.append(scale)
        errors.append(math.sqrt(np.vecdot(part, part).max()))
        reaches.append(math.sqrt(np.vecdot(rounded, rounded).max()))
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    figures = (np.array(values, np.float64) for values in (scales, errors, reaches))
    return Tiles(tuple(vectors), tile, *figures, mean.numpy(), order, place)


@functools.cache
def bytes_pay() -> bool:
    """Whether this processor multiplies int8 exactly and faster than float32 (VNNI)."""
    supported = getattr(torch.cpu, "_is_vnni_supported", lambda: False)
    if not supported() or not hasattr(torch, "_int_mm"):
        return False
    extreme = torch.full((32, 96), -127, dtype=torch.int8)
    product = torch._int_mm(extreme, -extreme.T.contiguous())
    return bool((product == -127 * 127 * 96).all())


def rounding(queries: Tensor, largest: float) -> NDArray[np.float64]:
    """Return (B,) what float32 sums of products may be off by, with room to spare.

    A sum of E products, in whatever order, is off by at most E / 2^24 |q| |x| (and a little).
    """
    norms = torch.linalg.vector_norm(queries, dim=1).numpy().astype(np.float64)
    return norms * (largest * (queries.shape[1] + 16) * 2.0**-23) + 1e-37


def guess(catalogue: Catalogue, queries: Tensor, k: int, excluded: Excluded) -> Floats:
    """Return (B,) a score that the k-th best of each query will hardly fall below."""
    sampled = excluded.row % catalogue.stride == 0
    place = excluded.row[sampled] // catalogue.stride
    hidden = _hide(place, excluded.query[sampled], catalogue.size, len(queries))
    products = _products(catalogue.sample, catalogue.size, queries.T, hidden)
    folded = torch.cat([folded.clone() for _, folded in products])
    maxima = np.ascontiguousarray(folded.numpy().T)
    rank = min(catalogue.rank_of_guess(k), maxima.shape[1])
    least: Floats = np.partition(maxima, maxima.shape[1] - rank, axis=1)[:, -rank]
    return least


def screen(
    tiles: Tiles, queries: Tensor, least: Floats, slack: NDArray[np.float64],
    excluded: Excluded, *, k: int, limit: int,
) -> tuple[Ints, Ints] | None:
    """Return pairs (query (S,), row (S,)) among which are all that matter; None above `limit`.

    A query's k best items are among its pairs if the k-th best of the pairs scores at least
    `least` (B,). slack (B,) float64 is `rounding` of the queries.
    """
    columns, bound, unit = _round_queries(tiles, queries, slack)
    centre = queries.numpy().astype(np.float64) @ tiles.mean
    with np.errstate(invalid="ignore"):
        threshold = (least - centre - bound - 2 * slack) / unit
    threshold = _comparable(threshold, integral=tiles.in_bytes)
    place = excluded.row if tiles.place is None else tiles.place[excluded.row]
    hidden = _hide(place, excluded.query, tiles.size, len(queries))
    found = _Found([], [])
    for scores, folded in _products(tiles.vectors, tiles.size, columns, hidden):
        spot = np.flatnonzero(folded.numpy() >= threshold[len(found.spots)])
        limit -= len(spot)
        if limit < 0:
            return None
        found.spots.append(spot)
        found.values.append(scores.view(FOLD, -1).numpy().take(spot, axis=1))
    query, tile, column, product = found.unfold(threshold, tiles.size)
    # From here on the scores are those of the true vectors, less `centre`, give or take `bound`.
    flat = tile * len(queries) + query
    score = product.astype(np.float32) * unit.ravel()[flat]
    margin = bound.ravel()[flat]
    kth = kth_of_pairs(query, score - margin, num_queries=len(queries), k=k)
    kept = np.flatnonzero(score + margin >= (kth - 4 * slack).astype(np.float32)[query])
    position = tile[kept] * tiles.size + column[kept]
    return query[kept], position if tiles.order is None else tiles.order[position]


def _round_queries(
    tiles: Tiles, queries: Tensor, slack: NDArray[np.float64]
) -> tuple[Tensor, Floats, Floats]:
    """Return the queries as columns (E, B), and for every tile and query bound and unit."""
    if not tiles.in_bytes:
        shape = (len(tiles.vectors), len(queries))
        bound = np.broadcast_to(slack, shape).astype(np.float32)
        return queries.T, bound, np.ones(shape, np.float32)
    scale = (queries.abs().amax(1) / 127).clamp_min(1e-30)
    rounded = (queries / scale[:, None]).round_()
    columns = rounded.to(torch.int8).T.contiguous()
    lost = torch.linalg.vector_norm(queries - rounded * scale[:, None], dim=1)
    norm = torch.linalg.vector_norm(queries, dim=1).numpy().astype(np.float64)
    bound = np.outer(tiles.error, norm)
    bound += np.outer(tiles.reach, lost.numpy().astype(np.float64))
    unit = np.outer(tiles.scale, scale.numpy())
    return columns, (bound + slack).astype(np.float32), unit.astype(np.float32)


def _comparable(threshold: NDArray[np.float64], *, integral: bool) -> NDArray[np.generic]:
    """Return thresholds in the type of the products, rounded down, above the hidden value.

    A guess of -inf (nothing to guess from) lets no pair through: its query is answered again.
    """
    threshold = np.where(np.isneginf(threshold), np.inf, threshold)
    if integral:
        bounds = np.iinfo(np.int32)
        return np.floor(threshold).clip(bounds.min + 1, bounds.max).astype(np.int32)
    return np.nextafter(threshold.astype(np.float32), np.float32(-np.inf))


@dataclass(frozen=True)
class _Hidden:
    """Places to blank in each tile: `flat[starts[t]:starts[t + 1]]` of its (T, B) scores."""

    flat: Tensor
    starts: list[int]


def _hide(place: Ints, query: Ints, tile: int, num_queries: int) -> _Hidden:
    number = place // tile
    order = np.argsort(number, kind="stable")
    flat = ((place - number * tile) * num_queries + query)[order]
    most = int(number.max(initial=0)) + 2
    return _Hidden(
        torch.from_numpy(flat), np.searchsorted(number[order], np.arange(most)).tolist()
    )


def _products(
    vectors: tuple[Tensor, ...], tile: int, columns: Tensor, hidden: _Hidden
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield each tile's scores (T, B) and their eightfold maximum (T / 8, B), in shared memory.

    Row m of the maximum is that of rows m, m + T / 8, ... of the scores.
    """
    in_bytes = vectors[0].dtype == torch.int8
    dtype = torch.int32 if in_bytes else torch.float32
    lowest = torch.iinfo(dtype).min if in_bytes else -torch.inf
    scores = torch.empty(tile, columns.shape[1], dtype=dtype)
    folded = torch.empty(tile // FOLD, columns.shape[1], dtype=dtype)
    for number, part in enumerate(vectors):
        if in_bytes:
            torch._int_mm(part, columns, out=scores[: len(part)])
        else:
            torch.mm(part, columns, out=scores[: len(part)])
        scores[len(part) :] = lowest
        if number + 1 < len(hidden.starts):
            flat = hidden.flat[hidden.starts[number] : hidden.starts[number + 1]]
            scores.view(-1).index_fill_(0, flat, lowest)
        torch.amax(scores.view(FOLD, -1), 0, out=folded.view(-1))
        yield scores, folded


@dataclass
class _Found:
    """Folded places at or above the threshold, a tile each, with the eight scores of each."""

    spots: list[Ints]
    values: list[NDArray[np.generic]]

    def unfold(
        self, threshold: NDArray[np.generic], size: int
    ) -> tuple[Ints, Ints, Ints, NDArray[np.generic]]:
        """Return query, tile, column and product of each score at or above its threshold."""
        num_queries = threshold.shape[1]
        tile = np.repeat(np.arange(len(self.spots)), [len(spot) for spot in self.spots])
        spot, value = np.concatenate(self.spots), np.concatenate(self.values, axis=1)
        # Division by a scalar is fast in numpy, divmod is not.
        first = spot // num_queries
        query = spot - first * num_queries
        hit = np.flatnonzero(value >= threshold.ravel()[tile * num_queries + query])
        fold = hit // max(1, len(spot))
        which = hit - fold * len(spot)
        column = first[which] + fold * (size // FOLD)
        return query[which], tile[which], column, value.ravel()[hit]
