"""Arrow values in the few types that the engine computes with.

One value can come in many Arrow types: text as a view, as a dictionary, run-end encoded or as
bytes; a UUID as an extension type or as 16 bytes; a list as a view. They are brought to one type
here, for tables, data frames and requests alike, so that no reader knows of them. No value
changes; a type without a plain form stays as it is, and is refused by its name where it is read.
"""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

_UUID_BYTES = 16
_UUID_DASHES = (8, 13, 18, 23)
_HEX = np.frombuffer(b"0123456789abcdef", np.uint8)


def plain_table(table: pa.Table) -> pa.Table:
    """Return a table with the values of all columns `plain`."""
    for number, field in enumerate(table.schema):
        wanted = plain_type(field.type)
        column = table.column(number)
        if wanted != field.type:
            chunks = [plain(chunk) for chunk in column.chunks]
            kinds = {chunk.type for chunk in chunks} or {wanted}
            if len(kinds) > 1:  # bytes, some of which are no text
                chunks = [chunk.cast(pa.large_binary()) for chunk in chunks]
                kinds = {pa.large_binary()}
            (kind,) = kinds
            table = table.set_column(number, field.name, pa.chunked_array(chunks, kind))
    return table


def plain(values: Any) -> Any:
    """Return Arrow values (N,) in their plain type; null stays null.

    Dictionaries and runs become their values, text large or not, views text and lists, float16
    float32, UUIDs (also any 16 bytes of fixed width) their usual text, other bytes the UTF-8 text
    that they are, other extension types what they are stored as. Bytes that are no text stay.
    """
    kind = values.type
    if plain_type(kind) == kind:
        return values
    if isinstance(kind, pa.BaseExtensionType):
        if _is_bool8(kind):
            return values.storage.cast(pa.bool_())
        return plain(values.storage)
    if pa.types.is_dictionary(kind):
        return plain(values.dictionary).take(values.indices)
    if pa.types.is_run_end_encoded(kind):
        return plain(pc.run_end_decode(values))
    if _is_uuid(kind):
        return _uuid_text(values)
    if _is_bytes(kind):
        return _text(values)
    if _is_any_list(kind):
        return _list(values)
    return values.cast(plain_type(kind))


def plain_type(kind: Any) -> Any:
    """Return the plain type of an Arrow type, as `plain` makes it of values without fault."""
    if isinstance(kind, pa.BaseExtensionType):
        return pa.bool_() if _is_bool8(kind) else plain_type(kind.storage_type)
    if pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind):
        return plain_type(kind.value_type)
    if pa.types.is_string_view(kind) or _is_bytes(kind):
        return pa.large_string()
    if pa.types.is_float16(kind):
        return pa.float32()
    if _is_any_list(kind):
        inner = plain_type(kind.value_type)
        same = inner == kind.value_type and not _is_list_view(kind)
        return kind if same else pa.large_list(inner)
    return kind


def _text(values: Any) -> Any:
    """Return bytes as the text that they are, or as bytes where some are none."""
    whole = values.cast(pa.large_binary())
    try:
        return whole.cast(pa.large_string())
    except pa.ArrowInvalid:
        return whole


def _uuid_text(values: Any) -> Any:
    """Return 16 bytes each as 8-4-4-4-12 hexadecimal digits (RFC 9562, section 4)."""
    filled = values.fill_null(bytes(_UUID_BYTES)).cast(pa.binary())
    raw_N16 = np.frombuffer(b"".join(filled.to_pylist()), np.uint8).reshape(-1, _UUID_BYTES)
    text_N36 = np.full((len(values), 36), ord("-"), np.uint8)
    at = [place for place in range(36) if place not in _UUID_DASHES]
    text_N36[:, at[0::2]], text_N36[:, at[1::2]] = _HEX[raw_N16 >> 4], _HEX[raw_N16 & 15]
    buffers = [None, pa.py_buffer(text_N36.tobytes())]
    texts = pa.Array.from_buffers(pa.binary(36), len(values), buffers).cast(pa.large_binary())
    known = values.is_valid()
    return pc.if_else(known, texts.cast(pa.large_string()), pa.scalar(None, pa.large_string()))


def _list(values: Any) -> Any:
    lengths = np.asarray(pc.list_value_length(values).fill_null(0), np.int64)
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]))
    inner = plain(values.flatten())
    return pa.LargeListArray.from_arrays(offsets, inner, mask=values.is_null())


def _is_any_list(kind: Any) -> bool:
    return bool(
        pa.types.is_list(kind)
        or pa.types.is_large_list(kind)
        or pa.types.is_fixed_size_list(kind)
        or _is_list_view(kind)
    )


def _is_list_view(kind: Any) -> bool:
    return bool(pa.types.is_list_view(kind) or pa.types.is_large_list_view(kind))


def _is_bytes(kind: Any) -> bool:
    return bool(
        pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_binary_view(kind)
        or pa.types.is_fixed_size_binary(kind)
    )


def _is_uuid(kind: Any) -> bool:
    return bool(pa.types.is_fixed_size_binary(kind) and kind.byte_width == _UUID_BYTES)


def _is_bool8(kind: Any) -> bool:
    return bool(kind.extension_name == "arrow.bool8")
