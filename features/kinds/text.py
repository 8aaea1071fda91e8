"""Free text: a title, a description."""

from collections.abc import Sequence
from typing import ClassVar, Literal

import pyarrow as pa
import pyarrow.compute as pc

from recsys.data.batch import FeatureLayout
from recsys.data.feature_options import Pooling
from recsys.features.kinds.expression import WORDS, Expressed, Operations
from recsys.features.kinds.feature import Encoded, Fitted, Integers
from recsys.features.kinds.html_text import marked, without_html
from recsys.features.kinds.sparse import (
    SparseFeature,
    expressed_hashes,
    filled,
    hashes_of,
    lengths_of,
    one_array,
    rows_and_values_of,
    settled,
    split_text,
)
from recsys.features.kinds.suggestion import Look, Suggestion
from recsys.features.propose.profile import ColumnProfile
from recsys.features.tables.ledger import Cells, is_list, is_text, mask_of
from recsys.features.tables.sources import Policies

_COMES_AGAIN = 0.05
"""Distinct values a row, up to which text is the name of a category."""


_HTML_SHARE = 0.05
"""Of the texts, how many hold tags or entities where they are HTML."""


class TextFeature(SparseFeature):
    """Free text as its lower-cased word tokens, pooled to one vector."""

    kind: Literal["text"] = "text"
    pooling: Pooling = "mean"
    """How the vectors of several values become one."""

    clean: Literal["html"] | None = None
    """`html`: tags, comments and scripts are taken out and entities read before words are cut."""

    priority: ClassVar[int] = 2
    proposal_order: ClassVar[int] = 2
    has_several: ClassVar[bool] = True

    def convert(self, cells: Cells, policies: Policies) -> pa.Array:
        """Return text as it is."""
        kind = cells.values.type
        if is_text(kind):
            return cells.values
        if is_list(kind):
            cells.refuse(
                "a list where text is expected", f"declare feature '{self.name}' multi_categorical"
            )
        cells.refuse(
            f"{kind} where text is expected",
            f"declare feature '{self.name}' categorical or numeric",
        )

    def layout(self, fitted: Fitted) -> FeatureLayout:
        """One multi-valued feature."""
        pair = (self.name, settled(self.multiplicity))
        return FeatureLayout((), (pair,), (), (self.pooling,))

    def encode(self, columns: Sequence[pa.ChunkedArray], fitted: Fitted) -> Encoded:
        """Return the hashes of each row's words."""
        words = self._words_of(columns[0])
        hashes = hashes_of(words.flatten(), self, fitted)
        return Encoded(multi=[filled(hashes, lengths_of(words))])

    def express(self, ops: Operations, fitted: Fitted) -> Expressed:
        """The hashes of each row's words."""
        if self.clean is not None:
            raise NotImplementedError(
                f"text that is cleaned (clean: {self.clean}) cannot be written as a graph"
            )
        found = ops.categories(self.source_column, "string", cut=WORDS)
        values = expressed_hashes(ops, found.values, self, fitted)
        return Expressed(multi=[found._replace(values=values)])

    def _words_of(self, column: pa.ChunkedArray) -> pa.Array:
        values = one_array(column)
        return _words(without_html(values) if self.clean and is_text(values.type) else values)

    def rows_and_values(self, column: pa.ChunkedArray) -> tuple[Integers, pa.Array]:
        """Return the words."""
        return rows_and_values_of(self._words_of(column))

    def request_types(self, fitted: Fitted) -> dict[str, pa.DataType]:
        """Text."""
        return {self.source_column: pa.string()}

    @classmethod
    def propose(cls, column: ColumnProfile, look: Look) -> Suggestion | None:
        """Text of several words, whose values do not come again and again."""
        if column.type != "string":
            return None
        share = column.distinct / len(column.known)
        if share <= _COMES_AGAIN or column.mean_words < 1.5:
            return None  # categories, as "Women > Shoes > Basic", and single words
        if column.mean_words < 2.5 and share <= 0.5:
            return None
        lowered = pc.utf8_lower(column.words)
        tokens = pc.unique(pc.list_flatten(pc.utf8_split_whitespace(lowered)))
        share = mask_of(marked(column.words)).mean()
        if share >= _HTML_SHARE:
            return Suggestion("text", {"clean": "html"}, "tags and entities", len(tokens))
        return Suggestion("text", {}, "", len(tokens))


def _words(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Return lower-cased runs of letters and digits as lists."""
    values = one_array(column)
    if pa.types.is_null(values.type):
        return pa.nulls(len(values), pa.large_list(pa.large_string()))
    plain = pc.replace_substring_regex(
        pc.utf8_lower(values.cast(pa.large_string())), r"[^\p{L}\p{N}]+", " "
    )
    return split_text(pc.utf8_trim_whitespace(plain), " ")
