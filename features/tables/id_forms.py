"""How the ids of one side are written, so that several spellings of an id are one id.

One function, `IdForm.written`, is applied wherever ids come in: the log, every table, requests and
their histories, lists of ids, the arguments of the command line and of the Python API. Ids of a
side with a form are text.
"""

import json
import unicodedata
from collections.abc import Iterable
from typing import Annotated, Any, Literal, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, model_validator

from recsys.core.errors import DataError
from recsys.core.strict import StrictModel

_WHITE = r"\pZ\x09-\x0d\x1c-\x1f\x{85}"
_JOINERS = r"\x{200c}\x{200d}"  # part of words in some scripts, noise at the ends
_HIDDEN = r"\x{ad}\x{61c}\x{180e}\x{200b}\x{200e}\x{200f}\x{202a}-\x{202e}\x{2060}-\x{2064}"
INVISIBLE = rf"[{_HIDDEN}\x{{2066}}-\x{{2069}}\x{{feff}}\x{{e0000}}-\x{{e007f}}]"
"""Characters that nobody sees: zero-width, byte order mark, soft hyphen, directions of text."""
_ENDS = rf"^[{_WHITE}{_JOINERS}]+|[{_WHITE}{_JOINERS}]+$"
_TRAILING_ZERO = r"^(-?[0-9]+)\.0*$"
_LEADING_ZEROS = r"^(-?)0+([0-9]+)$"
_DIGITS = r"^[0-9]+$"
_ROUNDS = 8
INEXACT_FLOAT = float(2**53)
"""From here on neighbouring whole numbers are the same float."""


class IdForm(StrictModel):
    """How ids are written; what is set is applied to every id of the side, which becomes text."""

    strip: bool = False
    """Remove white space at the ends, and invisible characters (zero-width, byte order mark,
    soft hyphen) anywhere."""
    form: Literal["NFC", "NFKC"] | None = None
    """Unicode form: `NFC` makes one of a letter and its accent, `NFKC` also of full-width and
    plain letters."""
    case: Literal["lower", "upper"] | None = None
    """Write letters in lower (or upper) case."""
    prefix: str = ""
    """Remove this from the beginning of ids that begin with it: `item_123` is `123`."""
    trailing_zero: Literal["drop"] | None = None
    """Whole numbers that were written as floats: `123.0` is `123`."""
    leading_zeros: Literal["drop"] | None = None
    """Whole numbers without zeros on the left: `00123` is `123`."""
    pad: Annotated[int, Field(ge=2, le=64)] | None = None
    """Whole numbers with zeros on the left up to this many digits: with 7, `12345`, `12345.0` and
    `0012345` are `0012345`."""
    as_text: bool = False
    """Text, also where a table holds whole numbers: 123 is `123`. Every other key does that too."""

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self == type(self).model_construct():
            raise ValueError(f"set at least one of {', '.join(type(self).model_fields)}")
        if self.pad is not None and self.leading_zeros is not None:
            raise ValueError("'pad' adds zeros and 'leading_zeros: drop' removes them: set one")
        return self

    @property
    def drops_trailing_zero(self) -> bool:
        """Whether `123.0` is `123`."""
        return self.trailing_zero is not None or self.pad is not None

    def written(self, words: pa.Array) -> pa.Array:
        """Return ids (N,), text, as they are written; null stays null. Applying it twice is once.

        What is not text in NFC or NFKC, or not a whole number, stays as it is there.
        """
        words = words.cast(pa.large_string())
        for _ in range(_ROUNDS):  # what one step leaves may be what an earlier one looks for
            changed = self._once(words)
            if changed.equals(words):
                break
            words = changed
        return words

    def _once(self, words: pa.Array) -> pa.Array:
        words = self._letters(words)
        if self.prefix:
            prefix = self._letters(pa.array([self.prefix], pa.large_string()))[0].as_py()
            begins = pc.starts_with(words, pattern=prefix)
            rest = pc.utf8_slice_codeunits(words, start=len(prefix))
            words = pc.if_else(begins, rest, words) if prefix else words
        if self.drops_trailing_zero:
            words = _replaced(words, _TRAILING_ZERO, r"\1")
        if self.leading_zeros is not None or self.pad is not None:
            words = _replaced(words, _LEADING_ZEROS, r"\1\2")
        if self.pad is not None:
            number = pc.match_substring_regex(words, _DIGITS)
            words = pc.if_else(number, pc.utf8_lpad(words, width=self.pad, padding="0"), words)
        return words

    def _letters(self, words: pa.Array) -> pa.Array:
        """Return what the keys about characters make of text."""
        if self.case is not None:
            words = (pc.utf8_lower if self.case == "lower" else pc.utf8_upper)(words)
        if self.form is not None:
            words = _normalized(words, self.form)
        if self.strip:
            words = _replaced(_replaced(words, INVISIBLE, ""), _ENDS, "")
        return words

    def with_also(self, other: "IdForm") -> "IdForm":
        """Return the form that does what both do; where they differ, what the other does."""
        settings = self.settings()
        for key in ("pad", "leading_zeros") if other.pad or other.leading_zeros else ():
            settings.pop(key, None)
        return IdForm.model_validate(settings | other.settings())

    def with_whole_floats(self) -> "IdForm":
        """Return the form that takes whole floats, too."""
        more = {} if self.drops_trailing_zero else {"trailing_zero": "drop"}
        settings = {key: value for key, value in self.settings().items() if key != "as_text"}
        return IdForm.model_validate(settings | more)

    def said(self) -> str:
        """Return what is done to ids, for people: "padding to 7 digits"."""
        words = {
            "strip": "removing white space and invisible characters",
            "form": f"writing them in the Unicode form {self.form}",
            "case": f"writing them in {self.case} case",
            "prefix": f"removing the prefix {self.prefix!r}",
            "trailing_zero": "removing a trailing '.0'",
            "leading_zeros": "removing leading zeros",
            "pad": f"padding to {self.pad} digits",
            "as_text": "writing numbers as text",
        }
        return " and ".join(said for key, said in words.items() if key in self.settings())

    def settings(self) -> dict[str, Any]:
        """Return the keys that are set."""
        return self.model_dump(exclude_defaults=True)

    def as_yaml(self) -> str:
        """Return the keys that are set as a configuration has them: `{pad: 7}`."""
        plain = (f"{key}: {json.dumps(value)}" for key, value in self.settings().items())
        return "{" + ", ".join(plain) + "}"


