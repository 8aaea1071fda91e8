"""Policies: what they do to a row, and that each row is counted."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from recsys.core.errors import Row
from recsys.features.tables.checked import Tables

ReadShop = Callable[..., Tables]
START = 1_700_000_000

POLICY: dict[str, tuple[dict[str, Any], str, int, int]] = {
    # changes, policy in the drop, rows counted, events left
    "bad ids": (
        {"log": {"user": pa.array([1, None, 2, 2, 3])}, "policies": {"bad_ids": "drop"}},
        "bad_ids: drop",
        1,
        4,
    ),
    "float ids": (
        {"log": {"item": [10.0, 11.0, 10.0, 12.0, 11.0]}, "policies": {"float_ids": "integer"}},
        "float_ids: integer",
        5,
        5,
    ),
    "unknown items dropped": (
        {"log": {"item": [10, 11, 99, 12, 99]}, "policies": {"unknown_items": "drop"}},
        "unknown_items: drop",
        2,
        3,
    ),
    "unknown items kept": (
        {"log": {"item": [10, 11, 99, 12, 99]}, "policies": {"unknown_items": "keep"}},
        "unknown_items: keep",
        2,
        5,
    ),
    "unknown users dropped": (
        {"log": {"user": [1, 1, 2, 2, 9]}, "policies": {"unknown_users": "drop"}},
        "unknown_users: drop",
        1,
        4,
    ),
    "times": (
        {"log": {"time": [START, START, -5, 3, 1_800_000_000]}, "policies": {"bad_times": "drop"}},
        "bad_times: drop",
        1,
        2,
    ),
    "repeats": (
        {
            "log": {"user": [1] * 5, "item": [10] * 4 + [11], "time": [START] * 5},
            "policies": {"duplicate_events": "drop"},
        },
        "duplicate_events: drop",
        3,
        2,
    ),
    "infinite weight": (
        {
            "log": {"weight": [1.0, math.inf, 1.0, 1.0, 1.0]},
            "policies": {"infinite_numbers": "null"},
        },
        "infinite_numbers: null",
        1,
        4,
    ),
    "where": (
        {"roles": {"where": [{"column": "place", "one_of": ["web"]}]}},
        "where",
        3,
        2,
    ),
}


@pytest.mark.parametrize("name", POLICY)
def test_policies_count_what_they_do(read_shop: ReadShop, name: str) -> None:
    changes, policy, rows, left = POLICY[name]
    tables = read_shop(**changes)
    drops = [drop for drop in tables.drops if drop.policy == policy]
    assert drops[0].rows == rows
    assert len(drops[0].examples) == rows
    assert len(tables.events) == left


def test_the_policy_for_duplicates_chooses_the_row(read_shop: ReadShop, tmp_path: Path) -> None:
    changes = {"item": [10, 10, 11], "brand": ["old", "new", "b"]}
    for policy, brand, row in (("first", "old", 2), ("last", "new", 1)):
        tables = read_shop(
            items=changes,
            log={"item": [10, 11, 10, 11, 11]},
            policies={"duplicate_keys": policy},
        )
        assert tables.items["brand"].to_pylist() == [brand, "b"]
        assert tables.drops[0].examples == (Row(f"{tmp_path}/items.parquet", row),)
