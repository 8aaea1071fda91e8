"""A plain model asked: lists of items, and which of them are by popularity alone.

A plain model scores items by what it knows of a history. Of a history that is empty, or none of
whose items training saw, it knows nothing and scores all items as it would for anybody: what it
recommends then is what is popular, not whichever items the table happens to have first. The same
order decides among items with equal scores, above all those of which it knows nothing.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys.core.distinct import is_among
from recsys.data.batch import Jagged
from recsys.plain.interactions import CELLS_AT_ONCE, Baseline, Integers
from recsys.plain.kind import PlainKind
from recsys.plain.popularity import Popularity
from recsys.plain.registry import PLAIN
from recsys.plain.saved import arrays_of, from_bytes, model_of, to_bytes
from recsys.retrieval.passing import Passing
from recsys.retrieval.topk import topk_of_scores

CHUNK = 1024
"""Most histories that are scored together."""
_ORDER, _RECENT = "popular.order", "popular.recent"


@dataclass(frozen=True)
class PopularFirst:
    """The catalogue in the order that plain models fall back on.

    words: what it is ordered by. order (n_items,) int64: item rows, the most popular one first.
    """

    words: str
    order: NDArray[np.int64]

    @classmethod
    def of(
        cls,
        user_row: Integers,
        item_row: Integers,
        num_items: int,
        *,
        time: Integers | None,
        window: int,
        weight: NDArray[np.float32] | None = None,
    ) -> "PopularFirst":
        """Order by users within the window where times are known, then by users of all time.

        Args:
            user_row: (E,) the users, training rows only.
            item_row: (E,) the items.
            num_items: size of the catalogue.
            time: (E,) when, where that is known.
            window: how long before the last row counts as recent, in units of `time`.
            weight: (E,) how much a row counts, above 0; None: 1 each.
        """
        rows = (user_row, item_row, num_items)
        ever = Popularity.fit(*rows, weight=weight).num_users
        if time is None or not len(time):
            return cls("popularity", np.argsort(-ever, kind="stable"))
        recent = Popularity.fit(*rows, time=time, window=window, weight=weight).num_users
        return cls("recent popularity", np.lexsort((-ever, -recent)))


class Top(NamedTuple):
    """Lists of B histories.

    scores: (B, k) float32, best first. rows: (B, k) int64, -1 where a list is short. popular: (B,)
    bool, whether a list is by popularity alone, because the model knows nothing of the history.
    """

    scores: Tensor
    rows: Tensor
    popular: NDArray[np.bool_]


@dataclass(frozen=True)
class PlainModel:
    """A fitted model, and the order of items that it falls back on.

    breaks_ties: whether it orders items without a score by itself. falls_back: whether it has no
    scores for histories that it knows nothing of.
    """

    fitted: Baseline
    popular: PopularFirst
    breaks_ties: bool = False
    falls_back: bool = True

    @classmethod
    def of(cls, kind: PlainKind, fitted: Baseline, popular: PopularFirst) -> "PlainModel":
        """Return the model of a kind."""
        return cls(fitted, popular, kind.breaks_ties, kind.falls_back)

    @property
    def num_items(self) -> int:
        """Size of the catalogue."""
        return len(self.popular.order)

    def top(
        self,
        history: Jagged,
        k: int,
        *,
        exclude: Jagged | Passing | None = None,
        among: NDArray[np.int64] | None = None,
    ) -> Top:
        """Return the best k items of each history.

        Args:
            history: B rows of item rows, oldest first.
            k: length of the lists, at least 1.
            exclude: B rows of item rows to leave out, or which items pass.
            among: ascending item rows, the only ones to rank; None: the whole catalogue.
        """
        ranked = among
        if not self.breaks_ties:
            order = self.popular.order
            ranked = order if among is None else order[is_among(order, among)]
        tops = [
            self._top(
                history.take(rows), k, None if exclude is None else exclude.take(rows), ranked
            )
            for rows in _chunks(len(history), self.num_items)
        ]
        if not tops:
            return Top(torch.zeros(0, k), torch.zeros(0, k, dtype=torch.int64), np.zeros(0, bool))
        scores, rows, popular = zip(*tops, strict=True)
        return Top(torch.cat(scores), torch.cat(rows), np.concatenate(popular))

    def scores(self, history: Jagged) -> NDArray[np.float32]:
        """Return the model's own scores, (B, n_items), without a fallback."""
        return self.fitted.score(history.values.numpy(), history.offsets.numpy())

    def to_bytes(self) -> bytes:
        """Return the model as safetensors bytes, for `from_bytes`."""
        recent = np.array([self.popular.words.startswith("recent")], np.uint8)
        arrays = arrays_of(self.fitted)
        return to_bytes({**arrays, _ORDER: self.popular.order, _RECENT: recent})

    @classmethod
    def from_bytes(cls, config: Any, data: bytes) -> "PlainModel":
        """Return what `to_bytes` wrote of a model of these settings.

        Raises:
            IntegrityError: it is of another kind.
        """
        kind, arrays = PLAIN[config.kind], from_bytes(data)
        fitted = model_of(kind.model, arrays)
        words = "recent popularity" if arrays[_RECENT][0] else "popularity"
        return cls.of(kind, fitted, PopularFirst(words, arrays[_ORDER]))

    @cached_property
    def _of_unknown(self) -> NDArray[np.float32]:
        """What an empty history scores, (n_items,)."""
        found: NDArray[np.float32] = self.fitted.score(np.zeros(0, np.int64), np.zeros(2, np.int64))
        return found[0]

    @cached_property
    def _by_popularity(self) -> NDArray[np.float32]:
        """Scores by popularity, (n_items,): they fall by one an item, exact up to 2^24 items."""
        found = np.empty(self.num_items, np.float32)
        found[self.popular.order] = -np.arange(self.num_items)
        return found

    def _top(
        self,
        history: Jagged,
        k: int,
        exclude: Jagged | Passing | None,
        ranked: NDArray[np.int64] | None,
    ) -> Top:
        scores = self.scores(history)
        hidden = np.zeros(scores.shape, bool)
        if isinstance(exclude, Passing):
            hidden = ~exclude.masks()
        elif exclude is not None:
            hidden[exclude.owners().numpy(), exclude.values.numpy()] = True
        popular = self._says_nothing(scores, hidden)
        scores[popular] = self._by_popularity
        scores[hidden] = -np.inf
        matrix = torch.from_numpy(scores if ranked is None else scores[:, ranked])
        found, place = topk_of_scores(matrix, k)
        rows = place
        if ranked is not None:
            row_of = torch.from_numpy(np.append(ranked, -1))  # place -1 is that of the last one
            rows = row_of[place]
        return Top(found, rows, popular)

    def _says_nothing(
        self, scores: NDArray[np.float32], hidden: NDArray[np.bool_]
    ) -> NDArray[np.bool_]:
        """Whether a history changes no score of what may be recommended after it, (B,)."""
        if not self.falls_back:
            return np.zeros(len(scores), bool)
        return ~((scores != self._of_unknown) & ~hidden).any(1)


