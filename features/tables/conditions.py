"""Conditions on columns, `where` in the schema: which rows of a batch are read at all."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from recsys.features.kinds.convert import number
from recsys.features.tables.condition import Condition
from recsys.features.tables.ledger import Cells, Ledger, Mask, cells, is_list, is_text, mask_of
from recsys.features.tables.number_text import PLAIN, NumberText
from recsys.features.tables.sources import Policies, Rule

_WHERE = Rule("where", choice="")


def conditions_met(
    table: pa.Table,
    rows: NDArray[np.int64],
    where: Sequence[Condition],
    ledger: Ledger,
    written: NumberText = PLAIN,
) -> Mask:
    """Return which rows meet every condition, (N,) bool; null meets none. Others are counted."""
    met = np.ones(len(rows), bool)
    for condition in where:
        column = cells(table, condition.column, rows, ledger, written)
        holds = condition_holds(column, condition)
        column.note(met & ~holds, f"not {_words(condition)}", "", rule=_WHERE, show=False)
        met &= holds
    return met


def condition_holds(column: Cells, condition: Condition) -> Mask:
    """Return where `condition` holds, (N,) bool; it does not where the column is null.

    Raises:
        DataError: the column is of no type that the condition is about.
    """
    values = column.values
    if is_list(values.type):
        column.refuse("a condition on a list", "conditions are on columns of one value a row")
    holds = np.ones(len(values), bool)
    if condition.one_of is not None:
        holds &= is_one_of(column, condition.one_of)
    if condition.at_least is not None or condition.at_most is not None:
        scratch = Ledger(column.ledger.files)  # an infinity in a condition is no finding
        values = number(replace(column, ledger=scratch), Policies(infinite_numbers="null"))
        scratch.settle()
        numbers = np.asarray(values.fill_null(np.nan))
        low = -np.inf if condition.at_least is None else condition.at_least
        high = np.inf if condition.at_most is None else condition.at_most
        holds &= (numbers >= low) & (numbers <= high)
    return holds


def is_one_of(column: Cells, wanted: Sequence[str | int]) -> Mask:
    """Return where a value is one of `wanted`, (N,) bool; null is none of them.

    Raises:
        DataError: `wanted` holds text and the column does not, or is of no type to compare.
    """
    values = column.values
    if is_text(values.type):
        return mask_of(pc.is_in(values, pa.array([str(one) for one in wanted], values.type)))
    texts = [one for one in wanted if isinstance(one, str)]
    if texts:
        column.refuse(
            f"the condition one_of names {texts[0]!r}, but the column is {values.type}",
            "write the values of one_of without quotes",
        )
    kind = values.type
    if pa.types.is_uint64(kind):
        return mask_of(pc.is_in(values, pa.array([one for one in wanted if int(one) >= 0], kind)))
    if pa.types.is_floating(kind):
        numbers = pa.array([float(one) for one in wanted])
        return mask_of(pc.is_in(values.cast(pa.float64()), numbers))
    if pa.types.is_integer(kind) or pa.types.is_boolean(kind) or pa.types.is_null(kind):
        return mask_of(pc.is_in(values.cast(pa.int64()), pa.array(list(wanted), pa.int64())))
    column.refuse(f"a condition on {kind}", "conditions are on numbers or text")


def _words(condition: Condition) -> str:
    bounds: Mapping[str, object] = {
        "at least": condition.at_least,
        "at most": condition.at_most,
        "one of": None if condition.one_of is None else list(condition.one_of),
    }
    return " and ".join(
        f"{words} {value:g}" if isinstance(value, float) else f"{words} {value}"
        for words, value in bounds.items()
        if value is not None
    )
