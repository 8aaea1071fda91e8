"""Rules, applied: from ranked candidates to a list.

Each rule works on all candidates of a request, in the order of the configuration; then the first k
are the list. See `recsys/pipeline/rules.py` for the settings.

- `at_most`: candidates are looked at in their order, and one that would be too many of a value is
  left out. A list may get short by it: nothing takes the place, so K has to be large.
- `diversify`: maximal marginal relevance, see `diversity.py`.
- `boost`: sorts by score; at equal scores the order stays. It therefore undoes the order that a
  `diversify` before it made.
- `pin`: takes an item out of the candidates and keeps a place for it, which no later rule changes;
  later rules count it as an item of the list. Where an earlier pin has the place it is the next
  free one; a pin behind the k-th place does nothing.
- `reserve`: see `reserving.py`. A rule behind it may move what it put at the end.

Shape letters: B requests, K candidates, W = max(K, k), N items of a catalogue, P pins.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from recsys.core.distinct import distinct_codes
from recsys.core.errors import ConfigError, DataError
from recsys.core.strict import StrictModel
from recsys.features.filters.predicate import Columns, no_column, passing
from recsys.features.filters.syntax import FilterError
from recsys.features.pipeline.diversity import (
    OfValues,
    OfVectors,
    Similarity,
    order_by_similarity,
    order_by_value,
)
from recsys.features.pipeline.item_values import ItemValues, ranks_among_equals
from recsys.features.pipeline.ranked import Mask, Ranked, Rows, Scores
from recsys.features.pipeline.reserving import reserved
from recsys.pipeline.rules import RULES, VECTORS, AtMost, Boost, Diversify, Pin, Reserve, Rule

_SEARCHED = 1024
"""Items that are looked at together, to find the first that may be pinned."""


class RuleError(ConfigError):
    """A rule that does not fit the items.

    Attributes:
        number: of the rule in its list, from 1.
        kind: its key.
        reason: what is wrong.
        column: the column it is about; "" where it is about none.
    """

    def __init__(self, number: int, kind: str, reason: str, column: str = "") -> None:
        """Make the message."""
        self.number, self.kind, self.reason, self.column = number, kind, reason, column
        super().__init__(f"rule {number} ({kind}): {reason}")

    def fields(self) -> dict[str, Any]:
        """Return what is known of the error as plain data."""
        names = ("number", "kind", "reason", "column")
        return super().fields() | {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class _Asked:
    """What a rule is asked for.

    k: length of the lists. eligible: (B, N); None: all. is_last: whether no rule follows. named:
    what sources name, by the names of those that `Rules.reads`.
    """

    k: int
    eligible: Mask | None
    is_last: bool
    named: Mapping[str, Rows]


_Applied = Callable[[Ranked, _Asked], Ranked]


@dataclass(frozen=True, eq=False)
class Rules:
    """Rules that fit the columns of a catalogue."""

    _applied: tuple[_Applied, ...]
    reads: frozenset[str] = frozenset()
    """Sources of which the rules need to know what they name."""

    @classmethod
    def compiled(
        cls,
        settings: Sequence[Rule],
        columns: Columns,
        num_items: int,
        vectors: NDArray[np.float32] | None = None,
        k: int | None = None,
    ) -> "Rules":
        """Return the rules, each looked up in the columns.

        Args:
            settings: of the rules, in their order.
            columns: of N items.
            num_items: N.
            vectors: (N, E) of the items, where they have some.
            k: length of the lists, where it is known.

        Raises:
            RuleError: a column is missing or of another type, a condition cannot be evaluated,
                there are no vectors, or a pin is behind the end of lists; the rule is named.
            DataError: a column cannot be read.
        """
        if vectors is not None and len(vectors) != num_items:
            raise ValueError(f"{len(vectors)} vectors for {num_items} items")
        applied = []
        for number, rule in enumerate(settings, 1):
            kind = next(name for name, one in RULES.items() if isinstance(rule, one))
            items = _Items(number, kind, columns, num_items, vectors, k)
            applied.append(_APPLIED[type(rule)](rule, items))
        reads = frozenset(one.of for one in settings if isinstance(one, Reserve))
        return cls(tuple(applied), reads)

    def apply(
        self,
        rows: Rows,
        scores: Scores,
        k: int,
        eligible: Mask | None = None,
        named: Mapping[str, Rows] | None = None,
    ) -> tuple[Rows, Scores]:
        """Return lists of k items: rows (B, k), -1 where short, scores (B, k), -inf there.

        The scores are those after boosts; the order alone says which item is better.

        Args:
            rows: (B, K) candidates, distinct in a request, best first, -1 where short; K >= k.
            scores: (B, K).
            k: length of the lists.
            eligible: (B, N) which items a request may be answered with; a pin searches them where
                no candidate passes. None: all.
            named: (B, T) item rows by source, those of `reads`, best first, -1 where there are
                fewer; they may be answered with.
        """
        ranked = Ranked.of(rows, scores, k)
        for number, rule in enumerate(self._applied if len(rows) else (), 1):
            is_last = number == len(self._applied)
            ranked = rule(ranked, _Asked(k, eligible, is_last, named or {}))
        return ranked.listed(k)


@dataclass(frozen=True)
class _Items:
    """What a rule may ask of the items while it is compiled, with errors that name the rule."""

    number: int
    kind: str
    columns: Columns
    size: int
    vectors: NDArray[np.float32] | None
    k: int | None

    def passing(self, text: str) -> Mask:
        """Return which items a condition is true of, (N + 1,); not of the last, which is none."""
        try:
            return np.append(passing(text, self.columns, self.size), False)
        except FilterError as error:
            self.refuse(str(error), error.column)

    def values(self, name: str) -> ItemValues:
        """Return the values of a column."""
        if name not in self.columns.names:
            self.refuse(no_column(name, self.columns) + self.columns.remedy, name)
        column = self.columns.column(name)
        values = ItemValues.of(column)
        if values is None:
            fit = ", ".join(filter(self._fits, self.columns.names)) or "none"
            self.refuse(
                f"column '{name}' ({column.type}) of {self.columns.place} is not of text, whole "
                f"numbers, true and false, or lists of them; name one that is: {fit}",
                name,
            )
        return values

    def _fits(self, name: str) -> bool:
        with suppress(DataError):
            return ItemValues.of(self.columns.column(name)) is not None
        return False

    def refuse(self, reason: str, column: str = "") -> NoReturn:
        """Raise the error."""
        raise RuleError(self.number, self.kind, reason, column)


def _at_most(rule: AtMost, items: _Items) -> _Applied:
    values, most = items.values(rule.of), rule.at_most

    def apply(ranked: Ranked, asked: _Asked) -> Ranked:
        num_pins = ranked.pins.shape[1]
        rows = np.concatenate([ranked.pins, ranked.rows], axis=1)
        if values.single is not None:
            too_many = ranks_among_equals(values.single[rows]) >= most
        else:
            too_many = _too_many(rows, values, most, num_pins)
        return ranked.without(too_many[:, num_pins:])

    return apply


def _too_many(rows: Rows, values: ItemValues, most: int, num_kept: int) -> Mask:
    """Return which items (B, S) would be too many of one of their values, of those that stay.

    The first `num_kept` items of each request stay. All requests take a step at a time.
    """
    count, size = rows.shape
    codes = values.of_rows(rows.T.reshape(-1))
    owners = codes.owners().numpy() % count
    _, names = distinct_codes(owners * values.num_codes + codes.values.numpy())
    bounds = codes.offsets.numpy()[::count]
    found = np.zeros((size, count), bool)
    used = np.zeros(names.max(initial=-1) + 1, np.int64)
    for step in range(size):
        part = slice(bounds[step], bounds[step + 1])
        own, name = owners[part], names[part]
        if step >= num_kept:
            found[step, own[used[name] >= most]] = True
        used[name[~found[step, own]]] += 1
    return found.T


def _diversify(rule: Diversify, items: _Items) -> _Applied:
    by, weight = rule.diversify.by, rule.diversify.weight
    similarity: Similarity
    if by == VECTORS:
        if items.vectors is None:
            items.refuse("by: vectors, and there are no vectors of items; name a column")
        similarity, codes = OfVectors.of(items.vectors), None
    else:
        values = items.values(by)
        similarity, codes = OfValues(values), values.single

    def apply(ranked: Ranked, asked: _Asked) -> Ranked:
        if weight == 0:
            return ranked
        if codes is not None:
            return ranked.in_order(order_by_value(ranked, codes, weight))
        depth = asked.k if asked.is_last else ranked.rows.shape[1]
        return ranked.in_order(order_by_similarity(ranked, similarity, weight, depth))

    return apply


def _boost(rule: Boost, items: _Items) -> _Applied:
    passes, by, largest = items.passing(rule.boost.where), rule.boost.by, np.finfo(np.float32).max

    def apply(ranked: Ranked, asked: _Asked) -> Ranked:
        old = ranked.scores.astype(np.float64)
        with np.errstate(over="ignore"):
            boosted = np.clip(np.where(old > 0, old * by, old / by), -largest, largest)
        scores = np.where(passes[ranked.rows], boosted, old).astype(np.float32)
        order = np.argsort(-scores, axis=1, kind="stable")
        return replace(ranked, scores=scores).in_order(order)

    return apply


def _pin(rule: Pin, items: _Items) -> _Applied:
    position = rule.pin.position
    if items.k is not None and position > items.k:
        items.refuse(f"position {position}, and lists have {items.k} items; name a place of these")
    passes = items.passing(rule.pin.where)
    candidates = np.flatnonzero(passes)

    def apply(ranked: Ranked, asked: _Asked) -> Ranked:
        places = ranked.free_places(position - 1)
        fits = passes[ranked.rows]
        first = fits.argmax(1)[:, None]
        found = np.take_along_axis(np.where(fits, ranked.rows, -1), first, axis=1)[:, 0]
        missing = np.flatnonzero((found < 0) & (places < asked.k))
        found[missing] = _first_eligible(candidates, missing, ranked.pins, asked.eligible)
        return ranked.pinned(np.where(places < asked.k, found, -1), places, asked.k)

    return apply


def _reserve(rule: Reserve, items: _Items) -> _Applied:
    if items.k is not None and rule.reserve > items.k:
        items.refuse(f"{rule.reserve} places, and lists have {items.k}")

    def apply(ranked: Ranked, asked: _Asked) -> Ranked:
        return reserved(ranked, asked.named[rule.of], rule.reserve, asked.k)

    return apply


def _first_eligible(items: Rows, requests: Rows, pins: Rows, eligible: Mask | None) -> Rows:
    """Return the first of the items (M,) that each of the requests (R,) may have; -1 for none.

    pins: (B, P) which are in the lists.
    """
    found = np.full(len(requests), -1)
    open_ = np.arange(len(requests))
    for start in range(0, len(items), _SEARCHED):
        part, own = items[start : start + _SEARCHED], requests[open_]
        may = np.ones((len(own), len(part)), bool)
        if eligible is not None:
            may = eligible[own[:, None], part]
        for pin in pins[own].T:
            may = may & (part != pin[:, None])
        hits = may.any(1)
        found[open_[hits]] = part[may[hits].argmax(1)]
        open_ = open_[~hits]
        if not len(open_):
            break
    return found


_APPLIED: dict[type[StrictModel], Callable[[Any, _Items], _Applied]] = {
    AtMost: _at_most,
    Boost: _boost,
    Diversify: _diversify,
    Pin: _pin,
    Reserve: _reserve,
}
"""Settings of a rule -> what compiles it."""
