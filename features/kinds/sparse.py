"""What the kinds share whose values are looked up in the table under the feature's own name."""

from collections.abc import Sequence
from typing import Annotated, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from recsys.core.errors import DataError, Row
from recsys.core.imports import on_first_use
from recsys.data.batch import Jagged
from recsys.data.feature_options import Multiplicity
from recsys.features.encoding.hashing import NULL_HASH, UNKNOWN_HASH, hash_values
from recsys.features.kinds.expression import Operations, Symbol
from recsys.features.kinds.feature import Feature, Fit, Fitted, Integers
from recsys.features.tables.ledger import is_list, is_text

with on_first_use():
    import torch

_ARROW_TYPES = {"integer": pa.int64(), "boolean": pa.bool_(), "null": pa.null()}


class SparseFeature(Feature):
    """A feature with a multiplicity and, if asked for, rare values."""

    multiplicity: Multiplicity = 1
    """How many rows of the unified table one value reads; the width is multiplicity x dim.
    `auto`: shared out by how many values the feature has (`embedding.lookups`)."""
    min_count: Annotated[int, Field(ge=1)] = 1
    """Values with fewer training rows, and those with none, are all one value: unknown. 1: every
    value is itself (an id without a training row is unknown in any case). Null stays null."""

    has_classes: ClassVar[bool] = True

    @property
    def lookup_names(self) -> tuple[str, ...]:
        """The feature's own name."""
        return (self.name,)

    @property
    def asked_multiplicity(self) -> Multiplicity:
        """As declared."""
        return self.multiplicity

    @property
    def has_multiplicity(self) -> bool:
        """Always."""
        return True

    @property
    def least_count(self) -> int:
        """As declared."""
        return self.min_count

    def num_values(self, lookup: str, column: pa.ChunkedArray) -> int:
        """Return how many distinct values a column holds."""
        return len(self.rows_and_values(column)[1].unique())


def settled(multiplicity: Multiplicity) -> int:
    """`auto` is settled before rows are encoded (`encoding.multiplicity`); until then it is 1."""
    return multiplicity if isinstance(multiplicity, int) else 1


def value_family(column: pa.ChunkedArray, feature: Feature) -> str:
    """Return "integer", "string", "boolean" or "null": values of two families never compare.

    Raises:
        DataError: the values are of a type that cannot be a category.
    """
    kind = column.type
    if is_list(kind):
        kind = kind.value_type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    checks = {
        "integer": pa.types.is_integer,
        "string": is_text,
        "boolean": pa.types.is_boolean,
        "null": pa.types.is_null,
    }
    for family, check in checks.items():
        if check(kind):
            return family
    raise DataError(
        f"{kind}, where a {feature.kind} feature needs text, whole numbers or booleans",
        column=feature.source_column,
        remedy=f"declare '{feature.name}' numeric, or cast the column",
    )


def family_of(columns: Sequence[pa.ChunkedArray], feature: Feature) -> Fit:
    """Return the family of a feature's values."""
    return Fit(families={feature.name: value_family(columns[0], feature)})


def check_family(column: pa.ChunkedArray, feature: Feature, fitted: Fitted) -> None:
    """Refuse values that could not be those that the model was trained on.

    Raises:
        DataError: they are of another family.
    """
    if pa.types.is_null(column.type):
        return
    got, want = value_family(column, feature), fitted.families[feature.name]
    if "null" not in (got, want) and got != want:
        raise DataError(
            f"holds {got} values, the model was trained on {want} values",
            column=feature.source_column,
            rows=[Row("", 1 + column.is_valid().index(True).as_py())],
            remedy=f"cast the column to {want}",
        )


def arrow_type(feature: Feature, fitted: Fitted) -> pa.DataType:
    """Return the type of one value as the encoder was fitted on it."""
    return _ARROW_TYPES.get(fitted.families.get(feature.name, "string"), pa.string())


def hashes_of(values: pa.Array | pa.ChunkedArray, feature: Feature, fitted: Fitted) -> Integers:
    """Return (N,) value hashes, those of values that are not known replaced by `UNKNOWN_HASH`."""
    hashes = hash_values(values)
    known = fitted.known.get(feature.name)
    if known is None:
        return hashes
    at = np.searchsorted(known, hashes).clip(max=max(len(known) - 1, 0))
    seen = known[at] == hashes if len(known) else np.zeros(len(hashes), bool)
    return np.where(seen, hashes, UNKNOWN_HASH)


def expressed_hashes(ops: Operations, hashes: Symbol, feature: Feature, fitted: Fitted) -> Symbol:
    """Return `hashes_of` as a graph, of hashes of any shape."""
    known = fitted.known.get(feature.name)
    return hashes if known is None else ops.known(hashes, known)


def filled(hashes: Integers, lengths: Integers) -> Jagged:
    """Return hashes (T,) as rows of `lengths` (N,); a row without a value gets that of null."""
    # An empty bag would be a zero vector that nothing trains.
    starts = np.cumsum(lengths) - lengths
    hashes = np.insert(hashes, starts[lengths == 0], NULL_HASH)
    offsets = np.concatenate([[0], np.cumsum(np.maximum(lengths, 1))])
    return Jagged(torch.from_numpy(hashes), torch.from_numpy(offsets))


def lengths_of(lists: pa.Array) -> Integers:
    """Return how many values each row has, (N,), 0 where null."""
    return np.asarray(pc.list_value_length(lists).fill_null(0)).astype(np.int64)


def rows_and_values_of(lists: pa.Array) -> tuple[Integers, pa.Array]:
    """Return each value (T,) of lists with the row that holds it (T,)."""
    return np.repeat(np.arange(len(lists)), lengths_of(lists)), lists.flatten()


def split_text(values: pa.Array, separator: str) -> pa.Array:
    """Text to lists; empty text is an empty list, which counts as null."""
    values = pc.if_else(pc.equal(values, ""), pa.scalar(None, values.type), values)
    return pc.split_pattern(values, separator).cast(pa.large_list(pa.large_string()))


def one_array(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Return a column as one array, a dictionary decoded."""
    values = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    return values
