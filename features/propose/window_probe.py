"""Windows over a further table: those that are proposed, and those that are where they pay.

Numbers of rows of the user and of the item, and the time since the latest, are proposed of every
table: on a made shop they raise a ranker's AUC, although a small model that has the rates of users
and items gains nothing by them. Windows of the pair are proposed where they make such a model
better, as rates of pairs are (`recsys.features.propose.rates`), on rows that it did not learn from.
They end just before a row of the log, as in training.

Letters: N rows of the log, R rows of the table.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recsys.features.propose.draft import Draft
from recsys.features.propose.profile import ColumnProfile, TableProfile
from recsys.features.propose.rates import Gained, LabelSample, order_of, sample_of, those_that_pay
from recsys.features.propose.time_columns import time_columns
from recsys.features.propose.time_texts import TimeGuess, guessed_instants
from recsys.features.relations.facts import KEYS, KEYS_OF, By, Key
from recsys.features.relations.spans import microseconds_of
from recsys.features.relations.timeline import Integers, Timeline
from recsys.features.tables.id_forms import IdForm

Floats = NDArray[np.float64]
_LEAST_GAIN = 0.003
"""Share of the loss. On a made shop windows that lower it by 0.8 and 0.5 % raise a ranker's AUC."""


@dataclass(frozen=True)
class Tried:
    """A window: whose rows, and their number within a span of time, or the time since the last."""

    by: By
    span: str | None = None
    since: bool = False

    @property
    def title(self) -> str:
        """What the end of its name says."""
        return "since" if self.since else self.span or "ever"

    @property
    def options(self) -> dict[str, str]:
        """Its keys."""
        if self.since:
            return {"take": "since"}
        return {} if self.span is None else {"window": self.span}


USUAL: Mapping[By, tuple[Tried, ...]] = {
    "user": (Tried("user", "7d"), Tried("user", "30d"), Tried("user", since=True)),
    "item": (Tried("item", "7d"), Tried("item", "30d"), Tried("item", since=True)),
}
_OF_PAIRS = (Tried("pair", "30d"), Tried("pair"), Tried("pair", since=True))


def pairs_that_pay(
    draft: Draft,
    table: TableProfile,
    keys: Mapping[Key, str],
    clock: tuple[str, TimeGuess],
    forms: Mapping[Key, IdForm | None],
) -> Sequence[Gained[Tried]]:
    """Return the windows of pairs that pay, the best first; none where there is too little to tell.

    Args:
        draft: of the log.
        table: with many rows a key.
        keys: its columns with ids of users and items.
        clock: its time.
        forms: how ids are written, where the schema says it.
    """
    roles, log = draft.roles, draft.roles.log
    clocks = time_columns(log, draft.latest)
    if not clocks or not table.complete or len(keys) < len(KEYS):
        return ()
    columns: dict[Key, ColumnProfile] = {
        "user": log.columns[roles.user],
        "item": log.columns[roles.item],
    }
    found = sample_of(log.columns[roles.label], order_of(draft))
    if found is None:
        return ()
    sample, kept = found
    asked: dict[Key, Integers] = {}
    own: dict[Key, Integers] = {}
    for key in KEYS:
        ids = columns[key].values.take(pa.array(kept)), table.columns[keys[key]].values
        codes = _codes(*ids, forms.get(key))
        asked[key], own[key] = codes
        sample.take(sample.numbers(codes[0]))
    when = guessed_instants(log.columns[clocks[0][0]].values, clocks[0][1])
    happened = guessed_instants(table.columns[clock[0]].values, clock[1])
    rows = _Rows(own, happened.values, happened.valid)
    at = when.values[kept]
    numbers = {one: _numbers(sample, rows, one, asked, at) for one in _OF_PAIRS}
    return those_that_pay(sample, numbers, _LEAST_GAIN)


@dataclass(frozen=True)
class _Rows:
    """R rows: codes of their keys, -1 where null, their times, and which of them have one."""

    codes: Mapping[Key, Integers]
    time: Integers
    known: NDArray[np.bool_]


def _codes(log: pa.Array, table: pa.Array, form: IdForm | None) -> tuple[Integers, Integers]:
    """Return one number for each id, (N,) and (R,), equal for equal ids; -1 where null."""
    texts = [one.cast(pa.large_string()) for one in (log, table)]
    if form is not None:
        texts = [form.written(one) for one in texts]
    joined = pa.concat_arrays(texts).dictionary_encode().indices.fill_null(-1)
    codes = np.asarray(joined).astype(np.int64)
    return codes[: len(log)], codes[len(log) :]


def _numbers(
    sample: LabelSample, rows: _Rows, one: Tried, asked: Mapping[Key, Integers], at: Integers
) -> Floats:
    """Return what a ranker reads of a window for the rows of the sample, (N, 2)."""
    chosen = sample.rows
    owner, mine = _owners(one.by, rows.codes, asked)
    owner = np.where(rows.known, owner, -1)
    line = Timeline(owner, rows.time)
    span = None if one.span is None else microseconds_of(one.span)
    windows = line.windows(mine[chosen], at[chosen], span)
    if not one.since:
        return np.log1p(windows.sizes.astype(np.float64))[:, None]
    seconds = line.since(windows, at[chosen])
    null = np.isnan(seconds)
    return np.stack([np.log1p(np.where(null, 0, seconds)), null], axis=1)


def _owners(
    by: By, rows: Mapping[Key, Integers], asked: Mapping[Key, Integers]
) -> tuple[Integers, Integers]:
    """Return one number for the keys of each row, (R,) and (N,), below 0 where one is null."""
    count = len(rows[KEYS_OF[by][0]])
    first, *others = (np.concatenate([rows[key], asked[key]]) for key in KEYS_OF[by])
    for other in others:
        width = int(other.max(initial=0)) + 1
        first = np.where((first < 0) | (other < 0), -1, first * width + other)
    return first[:count], first[count:]
