"""Rates of pairs, where they pay on a part of the log that a small model did not learn from.

A logistic model of the rates of single columns is fitted on most of the rows, and its log loss
measured on the rest: the latest rows, or rows drawn at random where a column gives the split. A
pair of columns is proposed if its rate lowers that loss clearly, beyond those proposed before it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Generic, TypeVar

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from recsys.features.encoding.label_sums import LabelSums
from recsys.features.kinds.rate import RateFeature
from recsys.features.propose.draft import Draft
from recsys.features.propose.profile import ColumnProfile
from recsys.features.propose.roles import split_column
from recsys.features.propose.time_columns import time_columns
from recsys.features.propose.time_texts import guessed_instants
from recsys.features.propose.yaml_text import flow

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

SAMPLE_ROWS = 300_000
"""Rows of the log that are looked at, the first ones."""
_LEAST_ROWS, _LEAST_OF_A_LABEL = 2_000, 100
_MOST_COLUMNS, _MOST_CANDIDATES, _MOST_PAIRS = 8, 10, 6
_MODEL_ROWS = 20_000
_HELD_OUT, _FOLDS, _STEPS, _FAR = 0.2, 5, 8, 30.0
LEAST_GAIN, _ERRORS = 0.01, 4.0


W = TypeVar("W")


@dataclass(frozen=True)
class Gained(Generic[W]):
    """What pays, and the log loss of held-out rows without and with it."""

    what: W
    loss_before: float
    loss_after: float


def rate_lines(draft: Draft) -> list[str]:
    """Return features of the rates of pairs that pay on the rows looked at, with what they gain."""
    roles, log = draft.roles, draft.roles.log
    keys = {"items": roles.item, "users": roles.user}
    own = {
        "items": roles.items.column if roles.items else roles.item,
        "users": roles.users.column if roles.users else roles.user,
    }
    columns = {}
    for name, (table, column) in draft.categories.items():
        if table == "interactions":
            columns[name] = log.columns[column]
        elif column == own.get(table):
            columns[name] = log.columns[keys[table]]
    found = rates_that_pay(columns, log.columns[roles.label], order_of(draft))
    if not found:
        return []
    rows = min(SAMPLE_ROWS, log.rows)
    lines = [
        "# How often pairs of values were positive. A model of single columns' rates",
        f"# has less log loss with each of these, on rows held out of {rows:,}:",
    ]
    for one in found:
        name = "_".join((*one.what, "rate"))
        draft.names.add(name)
        spec = {"name": name, "kind": "rate", "of": one.what}
        lines.append(f"- {flow(spec)}   # {one.loss_before:.4f}, with it {one.loss_after:.4f}")
    return lines


def order_of(draft: Draft) -> Floats | None:
    """Return numbers that ascend as the split goes through the rows; None: at random."""
    log, clocks = draft.roles.log, time_columns(draft.roles.log, draft.latest)
    if clocks and (draft.roles.user or split_column(log) is None):
        column, guess = clocks[0]
        times = guessed_instants(log.columns[column].values, guess)
        return np.where(times.valid, times.values, np.iinfo(np.int64).min).astype(np.float64)
    return None if split_column(log) else np.arange(log.rows, dtype=np.float64)


def rates_that_pay(
    columns: Mapping[str, ColumnProfile],
    label: ColumnProfile,
    time: Floats | None = None,
) -> tuple[Gained[tuple[str, str]], ...]:
    """Return the pairs of columns whose rates pay, the best first.

    Args:
        columns: name of a feature -> the column of the log that holds its one value a row.
        label: of 0 and 1; rows where it is null are left out.
        time: (N,) of the rows, where it is known.
    """
    found = sample_of(label, time)
    if found is None:
        return ()
    sample, kept = found
    values = {name: _codes(column, kept) for name, column in columns.items()}
    single = {name: sample.numbers(found) for name, found in values.items()}
    names = sorted(single, key=lambda name: sample.loss_with(single[name]))[:_MOST_COLUMNS]
    if len(names) < 2:
        return ()
    sample.take(np.concatenate([single[name] for name in names], axis=1))
    pairs = {
        pair: sample.numbers(_pair(values[pair[0]], values[pair[1]]))
        for pair in combinations([name for name in columns if name in names], 2)
    }
    return tuple(those_that_pay(sample, pairs))


def sample_of(label: ColumnProfile, time: Floats | None) -> tuple["LabelSample", Integers] | None:
    """Return rows whose label is known and their numbers, (T,); None: too few to tell anything.

    Args:
        label: of 0 and 1.
        time: (N,) of the rows, where it is known.
    """
    known = pc.is_valid(label.values)
    if label.type == "float":
        known = pc.and_(known, pc.invert(pc.is_nan(label.values).fill_null(True)))
    kept = np.flatnonzero(np.asarray(known))[:SAMPLE_ROWS]
    truth = label.numbers[:SAMPLE_ROWS]
    if len(kept) < _LEAST_ROWS or min(truth.sum(), (1 - truth).sum()) < _LEAST_OF_A_LABEL:
        return None
    held_out = _is_held_out(len(kept), None if time is None else time[kept])
    return LabelSample(truth, held_out), kept


def those_that_pay(
    sample: "LabelSample", tried: Mapping[W, Floats], least_gain: float = LEAST_GAIN
) -> list[Gained[W]]:
    """Add one at a time to the model, as long as it lowers the loss clearly; the best first.

    least_gain: the share of the loss by which it has to be lower.
    """
    found: list[Gained[W]] = []
    left = dict(tried)
    while left and len(found) < _MOST_PAIRS:
        losses = {what: sample.loss_with(numbers) for what, numbers in left.items()}
        ordered = sorted(losses, key=losses.__getitem__)
        best, before = ordered[0], sample.loss
        gains = sample.gains(left[best])
        error = float(gains.std()) / len(gains) ** 0.5
        if gains.mean() < max(least_gain * before, _ERRORS * error):
            break
        sample.take(left[best])
        found.append(Gained(best, before, sample.loss))
        left = {what: left[what] for what in ordered[1 : _MOST_CANDIDATES + 1]}
    return found


class LabelSample:
    """Rows with labels, and a logistic model of some of them that grows by a few numbers at a time.

    Rates are of all T rows that are not held out; the model is fitted on N rows, held-out ones
    among them, of which it is measured.
    """

    def __init__(self, truth: Floats, held_out: NDArray[np.bool_]) -> None:
        self._label = truth.astype(np.float32)
        self._trained = np.flatnonzero(~held_out)
        rng = np.random.default_rng(0)
        fitted, measured = (
            rng.permutation(rows)[:_MODEL_ROWS]
            for rows in (self._trained, np.flatnonzero(held_out))
        )
        self._rows, self._split = np.concatenate([fitted, measured]), len(fitted)
        self._truth = truth[self._rows]
        self._feature = RateFeature(name="rate", of=("value",))
        self._logit = np.zeros(len(self._rows))
        self.take(np.zeros((len(self._rows), 0)))

    @property
    def rows(self) -> Integers:
        """Which of the T rows the model is fitted and measured on, (N,)."""
        return self._rows

    @property
    def loss(self) -> float:
        """Log loss of the held-out rows."""
        return float(self._losses(self._logit).mean())

    def numbers(self, values: Integers) -> Floats:
        """Return what a ranker reads of the rate of values, (N, 3); values: of every row."""
        sums, trained = LabelSums("rate", _FOLDS), self._trained
        weight = np.ones(len(trained), np.float32)
        sums.add(values[trained], trained, self._label[trained], weight)
        fitted, measured = self._rows[: self._split], self._rows[self._split :]
        told = (sums.outside().of(values[fitted], fitted), sums.table().of(values[measured]))
        return np.concatenate([self._feature.numbers(seen).numpy() for seen in told]).astype(float)

    def loss_with(self, numbers: Floats) -> float:
        """Return the loss of the held-out rows if the model also read `numbers` (N, D)."""
        return float(self._losses(self._fitted(numbers)).mean())

    def gains(self, numbers: Floats) -> Floats:
        """Return how much lower the loss of each held-out row would be."""
        return self._losses(self._logit) - self._losses(self._fitted(numbers))

    def take(self, numbers: Floats) -> None:
        """Let the model read `numbers` (N, D), too."""
        self._logit = self._fitted(numbers)

    def _losses(self, logit: Floats) -> Floats:
        z, y = logit[self._split :], self._truth[self._split :]
        return np.logaddexp(0, z) - y * z

    def _fitted(self, numbers: Floats) -> Floats:
        """Return the logits of the N rows after a few steps of Newton, from the model as it was."""
        ones = np.ones((len(numbers), 1))
        inputs = np.concatenate([numbers, self._logit[:, None], ones], axis=1)
        x, y = inputs[: self._split], self._truth[: self._split]
        weights = np.zeros(x.shape[1])
        weights[-2] = 1.0
        for _ in range(_STEPS):
            p = 1 / (1 + np.exp(-np.clip(x @ weights, -_FAR, _FAR)))
            curvature = (x * (p * (1 - p))[:, None]).T @ x + np.eye(x.shape[1])
            step = np.linalg.solve(curvature, x.T @ (y - p))
            weights += step
            if np.abs(step).max() < 1e-3:
                break
        return np.clip(inputs @ weights, -_FAR, _FAR)


def _is_held_out(count: int, time: Floats | None) -> NDArray[np.bool_]:
    held_out = np.zeros(count, bool)
    order = np.random.default_rng(0).permutation(count) if time is None else np.argsort(time)
    held_out[order[round((1 - _HELD_OUT) * count) :]] = True
    return held_out


def _codes(column: ColumnProfile, rows: Integers) -> Integers:
    encoded = pc.dictionary_encode(column.values.take(rows), null_encoding="encode")
    return np.asarray(encoded.indices).astype(np.int64)


def _pair(first: Integers, second: Integers) -> Integers:
    return first * (second.max() + 1) + second
