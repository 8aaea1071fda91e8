"""The columns of the items that go into a store beside the vectors, in types that stores have.

    text, bool, int64, float64, timestamp (microseconds, UTC), date32, and lists of these

Whole numbers of any width are int64, all other numbers float64; numbers that are not finite are
null, as JSON has none. Text that the model cuts at a separator is a list.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from recsys.core.errors import ConfigError, DataError
from recsys.core.strict import nearest
from recsys.features.bundle.files import read_items
from recsys.features.filters.columns import CatalogueColumns
from recsys.features.tables.ledger import is_list, is_text
from recsys.features.tables.plain_values import plain
from recsys.serving.recommend.scorer import Scorer

TIME = pa.timestamp("us", tz="UTC")
VECTOR = "vector"
"""What stores and files call the column of the vector."""


@dataclass(frozen=True)
class Payload:
    """Columns of the items. table: (n rows) the key first. left_out: column -> why not."""

    table: pa.Table
    key: str
    left_out: dict[str, str]


def payload_of(scorer: Scorer, columns: Sequence[str] | None) -> Payload:
    """Return the key and the columns of a model's catalogue, in its order.

    Args:
        scorer: the model.
        columns: which; None: all that a store can hold.

    Raises:
        ConfigError: there is no such column, no store can hold it, or it is called as the vector.
        DataError: a whole number does not fit into 64 bits.
    """
    catalogue = CatalogueColumns(scorer.schema, lambda: read_items(scorer.bundle))
    key = scorer.schema.item_key
    known = [name for name in catalogue.names if name != key]
    for name in columns or ():
        if name not in known:
            raise ConfigError(
                f"--columns {name}: the model's catalogue has no column '{name}' beside its key"
                f"{nearest(name, known)}; it has {', '.join(known) or 'none'}"
            )
    chosen, left_out = {key: _stored(scorer.item_ids, key)}, {}
    for name in known if columns is None else dict.fromkeys(columns):
        values = plain(catalogue.column(name))
        if not _is_storable(values.type):
            if columns is not None:
                raise ConfigError(
                    f"--columns {name}: no store holds values of type {values.type}; leave it out"
                )
            left_out[name] = f"no store holds values of type {values.type}"
            continue
        chosen[name] = _stored(values, name)
    if VECTOR in chosen:
        raise ConfigError(
            f"a column of the items is called '{VECTOR}', as the vector in the store: name the "
            "columns to export without it, --columns A,B"
        )
    return Payload(pa.table(chosen), key, left_out)


def _is_storable(kind: pa.DataType) -> bool:
    if is_list(kind):
        return not is_list(kind.value_type) and _is_storable(kind.value_type)
    tests = (
        *(pa.types.is_boolean, pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal),
        *(pa.types.is_timestamp, pa.types.is_date, pa.types.is_null, is_text),
    )
    return any(test(kind) for test in tests)


def _type_of(kind: pa.DataType) -> pa.DataType:
    """Return the type that values of a storable type have in a store."""
    if is_list(kind):
        return pa.list_(_type_of(kind.value_type))
    if is_text(kind) or pa.types.is_null(kind):
        return pa.string()
    if pa.types.is_boolean(kind):
        return pa.bool_()
    if pa.types.is_integer(kind):
        return pa.int64()
    if pa.types.is_timestamp(kind):
        return TIME
    return pa.date32() if pa.types.is_date(kind) else pa.float64()


def _stored(values: pa.Array, name: str) -> pa.Array:
    try:
        found = values.cast(_type_of(values.type), safe=pa.types.is_integer(values.type))
    except pa.ArrowInvalid as error:
        raise DataError(
            f"values that no store holds ({str(error).splitlines()[0]})",
            file="items",
            column=name,
            remedy="name the columns to export without it, --columns A,B",
        ) from None
    if isinstance(found, pa.ChunkedArray):
        found = found.combine_chunks()
    if pa.types.is_floating(found.type):
        found = pc.if_else(pc.is_finite(found), found, pa.scalar(None, found.type))
    return found
