"""Every Arrow type in every role: read right, or refused with column, type and remedy."""

import datetime as dt
import uuid
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys.core.errors import DataError
from recsys.features.kinds.registry import KINDS
from recsys.features.table_roles import LabelColumn, TimeColumn
from recsys.features.tables.frames import to_arrow
from recsys.features.tables.ledger import Ledger
from recsys.features.tables.plain_values import plain
from recsys.features.tables.reading import Batch, table_at
from recsys.features.tables.rows import RowReader, RowRoles
from recsys.features.tables.sources import Policies

UUIDS = [uuid.UUID(int=10**30 + k).bytes for k in range(2)]
DAY, CLOCK = dt.date(2024, 5, 1), dt.datetime(2024, 5, 1, 12)
POINTS = ("s", "ms", "us", "ns")
ONE = pa.array([1, None, 0])
TEXT = pa.array(["a", None, "é"])


def of_runs(values: pa.Array) -> pa.Array:
    ends = pa.array(range(1, len(values) + 1), pa.int32())
    return pa.RunEndEncodedArray.from_arrays(ends, values)


def arrays() -> dict[str, pa.Array]:
    """Three values of every type, the second null."""
    found = [
        ONE.cast(kind)
        for kind in map(pa.type_for_alias, ["i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8"])
    ]
    found += [pa.array([1.5, None, 0], kind) for kind in (pa.float16(), pa.float32(), pa.float64())]
    found += [
        pa.array([Decimal(1), None, Decimal(0)], kind)
        for kind in (
            pa.decimal32(5, 1),
            pa.decimal64(9, 0),
            pa.decimal128(20, 2),
            pa.decimal256(50, 3),
        )
    ]
    found += [TEXT.cast(kind) for kind in (pa.string(), pa.large_string(), pa.string_view())]
    found += [TEXT.cast(kind) for kind in (pa.binary(), pa.large_binary(), pa.binary_view())]
    uuids = pa.array([UUIDS[0], None, UUIDS[1]], pa.binary(16))
    found += [pa.array([b"ab", None, b"cd"], pa.binary(2)), uuids]
    found += [pa.ExtensionArray.from_storage(pa.uuid(), uuids), pa.array([b"\xff", None, b"a"])]
    found += [pa.ExtensionArray.from_storage(pa.bool8(), ONE.cast(pa.int8()))]
    found += [pa.ExtensionArray.from_storage(pa.json_(), TEXT)]
    found += [pa.ExtensionArray.from_storage(pa.opaque(pa.int64(), "x", "y"), ONE)]
    found += [TEXT.dictionary_encode(), ONE.dictionary_encode(), of_runs(TEXT), of_runs(ONE)]
    views = pa.array(["a", "b"], pa.string_view())
    found += [pa.DictionaryArray.from_arrays(pa.array([0, None, 1]), views)]
    found += [
        pa.array([CLOCK, None, CLOCK], pa.timestamp(u, z)) for u in POINTS for z in (None, "UTC")
    ]
    found += [pa.array([CLOCK, None, CLOCK], pa.timestamp("us", "Europe/Berlin"))]
    found += [pa.array([DAY, None, DAY], kind) for kind in (pa.date32(), pa.date64())]
    noon = [dt.time(12), None, dt.time(13)]
    found += [pa.array(noon, pa.time32("s")), pa.array(noon, pa.time64("us"))]
    found += [pa.array([1, None, 2], pa.duration(unit)) for unit in POINTS]
    found += [pa.array([pa.MonthDayNano([1, 2, 3]), None, pa.MonthDayNano([1, 2, 3])])]
    found += [pa.array([True, None, False]), pa.nulls(3)]
    for inner in (pa.string_view(), pa.string(), pa.binary()):
        found += [
            pa.array([["a"], None, ["b", "a"]], make(inner)) for make in (pa.list_, pa.list_view)
        ]
    for inner in (pa.float16(), pa.int32(), pa.float64()):
        found += [
            pa.array([[1, 2], None, [0, 1]], make(inner)) for make in (pa.list_, pa.large_list)
        ]
        found += [pa.array([[1, 2], None, [0, 1]], pa.list_(inner, 2))]
        found += [pa.array([[1, 2], None, [0, 1]], pa.large_list_view(inner))]
    found += [pa.array([[["a"]], None, [["b"]]]), pa.array([{"a": 1}, None, {"a": 2}])]
    found += [
        pa.array([[{"a": 1}], None, []]),
        pa.array([[("a", 1)], None, []], pa.map_("str", "i8")),
    ]
    return {f"{number}-{values.type}"[:60]: values for number, values in enumerate(found)}


