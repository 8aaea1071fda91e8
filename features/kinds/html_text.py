"""The words of HTML: tags and entities taken out."""

from html.parser import HTMLParser

import pyarrow as pa
import pyarrow.compute as pc

from recsys.features.tables.ledger import mask_of

_WITHIN_WORDS = frozenset(
    ("a", "abbr", "b", "em", "font", "i", "mark", "s", "small", "span", "strong")
) | {"sub", "sup", "u", "wbr"}
"""Tags that do not end a word; the others do, as `<br>` and `<p>`."""
_HIDDEN = frozenset(("script", "style"))
_MARKED = r"</?[A-Za-z][^>]*>|<!--|&(#[0-9]+|#[xX][0-9A-Fa-f]+|[A-Za-z][A-Za-z0-9]*);"


def marked(values: pa.Array) -> pa.Array:
    """Return which texts (N,) hold a tag or an entity, (N,) bool."""
    return pc.match_substring_regex(values, _MARKED)


def without_html(values: pa.Array) -> pa.Array:
    """Return texts (N,) without tags, comments, scripts and styles, entities as their signs."""
    at = mask_of(marked(values))
    if not at.any():
        return values
    cleaned = [_text(one) for one in values.filter(pa.array(at)).to_pylist()]
    return pc.replace_with_mask(values, pa.array(at), pa.array(cleaned, values.type))


class _Words(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self._hidden = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._hidden = tag if tag in _HIDDEN else self._hidden
        self._end_word(tag)

    def handle_endtag(self, tag: str) -> None:
        self._hidden = "" if tag == self._hidden else self._hidden
        self._end_word(tag)

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.parts.append(data)

    def _end_word(self, tag: str) -> None:
        if tag not in _WITHIN_WORDS:
            self.parts.append(" ")


def _text(html: str) -> str:
    parser = _Words()
    parser.feed(html)
    parser.close()
    return "".join(parser.parts)
