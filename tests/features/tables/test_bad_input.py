"""Every bad input gets one error that names file, column, rows and remedy."""

import gzip
import json
import math
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys.core.errors import ConfigError, DataError, NotFoundError
from recsys.features.schema import Schema
from recsys.features.tables.checked import Tables, read_tables
from recsys.features.tables.sources import Policies, Sources

ReadShop = Callable[..., Tables]
START = 1_700_000_000
COLUMNS = ("user", "item", "time", "weight", "place")
ITEM_COLUMNS = ("item", "name", "brand", "tags", "price", "look")


def test_the_good_shop_reads(read_shop: ReadShop) -> None:
    tables = read_shop()
    assert tables.items.num_rows == 3
    assert len(tables.events) == 5
    assert tables.drops == ()


ORDER = {"time": None, "order": "place"}
BAD: dict[str, tuple[dict[str, Any], str]] = {
    "misspelt column": (
        {"log": {"wieght": [1.0] * 5, "weight": None}},
        r"interactions\.parquet, column 'weight': the interactions table has no such column "
        r"\(did you mean 'wieght'\?\)",
    ),
    "missing session column": (
        {"roles": {"session": "visit"}},
        "column 'visit': the interactions table has no such column",
    ),
    "a weight that float32 does not hold": (
        {"log": {"weight": [1.0, 1.0, 1e39, 1.0, 1e308]}, "roles": {"weight": "weight"}},
        r"interactions\.parquet rows 3, 5, column 'weight': the weight is larger than 3\.4e\+38.*"
        r"1e\+39; .*infinite_numbers: null",
    ),
    "weights whose sum float32 does not hold": (
        {"log": {"weight": [3e38] * 5}, "roles": {"weight": "weight"}},
        r"interactions\.parquet, column 'weight': the weights add up to more than 3\.4e\+38",
    ),
    "weights that are all zero": (
        {"log": {"weight": [0.0, 1e-50, 0.0, 0.0, -0.0]}, "roles": {"weight": "weight"}},
        r"interactions\.parquet, column 'weight': all weights are zero: no row would count",
    ),
    "null session": (
        {"log": {"visit": ["a", "b", None, "b", None]}, "roles": {"session": "visit"}},
        r"interactions\.parquet rows 3, 5, column 'visit': the id is null; .*bad_ids: drop",
    ),
    "empty session": (
        {"log": {"visit": ["a", "b", "", "b", "c"]}, "roles": {"session": "visit"}},
        r"interactions\.parquet row 3, column 'visit': the id is empty, ''",
    ),
    "sessions as floats": (
        {"log": {"visit": [1.0, 1.0, 2.0, 3.0, 3.0]}, "roles": {"session": "visit"}},
        r"column 'visit': ids came as floats, 1\.0; .*float_ids: integer",
    ),
    "sessions as lists": (
        {"log": {"visit": [[1], [1], [2], [2], [2]]}, "roles": {"session": "visit"}},
        r"row 1, column 'visit': ids are list<.*>, \[1\]",
    ),
    "null id": (
        {"log": {"user": pa.array([1, None, 2, 2, None])}},
        r"interactions\.parquet rows 2, 5, column 'user': the id is null; "
        r".*policies\.bad_ids: drop",
    ),
    "empty id": (
        {"log": {"user": ["a", "", "b", "c", "d"]}, "users": {"user": ["a", "b", "c"]}},
        r"interactions\.parquet row 2, column 'user': the id is empty, '';",
    ),
    "padded id": (
        {"log": {"user": ["a", "b", " b", "c", "d"]}, "users": {"user": ["a", "b", "c"]}},
        r"row 3, column 'user': the id is padded with white space, ' b';",
    ),
    "null as a word": (
        {"log": {"user": ["a", "b", "b", "nan", "d"]}, "users": {"user": ["a", "b", "c"]}},
        r"row 4, column 'user': the id is the word for a null, 'nan'",
    ),
    "null key": (
        {"items": {"item": [10, None, 12]}},
        r"items\.parquet row 2, column 'item': the id is null",
    ),
    "float ids": (
        {"log": {"item": [10.0, 11.0, 10.0, 12.0, 11.0]}},
        r"interactions\.parquet rows 1, 2, 3, 4, 5, column 'item': ids came as floats, 10\.0; "
        r".*policies\.float_ids: integer",
    ),
    "fractional ids": (
        {"log": {"item": [10.0, 11.5, 10.0, 12.0, 11.0]}, "policies": {"float_ids": "integer"}},
        r"row 2, column 'item': the id is a fraction, 11\.5",
    ),
    "float ids above 2**53": (
        {"log": {"item": [10.0, 2.0**60, 1.0, 1.0, 1.0]}, "policies": {"float_ids": "integer"}},
        r"row 2, column 'item': the id came as a float of 2\*\*53",
    ),
    "NaN id": (
        {
            "log": {"user": [1.0, math.nan, 2.0, 2.0, 3.0]},
            "policies": {"float_ids": "integer"},
        },
        r"row 2, column 'user': the id is null",
    ),
    "bool ids": (
        {"log": {"user": [True, False, True, True, False]}},
        r"row 1, column 'user': ids are true or false, True; an id is a whole number or text",
    ),
    "list as id": (
        {"log": {"user": [[1], [1], [2], [2], [3]]}},
        r"row 1, column 'user': ids are list<.*>, \[1\]",
    ),
    "duplicate item": (
        {"items": {"item": [10, 11, 10]}},
        r"items\.parquet row 3, column 'item': the key has an earlier row, 10; "
        r".*policies\.duplicate_keys: first",
    ),
    "duplicate user": (
        {"users": {"user": [1, 1, 3]}},
        r"users\.parquet row 2, column 'user': the key has an earlier row, 1",
    ),
    "unknown item": (
        {"log": {"item": [10, 11, 99, 12, 99]}},
        r"interactions\.parquet rows 3, 5, column 'item': the catalogue has no such key, 99; "
        r"add them to .*items\.parquet, column 'item', or set policies\.unknown_items: drop",
    ),
    "unknown user": (
        {"log": {"user": [1, 1, 2, 2, 9]}, "policies": {"unknown_users": "error"}},
        r"row 5, column 'user': the users table has no such key, 9",
    ),
    "repeated event": (
        {
            "log": {"user": [1] * 5, "item": [10] * 4 + [11], "time": [START] * 5},
            "policies": {"duplicate_events": "error"},
        },
        r"rows 2, 3, 4, column 'item': the same user, item and time as an earlier row",
    ),
    "ids of two types": (
        {"log": {"item": ["10", "11", "10", "12", "11"]}},
        r"items\.parquet, column 'item': holds whole numbers \(10\), "
        r".*interactions\.parquet, column 'item' holds text \('10'\)",
    ),
    "milliseconds declared as seconds": (
        {"log": {"time": [(START + k) * 1000 for k in range(5)]}},
        r"rows 1, 2, 3, 4, 5, column 'time': declared as s, but the times are between 1990 and now "
        r"as ms, 1700000000000; set the unit to ms",
    ),
    "mixed units": (
        {
            "log": {"time": [START, START * 1000, START, START, START * 1000]},
            "policies": {"bad_times": "drop"},
        },
        r"rows 2, 5, column 'time': times in mixed units: 3 rows are plausible as s \(declared\), "
        r"2 as ms, 1700000000000; bring the column to one unit",
    ),
    "future time": (
        {"log": {"time": [START, START, START, START, 1_800_000_000]}},
        r"row 5, column 'time': the time is in the future \(after 2024-06-01T00:00:00\+00:00\), "
        r"1800000000 \(2027-01-15T08:00:00\+00:00\); .*policies\.bad_times: drop",
    ),
    "negative time": (
        {"log": {"time": [START, -5, START, START, START]}},
        r"row 2, column 'time': the time is negative, -5",
    ),
    "null time": (
        {"log": {"time": pa.array([START, None, START, START, START])}},
        r"row 2, column 'time': the time is null;",
    ),
    "an order declared as time": (
        {"log": {"time": [0, 1, 2, 3, 4]}},
        r"column 'time': the time is before 1990.*declare interactions\.order",
    ),
    "text in a time": (
        {"log": {"time": ["2024-01-01"] * 5}},
        r"row 1, column 'time': declared in s, but the column is text, '2024-01-01'; "
        r"declare unit: datetime",
    ),
    "timestamps declared as numbers": (
        {"log": {"time": pa.array([datetime(2024, 1, 1)] * 5)}},
        r"declared in s, but the column is timestamp\[us\].*declare unit: datetime",
    ),
    "numbers declared as datetime": (
        {"roles": {"time": {"column": "time", "unit": "datetime"}}},
        r"declared as datetime, but the column is int64, 1700000000; set the unit to s",
    ),
    "no date": (
        {
            "log": {"time": ["2024-01-01", "2024-13-01", "2024-01-01", "x", "2024-01-01"]},
            "roles": {"time": {"column": "time", "unit": "datetime"}},
        },
        r"rows 2, 4, column 'time': not a date or a time, '2024-13-01'; write ISO 8601",
    ),
    "infinite time": (
        {"log": {"time": [float("inf"), *[START + 0.5] * 4]}},
        r"column 'time': the time is no number of a clock, inf; write numbers since 1970",
    ),
    "latest time": (
        {"policies": {"latest_time": "yesterday"}},
        r"policies\.latest_time: 'yesterday' is neither 'now' nor an ISO date",
    ),
    "null order": (
        {"log": {"place": pa.array([1, None, 3, 4, 5])}, "roles": ORDER},
        r"row 2, column 'place': the order is null; .*where: \[\{column: place, at_least: 0\}\]",
    ),
    "negative order": (
        {"log": {"place": [1, 2, -1, 4, 5]}, "roles": ORDER},
        r"row 3, column 'place': the order is negative, -1",
    ),
    "text in a weight": (
        {"log": {"weight": ["1", "2", "3", "4", "5"]}},
        r"row 1, column 'weight': text where a number is expected, '1'; name the right column",
    ),
    "negative weight": (
        {"log": {"weight": [1.0, -2.0, 1.0, 1.0, 1.0]}},
        r"row 2, column 'weight': the weight is negative, -2\.0",
    ),
    "NaN weight": (
        {"log": {"weight": [1.0, math.nan, 1.0, 1.0, 1.0]}},
        r"row 2, column 'weight': the weight is null or NaN",
    ),
    "infinite weight": (
        {"log": {"weight": [1.0, math.inf, 1.0, 1.0, 1.0]}},
        r"row 2, column 'weight': the number is infinite, inf; .*infinite_numbers: null",
    ),
    "infinite feature": (
        {"items": {"price": [1.0, -math.inf, 2.0]}},
        r"items\.parquet row 2, column 'price': the number is infinite, -inf",
    ),
    "infinite vector": (
        {"items": {"look": [[0.0, 1.0], [0.0, math.inf], None]}},
        r"row 2, column 'look': a vector holds an infinite number",
    ),
    "NaN in a vector": (
        {"items": {"look": [[0.0, 1.0], [0.0, math.nan], None]}},
        r"row 2, column 'look': null or NaN inside a vector",
    ),
    "short vector": (
        {"items": {"look": [[0.0, 1.0], [0.0], None]}},
        r"row 2, column 'look': a vector of 1 numbers where dim: 2 is declared",
    ),
    "number for a vector": (
        {"items": {"look": [0.0, 1.0, None]}},
        r"row 1, column 'look': one double where a vector of 2 numbers is expected, 0\.0",
    ),
    "text in a number": (
        {"items": {"price": ["1", "cheap", "3"]}},
        r"items\.parquet row 1, column 'price': text where a number is expected, '1'",
    ),
    "list in a number": (
        {"items": {"price": [[1.0], [2.0], None]}},
        r"row 1, column 'price': a list where one number is expected, \[1\.0\]",
    ),
    "list in a category": (
        {"items": {"brand": [["a"], ["b"], None]}},
        r"row 1, column 'brand': a list where one value is expected, \['a'\]; "
        r"declare feature 'brand' multi_categorical",
    ),
    "fraction in a category": (
        {"items": {"brand": [1.0, 2.5, None]}},
        r"row 2, column 'brand': a fraction or .*, 2\.5; declare the feature numeric",
    ),
    "a category above 2**53": (
        {"items": {"brand": [1.0, 2.0**60, None]}},
        r"row 2, column 'brand': a fraction or a float above 2\*\*53 in a categorical column",
    ),
    "one value for a list": (
        {"items": {"tags": [1, 2, 3]}},
        r"row 1, column 'tags': one int64 where a list is expected, 1",
    ),
    "numbers for text": (
        {"items": {"name": [1, 2, 3]}},
        r"row 1, column 'name': int64 where text is expected, 1",
    ),
    "unknown part of the split": (
        {"split": "place"},
        r"rows 1, 2, 3, 4, 5, column 'place': no known part of the split, 'shop'",
    ),
    "empty log": (
        {"log": {name: pa.array([], pa.int64()) for name in COLUMNS}},
        r"interactions\.parquet: the interactions table is empty",
    ),
    "empty catalogue": (
        {"items": {name: pa.array([], pa.string()) for name in ITEM_COLUMNS}},
        r"items\.parquet: the items table is empty",
    ),
    "nothing left": (
        {"roles": {"where": [{"column": "weight", "at_least": 10}]}},
        r"none of 5 interactions is left \(5: 'weight' not at least 10\)",
    ),
    "text in a condition": (
        {"roles": {"where": [{"column": "place", "at_least": 1}]}},
        r"row 1, column 'place': text where a number is expected, 'shop'",
    ),
    "one item in the log": (
        {"log": {"item": [10] * 5}},
        r"column 'item': the interactions are all of one item; at least two",
    ),
    "one item in all": (
        {
            "log": {"item": [10] * 5},
            "items": {
                "item": [10],
                "name": ["Hat"],
                "brand": ["a"],
                "tags": [["x"]],
                "price": [1.0],
                "look": [[0.1, 0.2]],
            },
        },
        "the interactions are all of one item",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(read_shop: ReadShop, name: str) -> None:
    changes, message = BAD[name]
    with pytest.raises((DataError, ConfigError), match=message) as caught:
        read_shop(**changes)
    assert "\n" not in str(caught.value)


def test_an_error_counts_all_rows_and_names_the_first(tmp_path: Path) -> None:
    users = np.arange(600_000)
    table = pa.table({"user": pa.array(users, mask=users % 2 == 1), "item": users})
    pq.write_table(table, tmp_path / "log.parquet")
    schema = Schema.model_validate_json(
        '{"interactions": {"user": "user", "item": "item"}, "features": '
        '[{"name": "item", "table": "items", "kind": "categorical"}]}'
    )
    with pytest.raises(DataError, match=r"rows 2, 4, 6, 8, 10 \(300,000 rows in all\)"):
        read_tables(schema, Sources(interactions=str(tmp_path / "log.parquet")), Policies())


def test_two_readers_of_a_column_count_a_row_once(read_shop: ReadShop) -> None:
    """The time is a role here and a feature of the context."""
    stamp = {"name": "time", "table": "interactions", "kind": "timestamp", "unit": "datetime"}
    with pytest.raises(DataError, match=r"rows 2, 3, column 'time': not a date"):
        read_shop(
            log={"time": ["2024-01-01", "x", "y", "2024-01-01", "2024-01-01"]},
            roles={"time": {"column": "time", "unit": "datetime"}},
            features=[stamp],
        )


def test_paths_that_hold_nothing(read_shop: ReadShop, tmp_path: Path) -> None:
    read_shop()
    with pytest.raises(NotFoundError, match=r"does not exist \(did you mean 'items.parquet'\?\)"):
        read_shop(paths={"items": str(tmp_path / "item.parquet")})
    with pytest.raises(NotFoundError, match="the items table's glob matches no file"):
        read_shop(paths={"items": str(tmp_path / "x*.parquet")})
    (tmp_path / "empty").mkdir()
    with pytest.raises(NotFoundError, match="folder holds no data file"):
        read_shop(paths={"items": str(tmp_path / "empty")})


def test_tables_and_sources_go_together(read_shop: ReadShop) -> None:
    with pytest.raises(ConfigError, match=r"schema\.users is declared, but data has no path"):
        read_shop(paths={"users": None})
    with pytest.raises(ConfigError, match="no such table"):
        read_shop(paths={"others": {"plots": "plots.parquet"}})


def test_a_corrupt_file_is_named(read_shop: ReadShop, tmp_path: Path) -> None:
    read_shop()
    broken = tmp_path / "broken.parquet"
    whole = (tmp_path / "items.parquet").read_bytes()
    broken.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"broken\.parquet: not a readable Parquet file"):
        read_shop(paths={"items": str(broken)})
    broken.write_bytes(whole[:4] + bytes(len(whole) // 2) + whole[len(whole) // 2 + 4 :])
    with pytest.raises(DataError, match=r"broken\.parquet: not a readable Parquet file"):
        read_shop(paths={"items": str(broken)})


CSV_BAD = {
    "fields": (b"item,name\n10,a\n11,b,c\n", r"items\.csv row 2: 3 fields .* names 2: '11,b,c'"),
    "a damaged byte": (
        "item,name\n10,ä\n11,né\n".encode() + b"12,\xff\xe9\n",
        r"items\.csv: line 2 is neither UTF-8 nor Windows-1252; declare its encoding under 'data'",
    ),
    "a zero byte": (b"item,name\n10,a\n11,\0\n", r"items\.csv: line 3 holds a NUL byte"),
    "an archive": (b"PK\x03\x04item", r"items\.csv: a ZIP archive \(or an Excel workbook\)"),
    "a cut file": (gzip.compress(b"item,name\n10,a\n" * 99)[:40], r"gzip data are damaged or cut"),
    "a preamble": (
        b"Report of May\nitem,name\n10,a\n11,b\n",
        r"items\.csv: line 1 is no names of columns \('Report of May'\): the rows below have 2",
    ),
    "two delimiters": (
        b"item,name\n10;a\n11;b\n",
        r"first line are apart by a comma, the fields b",
    ),
    "a decimal comma": (
        b'item,name,price\n10,a,"39,47"\n11,b,"1,50"\n',
        r"items\.csv rows 1, 2, column 'price': text where a number is expected, '39,47'; if the "
        r"comma is a decimal one, set schema\.items\.decimal: \",\"",
    ),
    "a unit": (
        b"item,name,price\n10,a,12 kg\n11,b,3 kg\n",
        r"column 'price': text where a number is expected, '12 kg'; write numbers without a unit",
    ),
    "nothing": (b"", r"items\.csv: empty CSV file"),
    "no row": (b"item,name\n", "the items table is empty"),
    "two names": (b"item,name,name\n10,a,b\n", r"two columns are named 'name'"),
    "no number": (
        b"item,name,price\n10,a,1\n11,b,cheap\n",
        r"items\.csv row 2, column 'price': text where a number is expected, 'cheap'; "
        "correct the value",
    ),
    "float ids": (
        b"item,name\n10.0,a\n11.0,b\n12.0,c\n",
        r"items\.csv rows 1, 2, 3, column 'item': ids came as floats, '10\.0'",
    ),
    "ids of two types": (
        b"item,name\n10,a\nA3,b\n",
        r"log\.parquet, column 'item': holds whole numbers \(10\), .*holds text \('A3'\)",
    ),
    "leading zeros beside numbers": (b"item,name\n10,a\n011,b\n", r"holds text \('011'\)"),
}


@pytest.mark.parametrize("name", CSV_BAD)
def test_bad_csv(tmp_path: Path, name: str) -> None:
    content, message = CSV_BAD[name]
    (tmp_path / "items.csv").write_bytes(content)
    pq.write_table(pa.table({"user": [1, 2], "item": [10, 11]}), tmp_path / "log.parquet")
    features = [{"name": "item", "table": "items", "kind": "categorical"}]
    features.append({"name": "name", "table": "items", "kind": "text"})
    if b"price" in content:
        features.append({"name": "price", "table": "items", "kind": "numeric"})
    schema = {
        "interactions": {"user": "user", "item": "item"},
        "items": {"key": "item"},
        "features": features,
    }
    sources = Sources(interactions=str(tmp_path / "log.parquet"), items=str(tmp_path / "items.csv"))
    with pytest.raises(DataError, match=message):
        read_tables(Schema.model_validate_json(json.dumps(schema)), sources, Policies())
