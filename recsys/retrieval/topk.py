"""Exact top-k of inner products, in chunks, with exclusions.

    exact_topk(queries, items, 100)              # (B, 100) scores and item rows, best first

Exact means: the same rows as sorting all N scores of a query by (-score, row), where a score is
the float32 inner product of the two vectors. The result does not depend on the chunk sizes, on
the other queries of the batch or on the number of threads, and equal item vectors tie exactly.

Many queries are screened first (`recsys.retrieval.screen`). Few ones, and those whose screening
proved unsafe, are answered from the best score of every few items (`recsys.retrieval.folded`);
what that leaves, and what a machine without a compiler does, from all scores.

Shape letters: B queries, N items, E width, Q queries of a chunk.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from recsys.core.errors import DataError
from recsys.data.batch import Jagged
from recsys.retrieval import folded, scan, screen
from recsys.retrieval.pairs import Floats, Ints, score_pairs, top_of_pairs
from recsys.retrieval.prepared import Prepared, largest_norm, plain
from recsys.retrieval.screen import Excluded, Tiles

SCORES_AT_ONCE = 1 << 22
"""Scores of a chunk that are held and sorted together (16 MB)."""
MOST_QUERIES = 1 << 16
"""Queries of a chunk: their numbers are sorted as 16-bit integers."""
LOWEST = np.finfo(np.float32).min


@torch.no_grad()
def exact_topk(
    queries: Tensor,
    items: Tensor | Prepared,
    k: int,
    exclude: Jagged | None = None,
    *,
    query_chunk: int | None = None,
    item_tile: int = 1024,
) -> tuple[Tensor, Tensor]:
    """Return the k items of largest inner product for every query.

    Args:
        queries: (B, E) float32.
        items: (N, E) float32, or what is kept of them from call to call.
        k: length of the lists, at least 1; may exceed N.
        exclude: B rows of item rows that must not be returned; any order, repeats allowed.
        query_chunk: queries worked on together; None: as many as suit this machine. The answer
            does not depend on it.
        item_tile: items worked on together. The answer does not depend on it.

    Returns:
        scores (B, k) float32 and rows (B, k) int64, best first, ties by smaller row; score
        -inf and row -1 where fewer than k items remain. They are on the device of `queries`; the
        work is done on the processor.

    Raises:
        ValueError: shapes that do not fit, a count below 1, an exclusion that is no item row.
        DataError: a vector with NaN or infinity, or so large that scores could overflow.
    """
    known = items if isinstance(items, Prepared) else Prepared(items)
    _check_shapes(queries, known.vectors, exclude)
    query_chunk = screen.queries_at_once() if query_chunk is None else query_chunk
    _check_counts(k=k, query_chunk=query_chunk, item_tile=item_tile)
    device, query_vectors = queries.device, plain(queries)
    largest_norm(query_vectors, "queries")
    num_threads = torch.get_num_threads()
    with _single_threads():
        search = _Search(query_vectors, known, k, exclude, known.tiles(len(queries), k, item_tile))
        chunk = max(1, min(query_chunk, MOST_QUERIES, -(-len(queries) // num_threads)))
        starts = range(0, len(queries), chunk)
        parts = [np.arange(start, min(start + chunk, len(queries))) for start in starts]
        if num_threads > 1 and len(parts) > 1:
            with ThreadPoolExecutor(num_threads) as pool:
                answers = list(pool.map(search.answer, parts))
        else:
            answers = [search.answer(part) for part in parts]
    return _joined(answers, k, device)


@torch.no_grad()
def topk_of_scores(scores: Tensor, k: int, exclude: Jagged | None = None) -> tuple[Tensor, Tensor]:
    """Return the k largest scores of every row of a matrix, by the rule of `exact_topk`.

    scores (B, N) float32 is left as it is. An item scored -inf counts as excluded.

    Raises:
        ValueError: not a matrix, k below 1, an exclusion that is no column.
        DataError: a score that is NaN.
    """
    if scores.ndim != 2:
        raise ValueError(f"scores must be (queries, items), got {tuple(scores.shape)}")
    _check_counts(k=k)
    _check_exclude(exclude, len(scores), scores.shape[1])
    matrix, num_items = plain(scores).numpy(), scores.shape[1]
    chunk = max(1, SCORES_AT_ONCE // max(1, num_items))
    answers = []
    for start in range(0, len(matrix), chunk):
        part = np.array(matrix[start : start + chunk])
        if (bad := np.isnan(part).any(1)).any():
            raise DataError(
                f"scores: row {start + int(bad.argmax())} holds NaN, which cannot "
                "be ranked; look for a training run that diverged"
            )
        hidden = _excluded(exclude, np.arange(start, start + len(part)))
        part[hidden.query, hidden.row] = -np.inf
        query, row = _at_least(part, _kth_largest(part, k))
        answers.append(
            top_of_pairs(
                query, row, part[query, row], num_queries=len(part), num_rows=num_items, k=k
            )
        )
    return _joined(answers, k, scores.device)


@dataclass
class _Search:
    """One call's vectors, and its tiles in the order in which to try them."""

    queries: Tensor
    known: Prepared
    k: int
    exclude: Jagged | None
    tiles: list[Tiles]

    @property
    def items(self) -> Tensor:
        """(N, E)."""
        return self.known.vectors

    def answer(self, part: Ints) -> tuple[Floats, Ints]:
        """Return the lists of the queries `part` (Q,), which are consecutive."""
        queries = self.queries[part[0] : part[-1] + 1]
        excluded = _excluded(self.exclude, part)
        found = self._screened(queries, excluded)
        if found is None:
            return self._unscreened(queries, excluded)
        scores, rows = self._best(queries, *found)
        unsafe = np.flatnonzero(rows[:, -1] < 0)
        if len(unsafe):
            again = self._unscreened(queries[torch.from_numpy(unsafe)], excluded.of(unsafe))
            scores[unsafe], rows[unsafe] = again
        return scores, rows

    def _screened(self, queries: Tensor, excluded: Excluded) -> tuple[Ints, Ints, Floats] | None:
        for tiles in self.tiles:
            slack = screen.rounding(queries, self.known.largest())
            found = screen.screen(tiles, self.items, queries, excluded, k=self.k, slack=slack)
            if found is not None:
                return found
        return None

    def _best(self, queries: Tensor, query: Ints, row: Ints, score: Floats) -> tuple[Floats, Ints]:
        num_queries, num_rows = len(queries), len(self.items)
        return top_of_pairs(query, row, score, num_queries=num_queries, num_rows=num_rows, k=self.k)

    def _unscreened(self, queries: Tensor, excluded: Excluded) -> tuple[Floats, Ints]:
        """Answer from the best score of every few items, or from all scores."""
        if not scan.can_fold():
            return self._from_all(queries, excluded)
        size = max(1, SCORES_AT_ONCE * scan.LANES // max(1, len(self.items)))
        answers = []
        for start in range(0, len(queries), size):
            part = queries[start : start + size]
            hidden = excluded.of(np.arange(start, start + len(part)))
            query, row, left = folded.candidates(part, self.known, hidden, self.k)
            answer = self._best(part, query, row, score_pairs(part, self.items, query, row))
            if len(left):
                again = self._from_all(part[torch.from_numpy(left)], hidden.of(left))
                answer[0][left], answer[1][left] = again
            answers.append(answer)
        return np.concatenate([a[0] for a in answers]), np.concatenate([a[1] for a in answers])

    def _from_all(self, queries: Tensor, excluded: Excluded) -> tuple[Floats, Ints]:
        """Answer from every score, a few queries at a time."""
        size = max(1, SCORES_AT_ONCE // max(1, len(self.items)))
        answers = []
        for start in range(0, len(queries), size):
            part = queries[start : start + size]
            scores = torch.mm(part, self.items.T).numpy()
            hidden = excluded.of(np.arange(start, start + len(part)))
            scores[hidden.query, hidden.row] = -np.inf
            # The product may round otherwise than `score_pairs` does: keep what could differ.
            slack = screen.rounding(part, self.known.largest())
            least = _kth_largest(scores, self.k) - 4 * slack
            query, row = _at_least(scores, least)
            score = score_pairs(part, self.items, query, row)
            answers.append(self._best(part, query, row, score))
        return np.concatenate([a[0] for a in answers]), np.concatenate([a[1] for a in answers])


def _kth_largest(scores: Floats, k: int) -> Floats:
    """Return (B,) the k-th largest of every row, -inf where a row is shorter."""
    num_items = scores.shape[1]
    if k >= num_items:
        return np.full(len(scores), -np.inf, np.float32)
    kth: Floats = np.partition(scores, num_items - k, axis=1)[:, num_items - k]
    return kth


def _at_least(scores: Floats, least: Floats) -> tuple[Ints, Ints]:
    """Return query and row of every score at or above its query's `least`, but -inf."""
    flat = np.flatnonzero(scores >= np.maximum(least, LOWEST)[:, None])
    query, row = np.divmod(flat, max(1, scores.shape[1]))
    return query, row


def _excluded(exclude: Jagged | None, part: Ints) -> Excluded:
    """Return the exclusions of consecutive queries, numbered from the first of them."""
    if exclude is None or not len(part):
        return Excluded(np.zeros(0, np.int64), np.zeros(0, np.int64))
    offsets = exclude.offsets[part[0] : part[-1] + 2].cpu().numpy()
    rows = exclude.values[offsets[0] : offsets[-1]].cpu().numpy()
    return Excluded(np.repeat(np.arange(len(part)), np.diff(offsets)), rows)


@contextmanager
def _single_threads() -> Iterator[None]:
    """Let every chunk run on one thread, in full float32, until the block ends.

    Chunks run side by side instead: what follows a product is not parallel inside torch.
    """
    threads, precision = torch.get_num_threads(), torch.get_float32_matmul_precision()
    torch.set_num_threads(1)
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.autocast("cpu", enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(precision)
        torch.set_num_threads(threads)


def _joined(
    answers: list[tuple[Floats, Ints]], k: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    if not answers:
        answers = [(np.empty((0, k), np.float32), np.empty((0, k), np.int64))]
    scores = torch.from_numpy(np.concatenate([scores for scores, _ in answers]))
    rows = torch.from_numpy(np.concatenate([rows for _, rows in answers]))
    return scores.to(device), rows.to(device)


def _check_shapes(queries: Tensor, items: Tensor, exclude: Jagged | None) -> None:
    if queries.ndim != 2 or items.ndim != 2 or queries.shape[1] != items.shape[1]:
        raise ValueError(
            "queries (B, E) and items (N, E) must have one width, got "
            f"{tuple(queries.shape)} and {tuple(items.shape)}"
        )
    _check_exclude(exclude, len(queries), len(items))


def _check_counts(**counts: int) -> None:
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f"{name} must be at least 1, got {count}")


def _check_exclude(exclude: Jagged | None, num_queries: int, num_items: int) -> None:
    if exclude is None:
        return
    if len(exclude) != num_queries:
        raise ValueError(f"exclude has {len(exclude)} rows for {num_queries} queries")
    outside = (exclude.values < 0) | (exclude.values >= num_items)
    if outside.any():
        row = int(exclude.values[outside][0])
        raise ValueError(f"exclude names item row {row}; there are rows 0 to {num_items - 1}")
