"""In which encoding a text file is: declared, or recognised by strict rules.

A byte order mark, then the pattern of zero bytes (UTF-16 without a mark), then UTF-8 as long as all
of it is. What is left is Windows-1252 (Latin-1 is the same for every letter), if its signs are
where Western languages have them; nothing else is assumed.
"""

import codecs
import unicodedata
from collections.abc import Iterator
from pathlib import Path

from recsys.core.errors import DataError
from recsys.features.tables.compression import plain_bytes

UTF_8, WESTERN = "utf-8", "cp1252"
_MARKS = (
    (codecs.BOM_UTF8, UTF_8),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
"""Byte order marks, those first that others begin with."""
_BLOCK_BYTES = 1 << 20
_LOOKED_AT = 1 << 14
"""Bytes of which the zeros are counted, and signs whose place is looked at."""
_DECLARE = "declare its encoding under 'data', as {path: FILE, encoding: cp1251}"


def settled(path: Path, head: bytes, declared: str | None) -> str:
    """Return the encoding of a file, as Python calls it.

    Args:
        path: of the file.
        head: its first bytes, decompressed.
        declared: what the configuration says.

    Raises:
        DataError: it is not as declared, holds a NUL byte, or is in no encoding that is known.
    """
    mark = next((name for mark, name in _MARKS if head.startswith(mark)), None)
    if declared is None:
        return mark or _by_zeros(head) or _by_content(path, head)
    name = codecs.lookup(declared).name.removesuffix("-sig")
    name = UTF_8 if name == "ascii" else name
    if mark is not None and not name.startswith(mark):
        raise _not_as_declared(path, declared, f"its byte order mark is that of {mark}")
    is_wide = name.startswith(("utf-16", "utf-32"))
    if name != UTF_8 and not is_wide and not head.isascii() and _is_utf8(head):
        raise _not_as_declared(path, declared, f"{_first_line(head)} is UTF-8")
    if not is_wide:
        refuse_nul(path, head)
    return name


def decoded(path: Path, head: bytes, encoding: str, *, is_whole: bool) -> str:
    """Return the head of a file as text, without a byte order mark.

    Raises:
        DataError: it is not in that encoding; the line is named.
    """
    decoder = codecs.getincrementaldecoder(encoding)()
    try:
        return decoder.decode(head, final=is_whole).removeprefix("\ufeff")
    except UnicodeError:
        raise undecodable(path, encoding) or _unknown(path, head) from None


def undecodable(path: Path, encoding: str) -> DataError | None:
    """Return the error for the first line of a file that is not in `encoding`; None: all are."""
    decoder = codecs.getincrementaldecoder(encoding)()
    number, line = 1, ""
    for block, is_last in _blocks(path):
        try:
            text = decoder.decode(block, final=is_last)
        except UnicodeDecodeError as error:
            # Of a sign that began in the block before, the start is 0 or in what was held back.
            before = error.object[: error.start].decode(encoding, errors="ignore")
            bad = error.object[error.start : error.end]
            number += before.count("\n")
            shown = (line + before).rsplit("\n", 1)[-1][-20:]
            return DataError(
                f"line {number} is not {_spoken(encoding)}: {bad!r} after {shown!r}",
                file=path,
                remedy=_remedy(encoding),
            )
        number += text.count("\n")
        line = text[-40:]
    return None


def whole_file_encoding(path: Path) -> str:
    """Return "ascii", "utf-8" or the encoding that a whole file is in; reads all of it.

    Raises:
        DataError: it is in no encoding that is known.
    """
    decoder, name = codecs.getincrementaldecoder(UTF_8)(), "ascii"
    for number, (block, is_last) in enumerate(_blocks(path)):
        if number == 0:
            found = settled(path, block, None)
            if found != UTF_8:
                return found
        name = name if block.isascii() else UTF_8
        try:
            decoder.decode(block, final=is_last)
        except UnicodeDecodeError:
            return _western(path, block)
    return name


def refuse_nul(path: Path, head: bytes) -> None:
    """Refuse text that holds a zero byte.

    Raises:
        DataError: so it is; the line is named.
    """
    at = head.find(b"\0")
    if at >= 0:
        line = head.count(b"\n", 0, at) + 1
        raise DataError(
            f"line {line} holds a NUL byte, which no text does",
            file=path,
            remedy="write the file again, or remove it (tr -d '\\000')",
        )


def _by_zeros(head: bytes) -> str | None:
    """UTF-16 without a mark: every second byte of ASCII signs is 0."""
    start = head[:_LOOKED_AT]
    half = len(start) // 2
    if half < 2:
        return None
    even, odd = start[0::2].count(0) / half, start[1::2].count(0) / half
    if odd > 0.4 and even < 0.05:
        return "utf-16-le"
    return "utf-16-be" if even > 0.4 and odd < 0.05 else None


def _by_content(path: Path, head: bytes) -> str:
    refuse_nul(path, head)
    return UTF_8 if _is_utf8(head) else _western(path, head)


def _is_utf8(head: bytes) -> bool:
    try:
        # A sign that is cut off at the end is no fault.
        codecs.getincrementaldecoder(UTF_8)().decode(head, final=False)
    except UnicodeDecodeError:
        return False
    return True


def _western(path: Path, head: bytes) -> str:
    """Return Windows-1252 if the signs are where Western languages have them.

    Raises:
        DataError: they are not.
    """
    try:
        text = head.decode(WESTERN)
    except UnicodeDecodeError:
        raise _unknown(path, head) from None
    padded = f" {text} "
    at = [i for i, sign in enumerate(padded) if not sign.isascii()][:_LOOKED_AT]
    if sum(_fits(padded, i) for i in at) < 0.8 * len(at):
        raise _unknown(path, head)
    return WESTERN


def _fits(text: str, at: int) -> bool:
    """Whether a sign is a letter beside ASCII letters, or punctuation between words."""
    before, sign, after = text[at - 1], text[at], text[at + 1]
    if not sign.isalpha():
        inside = before.isalpha() and after.isalpha()
        return not inside or unicodedata.category(sign) in ("Pf", "Cf")
    if sign.isupper() and (before.islower() or (before.isalpha() and after.islower())):
        return False
    return any(one.isascii() and one.isalpha() for one in text[max(at - 2, 0) : at + 3])


def _unknown(path: Path, head: bytes) -> DataError:
    return DataError(
        f"{_first_line(head)} is neither UTF-8 nor Windows-1252", file=path, remedy=_DECLARE
    )


def _first_line(head: bytes) -> str:
    """Return "line 3" for the first line that is not ASCII."""
    at = next((i for i, byte in enumerate(head) if byte > 127), 0)
    return f"line {head.count(bytes([10]), 0, at) + 1}"


def _not_as_declared(path: Path, declared: str, why: str) -> DataError:
    return DataError(
        f"encoding: {declared} is declared, but {why}",
        file=path,
        remedy="correct 'encoding' under 'data', or leave it out",
    )


def _remedy(encoding: str) -> str:
    if encoding != UTF_8:
        return "correct 'encoding' under 'data'"
    return (
        "save the file as UTF-8 (iconv -f cp1252 -t utf-8), or declare its encoding under 'data', "
        "as {path: FILE, encoding: cp1252}"
    )


def _spoken(encoding: str) -> str:
    return "UTF-8" if encoding == UTF_8 else encoding


def _blocks(path: Path) -> Iterator[tuple[bytes, bool]]:
    """Yield the decompressed bytes of a file, and whether they are the last."""
    with plain_bytes(path) as stream:
        block = stream.read(_BLOCK_BYTES)
        while block:
            following = stream.read(_BLOCK_BYTES)
            yield block, not following
            block = following
