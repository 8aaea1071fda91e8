"""How the text of a CSV file is cut into fields: what its first rows agree on.

A delimiter is not a sign that occurs in the first line, but one by which the rows have as many
fields as the first line has names. The same goes for quotes: doubled inside a quoted field,
behind a backslash there, or signs like any other.
"""

import csv
import io
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from pathlib import Path

from recsys.core.errors import DataError

_DELIMITERS = (",", ";", "\t", "|")
_ROWS = 200
"""Rows that a delimiter is chosen by."""
_FIRST = 100
"""Signs of the first line that are looked at for what spreadsheets write there."""
_MOST_LINES = 100
"""Lines of a field that the end of what was read may cut."""
_BACKSLASHED = re.compile(r'\\"[^",;\t|\r\n]')
"""A quote within a field; one at its end may be behind a backslash by chance ("C:\\")."""
_WORDS = {",": "a comma", ";": "a semicolon", "\t": "a tab", "|": "'|'"}


@dataclass(frozen=True)
class Quoting:
    """quote: the sign around fields; None: there is none. escape: before a quote in a field."""

    quote: str | None = '"'
    escape: str | None = None


_DOUBLED, _ESCAPED, _NONE, _SINGLE = Quoting(), Quoting(escape="\\"), Quoting(None), Quoting("'")


@dataclass(frozen=True)
class Dialect:
    """names: of the columns; added: whether they are not those of the first line alone."""

    delimiter: str = ","
    quoting: Quoting = _DOUBLED
    names: tuple[str, ...] = ()
    added: bool = False
    said: tuple[str, ...] = ()
    """What was recognised that a person may want to know."""
    is_bare: bool = False
    """Whether nothing is below the names."""


@dataclass(frozen=True, eq=False)
class _Cut:
    """The first rows as one dialect cuts them."""

    delimiter: str
    quoting: Quoting
    rows: Sequence[Sequence[str]]
    is_clean: bool
    """Whether no row breaks the rules of quotes."""

    @property
    def width(self) -> int:
        return len(self.rows[0]) if self.rows else 0

    @cached_property
    def common(self) -> int:
        """How many fields most rows have."""
        widths = Counter(len(row) for row in self.rows[1:])
        return widths.most_common(1)[0][0] if widths else self.width

    @cached_property
    def share(self) -> float:
        """Of the rows, how many have that many fields."""
        below, common = self.rows[1:], self.common
        return sum(len(row) == common for row in below) / len(below) if below else 1.0

    @property
    def agrees(self) -> bool:
        """Whether every row has as many fields as the first line, or every row one more."""
        one_more = self.width > 1 and self.common == self.width + 1
        return self.is_clean and self.share == 1 and (self.common == self.width or one_more)


def find_dialect(text: str, path: Path, *, is_whole: bool, delimiter: str | None) -> Dialect:
    """Return how the text is cut.

    Args:
        text: the file, or its first part.
        path: of the file, for messages.
        is_whole: whether that is all of it.
        delimiter: what is declared.

    Raises:
        DataError: the first line does not name the columns of the rows below.
    """
    if not text.strip():
        raise DataError("empty CSV file", file=path, remedy="it needs a first line of column names")
    first = re.split(r"[\r\n]", text.lstrip()[:_FIRST])[0]
    if re.fullmatch(r"\"?sep=.\"?", first.strip(), re.IGNORECASE):
        raise DataError(
            f"line 1 is {first.strip()!r}, which spreadsheets alone read",
            file=path,
            remedy="remove that line",
        )
    single = text.lstrip().startswith("'")
    has_quotes = '"' in text
    modes = ((_SINGLE,) if single else ()) + (_DOUBLED,)
    modes += (_ESCAPED, _NONE) if has_quotes else ()
    signs = (delimiter,) if delimiter is not None else _DELIMITERS
    cuts = [_cut(text, sign, mode, _ROWS, is_whole) for mode in modes for sign in signs]
    chosen = _agreeing(cuts, modes) or _likely(cuts, path, delimiter)
    # Rows further down may tell quoting that the first ones do not show.
    further = modes[modes.index(chosen.quoting) :]
    if chosen.quoting == _DOUBLED and _BACKSLASHED.search(text):
        further = (_ESCAPED, *further)
    for mode in further if has_quotes or single else ():
        whole = _cut(text, chosen.delimiter, mode, None, is_whole)
        if whole.agrees and whole.width == chosen.width:
            chosen = whole
            break
    return replace(_named(chosen, path), is_bare=is_whole and len(chosen.rows) == 1)