ARRAYS = arrays()


def features() -> Mapping[str, Any]:
    settings: dict[str, dict[str, Any]] = {"vector": {"dim": 2}, "timestamp": {"unit": "datetime"}}
    return {
        kind: KINDS[kind](name="x", table="interactions", kind=kind, **settings.get(kind, {}))
        for kind in ("categorical", "multi_categorical", "numeric", "timestamp", "text", "vector")
    }


ROLES: dict[str, RowRoles] = {
    "id": RowRoles(ids={"user": "x"}),
    "weight": RowRoles(weight="x"),
    "label": RowRoles(label=LabelColumn(column="x")),
    "time": RowRoles(time=TimeColumn(column="x", unit="datetime")),
    "seconds": RowRoles(time=TimeColumn(column="x", unit="s")),
    "order": RowRoles(order="x"),
    "part": RowRoles(part="x"),
    **{kind: RowRoles(features=[one]) for kind, one in features().items()},
}


def read(values: pa.Array, roles: RowRoles) -> Any:
    files = table_at(Path("log.parquet"), "log", ["x"])
    files._starts = [0]
    ledger = Ledger(files)
    reader = RowReader(files, roles, Policies(bad_ids="drop", bad_times="drop"), ledger, latest=2e9)
    rows = reader.read(Batch(pa.table({"x": values}), np.arange(len(values))))
    ledger.check()
    return rows


@pytest.mark.parametrize("role", ROLES)
def test_read_or_refused(role: str) -> None:
    faults = []
    for name, values in ARRAYS.items():
        try:
            read(values, ROLES[role])
        except DataError as error:
            if error.column != "x" or not error.remedy:
                faults.append(f"{name}: {error}")
        except Exception as error:
            faults.append(f"{name}: {type(error).__name__} {error}")
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize("name", ARRAYS)
def test_plain_values_are_the_same_values(name: str) -> None:
    values = ARRAYS[name]
    for some in (values, values.slice(1)):
        found = plain(some)
        found.validate(full=True)
        given = [
            one.decode() if isinstance(one, bytes) and len(one) < 3 and one != b"\xff" else one
            for one in some.to_pylist()
        ]
        if given != found.to_pylist():
            assert "uuid" in name or "binary[16]" in name or "binary" in name or "bool8" in name
            if "uuid" in name or "[16]" in name:
                raw = [
                    None
                    if one is None
                    else str(uuid.UUID(bytes=one if isinstance(one, bytes) else one.bytes))
                    for one in some.to_pylist()
                ]
                assert found.to_pylist() == raw


def test_a_uuid_is_one_id_however_it_is_stored() -> None:
    uuids = pa.array(UUIDS, pa.binary(16))
    texts = pa.array([str(uuid.UUID(bytes=raw)) for raw in UUIDS])
    forms = (uuids, pa.ExtensionArray.from_storage(pa.uuid(), uuids), texts, texts.cast("binary"))
    found = [read(form, ROLES["id"]).ids["user"].dictionary.to_pylist() for form in forms]
    assert found == [texts.to_pylist()] * 4


def test_a_frame_with_a_column_named_twice_is_refused() -> None:
    with pytest.raises(DataError, match="two columns are named 'a'"):
        to_arrow(pa.table([[1], [2]], names=["a", "a"]), "items")


def test_views_in_a_file_and_in_a_frame(tmp_path: Path) -> None:
    table = pa.table({"a": TEXT.cast(pa.string_view()), "b": of_runs(TEXT)})
    stored = to_arrow(table, "items")
    pq.write_table(stored, tmp_path / "a.parquet")
    assert stored.to_pydict() == {"a": ["a", None, "é"], "b": ["a", None, "é"]}
