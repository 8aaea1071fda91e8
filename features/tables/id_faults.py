"""What makes text useless as an id: empty, a null in words, too long, invisible, lost digits.

An id is at most `LONGEST` bytes of UTF-8: what is longer is a text, or rows that ran together.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from recsys.features.tables.id_forms import INVISIBLE
from recsys.features.tables.ledger import Mask, mask_of

LONGEST = 4096
_CORRECT = "correct the source"
_STRIP = "set strip: true for this side in schema.ids (of a log that is not streamed)"
_NULL_WORDS = ("nan", "none", "null", "<na>", "nat", "#n/a", "n/a")
_CONTROL = r"[\x00-\x1f\x7f\x{80}-\x{9f}\x{2028}\x{2029}]"
_SCIENTIFIC = r"^-?[0-9]([.,][0-9]+)?[eE]\+[0-9]+$"


@dataclass(frozen=True)
class IdFault:
    """Which of D distinct ids, `bad` (D,), are useless, why, and what to do about it.

    option: what the schema can say of it, "" for nothing.
    """

    reason: str
    bad: Mask
    remedy: str = _CORRECT
    option: str = ""


def id_faults(words: pa.Array) -> Iterator[IdFault]:
    """Yield what is wrong with distinct ids (D,), text without nulls."""
    trimmed = pc.utf8_trim_whitespace(words)
    lower = pc.utf8_lower(words)
    yield IdFault("the id is empty", mask_of(pc.equal(trimmed, "")))
    yield IdFault(
        "the id is padded with white space", mask_of(pc.not_equal(trimmed, words)), option=_STRIP
    )
    null_words = pa.array(_NULL_WORDS, words.type)
    yield IdFault("the id is the word for a null", mask_of(pc.is_in(lower, null_words)))
    yield IdFault(
        f"the id is longer than {LONGEST:,} bytes",
        mask_of(pc.greater(pc.binary_length(words), LONGEST)),
        "name the right column; where rows ran together, correct the quotes of the file",
    )
    yield IdFault(
        "the id holds a control character",
        mask_of(pc.match_substring_regex(words, _CONTROL)),
        "remove it in the source",
    )
    plain = mask_of(pc.string_is_ascii(words)).all()
    if not plain:
        yield IdFault(
            "the id holds an invisible character",
            mask_of(pc.match_substring_regex(words, INVISIBLE)),
            "remove it in the source",
            _STRIP,
        )
    yield IdFault(
        "the id is in scientific notation: a spreadsheet has cut off its digits",
        mask_of(pc.match_substring_regex(words, _SCIENTIFIC)),
        "export it anew with the column as text",
    )