def _agreeing(cuts: Sequence[_Cut], modes: Sequence[Quoting]) -> _Cut | None:
    for mode in modes:
        found = [one for one in cuts if one.quoting == mode and one.agrees and one.common > 1]
        if found:
            return max(found, key=lambda one: one.width)
    return None


def _likely(cuts: Sequence[_Cut], path: Path, declared: str | None) -> _Cut:
    """Return the cut by which most rows agree, so that those that do not are named; or one column.

    Raises:
        DataError: the first line is none of names.
    """
    first = [one for one in cuts if one.quoting == cuts[0].quoting]
    likely = [one for one in first if one.common > 1 and one.share >= 0.5]
    fitting = [one for one in likely if one.common == one.width]
    if fitting:
        return max(fitting, key=lambda one: (one.share, one.width))
    several = [one for one in likely if one.share > 0.5]
    if several:
        raise _no_names(max(several, key=lambda one: (one.share, one.common)), first, path)
    alone = [one for one in first if one.width == 1 and one.common == 1]
    if alone or declared is not None:
        return (alone or first)[0]
    return max(first, key=lambda one: one.width)


def _no_names(cut: _Cut, others: Sequence[_Cut], path: Path) -> DataError:
    """Return the error for a first line that does not go with the rows below it."""
    sign = _WORDS.get(cut.delimiter, repr(cut.delimiter))
    for other in others:
        if other.width == cut.common:
            own = _WORDS.get(other.delimiter, repr(other.delimiter))
            return DataError(
                f"the names in the first line are apart by {own}, the fields below by {sign}",
                file=path,
                remedy="write one delimiter throughout",
            )
    line = cut.delimiter.join(cut.rows[0])
    shown = line if len(line) <= 60 else f"{line[:57]}..."
    above = next(i for i, row in enumerate(cut.rows) if len(row) == cut.common)
    lines = "line 1 is" if above == 1 else f"lines 1 to {above} are"
    return DataError(
        f"{lines} no names of columns ({shown!r}): the rows below have {cut.common} fields, "
        f"apart by {sign}",
        file=path,
        remedy="remove what is above the line of column names, or write one",
    )


def _named(cut: _Cut, path: Path) -> Dialect:
    """Return the dialect with names of all columns, of which one may have none."""
    names, said = [name.strip("\r\n") for name in cut.rows[0]], []
    more = len(cut.rows) > 1 and cut.agrees and cut.common > cut.width
    if more:
        below = cut.rows[1:]
        if all(not row[-1] for row in below):
            names.append("")
            said.append("each row ends in a delimiter")
        elif len({row[0] for row in below}) == len(below):
            names.insert(0, "")
            said.append("the first field of each row has no name and is left out (row names)")
        else:
            raise DataError(
                f"the first line names {cut.width} columns, the rows have {cut.common} fields",
                file=path,
                remedy="write a name for each column",
            )
    if cut.quoting == _ESCAPED:
        said.append("quotes inside of fields have a backslash before them")
    if cut.quoting == _NONE and any('"' in field for row in cut.rows for field in row):
        said.append("quotes are signs like any other, as they are not in pairs around fields")
    return Dialect(cut.delimiter, cut.quoting, tuple(names), more, tuple(said))


def _cut(text: str, delimiter: str, quoting: Quoting, most: int | None, is_whole: bool) -> _Cut:
    reader = csv.reader(
        io.StringIO(text, newline=""),
        delimiter=delimiter,
        quotechar=quoting.quote,
        quoting=csv.QUOTE_NONE if quoting.quote is None else csv.QUOTE_MINIMAL,
        escapechar=quoting.escape,
        strict=True,
    )
    rows: list[list[str]] = []
    last_line, is_clean = 0, True
    try:
        for row in islice(reader, most):
            if row:
                rows.append(row)
            last_line = reader.line_num
    except csv.Error:
        # The end of what was read may be inside of a field.
        is_cut = not is_whole and reader.line_num - last_line <= _MOST_LINES
        is_clean = is_cut and len(rows) > 1
    else:
        if not is_whole and most is None and len(rows) > 1:
            rows.pop()
    return _Cut(delimiter, quoting, rows, is_clean)
