"""In which form a column's times are, as `recsys init` guesses it from names and values."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from recsys.features.encoding.instants import Times, as_microseconds
from recsys.features.tables.known_formats import formats_of
from recsys.features.tables.ledger import mask_of
from recsys.features.tables.time_formats import parse_times, time_format
from recsys.features.tables.times import NULL_WORDS, UNITS, guess_unit, is_plausible

_FIRST, _MOST_TRIED = 200, 5
_NEARLY_ALL = 0.9
_DIGITS = r"^[0-9]+(\.0*)?$"
_NUMBER = r"^[0-9]+(\.[0-9]*)?([eE]\+?[0-9]+)?$"


@dataclass(frozen=True)
class TimeGuess:
    """How a column of times is declared.

    unit, format: as `TimeForm` has them. doubt: why the form is unsure, for people; "": it is not.
    """

    unit: str
    format: str = ""
    doubt: str = ""

    @property
    def options(self) -> dict[str, object]:
        """Keys of the configuration."""
        return {"format": self.format} if self.format else {"unit": self.unit}


def guess_text(name: str, values: pa.Array, latest: float) -> TimeGuess | None:
    """Return the form of text (N,) that is not ISO; None where no form has all of it.

    Args:
        name: of the column, for messages.
        values: text, in the order of the file.
        latest: the instant after which a time is in the future, in seconds since 1970.
    """
    encoded = _known(values).dictionary_encode()
    words = encoded.dictionary
    if not len(words):
        return None
    number = _unit_of_text(words, latest)
    if number is not None:
        return TimeGuess(number)
    found = {
        text: instants[np.asarray(encoded.indices)]
        for text, instants in _parsed(words)
        if is_plausible(instants, UNITS["us"], latest).mean() > _NEARLY_ALL
    }
    if not found:
        return None
    best, *others = sorted(found, key=lambda text: _oddness(found[text]))
    doubt = ""
    if others:
        shown = str(words[0])
        why = "the rows are nearest to an order in time so"
        if _oddness(found[best]) == _oddness(found[others[0]]):
            why = "nothing in the file decides it"
        doubt = (
            f"'{name}' holds dates as '{shown}', which may be {best} or {' or '.join(others)}: "
            f"{best} is used ({why}); look at it"
        )
    return TimeGuess("datetime", best, doubt)


def guess_number(values: NDArray[np.float64]) -> TimeGuess | None:
    """Return the form of whole numbers that are dates by their digits, as 20231231."""
    if not len(values) or values.min() < 19_000_000:
        return None
    largest = values.max()
    if not (largest < 21_000_000 or (values.min() >= 1.9e11 and largest < 2.1e13)):
        return None
    words = pc.unique(pa.array(values.astype(np.int64)).cast(pa.string()))
    for text, _ in _parsed(words):
        return TimeGuess("datetime", text)
    return None


def odd_rows(values: pa.Array) -> tuple[str, str, str] | None:
    """Return what keeps a column of text from being times, where most of it is of one form.

    The form, the first value that is of another, and the first that is of this one.
    """
    known = _known(values)
    if not len(known):
        return None
    words = pc.unique(known)
    for text in _forms(words):
        good = parse_times(words, time_format(text))[1]
        if 0.5 < good.mean() < 1:
            return text, str(words[int(np.flatnonzero(~good)[0])]), str(words[int(good.argmax())])
    return None


def _known(values: pa.Array) -> pa.Array:
    kept = values.drop_null().cast(pa.string())
    return kept.filter(pc.invert(pc.is_in(kept, pa.array(NULL_WORDS, kept.type))))


def _unit_of_text(words: pa.Array, latest: float) -> str | None:
    if not mask_of(pc.match_substring_regex(words, _NUMBER)).all():
        return None
    numbers = np.asarray(words.cast(pa.float64()))
    return guess_unit(np.clip(numbers, 0, 2.0**62).astype(np.int64), latest)


def _parsed(words: pa.Array) -> Iterator[tuple[str, NDArray[np.int64]]]:
    """Yield the forms that all words (D,) have, and their instants (D,)."""
    for text in _forms(words):
        instants, good = parse_times(words, time_format(text))
        if good.all():
            yield text, instants


def _forms(words: pa.Array) -> list[str]:
    """Return forms that the first words may have, those with a fraction of a second first."""
    found: dict[str, None] = {}
    for word in words[:_FIRST].to_pylist():
        found |= dict.fromkeys(formats_of(word))
        if not found:
            break
    # "10:00:00" and "10:00:00.5" are both of the longer form.
    return sorted(found, key=lambda text: "%f" not in text)[: 4 * _MOST_TRIED]


def _oddness(instants: NDArray[np.int64]) -> tuple[float, float]:
    """Return how far instants (N,) are from an order in time, and how long they last."""
    if len(instants) < 2:
        return 0.0, 0.0
    steps = np.diff(instants)
    back = min(float((steps < 0).mean()), float((steps > 0).mean()))
    return round(back, 2), float(instants.max() - instants.min())


def guessed_instants(values: pa.Array, guess: TimeGuess) -> Times:
    """Return the instants of a column, (N,), as its form has them; 0 where null."""
    if guess.format:
        texts = values
        if not pa.types.is_string(values.type) and not pa.types.is_large_string(values.type):
            texts = values.cast(pa.int64()).cast(pa.string())
        return Times(*parse_times(texts.cast(pa.string()), time_format(guess.format)))
    if guess.unit == "datetime":
        return as_microseconds(values, "datetime")
    if pa.types.is_string(values.type) or pa.types.is_large_string(values.type):
        null = pc.is_in(values, pa.array(NULL_WORDS, values.type))
        values = pc.if_else(null, pa.scalar(None, values.type), values)
    numbers = np.asarray(values.cast(pa.float64(), safe=False).fill_null(np.nan))
    valid = np.isfinite(numbers)
    scaled = np.where(valid, numbers, 0) * (1_000_000 / UNITS[guess.unit])
    return Times(np.clip(scaled, -(2.0**62), 2.0**62).astype(np.int64), valid)
