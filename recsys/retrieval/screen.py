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

   by Cauchy and Schwarz, so a pair with q' x' + bound < g - q m is out for certain. Items are in a
   random order: the sample is then one of all of them, however a catalogue is sorted.
3. *One pass in cache.* Products are compared in registers (`recsys.retrieval.scan`), or folded
   eightfold by maximum in the cache, and only the folded ones are compared.

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

from recsys.retrieval import scan
from recsys.retrieval.pairs import Floats, Ints, kth_of_pairs, score_pairs

_Pairs = tuple[Ints, Ints, Floats]

FOLD = 8
"""Scores that share one comparison."""
AGAIN = 4
"""Folded scores that are folded once more to guess from."""
TILE_UNIT = FOLD * AGAIN
"""What the size of a tile is a multiple of."""
CROWDED = 8
"""Maxima a guess wants for each place of its rank, so that few of them hide another."""
SAMPLED = 16
"""One tile in so many is looked at first, to guess from."""
BATCHES = 4
"""Parts in which the tiles are worked off; after the first the guess is made better."""
FEWEST_QUERIES = 64
"""Below this, screening costs more than it saves."""
FEWEST_TO_PREPARE = 256
"""Below this, preparing the items does."""
SPREAD = 3.3
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
    """Item vectors in tiles, with what rounding them cost.

    vectors: at most T of them, (T, E) int8 or float32, a tile. scale, error, reach (tiles,)
    float64: what one unit of an int8 vector is worth, the largest |dx| and the largest |x'| in a
    tile. order int64 gives the item row at each position, which is T times the tile and the place
    in it; place (N,) the position of each row. shifts: -128 times the sum of each int8 vector,
    (T,) int32 a tile.
    """

    vectors: tuple[Tensor, ...]
    size: int
    scale: Floats
    error: Floats
    reach: Floats
    mean: Floats
    order: Ints
    place: Ints
    shifts: tuple[Tensor, ...] = ()

    @property
    def in_bytes(self) -> bool:
        """Whether the vectors are int8."""
        return self.vectors[0].dtype == torch.int8


