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
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys.retrieval.pairs import Floats, Ints, kth_of_pairs, score_pairs

FOLD = 8
"""Scores that share one comparison."""
AGAIN = 4
"""Folded scores that are folded once more to guess from: a tile is a multiple of 32."""
SAMPLED = 24
BATCH = 16
REFINED = (0, 1, 3)
"""One tile in so many is looked at first, to guess from."""
SPREAD = 3.0
"""Standard deviations by which the guess stays on the safe side."""


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


def float_tiles(items: Tensor, tile: int) -> Tiles:
    """Return the items as they are, in tiles."""
    vectors = items.split(tile)
    ones, zeros = np.ones(len(vectors)), np.zeros(len(vectors))
    mean = np.zeros(items.shape[1], np.float32)
    return Tiles(vectors, tile, ones, zeros, zeros, mean)


def byte_tiles(items: Tensor, tile: int) -> Tiles:
    """Return the items less their mean, rounded to int8, those of like scale side by side."""
    mean = items.mean(0)
    centred = items - mean
    order = np.argsort(-centred.abs().amax(1).numpy(), kind="stable")
    vectors, scales, errors, reaches = [], [], [], []
    for start in range(0, len(order), tile):
        part = centred.numpy().take(order[start : start + tile], axis=0)
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


def screen(
    tiles: Tiles,
    items: Tensor,
    queries: Tensor,
    slack: NDArray[np.float64],
    excluded: Excluded,
    k: int,
) -> tuple[Ints, Ints, Floats] | None:
    """Return pairs as query (S,), row (S,), score (S,): all that score `least` or more.

    A query with at least k pairs has its k best among them; one with fewer was guessed too
    high. slack (B,) float64 is `rounding` of the queries. None: too many pairs to pay.
    """
    columns, bound, unit = _round_queries(tiles, queries, slack)
    place = excluded.row if tiles.place is None else tiles.place[excluded.row]
    work = _Products(tiles, columns, _hide(place, excluded.query, tiles.size, len(queries)))
    centre = queries.numpy() @ tiles.mean
    least = _guess(work, unit, k) + centre
    room = 6 * rank_of_guess(k, 1 / SAMPLED) * SAMPLED * len(queries)
    num_tiles = len(tiles.vectors)
    num_batches = -(-num_tiles // BATCH)
    pairs = _Pairs.none()
    for batch in range(num_batches):
        with np.errstate(invalid="ignore"):
            threshold = (least - centre - bound - 2 * slack) / unit
        threshold = _comparable(threshold, integral=tiles.in_bytes)
        query, position = _collect(work, threshold, range(batch, num_tiles, num_batches))
        room -= len(query)
        if room < 0:
            return None
        row = position if tiles.order is None else tiles.order.take(position)
        pairs = pairs.joined(_Pairs(query, row, score_pairs(queries, items, query, row)), least)
        if batch in REFINED:
            rank = rank_of_guess(k, (batch + 1) / num_batches)
            best = kth_of_pairs(pairs.query, pairs.score, num_queries=len(queries), k=rank)
            least = np.maximum(least, best)
    return pairs.query, pairs.row, pairs.score


@dataclass(frozen=True)
class _Pairs:
    """Pairs of the tiles done so far."""

    query: Ints
    row: Ints
    score: Floats

    @classmethod
    def none(cls) -> "_Pairs":
        return cls(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32))

    def joined(self, more: "_Pairs", least: Floats) -> "_Pairs":
        """Return these and those of `more` that score `least` (B,) or better."""
        kept = np.flatnonzero(more.score >= least.take(more.query))
        return _Pairs(
            np.concatenate((self.query, more.query.take(kept))),
            np.concatenate((self.row, more.row.take(kept))),
            np.concatenate((self.score, more.score.take(kept))),
        )


def rank_of_guess(k: int, share: float) -> int:
    """Return which place in a sample the k-th best of all will hardly fall below.

    Of the k best, `expected` +- its root are in the sample, as a Poisson number is.
    """
    expected = k * share
    return math.ceil(expected + SPREAD * math.sqrt(expected)) + 1


def _guess(work: "_Products", unit: Floats, k: int) -> Floats:
    """Return (B,) a score, less the centre, that the k-th best will hardly fall below."""
    num_tiles, num_queries = unit.shape
    chosen = range(0, num_tiles, SAMPLED)
    maxima = []
    for tile in chosen:
        _, folded = work.of(tile)
        again = np.maximum.reduce(folded.numpy().reshape(AGAIN, -1, num_queries), axis=0)
        maxima.append(again * unit[tile])
    columns = np.ascontiguousarray(np.concatenate(maxima).T)
    rank = min(rank_of_guess(k, len(chosen) / num_tiles), columns.shape[1])
    least: Floats = np.partition(columns, columns.shape[1] - rank, axis=1)[:, -rank]
    return least


def _collect(work: "_Products", threshold: NDArray[np.generic], chosen: range) -> tuple[Ints, Ints]:
    """Return query and position of each score of some tiles at or above its threshold (n, B)."""
    num_queries, size = threshold.shape[1], work.tiles.size
    spots, values = [], []
    for tile in chosen:
        scores, folded = work.of(tile)
        spot = np.flatnonzero(folded.numpy() >= threshold[tile])
        spots.append(spot)
        values.append(scores.view(FOLD, -1).numpy().take(spot, axis=1))
    spot, value = np.concatenate(spots), np.concatenate(values, axis=1)
    tiles = np.repeat(chosen, [len(part) for part in spots])
    # Division by a scalar is fast in numpy, divmod is not.
    column = spot // num_queries
    query = spot - column * num_queries
    column += tiles * size
    hit = np.flatnonzero(value >= threshold.ravel().take(tiles * num_queries + query))
    fold = hit // max(1, len(spot))
    which = hit - fold * len(spot)
    query, position = query.take(which), column.take(which) + fold * (size // FOLD)
    # A stable sort of 16-bit numbers is a radix sort: two passes.
    order = np.argsort(query.astype(np.uint16), kind="stable")
    return query.take(order), position.take(order)


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
    return _Hidden(torch.from_numpy(flat), np.searchsorted(number[order], np.arange(most)).tolist())


class _Products:
    """The products of one chunk's queries with any tile, always in the same memory."""

    def __init__(self, tiles: Tiles, columns: Tensor, hidden: _Hidden) -> None:
        dtype = torch.int32 if tiles.in_bytes else torch.float32
        self.tiles, self._columns, self._hidden = tiles, columns, hidden
        self._multiply = torch._int_mm if tiles.in_bytes else torch.mm
        self._lowest = torch.iinfo(dtype).min if tiles.in_bytes else -torch.inf
        self._scores = torch.empty(tiles.size, columns.shape[1], dtype=dtype)
        self._folded = torch.empty(tiles.size // FOLD, columns.shape[1], dtype=dtype)

    def of(self, tile: int) -> tuple[Tensor, Tensor]:
        """Return a tile's scores (T, B) and their eightfold maximum (T / 8, B).

        Row m of the maximum is that of rows m, m + T / 8, ... of the scores.
        """
        part, scores, starts = self.tiles.vectors[tile], self._scores, self._hidden.starts
        self._multiply(part, self._columns, out=scores[: len(part)])
        if len(part) < len(scores):
            scores[len(part) :] = self._lowest
        if tile + 1 < len(starts) and starts[tile] < starts[tile + 1]:
            flat = self._hidden.flat[starts[tile] : starts[tile + 1]]
            scores.view(-1).index_fill_(0, flat, self._lowest)
        torch.amax(scores.view(FOLD, -1), 0, out=self._folded.view(-1))
        return scores, self._folded
