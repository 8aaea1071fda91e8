"""Which columns of a table are times, of which form, and which look like times and are none."""

import numpy as np
import pyarrow as pa

from recsys.features.propose.profile import ColumnProfile, TableProfile
from recsys.features.propose.roles import TIME_WORDS, has_word
from recsys.features.propose.time_texts import TimeGuess, guess_number, guess_text, odd_rows
from recsys.features.tables.times import guess_unit


def time_columns(table: TableProfile, latest: float) -> list[tuple[str, TimeGuess]]:
    """Return columns of times with their forms, the likeliest first; of one instant none is."""
    found: list[tuple[int, str, TimeGuess]] = []
    for name, column in table.columns.items():
        guess = time_guess(column, latest)
        named = has_word(name, TIME_WORDS)
        if guess is None or (guess.unit != "datetime" and not named and column.distinct < 100):
            continue
        if column.distinct > 1:
            found.append((0 if named else 1, name, guess))
    found.sort(key=lambda one: one[0])
    return [(name, guess) for _, name, guess in found]


def unused_times(table: TableProfile, latest: float, used: set[str]) -> list[str]:
    """Return why columns that are named as times, or look like them, are not used as one."""
    said = []
    for name, column in table.columns.items():
        if name in used or not len(column.known):
            continue
        guess, named = time_guess(column, latest), has_word(name, TIME_WORDS)
        first = column.known[0].as_py()
        odd = odd_rows(column.known) if column.type == "string" and guess is None else None
        if column.distinct <= 1 and (guess is not None or named):
            said.append(
                f"all rows have the same time in '{name}' ({first}): it says no order, and no "
                "split by time is possible"
            )
        elif odd is not None:
            said.append(
                f"'{name}' looks like a time of the form '{odd[0]}' ({odd[2]}), but {odd[1]!r} is "
                "of another: it is not used; bring it to one form and declare "
                f"time: {{column: {name}, format: '{odd[0]}'}}"
            )
        elif guess is None and named and column.type in ("string", "integer", "float"):
            said.append(
                f"'{name}' is named as a time, but its values ({first!r}) are in no form that is "
                "recognised: it is not used; if it is one, declare interactions.time with its "
                "format ('%d.%m.%Y %H:%M') or unit"
            )
    return said


def time_guess(column: ColumnProfile, latest: float) -> TimeGuess | None:
    """Return the form of a column of times, None where it is none."""
    if column.type == "time" or column.is_date_text:
        return TimeGuess("datetime")
    if column.type == "string" and not pa.types.is_dictionary(column.values.type):
        guess = guess_text(column.name, column.values, latest)
        is_number = guess is not None and not guess.format
        return None if is_number and not has_word(column.name, TIME_WORDS) else guess
    if column.type not in ("integer", "float") or not len(column.numbers):
        return None
    named = has_word(column.name, TIME_WORDS)
    if not column.is_whole and not named:
        return None
    sample = column.numbers[np.isfinite(column.numbers)]
    unit = guess_unit(np.clip(sample, -(2.0**62), 2.0**62).astype(np.int64), latest)
    if unit is not None:
        return TimeGuess(unit)
    return guess_number(sample) if named and column.is_whole else None