def float_tiles(items: Tensor, tile: int) -> Tiles:
    """Return the items in n tiles, each with every n-th of them: nothing is copied."""
    count, size = -(-len(items) // tile), len(items)
    vectors = tuple(items[first::count] for first in range(count))
    row = np.arange(size)
    place = row % count * tile + row // count
    order = np.full(count * tile, -1)
    order[place] = row
    ones, zeros = np.ones(count, np.float32), np.zeros(count, np.float32)
    mean = np.zeros(items.shape[1], np.float32)
    return Tiles(vectors, tile, ones, zeros, zeros, mean, order, place)


def byte_tiles(items: Tensor, tile: int) -> Tiles:
    """Return the items less their mean, rounded to int8, in a random order that is always the same.

    The width is filled up to a multiple of 4 with zeros.
    """
    mean = items.mean(0).numpy()
    rows, width = items.numpy(), -(-items.shape[1] // 4) * 4
    order = np.random.default_rng(0).permutation(len(rows))
    rounded, shifts, scales, errors, reaches = [], [], [], [], []
    for start in range(0, len(order), tile):
        part = rows.take(order[start : start + tile], axis=0)
        part -= mean
        step = max(float(max(part.max(), -part.min())) / 127, 1e-30)
        near = np.rint(part * np.float32(1 / step))
        filled = torch.zeros(len(near), width, dtype=torch.int8)
        filled[:, : items.shape[1]] = torch.from_numpy(near)
        rounded.append(filled)
        shifts.append(filled.sum(1, dtype=torch.int32) * -128)
        near *= np.float32(step)
        part -= near
        scales.append(step)
        errors.append(math.sqrt(np.vecdot(part, part).max()))
        reaches.append(math.sqrt(np.vecdot(near, near).max()))
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    scale, error, reach = (np.array(each, np.float32) for each in (scales, errors, reaches))
    vectors, sums = tuple(rounded), tuple(shifts)
    return Tiles(vectors, tile, scale, error, reach, mean, order, place, sums)


@functools.cache
def bytes_pay() -> bool:
    """Whether this processor multiplies int8 exactly and faster than float32 (VNNI)."""
    supported = getattr(torch.cpu, "_is_vnni_supported", lambda: False)
    if not supported() or not hasattr(torch, "_int_mm"):
        return False
    extreme = torch.full((32, 96), -127, dtype=torch.int8)
    product = torch._int_mm(extreme, -extreme.T.contiguous())
    return bool((product == -127 * 127 * 96).all())


def rounding(queries: Tensor, largest: float) -> Floats:
    """Return (B,) what float32 arithmetic on a score may be off by, with a margin.

    A sum of E products, in whatever order, is off by at most E / 2^24 |q| |x| and a little; the
    margin also covers the few roundings of thresholds and bounds. largest: of the |x|.
    """
    norms = torch.linalg.vector_norm(queries, dim=1).numpy()
    slack: Floats = norms * np.float32(largest * (queries.shape[1] + 16) * 2.0**-23)
    return slack + np.float32(1e-37)


def rank_of_guess(k: int, share: float) -> int:
    """Return which place in a sample the k-th best of all will hardly fall below.

    Of the k best, `expected` +- its root are in the sample, as a Poisson number is.
    """
    expected = k * share
    return math.ceil(expected + SPREAD * math.sqrt(expected)) + 1


def queries_at_once() -> int:
    """Return how many queries are best worked on together; fewer where scores are in the cache."""
    return 1024 if bytes_pay() and scan.can_multiply_bytes() else 320


def worthwhile(num_queries: int, asked: int, num_items: int, k: int, tile: int) -> bool:
    """Whether screening can pay: enough queries, enough tiles, a guess not too deep in them.

    asked: queries of this and of earlier calls, which the same tiles serve.
    """
    deep = CROWDED * rank_of_guess(k, 1 / SAMPLED) * FOLD * SAMPLED > num_items
    many = num_queries >= FEWEST_QUERIES and asked >= FEWEST_TO_PREPARE
    return many and num_items >= 2 * SAMPLED * tile and not deep


def screen(
    tiles: Tiles, items: Tensor, queries: Tensor, excluded: Excluded, *, k: int, slack: Floats
) -> _Pairs | None:
    """Return pairs query (S,), row (S,), score (S,): of each query all above some score.

    A query with at least k pairs has its k best among them; one with fewer was guessed too
    high. slack (B,) is `rounding` of the queries. None: too many pairs for this to pay.
    """
    chunk = _Chunk(tiles, queries, excluded, slack)
    least = chunk.guess(k)
    space = 6 * rank_of_guess(k, 1 / SAMPLED) * SAMPLED * len(queries)
    parts: list[_Pairs] = []
    for batch in range(BATCHES):
        found = chunk.collect(least, range(batch, len(tiles.vectors), BATCHES), space)
        if found is None:
            return None
        query, row = found
        space -= len(query)
        parts.append(_above((query, row, score_pairs(queries, items, query, row)), least))
        if batch == 0:
            rank = rank_of_guess(k, 1 / BATCHES)
            best = kth_of_pairs(parts[0][0], parts[0][2], num_queries=len(queries), k=rank)
            least = np.maximum(least, best)
            # All pairs must be above one and the same score, or k of them would prove nothing.
            parts[0] = _above(parts[0], least)
    query_parts, row_parts, score_parts = zip(*parts, strict=True)
    return np.concatenate(query_parts), np.concatenate(row_parts), np.concatenate(score_parts)


def _above(pairs: _Pairs, least: Floats) -> _Pairs:
    """Return the pairs that score at least `least` (B,) of their query."""
    query, row, score = pairs
    kept = np.flatnonzero(score >= least.take(query))
    return query.take(kept), row.take(kept), score.take(kept)


class _Chunk:
    """One chunk's products with any tile, always in the same memory, and what follows from them."""

    def __init__(self, tiles: Tiles, queries: Tensor, excluded: Excluded, slack: Floats) -> None:
        self._tiles, self._width, self._slack = tiles, len(queries), slack
        self._centre = queries.numpy() @ tiles.mean
        self._norm = torch.linalg.vector_norm(queries, dim=1).numpy()
        self._scale = np.ones(len(queries), np.float32)
        self._lost = np.zeros(len(queries), np.float32)
        self._bytes: scan.ByteQueries | None = None
        self._columns = self._rounded(queries) if tiles.in_bytes else queries.T
        dtype = torch.int32 if tiles.in_bytes else torch.float32
        self._multiply = torch._int_mm if tiles.in_bytes else torch.mm
        self._lowest = torch.iinfo(dtype).min if tiles.in_bytes else -torch.inf
        self._scores = torch.empty(tiles.size, len(queries), dtype=dtype)
        self._strips = self._scores.view(FOLD, -1)
        self._folded = torch.empty(tiles.size // FOLD * len(queries), dtype=dtype)
        self._maxima = self._folded.view(-1, len(queries)).numpy()
        self._hide(excluded)

    def _rounded(self, queries: Tensor) -> Tensor:
        """Return int8 queries as columns (E, B), and note what rounding them cost."""
        scale = (queries.abs().amax(1) / 127).clamp_min(1e-30)
        rounded = (queries / scale[:, None]).round_()
        lost = torch.linalg.vector_norm(queries - rounded * scale[:, None], dim=1)
        self._scale, self._lost = scale.numpy(), lost.numpy()
        filled = torch.zeros(len(queries), self._tiles.vectors[0].shape[1], dtype=torch.int8)
        filled[:, : queries.shape[1]] = rounded
        if scan.can_multiply_bytes():
            self._bytes = scan.ByteQueries(filled)
        return filled.T.contiguous()

    def _hide(self, excluded: Excluded) -> None:
        """Note the places to blank: `hidden[starts[t]:starts[t + 1]]` of tile t's (T, B)."""
        tiles = self._tiles
        place = tiles.place[excluded.row]
        self._positions = len(tiles.vectors) * tiles.size
        number = place // tiles.size
        order = np.argsort(number, kind="stable")
        flat = (place - number * tiles.size) * self._width + excluded.query
        self._hidden = torch.from_numpy(flat[order])
        self._hidden_pairs = np.sort(excluded.query * self._positions + place)
        self._starts = np.searchsorted(number[order], np.arange(len(tiles.vectors) + 1)).tolist()

    def _multiplied(self, tile: int) -> NDArray[np.generic]:
        """Fill `_scores` (T, B) with a tile's products; return their maximum (T / 8, B).

        Row m of the maximum is that of rows m, m + T / 8, ... of the products.
        """
        part = self._tiles.vectors[tile]
        if len(part) == len(self._scores):
            self._multiply(part, self._columns, out=self._scores)
        else:
            self._multiply(part, self._columns, out=self._scores[: len(part)])
            self._scores[len(part) :] = self._lowest
        first, last = self._starts[tile : tile + 2]
        if first < last:
            self._scores.view(-1).index_fill_(0, self._hidden[first:last], self._lowest)
        torch.amax(self._strips, 0, out=self._folded)
        return self._maxima

    def guess(self, k: int) -> Floats:
        """Return (B,) a score that the k-th best of each query will hardly fall below."""
        chosen = range(0, len(self._tiles.vectors), SAMPLED)
        rank = rank_of_guess(k, len(chosen) / len(self._tiles.vectors))
        # Folding further is cheaper, as long as the best of the sample fall on unlike maxima.
        coarse = CROWDED * rank * FOLD * AGAIN <= len(chosen) * self._tiles.size
        maxima = []
        for tile in chosen:
            folded = self._multiplied(tile).reshape(AGAIN if coarse else 1, -1, self._width)
            unit = self._tiles.scale[tile] * self._scale
            maxima.append(np.maximum.reduce(folded, axis=0) * unit)
        columns = np.ascontiguousarray(np.concatenate(maxima).T)
        rank = min(rank, columns.shape[1])
        least: Floats = np.partition(columns, columns.shape[1] - rank, axis=1)[:, -rank]
        return least + self._centre

    def _thresholds(self, least: Floats, chosen: range) -> NDArray[np.generic]:
        """Return what products of the chosen tiles must reach, (chosen, B), in their type.

        Below it, the true score is below `least` for certain. A guess of -inf (nothing to
        guess from) lets no pair through: its query will be answered otherwise.
        """
        tiles = self._tiles
        threshold = np.outer(tiles.error[chosen], -self._norm)
        threshold -= np.outer(tiles.reach[chosen], self._lost)
        threshold += least - self._centre - 3 * self._slack
        threshold /= np.outer(tiles.scale[chosen], self._scale)
        threshold[:, np.isneginf(least)] = np.inf
        if not tiles.in_bytes:
            lowest: Floats = np.maximum(threshold, np.finfo(np.float32).min)
            return lowest
        np.floor(threshold, out=threshold)
        # The nearest float32 inside the range of int32, whose least number marks hidden places.
        products: NDArray[np.int32] = threshold.clip(-(2.0**31) + 128, 2.0**31 - 128).astype(
            np.int32
        )
        return products

    def collect(self, least: Floats, chosen: range, space: int) -> tuple[Ints, Ints] | None:
        """Return query and row, by query, of the pairs of some tiles not certain to be below.

        least (B,). None once there are more than `space`.
        """
        threshold = self._thresholds(least, chosen)
        if self._bytes is not None:
            return self._compared(self._bytes, threshold, chosen, space)
        spots, values = [], []
        for tile, lowest in zip(chosen, threshold, strict=True):
            spot = np.flatnonzero(self._multiplied(tile) >= lowest)
            spots.append(spot)
            values.append(self._strips.numpy().take(spot, axis=1))
            space -= len(spot)
            if space < 0:
                return None
        if not spots:
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        return self._unfolded(spots, values, chosen, threshold)

    def _compared(
        self,
        queries: scan.ByteQueries,
        threshold: NDArray[np.generic],
        chosen: range,
        space: int,
    ) -> tuple[Ints, Ints] | None:
        """Do what `collect` does, in registers; what is hidden is taken out of what was found."""
        tiles, hidden = self._tiles, self._hidden_pairs
        parts = [(one * tiles.size, tiles.vectors[one], tiles.shifts[one]) for one in chosen]
        found = queries.pairs_above(parts, threshold.astype(np.int32), space + len(hidden) + 1)
        if found is None:
            return None
        order = np.argsort(found[0], kind="stable")
        query, position = found[0].take(order).astype(np.int64), found[1].take(order)
        if len(hidden):
            keys = query * self._positions + position
            at = np.searchsorted(hidden, keys)
            shown = np.flatnonzero(hidden.take(at, mode="clip") != keys)
            query, position = query.take(shown), position.take(shown)
        return query, tiles.order.take(position)

    def _unfolded(
        self,
        spots: list[Ints],
        values: list[NDArray[np.generic]],
        chosen: range,
        threshold: NDArray[np.generic],
    ) -> tuple[Ints, Ints]:
        """Find which of the eight products under each spot are at or above the threshold."""
        size = self._tiles.size
        lengths = [len(spot) for spot in spots]
        spot, value = np.concatenate(spots), np.concatenate(values, axis=1)
        # Division by a scalar is fast in numpy, divmod is not.
        position = spot // self._width
        query = spot - position * self._width
        which = np.repeat(np.arange(len(spots)) * self._width, lengths)
        hit = np.flatnonzero(value >= threshold.ravel().take(which + query))
        fold = hit // max(1, len(spot))
        which = hit - fold * len(spot)
        position += np.repeat(np.arange(chosen.start, chosen.stop, chosen.step) * size, lengths)
        query, position = query.take(which), position.take(which) + fold * (size // FOLD)
        # A stable sort of 16-bit numbers is a radix sort: two passes.
        order = np.argsort(query.astype(np.uint16), kind="stable")
        query, position = query.take(order), position.take(order)
        return query, self._tiles.order.take(position)
