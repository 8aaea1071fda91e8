"""Spans of time as a configuration writes them: `30m`, `12h`, `7d`, `4w`."""

import re
from typing import Annotated

from pydantic import AfterValidator

_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_SPAN = re.compile(r"([1-9][0-9]{0,6})([smhdw])")


def _checked(text: str) -> str:
    microseconds_of(text)
    return text


def microseconds_of(text: str) -> int:
    """Return the length of a span.

    Raises:
        ValueError: it is none.
    """
    found = _SPAN.fullmatch(text)
    if found is None:
        raise ValueError(
            f"'{text}' is no span of time: write a whole number and s, m, h, d or w (7d, 12h)"
        )
    return int(found[1]) * _SECONDS[found[2]] * 1_000_000


Span = Annotated[str, AfterValidator(_checked)]
"""Text of a span."""
