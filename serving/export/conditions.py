"""A filter as an example: conditions on columns that a store holds, chosen from their values."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from recsys.features.tables.ledger import is_list, is_text, mask_of

Sign = Literal["=", "<=", "contains"]
_FEWEST = 10
"""Items that have to be left for an example to be one."""


@dataclass(frozen=True)
class Condition:
    """`column` = value, `column` <= value, or a list `column` that contains a value."""

    column: str
    sign: Sign
    value: Any

    def passing(self, items: pa.Table) -> NDArray[np.bool_]:
        """Return which items meet it, (n,); null does not."""
        values = items.column(self.column).combine_chunks()
        if self.sign == "=":
            return mask_of(pc.equal(values, pa.scalar(self.value, values.type)))
        if self.sign == "<=":
            return mask_of(pc.less_equal(values, pa.scalar(self.value, values.type)))
        rows = np.asarray(pc.list_parent_indices(values))
        held = mask_of(pc.equal(pc.list_flatten(values), self.value))
        found = np.zeros(len(values), bool)
        found[rows[held]] = True
        return found


def example_of(items: pa.Table) -> list[Condition]:
    """Return at most two conditions on the columns after the first, which some items meet.

    The most frequent value of the text column that cuts the catalogue most evenly, and the lower
    median of the first column of numbers; fewer where fewer than 10 items would be left.
    """
    names = items.column_names[1:]
    ways = (_most_even(items, names), _median(items, names))
    chosen: list[Condition] = []
    left = np.ones(items.num_rows, bool)
    for condition in ways:
        if condition is None:
            continue
        kept = left & condition.passing(items)
        if kept.sum() >= min(_FEWEST, items.num_rows):
            chosen, left = [*chosen, condition], kept
    return chosen


def passing(conditions: Sequence[Condition], items: pa.Table) -> NDArray[np.bool_]:
    """Return which items meet all conditions, (n,)."""
    found = np.ones(items.num_rows, bool)
    for condition in conditions:
        found &= condition.passing(items)
    return found


def in_words(conditions: Sequence[Condition]) -> str:
    """Return the filter as `recsys score --where` takes it; empty without conditions."""
    return " and ".join(_word(one) for one in conditions)


def _word(condition: Condition) -> str:
    name = '"' + condition.column.replace('"', '""') + '"'
    return f"{name} {condition.sign} {literal(condition.value)}"


def literal(value: Any) -> str:
    """Return a value as SQL writes it."""
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    return str(value).lower() if isinstance(value, bool) else repr(value)


def _most_even(items: pa.Table, names: Sequence[str]) -> Condition | None:
    """Return the condition on text, or on what a list of texts holds, that passes about half."""
    best, distance = None, 0.5
    for name in names:
        values = items.column(name).combine_chunks()
        several = is_list(values.type)
        words = pc.list_flatten(values) if several else values
        if not is_text(words.type):
            continue
        counted = pc.value_counts(words.drop_null())
        if not len(counted):
            continue
        at = int(np.argmax(np.asarray(counted.field("counts"))))
        share = counted.field("counts")[at].as_py() / items.num_rows
        if abs(share - 0.5) < distance:
            value = counted.field("values")[at].as_py()
            best = Condition(name, "contains" if several else "=", value)
            distance = abs(share - 0.5)
    return best


def _median(items: pa.Table, names: Sequence[str]) -> Condition | None:
    for name in names:
        values = items.column(name).combine_chunks().drop_null()
        if len(values) and (pa.types.is_integer(values.type) or pa.types.is_floating(values.type)):
            middle = values.take(pc.sort_indices(values))[(len(values) - 1) // 2]
            return Condition(name, "<=", middle.as_py())
    return None
