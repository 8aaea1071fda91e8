"""How the text of a table writes numbers, found in all of its columns together."""

from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from recsys.features.propose.yaml_text import entry
from recsys.features.tables.ledger import mask_of
from recsys.features.tables.number_text import PLAIN, NumberText
from recsys.features.tables.times import NULL_WORDS

_CANDIDATES = (
    PLAIN,
    NumberText(","),
    NumberText(",", "."),
    NumberText(",", " "),
    NumberText(",", "'"),
    NumberText(".", ","),
    NumberText(".", " "),
    NumberText(".", "'"),
)
"""Those first that say less."""
_SIGNED = r"[0-9][.,' \x{00a0}\x{202f}][0-9]|^[+-]?[.,][0-9]"
_DOUBTFUL = r"^[+-]?[0-9]{1,3},[0-9]{3}$"
"""One thousand two hundred, or one and two tenths."""
_COMMA_SHARE = 0.8
"""Of numbers with decimals few are whole; of lists, as in "1,2", some have one part."""


@dataclass(frozen=True)
class Signs:
    """How a table writes numbers, and what a person should know of it."""

    written: NumberText = PLAIN
    said: tuple[str, ...] = ()


def signs_of(columns: Mapping[str, pa.Array]) -> Signs:
    """Return how a table writes numbers, where one rule fits every column of numbers.

    Args:
        columns: name -> texts (N,) of the columns of a CSV file.
    """
    words = {name: _words(texts) for name, texts in columns.items()}
    fitting = {name: found for name, one in words.items() if (found := _fitting(one))}
    unlike = [name for name, found in fitting.items() if PLAIN not in found]
    if not unlike:
        return Signs()
    shared = [one for one in _CANDIDATES if all(one in found for found in fitting.values())]
    first = words[unlike[0]]
    example = next(str(one) for one in first.to_pylist() if not one.isdigit())
    if not shared:
        others = ", ".join(f"'{name}'" for name in fitting if name not in unlike)
        also = f", those of {others} not" if others else ", in more than one way"
        return Signs(
            said=(
                f"the numbers of '{unlike[0]}' are not written as in programs ({example!r})"
                f"{also}: write them alike in the source, then set decimal and thousands",
            )
        )
    written = shared[0]
    if all(mask_of(pc.match_substring_regex(words[name], _DOUBTFUL)).all() for name in unlike):
        return Signs(
            said=(
                f"'{unlike[0]}' holds values such as {example!r}, which may be thousands or "
                "decimals: set thousands or decimal of its table in the schema to ','",
            )
        )
    sign = "a decimal comma" if written.decimal == "," else "a decimal point"
    group = f" and {written.thousands!r} between thousands" if written.thousands else ""
    return Signs(written, (f"numbers are read with {sign}{group} ('{unlike[0]}': {example!r})",))


def signs(written: NumberText) -> dict[str, str]:
    """Return what a table of the schema says of how it writes numbers; nothing where plainly."""
    if written.is_plain:
        return {}
    found = {"decimal": written.decimal} if written.decimal != PLAIN.decimal else {}
    return found | ({"thousands": written.thousands} if written.thousands else {})


def sign_lines(written: NumberText) -> list[str]:
    """Return the same as lines of YAML."""
    return [entry(name, sign) for name, sign in signs(written).items()]


def _words(texts: pa.Array) -> pa.Array:
    words = pc.unique(texts.drop_null())
    return words.filter(pc.invert(pc.is_in(words, pa.array(NULL_WORDS, words.type))))


def _fitting(words: pa.Array) -> tuple[NumberText, ...]:
    """Return the rules that all words of a column follow; none: these are no numbers with signs."""
    if not len(words) or not mask_of(pc.match_substring_regex(words, _SIGNED)).any():
        return ()
    found = tuple(
        one for one in _CANDIDATES if mask_of(pc.match_substring_regex(words, one.pattern)).all()
    )
    lists = mask_of(pc.match_substring(words, ",")).mean() < _COMMA_SHARE
    grouped = mask_of(pc.match_substring_regex(words, r"[.'\x{00a0} ]|,[0-9]{3},")).any()
    # A few whole numbers among decimals are no list; many are.
    if lists and not grouped and PLAIN not in found:
        return tuple(one for one in found if one.thousands == "," and one.decimal == ".")
    return found
