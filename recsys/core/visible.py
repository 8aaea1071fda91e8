"""Text of others as it may be shown: nothing in it steers a terminal or hides from the reader."""

import re

_HIDDEN = (
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069"
    r"\ud800-\udfff\ufeff\U000e0000-\U000e007f]"
)
_UNSEEN = re.compile(_HIDDEN)
_LINE_END = re.compile(r"[\n\t]")


def visible(text: str) -> str:
    r"""Return text with control and invisible characters as `\x1b`, `\u200b`; line ends stay."""
    return _UNSEEN.sub(_escaped, text)


def on_one_line(text: str) -> str:
    r"""Return the same with line ends and tabs as `\n` and `\t`, too."""
    return visible(_LINE_END.sub(_escaped, text))


def _escaped(found: re.Match[str]) -> str:
    return repr(found[0])[1:-1]
