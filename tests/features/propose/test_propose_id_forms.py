"""`init` writes `schema.ids` where it makes tables match; `check` refuses what matches nothing."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from recsys.core.errors import DataError
from recsys.features.propose.spelt_ids import id_warnings
from recsys.features.propose.tables import infer
from recsys.features.schema import Schema
from recsys.features.tables.checked import read_tables
from recsys.features.tables.sources import Policies, Sources

ITEMS = np.arange(100, 160)
RNG = np.random.default_rng(1)
PICKED = RNG.integers(0, len(ITEMS), 400)
USERS = RNG.integers(1, 40, 400)


def _log(folder: Path, items: Any, users: Any = USERS) -> Path:
    table = pa.table({"user_id": users, "item_id": items, "time": np.arange(400) + 1_700_000_000})
    pq.write_table(table, folder / "log.parquet")
    return folder / "log.parquet"


def _items(folder: Path, ids: Any) -> Path:
    table = pa.table({"item_id": ids, "price": RNG.random(len(ids)).round(2) + 1})
    pq.write_table(table, folder / "items.parquet")
    return folder / "items.parquet"


WRITTEN: dict[str, tuple[Any, Any]] = {
    "padded": (ITEMS[PICKED], [f"{one:06d}" for one in ITEMS]),
    "prefixed": ([f"item_{one}" for one in ITEMS[PICKED]], ITEMS),
    "floats": (ITEMS[PICKED].astype(float), [str(one) for one in ITEMS]),
    "in two cases": ([f"sku{one}" for one in ITEMS[PICKED]], [f"SKU{one} " for one in ITEMS]),
}


@pytest.mark.parametrize("name", WRITTEN)
def test_what_init_writes_is_read_and_matches(tmp_path: Path, name: str) -> None:
    log, items = WRITTEN[name]
    found = infer([_log(tmp_path, log), _items(tmp_path, items)])
    raw = yaml.safe_load(found.yaml)
    assert "ids match after" in "\n".join(found.unsure)
    policies = Policies.model_validate(raw.get("policies", {}))
    schema = Schema.model_validate_json(json.dumps(raw["schema"]))
    tables = read_tables(schema, Sources.model_validate(raw["data"]), policies)
    assert (len(tables.events), tables.items.num_rows) == (400, len(ITEMS))
    assert tables.items.column("price").null_count == 0
    assert list(id_warnings(schema, tables)) == []


@pytest.mark.parametrize("policy", ["error", "drop", "keep"])
def test_a_table_that_matches_nothing_is_refused_whatever_the_policy(
    tmp_path: Path, policy: Any
) -> None:
    log = _log(tmp_path, [str(one) for one in ITEMS[PICKED]])
    items = _items(tmp_path, [f"{one:06d}" for one in ITEMS])
    message = (
        r"log\.parquet, column 'item_id': none of the 60 items \(such as '.*'\) is in the "
        r"catalogue, .*items\.parquet, column 'item_id' \(such as '0001.*'\); set schema\.ids: "
        r"\{items: \{pad: 6\}\} \(ids match after padding to 6 digits: 60 of 60\)"
    )
    sources = Sources(interactions=str(log), items=str(items))
    with pytest.raises(DataError, match=message):
        read_tables(_schema(), sources, Policies(unknown_items=policy))
    assert len(read_tables(_schema({"items": {"pad": 6}}), sources, Policies()).events) == 400


def test_another_table_is_refused_too(tmp_path: Path) -> None:
    sources = Sources(
        interactions=str(_log(tmp_path, ITEMS[PICKED])), items=str(_items(tmp_path, ITEMS + 1000))
    )
    with pytest.raises(DataError, match=r"none of the 60 items.*say with schema\.ids\.items how"):
        read_tables(_schema(), sources, Policies(unknown_items="keep"))


def test_numbers_and_text_are_refused_with_what_to_set(tmp_path: Path) -> None:
    sources = Sources(
        interactions=str(_log(tmp_path, ITEMS[PICKED])),
        items=str(_items(tmp_path, [f"{one:06d}" for one in ITEMS])),
    )
    with pytest.raises(DataError, match=r"holds whole numbers.*set schema\.ids: \{items: \{pad: 6"):
        read_tables(_schema(), sources, Policies())


def test_rows_left_out_for_their_writing_are_counted_with_the_way_out(tmp_path: Path) -> None:
    half = [str(one) if place % 2 else f"{one:06d}" for place, one in enumerate(ITEMS[PICKED])]
    sources = Sources(
        interactions=str(_log(tmp_path, half)),
        items=str(_items(tmp_path, [f"{one:06d}" for one in ITEMS])),
    )
    tables = read_tables(_schema(), sources, Policies(unknown_items="drop"))
    (drop,) = tables.drops
    assert "the catalogue has no such key, though ids match after padding to 6 digits" in str(drop)
    (warning,) = id_warnings(_schema(), tables)
    assert warning.startswith("50% of the rows are left out (unknown_items: drop): 'item_id'")
    with pytest.raises(DataError, match=r"no such key.*set schema\.ids: \{items: \{pad: 6\}\}"):
        read_tables(_schema(), sources, Policies())


def test_spellings_within_the_log_are_said_by_init_and_check(tmp_path: Path) -> None:
    spelt = [f"sku{one}" if place else f"SKU{one}" for place, one in enumerate(ITEMS[PICKED])]
    log = _log(tmp_path, spelt)
    said = "1 ids of items differ from another in their writing alone"
    assert any(one.startswith(said) for one in infer([log]).unsure)
    schema = _schema(table=False)
    tables = read_tables(schema, Sources(interactions=str(log)), Policies())
    (warning,) = id_warnings(schema, tables)
    assert warning.startswith(said)
    assert 'set schema.ids: {items: {case: "lower"}}' in warning


def _schema(ids: dict[str, Any] | None = None, *, table: bool = True) -> Schema:
    features: list[dict[str, Any]] = [{"name": "item_id", "table": "items", "kind": "categorical"}]
    raw: dict[str, Any] = {
        "interactions": {
            "user": "user_id",
            "item": "item_id",
            "time": {"column": "time", "unit": "s"},
        },
        "ids": ids or {},
        "features": features,
    }
    if table:
        raw["items"] = {"key": "item_id"}
        features.append({"name": "price", "table": "items", "kind": "numeric"})
    return Schema.model_validate_json(json.dumps(raw))


def test_text_that_is_no_id_gets_a_form_or_a_policy(tmp_path: Path) -> None:
    ids = [f"sku{one}" for one in ITEMS[PICKED]]
    ids[:4] = [f" {ids[0]}", f"{ids[1]}\u200b", "NULL", "x" * 5000]
    log = _log(tmp_path, ids)
    found = infer([log])
    raw = yaml.safe_load(found.yaml)
    assert raw["schema"]["ids"] == {"items": {"strip": True}}
    assert raw["policies"] == {"bad_ids": "drop"}
    assert all(len(line) < 400 for line in found.unsure)
    schema = Schema.model_validate_json(json.dumps(raw["schema"]))
    tables = read_tables(schema, Sources(interactions=str(log)), Policies(bad_ids="drop"))
    assert [drop.rows for drop in tables.drops] == [1, 1]
    assert len(tables.events) == 398


def test_digits_that_a_spreadsheet_cut_off_are_refused(tmp_path: Path) -> None:
    lines = [f"{user},{10**15 + item}" for user, item in zip(USERS, PICKED, strict=True)]
    lines[7] = "3,1.23E+15"
    (tmp_path / "log.csv").write_text("\n".join(["user_id,item_id", *lines]))
    raw = {
        "interactions": {"user": "user_id", "item": "item_id"},
        "features": [{"name": "item_id", "table": "items", "kind": "categorical"}],
    }
    schema = Schema.model_validate_json(json.dumps(raw))
    sources = Sources(interactions=str(tmp_path / "log.csv"))
    with pytest.raises(DataError, match=r"log\.csv row 8, column 'item_id'.*scientific notation"):
        read_tables(schema, sources, Policies())
