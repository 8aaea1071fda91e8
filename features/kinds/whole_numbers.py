"""Whole numbers that `recsys init` meets: codes, counts, or amounts?"""

import numpy as np

from recsys.core.distinct import distinct
from recsys.features.propose.profile import ColumnProfile
from recsys.features.propose.roles import has_word

_CODE_WORDS = {
    "id", "code", "zip", "key", "category", "cat", "type", "class", "genre", "brand", "group",
    "segment", "department", "city", "country", "region", "store", "shop", "artist", "author",
}  # fmt: skip
_AMOUNT_WORDS = {"price", "year", "age", "cost", "length", "size", "duration", "weight", "count"}
_FEWER = 16


def names_codes(column: ColumnProfile) -> bool:
    """Whether the column's name has a word for codes."""
    return has_word(column.name, _CODE_WORDS)


def names_amounts(column: ColumnProfile) -> bool:
    """Whether the column's name has a word for amounts."""
    return has_word(column.name, _AMOUNT_WORDS)


def are_counts(column: ColumnProfile) -> bool:
    """Whether whole numbers, not named as codes, are dense near 0 and thin out far above."""
    if not column.is_whole or names_codes(column):
        return False
    numbers = column.numbers[np.isfinite(column.numbers)]
    values = distinct(numbers)
    if len(values) <= _FEWER:
        return False
    median = float(np.median(numbers))
    starts_low = -10 <= values[0] <= 2 and values[:10][-1] <= 30
    return bool(starts_low and values[-1] > 20 * max(median, 1))


def come_often(column: ColumnProfile) -> bool:
    """Whether whole numbers repeat often, under a name without a word for amounts."""
    comes_again = len(column.known) >= 4 * column.distinct
    return column.is_whole and comes_again and not names_amounts(column)
