"""Tables: rows against a pandas oracle, exact ids, times in every unit, joins, policies."""

import json
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from recsys.core.errors import DataError, Row
from recsys.features.schema import Schema
from recsys.features.tables import csv_files, parquet_files
from recsys.features.tables.checked import Tables, read_tables
from recsys.features.tables.sources import Policies, Sources

ID_FEATURE = {"name": "id", "table": "items", "column": "item", "kind": "categorical"}


def schema_of(
    interactions: dict[str, Any] | None = None,
    features: list[dict[str, Any]] | None = None,
    **tables: Any,
) -> Schema:
    raw = {
        "interactions": {"user": "user", "item": "item", **(interactions or {})},
        "features": [ID_FEATURE, *(features or [])],
        **tables,
    }
    return Schema.model_validate_json(json.dumps(raw))


def write(folder: Path, name: str, columns: dict[str, Any], ending: str = "parquet") -> str:
    path = folder / f"{name}.{ending}"
    if ending == "csv":
        pyarrow.csv.write_csv(pa.table(columns), path)
    else:
        pq.write_table(pa.table(columns), path)
    return str(path)


def read(
    schema: Schema,
    policies: dict[str, Any] | None = None,
    *,
    split: str | None = None,
    **paths: Any,
) -> Tables:
    sources = Sources.model_validate(paths)
    return read_tables(
        schema,
        sources,
        Policies.model_validate(policies or {}),
        split_column=split,
        now=datetime(2026, 1, 1, tzinfo=UTC),
    )


def oracle(log: pd.DataFrame, items: pd.DataFrame) -> pd.DataFrame:
    """Known items only, rated at least 3, first of repeated events, ordered."""
    log = log[(log["rating"] >= 3) & log["item"].isin(items["item"])]
    log = log.drop_duplicates(["user", "item", "time"])
    return log.sort_values(["user", "time"], kind="stable")