class IdForms(StrictModel):
    """How the ids of items and of users are written; a side without an entry: as they come."""

    items: IdForm | None = None
    """Of the items, in every table, request and list."""
    users: IdForm | None = None
    """Of the users, likewise."""


def written_like(values: pa.Array, form: IdForm | None, known: pa.DataType) -> pa.Array:
    """Return ids (N,) from a request or a list as `form` writes them; without one as they are.

    Whole numbers become text where the ids of the model, `known`, are text for their form.

    Raises:
        pa.ArrowInvalid: a float is no whole number.
    """
    if form is None or pa.types.is_null(values.type) or pa.types.is_boolean(values.type):
        return values
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    if pa.types.is_floating(values.type):  # which a missing number makes of whole ones
        values = pc.if_else(pc.is_nan(values), pa.scalar(None, values.type), values)
        values = values.cast(pa.int64())
    encoded = values.dictionary_encode()
    return form.written(encoded.dictionary).cast(known).take(encoded.indices)


def written_ids(given: Iterable[Any], form: IdForm | None, name: str = "ids") -> list[Any]:
    """Return ids that a caller named, as `form` writes them; without one as they are.

    Raises:
        DataError: an id is neither a whole number nor text.
    """
    values = list(given.tolist() if isinstance(given, np.ndarray) else given)
    if form is None or not values:
        return values
    words = [_word(value, form, name) for value in values]
    return list(form.written(pa.array(words, pa.large_string())).to_pylist())


def _word(value: Any, form: IdForm, name: str) -> str:
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer() and form.drops_trailing_zero:
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise DataError(
        "an id is a whole number or text", file=name, value=repr(value), remedy="correct the id"
    )


def _normalized(words: pa.Array, form: Literal["NFC", "NFKC"]) -> pa.Array:
    """Return text in a Unicode form; Arrow's own `utf8_normalize` does not compose letters."""
    other = pc.invert(pc.string_is_ascii(words)).fill_null(False)
    if not pc.any(other).as_py():
        return words
    changed = [unicodedata.normalize(form, word) for word in words.filter(other).to_pylist()]
    return pc.replace_with_mask(words, other, pa.array(changed, words.type))


def _replaced(words: pa.Array, pattern: str, by: str) -> pa.Array:
    return pc.replace_substring_regex(words, pattern=pattern, replacement=by)


def written_column(table: pa.Table, name: str, form: IdForm | None) -> pa.Table:
    """Return a table whose column of ids is as `form` writes them; what is no id stays."""
    if form is None or name not in table.column_names:
        return table
    column = table.column(name)
    try:
        chunks = [written_like(chunk, form, pa.large_string()) for chunk in column.chunks]
    except pa.ArrowException:  # its reader says what is wrong
        return table
    changed = pa.chunked_array(chunks) if chunks else column
    return table.set_column(table.column_names.index(name), name, changed)
