"""`recsys init`: a file that loads as it is written, and that says what it was unsure of."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
import yaml

from recsys.core.errors import ConfigError
from recsys.core.strict import parse
from recsys.features.dataset.split import SplitConfig, assign
from recsys.features.propose.roles import is_key_of, tokens
from recsys.features.propose.tables import Inference, infer
from recsys.features.schema import Schema
from recsys.features.tables.checked import Tables, read_tables
from recsys.features.tables.sources import Policies, Sources

ROWS = 4_000
Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write_table(file: str, /, **columns: Any) -> Path:
        path = tmp_path / file
        path.parent.mkdir(exist_ok=True)
        table = pa.table(columns)
        if path.suffix == ".csv":
            pyarrow.csv.write_csv(table, path)
        else:
            pq.write_table(table, path)
        return path

    return write_table


def shop(rng: np.random.Generator) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """A shop with columns of every kind, as three dicts: log, products, customers."""
    codes = [f"A{k:03}" for k in range(100)]
    log = {
        "customerId": rng.integers(0, 300, ROWS),
        "sku": rng.choice(codes, ROWS),
        "event_time": 1_600_000_000_000 + rng.integers(0, 10**10, ROWS),
        "rating": rng.integers(1, 6, ROWS),
        "quantity": rng.integers(1, 9, ROWS),
        "device": rng.choice(["phone", "desk"], ROWS),
    }
    products = {
        "sku": codes,
        "product_name": [f"{rng.choice(['Red', 'Blue'])} shoe, number {k}" for k in range(100)],
        "brand": rng.choice(["a", "b", "c"], 100),
        "tags": [";".join(sorted(rng.choice(["x", "y", "z w"], 2, False))) for _ in range(100)],
        "price": rng.lognormal(1, 2, 100),
        "year": rng.integers(1950, 2020, 100),
        "category": rng.integers(0, 90, 100),
        "released": [f"20{k % 20 + 1:02}-05-17" for k in range(100)],
        "shop": ["main"] * 100,
        "picture": [f"http://x/{k}" for k in range(100)],
    }
    customers = {
        "id": np.arange(300),
        "land": rng.choice(["NA", "DE"], 300),
        "joined": 1_500_000_000_000 + rng.integers(0, 10**10, 300),
        "vip": rng.choice([True, False], 300),
    }
    return log, products, customers


def document(found: Inference) -> dict[str, Any]:
    """The file as YAML reads it, checked by the strict models that will read it."""
    raw = yaml.safe_load(found.yaml)
    parse(Schema, raw["schema"], source="schema")
    parse(Sources, raw["data"], source="data")
    parse(Policies, raw.get("policies", {}), source="policies")
    parse(SplitConfig, raw["split"], source="split")
    return dict(raw)


def read(found: Inference) -> Tables:
    """The tables that the file describes."""
    raw = document(found)
    split = parse(SplitConfig, raw["split"], source="split")
    tables = read_tables(
        parse(Schema, raw["schema"], source="schema"),
        parse(Sources, raw["data"], source="data"),
        parse(Policies, raw.get("policies", {}), source="policies"),
        split_column=split.column,
    )
    events = tables.events
    assign(split, events.user_row, events.time, events.split)
    return tables


@pytest.mark.parametrize("ending", ["parquet", "csv"])
def test_a_shop_is_understood(write: Write, ending: str) -> None:
    log, products, customers = shop(np.random.default_rng(0))
    paths = [
        write(f"customers.{ending}", **customers),
        write(f"events.{ending}", **log),
        write(f"products.{ending}", **products),
    ]
    found = infer(paths)
    raw = document(found)
    assert raw["schema"]["interactions"] == {
        "user": "customerId",
        "item": "sku",
        "time": {"column": "event_time", "unit": "ms"},
    }
    assert raw["schema"]["items"] == {"key": "sku", "title": "product_name"}
    assert raw["schema"]["users"] == {"key": "id"}
    kinds = {
        feature["name"]: (
            feature["table"],
            feature["kind"],
            feature.get("unit") or feature.get("separator") or feature.get("multiplicity"),
        )
        for feature in raw["schema"]["features"]
    }
    assert kinds == {
        "sku": ("items", "categorical", 2),
        "product_name": ("items", "text", None),
        "brand": ("items", "categorical", None),
        "tags": ("items", "multi_categorical", ";"),
        "price": ("items", "numeric", None),
        "year": ("items", "numeric", None),
        "category": ("items", "categorical", None),
        "released": ("items", "timestamp", "datetime"),
        "id": ("users", "categorical", 2),
        "land": ("users", "categorical", None),
        "joined": ("users", "timestamp", "ms"),
        "vip": ("users", "categorical", None),
    }
    assert raw["split"]["kind"] == "time"
    assert "policies" not in raw
    for line in (
        "# where:",
        "#   - {column: rating, at_least: 4}",
        "# weight: quantity",
        "# - {name: device, table: interactions, kind: categorical}",
        "# - {name: shop, table: items, kind: categorical}   # one value throughout",
        "# - {name: picture, table: items, kind: categorical}   # another value in every row",
    ):
        assert line in found.yaml
    assert any("'rating' looks like a rating" in sentence for sentence in found.unsure)
    assert len(read(found).events) == ROWS


@pytest.mark.parametrize(("paths", "kind"), [(5, "categorical"), (6, "text"), (90, "text")])
def test_text_whose_values_come_again_and_again_is_a_category(
    paths: int, kind: str, write: Write
) -> None:
    rng = np.random.default_rng(0)
    log, products, _ = shop(rng)
    products["shelf"] = [f"Women > Shoes > Kind {k % paths}" for k in range(100)]
    found = infer([write("events.csv", **log), write("products.csv", **products)])
    features = {one["name"]: one for one in yaml.safe_load(found.yaml)["schema"]["features"]}
    assert features["shelf"]["kind"] == kind


def test_the_commented_lines_are_valid_too(write: Write) -> None:
    log, products, customers = shop(np.random.default_rng(0))
    paths = [write("events.csv", **log), write("products.csv", **products)]
    text = infer([*paths, write("customers.csv", **customers)]).yaml
    text = text.replace("# where:", "where:").replace("#   - {column", "  - {column")
    text = text.replace("# - {name: device", "- {name: device").replace("# weight", "weight")
    schema = parse(Schema, yaml.safe_load(text)["schema"], source="schema")
    assert schema.interactions.weight == "quantity"
    assert schema.interactions.where[0].at_least == 4
    assert [feature.name for feature in schema.features_of("interactions")] == ["device"]


def test_an_order_with_negatives(write: Write) -> None:
    users = np.repeat(np.arange(50), 10)
    position = np.tile(np.arange(10), 50)
    position[:7] = -1
    path = write(
        "log.parquet",
        user_id=users,
        movie_id=np.arange(500) % 70,
        position=position,
        stars=position,
    )
    found = infer([path])
    raw = document(found)
    assert raw["schema"]["interactions"] == {
        "user": "user_id",
        "item": "movie_id",
        "order": "position",
        "where": [{"column": "position", "at_least": 0}],
    }
    assert raw["split"] == {"kind": "leave_one_out"}
    assert "  # - {column: stars, at_least: 8}" in found.yaml
    assert any("'position' is negative or null in 7 rows" in one for one in found.unsure)
    assert len(read(found).events) == 493


def test_a_given_split(write: Write) -> None:
    columns = {"user": np.arange(600) % 40, "item": np.arange(600) % 30}
    columns["fold"] = np.array(["train", "valid", "test"])[np.arange(600) % 3]
    found = infer([write("log.parquet", **columns)])
    assert document(found)["split"] == {"kind": "column", "column": "fold"}
    parts = read(found).events.split
    assert parts is not None
    assert set(parts.tolist()) == {0, 1, 2}
    timed = infer([write("timed.parquet", **columns, timestamp=1_600_000_000 + np.arange(600))])
    assert document(timed)["split"] == {"kind": "time"}
    assert "  # kind: column\n  # column: fold" in timed.yaml


def test_troubles_become_policies_said_aloud(write: Write) -> None:
    user = [float(k % 40) for k in range(600)]
    user[5] = float("nan")
    time = 1_600_000_000 + np.arange(600)
    time[7] = -1
    paths = [
        write(
            "log.parquet", uid=pa.array(user, from_pandas=True), item=np.arange(600) % 33, ts=time
        ),
        write("things.csv", item=[*range(30), 3], size=[1.5, *([2.5] * 29), float("inf")]),
    ]
    found = infer(paths)
    assert document(found)["policies"] == {
        "bad_times": "drop",
        "float_ids": "integer",
        "bad_ids": "drop",
        "duplicate_keys": "first",
        "unknown_items": "drop",
        "infinite_numbers": "null",
    }
    for name in document(found)["policies"]:
        assert any(f"policies.{name}" in sentence for sentence in found.unsure)
    assert read(found).events.row.min() == 0


def test_ids_with_leading_zeros_are_text_not_floats(write: Write) -> None:
    books = [f"{k % 30:05d}" for k in range(600)]
    found = infer([write("log.csv", user=[f"u{k % 40}" for k in range(600)], isbn=books)])
    assert "float_ids" not in found.yaml
    assert read(found).items.column("isbn").to_pylist()[:2] == ["00000", "00001"]


def test_side_tables_lists_and_vectors(write: Write) -> None:
    items = np.arange(60)
    paths = [
        write("views.parquet", visitorid=np.arange(400) % 20, itemid=np.arange(400) % 60),
        write("items.parquet", itemid=items, tags=[["a", "b"], ["b"]] * 30, name=["Hat"] * 60),
        write("looks.parquet", itemid=items, look=[[0.1, 0.2, 0.3]] * 60, odd=[[0.1], []] * 30),
        write("noise.parquet", x=[1, 2], y=[3, 4]),
    ]
    found = infer(paths)
    raw = document(found)
    assert raw["schema"]["others"] == {"looks": {"joins": "items", "key": "itemid"}}
    features = {feature["name"]: feature for feature in raw["schema"]["features"]}
    assert features["tags"]["kind"] == "multi_categorical"
    assert (features["look"]["kind"], features["look"]["dim"]) == ("vector", 3)
    assert "odd" not in features
    assert any("noise.parquet is not used" in sentence for sentence in found.unsure)
    assert any("'odd' holds lists of floats of 0 to 1 numbers" in one for one in found.unsure)
    assert read(found).items.column_names == ["itemid", "name", "tags", "look"]


def test_files_of_one_table_are_joined_and_paths_stay_relative(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for part in range(3):
        write(f"log/part-{part}.csv", user=[1, 2, 3], item=[part, 1, 2])
    monkeypatch.chdir(tmp_path)
    paths = [Path(f"log/part-{part}.csv") for part in range(3)]
    found = infer(paths, relative_to=tmp_path / "config")
    assert document(found)["data"] == {"interactions": "../log/part-*.csv"}
    assert "9 rows, 3 users (user), 3 items (item)" in found.summary[0]


def test_names_in_many_spellings() -> None:
    users, items = ["user", "customer", "uid"], ["item", "movie", "product"]
    for name in ("user_id", "userId", "UserID", "userid", "USER", "customer_no", "uid"):
        assert is_key_of(name, users), name
    for name in ("user_name", "user_age", "item_id", "id", "num_users_online"):
        assert not is_key_of(name, users), name
    assert is_key_of("productId", items)
    assert not is_key_of("product_category", items)
    assert tokens("movieID2Title") == ["movie", "id", "title"]


def test_no_log_is_an_error(write: Write) -> None:
    with pytest.raises(ConfigError, match=r"no table holds both a user and an item \(.*: a, b\)"):
        infer([write("t.parquet", a=[1, 2], b=[3, 4])])


def test_the_memory_of_the_table(write: Write) -> None:
    size = 5_000
    found = infer([write("log.parquet", user=np.arange(size), item=np.arange(size)[::-1])])
    # 10,000 values: the next power of two above twice as many.
    assert document(found)["embedding"] == {"num_rows": 32_768}
    assert json.dumps(32_768 * 17 * 4 / 1e6)[:3] in found.yaml