@pytest.mark.parametrize("ending", ["parquet", "csv"])
def test_events_equal_a_pandas_oracle(
    tmp_path: Path, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over many small batches, with every policy that drops."""
    monkeypatch.setattr(parquet_files, "_BATCH_ROWS", 70)
    monkeypatch.setattr(csv_files, "_BLOCK_BYTES", 1500)
    rng = np.random.default_rng(1)
    log = pd.DataFrame(
        {
            "user": rng.integers(0, 40, 1000),
            "item": rng.integers(0, 25, 1000),
            "time": 1_700_000_000 + rng.integers(0, 30, 1000),
            "rating": rng.integers(1, 6, 1000),
            "weight": rng.random(1000).round(3),
            "place": rng.choice(["a", "b", "c"], 1000),
        }
    )
    items = pd.DataFrame({"item": rng.permutation(20), "brand": [f"b{k}" for k in range(20)]})
    log_path = write(tmp_path, "log", dict(log.to_dict("list")), ending)
    items_path = write(tmp_path, "items", items.to_dict("list"), ending)
    schema = schema_of(
        {
            "time": {"column": "time", "unit": "s"},
            "weight": "weight",
            "where": [{"column": "rating", "at_least": 3}],
        },
        [
            {"name": "brand", "table": "items", "kind": "categorical"},
            {"name": "place", "table": "interactions", "kind": "categorical"},
        ],
        items={"key": "item"},
    )
    policies = {"unknown_items": "drop", "duplicate_events": "drop"}
    tables = read(schema, policies, interactions=log_path, items=items_path)
    wanted, events = oracle(log, items), tables.events
    assert tables.items["item"].to_pylist() == sorted(items["item"])
    brands = items.sort_values("item")["brand"].to_list()
    assert tables.items["brand"].to_pylist() == brands
    np.testing.assert_array_equal(events.row, wanted.index)
    user_ids = np.asarray(tables.users["user"])
    np.testing.assert_array_equal(user_ids[events.user_row], wanted["user"])
    np.testing.assert_array_equal(np.asarray(tables.items["item"])[events.item_row], wanted["item"])
    np.testing.assert_array_equal(events.time, wanted["time"] * 1_000_000)
    np.testing.assert_allclose(events.weight, wanted["weight"], rtol=1e-6)
    assert events.context["place"].to_pylist() == wanted["place"].to_list()
    assert sum(drop.rows for drop in tables.drops) == len(log) - len(wanted)
    assert set(user_ids) == set(wanted["user"])


BIG = 2**53


@pytest.mark.parametrize(
    ("ids", "kind"),
    [
        (pa.array([BIG + 1, BIG + 2, BIG + 1]), pa.int64()),
        (pa.array([2**63 + 1, 2**63 + 2, 5], pa.uint64()), pa.uint64()),
        (pa.array([7, 8, 7], pa.int8()), pa.int64()),
        (pa.array(["007", "8", "x"]), pa.large_string()),
        (pa.array(["b", "a", "b"]).dictionary_encode(), pa.large_string()),
    ],
)
@pytest.mark.parametrize("ending", ["parquet", "csv"])
def test_ids_are_exact(tmp_path: Path, ids: Any, kind: pa.DataType, ending: str) -> None:
    path = write(tmp_path, "log", {"user": ids, "item": ids}, ending)
    tables = read(schema_of(), interactions=path)
    for table, name in ((tables.items, "item"), (tables.users, "user")):
        assert table[name].type == kind
        assert table[name].to_pylist() == sorted(set(ids.to_pylist()))
    taken = tables.items["item"].take(pa.array(tables.events.item_row)).to_pylist()
    assert sorted(taken) == sorted(ids.to_pylist())


def test_csv_ids_take_one_type_over_all_tables(tmp_path: Path) -> None:
    """The log alone would be whole numbers; the catalogue makes them text."""
    log = write(tmp_path, "log", {"user": [1, 2, 3], "item": [1, 2, 3]}, "csv")
    items = write(tmp_path, "items", {"item": ["1", "2", "3", "A4"]}, "csv")
    schema = schema_of(items={"key": "item"})
    tables = read(schema, interactions=log, items=items)
    assert tables.items["item"].to_pylist() == ["1", "2", "3", "A4"]
    assert tables.users["user"].to_pylist() == [1, 2, 3]
    assert tables.events.item_row.tolist() == [0, 1, 2]
    # Text in Parquet decides for the CSV beside it, whole numbers likewise.
    text = write(tmp_path, "text", {"item": ["1", "2", "3"]})
    tables = read(schema, interactions=log, items=text)
    assert tables.items["item"].to_pylist() == ["1", "2", "3"]
    numbers = write(tmp_path, "numbers", {"item": [1, 2, 3]})
    assert read(schema, interactions=log, items=numbers).items["item"].to_pylist() == [1, 2, 3]


def test_a_bad_id_does_not_decide_the_type(tmp_path: Path) -> None:
    log = write(tmp_path, "log", {"user": [1, 1, 1], "item": ["1", "2", " 3"]}, "csv")
    tables = read(schema_of(), {"bad_ids": "drop"}, interactions=log)
    assert tables.items["item"].to_pylist() == [1, 2]


def test_float_ids_of_a_csv(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("user,item\n1.0,5\n2.0,6\n1,7\n,8\n")
    policies = {"float_ids": "integer", "bad_ids": "drop"}
    tables = read(schema_of(), policies, interactions=str(path))
    assert tables.users["user"].to_pylist() == [1, 2]
    assert tables.events.user_row.tolist() == [0, 0, 1]
    assert [(drop.reason, drop.rows) for drop in tables.drops] == [
        ("the id is null", 1),
        ("ids came as floats", 2),
    ]


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("ending", ["parquet", "csv"])
def test_a_float_id_is_exact_below_two_to_the_53rd(tmp_path: Path, ending: str, sign: int) -> None:
    """2**53 is what the float of 2**53 + 1 is, too."""
    schema, policies = schema_of(), {"float_ids": "integer"}
    largest, next_ = sign * (BIG - 1), sign * BIG

    def log(number: int) -> str:
        ids: Any = pa.array([1.0, 2.0, float(number)])
        if ending == "csv":
            ids = ["1.0", "2.0", f"{number}.0"]
        return write(tmp_path, f"log{number}", {"user": [1, 2, 3], "item": ids}, ending)

    assert largest in read(schema, policies, interactions=log(largest)).items["item"].to_pylist()
    with pytest.raises(DataError, match=r"as (a )?floats? of 2\*\*53 or more"):
        read(schema, policies, interactions=log(next_))


INSTANT = 1_717_243_200_123_456
INSTANTS: dict[str, tuple[str, Any, int]] = {
    "s": ("s", [INSTANT // 10**6] * 2, INSTANT // 10**6 * 10**6),
    "ms": ("ms", [INSTANT // 1000] * 2, INSTANT // 1000 * 1000),
    "us": ("us", [INSTANT] * 2, INSTANT),
    "ns": ("ns", [INSTANT * 1000 + 7] * 2, INSTANT),
    "float": ("s", [1.7e9, 1.7e9], 1_700_000_000_000_000),
    "timestamp": ("datetime", pa.array([INSTANT] * 2, pa.timestamp("us")), INSTANT),
    "nanoseconds": ("datetime", pa.array([INSTANT * 1000 + 7] * 2, pa.timestamp("ns")), INSTANT),
    "zone": ("datetime", pa.array([INSTANT] * 2, pa.timestamp("us", "Asia/Tokyo")), INSTANT),
    "date": ("datetime", [date(2024, 6, 1)] * 2, 1_717_200_000_000_000),
    "text": ("datetime", ["2024-06-01T12:00:00.123456789", "2024-06-01 12:00:00.123456"], INSTANT),
    "offset": (
        "datetime",
        ["2024-06-01T14:00:00.123456+02:00", "2024-06-01T12:00:00.123456Z"],
        INSTANT,
    ),
    "day": ("datetime", ["2024-06-01", "2024-06-01T00:00"], 1_717_200_000_000_000),
}


@pytest.mark.parametrize("name", INSTANTS)
@pytest.mark.parametrize("ending", ["parquet", "csv"])
def test_times_become_microseconds(tmp_path: Path, name: str, ending: str) -> None:
    unit, values, wanted = INSTANTS[name]
    if ending == "csv" and pa.types.is_timestamp(pa.array(values).type):
        values = pa.array(values).cast(pa.timestamp("us", "UTC"), safe=False)
        values = values.cast(pa.string())
    path = write(tmp_path, "log", {"user": [1, 1], "item": [1, 2], "when": values}, ending)
    features = [{"name": "when", "table": "interactions", "kind": "timestamp", "unit": unit}]
    schema = schema_of({"time": {"column": "when", "unit": unit}}, features)
    tables = read(schema, interactions=path)
    assert tables.events.time.tolist() == [wanted, wanted]
    kind = tables.events.context["when"].type
    assert kind == (pa.timestamp("us", "UTC") if unit == "datetime" else pa.int64())


def test_order_and_file_order(tmp_path: Path) -> None:
    columns = {"user": [2, 1, 2, 1], "item": [1, 2, 3, 4], "step": [5, 9, 4, 8]}
    path = write(tmp_path, "log", columns)
    events = read(schema_of({"order": "step"}), interactions=path).events
    assert events.row.tolist() == [3, 1, 2, 0]
    assert events.time.tolist() == [8, 9, 4, 5]
    events = read(schema_of(), interactions=path).events
    assert events.row.tolist() == [1, 3, 0, 2]
    assert events.time.tolist() == [1, 3, 0, 2]
    taken = events.take(np.array([2, 0]))
    assert taken.row.tolist() == [0, 1]
    assert len(taken.context) == 2


def test_a_given_split(tmp_path: Path) -> None:
    columns = {
        "user": [1, 1, 1, 1],
        "item": [1, 2, 3, 4],
        "fold": ["train", "Valid", "test", "validation"],
    }
    path = write(tmp_path, "log", columns)
    split = read(schema_of(), split="fold", interactions=path).events.split
    assert split is not None
    assert split.tolist() == [0, 1, 2, 1]


def test_users_are_the_union_and_unknown_items_can_stay(tmp_path: Path) -> None:
    log = write(tmp_path, "log", {"user": ["z", "b", "b"], "item": [3, 9, 1]})
    users = write(tmp_path, "users", {"user": ["b", "a"], "age": [30, 20]})
    items = write(tmp_path, "items", {"item": [3, 1], "tags": [["x"], []]})
    features = [
        {"name": "age", "table": "users", "kind": "numeric"},
        {"name": "tags", "table": "items", "kind": "multi_categorical"},
    ]
    schema = schema_of({}, features, items={"key": "item"}, users={"key": "user"})
    tables = read(schema, {"unknown_items": "keep"}, interactions=log, users=users, items=items)
    assert tables.users.to_pydict() == {"user": ["a", "b", "z"], "age": [20, 30, None]}
    assert tables.items.to_pydict() == {"item": [1, 3, 9], "tags": [[], ["x"], None]}
    assert {(drop.policy, drop.rows) for drop in tables.drops} == {
        ("unknown_items: keep", 1),
        ("unknown_users: keep", 1),
    }


def test_side_tables_join_on_their_key(tmp_path: Path) -> None:
    log = write(tmp_path, "log", {"user": [1, 1], "item": [1, 2]})
    items = write(tmp_path, "items", {"item": [2, 1, 3]})
    prices = write(
        tmp_path, "prices", {"sku": ["3", "1", "8", "1"], "price": [3.0, 1.0, 8.0, 7.0]}, "csv"
    )
    features = [{"name": "price", "table": "prices", "kind": "numeric"}]
    side = {"prices": {"joins": "items", "key": "sku"}}
    schema = schema_of({}, features, items={"key": "item"}, others=side)
    paths = {"interactions": log, "items": items, "others": {"prices": prices}}
    tables = read(schema, {"duplicate_keys": "first"}, **paths)
    assert tables.items.to_pydict() == {"item": [1, 2, 3], "price": [1.0, None, 3.0]}
    assert {(drop.policy, drop.rows, drop.examples) for drop in tables.drops} == {
        ("duplicate_keys: first", 1, (Row(str(prices), 4),)),
        ("left join", 1, (Row(str(prices), 3),)),
    }


CATEGORY = [
    ("parquet", ["a", None, "NA", "b"], ["a", None, "NA", "b"]),
    ("parquet", [1.0, None, 3.0, 1.0], [1, None, 3, 1]),
    ("parquet", [True, None, False, True], [True, None, False, True]),
    ("parquet", pa.array(["a", None, "b", "a"]).dictionary_encode(), ["a", None, "b", "a"]),
    ("csv", ["1", "2", "", "30"], [1, 2, None, 30]),
    ("csv", ["1", "2", "", "x"], ["1", "2", None, "x"]),
    ("csv", ["1", "02", "3", "4"], ["1", "02", "3", "4"]),
    ("csv", ["1.0", "2.0", "", "3.0"], [1, 2, None, 3]),
    ("csv", ["NA", "1", "2", ""], ["NA", "1", "2", None]),
]


@pytest.mark.parametrize(("ending", "values", "wanted"), CATEGORY)
def test_categories(
    tmp_path: Path,
    ending: str,
    values: Any,
    wanted: list[Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The type is decided over the whole file: blocks here hold a row or two."""
    monkeypatch.setattr(csv_files, "_BLOCK_BYTES", 20)
    columns = {"item": [1, 2, 3, 4], "brand": values}
    path = tmp_path / f"items.{ending}"
    if ending == "csv":
        rows = [f"{item},{brand}" for item, brand in zip(columns["item"], values, strict=True)]
        path.write_text("\n".join(["item,brand", *rows]) + "\n")
    else:
        write(tmp_path, "items", columns)
    log = write(tmp_path, "log", {"user": [1, 1], "item": [1, 2]})
    features = [{"name": "brand", "table": "items", "kind": "categorical"}]
    schema = schema_of({}, features, items={"key": "item"})
    tables = read(schema, interactions=log, items=str(path))
    assert tables.items["brand"].to_pylist() == wanted


def test_vectors_and_numbers_of_a_csv(tmp_path: Path) -> None:
    path = tmp_path / "items.csv"
    path.write_text(
        'item,look,price,tags\n1,"[0.5, -1e2]",NA,a|b\n2,1 2,2.5,\n3,,-.5e1,c\n', newline="\r\n"
    )
    log = write(tmp_path, "log", {"user": [1, 1], "item": [1, 2]})
    features = [
        {"name": "look", "table": "items", "kind": "vector", "dim": 2},
        {"name": "price", "table": "items", "kind": "numeric"},
        {"name": "tags", "table": "items", "kind": "multi_categorical", "separator": "|"},
    ]
    schema = schema_of({}, features, items={"key": "item"})
    tables = read(schema, interactions=log, items=str(path))
    assert tables.items.drop_columns("item").to_pydict() == {
        "look": [[0.5, -100.0], [1.0, 2.0], None],
        "price": [None, 2.5, -5.0],
        "tags": ["a|b", None, "c"],
    }


def test_infinite_numbers_become_null(tmp_path: Path) -> None:
    items = write(
        tmp_path,
        "items",
        {
            "item": [1, 2, 3],
            "price": [np.inf, 1.0, np.nan],
            "look": [[np.inf, 0.0], [1.0, 2.0], None],
        },
    )
    log = write(tmp_path, "log", {"user": [1, 1], "item": [1, 2]})
    features = [
        {"name": "look", "table": "items", "kind": "vector", "dim": 2},
        {"name": "price", "table": "items", "kind": "numeric"},
    ]
    schema = schema_of({}, features, items={"key": "item"})
    tables = read(schema, {"infinite_numbers": "null"}, interactions=log, items=items)
    assert tables.items["price"].to_pylist() == [None, 1.0, None]
    assert tables.items["look"].to_pylist() == [None, [1.0, 2.0], None]
    assert [drop.rows for drop in tables.drops] == [1, 1]


def test_conditions_compare_exactly(tmp_path: Path) -> None:
    columns = {
        "user": [1] * 5,
        "item": [1, 2, 3, 4, 5],
        "code": [BIG, BIG + 1, 44, None, BIG + 7],
        "small": pa.array([44, 1, 2, 3, 2], pa.int8()),
    }
    path = write(tmp_path, "log", columns)

    def rows(*conditions: Any, **condition: Any) -> list[int]:
        where = [*conditions, condition]
        tables = read(schema_of({"where": where}), interactions=path)
        assert sum(drop.rows for drop in tables.drops) == 5 - len(tables.events)
        return list(tables.events.row)

    # One row fails the second condition, one the first, one both (and counts once).
    assert rows({"column": "code", "at_least": 45}, column="small", at_most=2) == [1, 4]
    assert rows(column="code", one_of=[BIG + 1, 44]) == [1, 2]
    assert rows(column="small", one_of=[300, 1, 2]) == [1, 2, 4]
    assert rows(column="code", at_most=1e18, at_least=44) == [0, 1, 2, 4]


def test_the_fingerprint_sees_one_byte(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("user,item\n1,1\n1,2\n")
    before = read(schema_of(), interactions=str(path)).fingerprint
    assert read(schema_of(), interactions=str(path)).fingerprint == before
    path.write_text("user,item\n1,1\n1,3\n")
    assert read(schema_of(), interactions=str(path)).fingerprint != before
