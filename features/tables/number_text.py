"""How numbers are written as text: the sign of decimals and that between thousands.

`1.234,56` is a number where decimals follow a comma and thousands are apart by points. Text is read
by the rule that the schema gives its table, strictly: what does not fit is refused.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

DecimalSign = Literal[".", ","]
ThousandsSign = Literal[",", ".", " ", "'", "_"]
_OWN = {"interactions", "items", "users"}
"""Tables that are keys of the schema; others and relations stand below one."""
_BLANKS = r"[ \x{00A0}\x{202F}]"
"""A blank between thousands may be one that keeps a line whole."""
COMMA_NUMBER = r"^[+-]?[0-9.' ]*[0-9],[0-9]+$"
"""Text that is most likely a number with a decimal comma."""


@dataclass(frozen=True)
class NumberText:
    """decimal: before decimals. thousands: between groups of three digits; "": there is none."""

    decimal: str = "."
    thousands: str = ""

    @property
    def is_plain(self) -> bool:
        """Whether numbers are as Python writes them."""
        return self == PLAIN

    @cached_property
    def pattern(self) -> str:
        """A regular expression of text that is a number."""
        point, group = f"[{self.decimal}]", self._group
        whole = f"([0-9]{{1,3}}({group}[0-9]{{3}})+|[0-9]+)" if group else "[0-9]+"
        digits = rf"({whole}{point}?|{whole}{point}[0-9]+|{point}[0-9]+)"
        return rf"^[+-]?({digits}([eE][+-]?[0-9]+)?|[iI]nf(inity)?|nan|NaN)$"

    def as_plain(self, values: pa.Array) -> pa.Array:
        """Return text that fits `pattern`, (N,), as Python writes numbers."""
        if self._group:
            values = pc.replace_substring_regex(values, self._group, "")
        return values if self.decimal == "." else pc.replace_substring(values, self.decimal, ".")

    @property
    def _group(self) -> str:
        if self.thousands == " ":
            return _BLANKS
        return f"[{self.thousands}]" if self.thousands else ""


PLAIN = NumberText()


def remedy_for(value: str, table: str, written: NumberText, *, trained: bool) -> str:
    """Return what to do about text that is no number.

    Args:
        value: the text.
        table: the name of its table in the schema, or in its `others` or `relations`.
        written: how its numbers are written.
        trained: whether a model is there already, whose schema cannot be set.
    """
    key = f"schema.{table}.decimal" if table in _OWN else f"decimal of '{table}' in the schema"
    if not written.is_plain:
        sign = {",": "comma", ".": "point"}[written.decimal]
        return f"numbers of this table have a decimal {sign} ({key}): correct it"
    if bool(pc.match_substring_regex(pa.array([value]), COMMA_NUMBER)[0].as_py()):
        if trained:
            return "write the number with a decimal point, as the model's schema has it"
        more = " and its thousands" if "." in value else ""
        return f'if the comma is a decimal one, set {key}: ","{more}'
    if any(sign.isdigit() for sign in value):
        return (
            "write numbers without a unit, a currency or a percent sign, or declare the feature "
            "categorical"
        )
    return "correct the value, or declare the feature categorical"