@dataclass(frozen=True)
class MovedModel:
    """A fitted model asked about another catalogue: items that either lacks are not there.

    own: (n_items,) the row of the model that each item of the other catalogue has, -1: none.
    """

    model: PlainModel
    own: NDArray[np.int64]

    @property
    def popular(self) -> PopularFirst:
        """The order of the model's own catalogue."""
        return self.model.popular

    def top(
        self,
        history: Jagged,
        k: int,
        *,
        exclude: Jagged | None = None,
        among: NDArray[np.int64] | None = None,
    ) -> Top:
        """Return what `PlainModel.top` does, in rows of the other catalogue."""
        known = self.own if among is None else self.own[among]
        hidden = None if exclude is None else exclude.renamed(self.own)
        top = self.model.top(
            history.renamed(self.own), k, exclude=hidden, among=np.sort(known[known >= 0])
        )
        of_model = np.full(self.model.num_items, -1)
        of_model[self.own[self.own >= 0]] = np.flatnonzero(self.own >= 0)
        rows = torch.from_numpy(of_model)[top.rows.clamp(min=0)]
        return top._replace(rows=torch.where(top.rows >= 0, rows, -1))


def _chunks(count: int, num_items: int) -> Iterator[Tensor]:
    return iter(
        torch.arange(count).split(min(CHUNK, max(1, CELLS_AT_ONCE // max(1, num_items))))
        if count
        else ()
    )
