"""Features of further tables: what is read, joined and computed for the rows of a log."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from recsys.core.errors import ConfigError, DataError
from recsys.features.schema import Schema
from recsys.features.tables.checked import Tables, read_tables
from recsys.features.tables.sources import Policies, Sources

START = 1_700_000_000
DAY = 86_400
Json = dict[str, Any]
ORDERS: Json = {
    "keys": {"customer": "users", "article": "items"},
    "time": {"column": "at", "unit": "s"},
}
LOG = {
    "user": [1, 1, 2, 3],
    "item": [10, 11, 10, 11],
    "time": [START + day * DAY for day in (10, 40, 10, 5)],
    "click": [1, 0, 1, 0],
}
ORDER_ROWS = {
    "customer": [1, 1, 1, 2, 9],
    "article": [10, 11, 10, 10, 10],
    "at": [START + day * DAY for day in (1, 9, 10, 3, 2)],
    "amount": [5.0, 7.0, 100.0, 2.0, None],
    "state": ["ok", "back", "ok", "ok", "ok"],
}


def schema_of(*features: Json, relations: Json | None = None, **roles: Any) -> Schema:
    raw = {
        "interactions": {
            "user": "user", "item": "item", "label": {"column": "click"},
            "time": {"column": "time", "unit": "s"}, **roles,
        },
        "relations": {"orders": ORDERS} if relations is None else relations,
        "features": [
            {"name": "item", "table": "items", "kind": "categorical"},
            *({"name": f"f{n}", "kind": "window", **one} for n, one in enumerate(features)),
        ],
    }  # fmt: skip
    return Schema.model_validate_json(json.dumps(raw))


def tables_of(
    folder: Path, schema: Schema, tables: Mapping[str, Any] | None = None, **policies: Any
) -> Tables:
    """Write the log and the relations, and read them."""
    given = {"orders": ORDER_ROWS} if tables is None else dict(tables)
    paths = {}
    for name, rows in {"interactions": LOG, **given}.items():
        paths[name] = str(folder / f"{name}.parquet")
        pq.write_table(pa.table(rows), paths[name])
    sources = Sources(interactions=paths.pop("interactions"), others=paths)
    return read_tables(schema, sources, Policies(**policies))


def column(tables: Tables, name: str = "f0") -> list[float | None]:
    """Return a column in the order of the rows of the files."""
    values = tables.events.context.column(name).to_pylist()
    return [values[place] for place in np.argsort(tables.events.row)]


@pytest.mark.parametrize(
    ("feature", "expected"),
    [
        ({"by": "user"}, [2, 3, 1, 0]),
        ({"by": "user", "window": "5d"}, [1, 0, 0, 0]),
        ({"by": "user", "window": "9d"}, [2, 0, 1, 0]),
        ({"by": "item"}, [3, 1, 3, 0]),
        ({"by": "pair"}, [1, 1, 1, 0]),
        ({"by": "user", "take": "sum", "value": "amount"}, [12, 112, 2, 0]),
        ({"by": "item", "take": "mean", "value": "amount"}, [3.5, 7, 3.5, None]),
        ({"by": "user", "take": "last", "value": "amount"}, [7, 100, 2, None]),
        ({"by": "user", "take": "distinct", "value": "article"}, [2, 2, 1, 0]),
        ({"by": "user", "take": "distinct", "value": "amount"}, [2, 3, 1, 0]),
        ({"by": "user", "take": "since"}, [DAY, 30 * DAY, 7 * DAY, None]),
        (
            {"by": "user", "take": "share", "where": [{"column": "state", "one_of": ["ok"]}]},
            [0.5, 2 / 3, 1, None],
        ),
        ({"by": "user", "where": [{"column": "amount", "at_least": 6}]}, [1, 2, 0, 0]),
    ],
)
def test_numbers_by_hand(feature: Json, expected: list[float | None], tmp_path: Path) -> None:
    tables = tables_of(tmp_path, schema_of({"of": "orders", **feature}))
    assert column(tables) == pytest.approx(expected)


def test_orphans_are_counted_with_samples(tmp_path: Path) -> None:
    tables = tables_of(tmp_path, schema_of({"of": "orders", "by": "user"}))
    (drop,) = tables.drops
    assert str(drop) == (
        "left join: 1 rows of orders, column 'customer': no user of the data has this key "
        f"(first at {tmp_path}/orders.parquet:5)"
    )
    assert tables.matches == ("relation 'orders': 5 rows, 80.0% of a known user",)


def test_the_log_itself_is_a_relation(tmp_path: Path) -> None:
    schema = schema_of(
        {"of": "interactions", "by": "item"},
        {"of": "interactions", "by": "item", "take": "sum", "value": "click"},
        relations={},
    )
    tables = tables_of(tmp_path, schema, {})
    assert column(tables) == [0, 1, 0, 0]
    assert column(tables, "f1") == [0, 0, 0, 0]
    assert tables.drops == ()


def test_rows_lead_to_those_of_another_relation(tmp_path: Path) -> None:
    lines = {"order": [7, 7, 8, 99], "article": [10, 11, 10, 10], "pieces": [1, 2, 4, 8]}
    orders = {"no": [7, 8], "customer": [1, 2], "at": [START + DAY, START + 3 * DAY]}
    relations = {
        "orders": {"keys": {"customer": "users"}, "time": ORDERS["time"], "id": "no"},
        "lines": {"keys": {"order": "orders", "article": "items"}},
    }
    schema = schema_of(
        {"of": "lines", "by": "user", "take": "sum", "value": "pieces"},
        {"of": "lines", "by": "pair", "take": "sum", "value": "pieces"},
        {"of": "lines", "by": "item", "take": "sum", "value": "pieces"},
        relations=relations,
    )
    tables = tables_of(tmp_path, schema, {"lines": lines, "orders": orders})
    assert column(tables) == [3, 3, 4, 0]
    assert column(tables, "f1") == [1, 2, 4, 0]
    assert column(tables, "f2") == [5, 2, 5, 2]
    assert [(d.table, d.column, d.reason, d.rows) for d in tables.drops] == [
        ("lines", "order", "no row of orders has this id", 1)
    ]
    orders["no"] = [7, 7]
    with pytest.raises(DataError, match=r"orders.parquet row 2, column 'no': the id has an e"):
        tables_of(tmp_path, schema, {"lines": lines, "orders": orders})
    found = tables_of(tmp_path, schema, {"lines": lines, "orders": orders}, duplicate_keys="last")
    assert column(found) == [0, 0, 3, 0]


def test_ids_of_csv_files_are_those_of_the_log(tmp_path: Path) -> None:
    schema = schema_of({"of": "orders", "by": "user", "take": "sum", "value": "amount"})
    path = tmp_path / "orders.csv"
    pyarrow.csv.write_csv(pa.table(ORDER_ROWS), path)
    pq.write_table(pa.table(LOG), tmp_path / "log.parquet")
    sources = Sources(interactions=str(tmp_path / "log.parquet"), others={"orders": str(path)})
    assert column(read_tables(schema, sources, Policies())) == [12, 112, 2, 0]


def test_null_keys_and_times_follow_the_policies(tmp_path: Path) -> None:
    rows = {**ORDER_ROWS, "customer": [1, None, 1, 2, 9], "at": [*ORDER_ROWS["at"][:4], None]}
    schema = schema_of({"of": "orders", "by": "user"})
    with pytest.raises(DataError, match=r"row 2, column 'customer': the id is null.*bad_ids"):
        tables_of(tmp_path, schema, {"orders": rows})
    with pytest.raises(DataError, match=r"row 5, column 'at': the time is null.*bad_times"):
        tables_of(tmp_path, schema, {"orders": rows}, bad_ids="drop")
    tables = tables_of(tmp_path, schema, {"orders": rows}, bad_ids="drop", bad_times="drop")
    assert column(tables) == [1, 2, 1, 0]
    assert [drop.rows for drop in tables.drops] == [1, 1]


def test_repeats_that_leave_the_log_leave_its_windows(tmp_path: Path) -> None:
    log = {name: [*values, values[0]] for name, values in LOG.items()}
    path = tmp_path / "log.parquet"
    pq.write_table(pa.table(log), path)
    schema = schema_of({"of": "interactions", "by": "pair"}, {"of": "interactions", "by": "item"},
                       relations={})  # fmt: skip
    tables = read_tables(schema, Sources(interactions=str(path)), Policies(duplicate_events="drop"))
    assert column(tables, "f1") == [0, 1, 0, 0]


TIME = {"column": "at", "unit": "s"}
WINDOW = {"of": "orders", "by": "user"}


@pytest.mark.parametrize(
    ("feature", "relations", "roles", "message"),
    [
        ({"of": "oders"}, None, {}, r"'oders', which is none of interactions, orders.*'orders'"),
        ({"by": "item"}, {"orders": {"keys": {"u": "users"}, "time": TIME}}, {},
         "no key of 'orders' leads to items: add its column to schema.relations.orders.keys"),
        ({}, None, {"time": None}, "need clock times: give schema.interactions.time"),
        ({"take": "sum"}, None, {}, "take: sum is of the values of a column of 'orders'"),
        ({"value": "amount"}, None, {}, "take: count reads no value: leave value out"),
        ({"take": "share"}, None, {}, "a share is that of the rows which meet where: give it"),
        ({"window": "month"}, None, {}, "'month' is no span of time"),
        ({}, {"orders": {"keys": {"u": "users", "v": "users"}, "time": TIME}}, {},
         "two keys lead to users: declare the table twice"),
        ({}, {"orders": {"keys": {"u": "users"}}}, {}, "schema.relations.orders needs a time"),
        ({}, {"orders": ORDERS, "visits": ORDERS}, {}, "visits: no feature is of it"),
        ({}, {"orders": {**ORDERS, "id": "no"}}, {}, "orders.id: no relation that is used leads"),
        ({}, {"orders": {"keys": {"v": "visit"}, "time": TIME}}, {},
         "orders.keys.v is 'visit', which is none of users, items, orders"),
        ({}, {"orders": {"keys": {"v": "visits"}}, "visits": ORDERS}, {},
         "leads to 'visits', which needs an id"),
        ({"name": "user"}, None, {}, "'user' is computed, and a column of the interactions"),
        ({"column": "n"}, None, {}, "its column has its name: leave column out"),
        ({}, {"orders": ORDERS, "users": ORDERS}, {}, "users has the name of another table"),
    ],
)  # fmt: skip
def test_what_does_not_go_together_is_refused(
    feature: Json, relations: Json | None, roles: Json, message: str
) -> None:
    with pytest.raises(ValidationError, match=message):
        schema_of({**WINDOW, **feature}, relations=relations, **roles)


def test_a_relation_without_a_path_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"relations\.orders is declared, but data\.others has no path"
    ):
        tables_of(tmp_path, schema_of({**WINDOW}), {})


def test_nothing_is_later_than_the_clock(tmp_path: Path) -> None:
    late = datetime.now(UTC).timestamp() + DAY
    rows = {**ORDER_ROWS, "at": [*ORDER_ROWS["at"][:4], int(late)]}
    with pytest.raises(DataError, match="row 5, column 'at': the time is in the future"):
        tables_of(tmp_path, schema_of(WINDOW), {"orders": rows})


def test_times_of_a_relation_are_read_as_declared(tmp_path: Path) -> None:
    moments = [datetime.fromtimestamp(one, UTC) for one in ORDER_ROWS["at"]]
    texts = {**ORDER_ROWS, "at": [one.strftime("%d.%m.%Y %H:%M:%S") for one in moments]}
    feature = {"of": "orders", "by": "user", "window": "30d"}
    found = []
    for zone in (None, "Asia/Tokyo"):  # nine hours earlier: what was at the same instant counts
        time = {"column": "at", "format": "%d.%m.%Y %H:%M:%S", "zone": zone}
        schema = schema_of(feature, relations={"orders": {**ORDERS, "time": time}})
        tables = tables_of(tmp_path, schema, {"orders": texts})
        found.append(tables.events.context.column("f0").to_pylist())
    plain = schema_of(feature)
    expected = tables_of(tmp_path, plain).events.context.column("f0").to_pylist()
    assert found[0] == expected
    assert found[1] != expected


def test_ids_and_numbers_are_read_as_the_schema_writes_them(tmp_path: Path) -> None:
    log = {**LOG, "item": [f"{one:05d}" for one in LOG["item"]]}
    orders = {**ORDER_ROWS, "amount": ["1.005,5", "7", "100", "2", ""]}
    raw = json.loads(
        schema_of(
            {"of": "orders", "by": "item"},
            {"of": "orders", "by": "user", "take": "sum", "value": "amount"},
            {
                "of": "orders",
                "by": "user",
                "where": [{"column": "amount", "at_least": 1000}],
            },
            relations={"orders": {**ORDERS, "decimal": ",", "thousands": "."}},
        ).model_dump_json(exclude_unset=True)
    )
    schema = Schema.model_validate_json(json.dumps({**raw, "ids": {"items": {"pad": 5}}}))
    tables = tables_of(tmp_path, schema, {"interactions": log, "orders": orders})
    assert column(tables, "f0") == [3.0, 1.0, 3.0, 0.0]
    assert column(tables, "f1") == [1012.5, 1112.5, 2.0, 0.0]
    assert column(tables, "f2") == [1.0, 1.0, 0.0, 0.0]


def test_a_decimal_comma_that_is_not_declared_says_where_to_declare_it(tmp_path: Path) -> None:
    spent = {"of": "orders", "by": "user", "take": "sum", "value": "amount"}
    path = tmp_path / "orders.csv"
    path.write_text('customer,article,at,amount\n1,10,1700000000,"9,5"\n')
    log = tmp_path / "log.parquet"
    pq.write_table(pa.table(LOG), log)
    sources = Sources(interactions=str(log), others={"orders": str(path)})
    with pytest.raises(DataError, match="set decimal of 'orders' in the schema") as caught:
        read_tables(schema_of(spent), sources, Policies())
    assert "schema.orders" not in str(caught.value)
    relations = {"orders": {**ORDERS, "decimal": ","}}
    tables = read_tables(schema_of(spent, relations=relations), sources, Policies())
    assert column(tables) == [9.5, 9.5, 0.0, 0.0]
