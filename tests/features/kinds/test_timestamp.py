"""Timestamp features: hour, weekday, age."""

import datetime as dt
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from recsys.features.encoding.hashing import NULL_HASH, hash_values

BORN = {"name": "born", "table": "items", "kind": "timestamp", "unit": "s"}
START = 1_700_000_000
DAY = 86_400


def _columns(rng: np.random.Generator, count: int) -> dict[str, Any]:
    found = {name: rng.integers(START - 10**8, START, count) for name in ("born", "sold")}
    naive = [
        dt.datetime(2023, 1, 1) + dt.timedelta(hours=int(k)) for k in rng.integers(0, 99, count)
    ]
    days = rng.integers(1, 13, (count, 2)).tolist()
    return {
        **found,
        "naive": naive,
        "dated": [f"{day:02d}.{month:02d}.2023" for day, month in days],
    }


CASE = {
    "base": BORN,
    "columns": _columns,
    "values": {
        "column": ["born", "sold"],
        "multiplicity": [4, 5, "auto"],
        "format": ["%d.%m.%Y", "%m.%d.%Y"],
        "zone": [None, "Asia/Tokyo"],
    },
    "needs": {
        "format": {"column": "dated", "unit": "datetime"},
        "zone": {"column": "naive", "unit": "datetime"},
    },
}


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns", "datetime"])
def test_hour_weekday_and_age(unit: str, encode: Callable[..., Any]) -> None:
    moments = [dt.datetime(2024, 1, 1, 13, 59), dt.datetime(2024, 1, 7, 0, 0), None]
    column = pa.array(moments, pa.timestamp("ns"))
    if unit != "datetime":
        column = column.cast(pa.timestamp(unit), safe=False).cast(pa.int64())
    reference = int(dt.datetime(2024, 1, 8, tzinfo=dt.UTC).timestamp() * 1e6)
    layout, encoded, types = encode(
        {**BORN, "unit": unit, "multiplicity": 2}, column, reference=reference
    )
    hours, weekdays = (hash_values(pa.array(one)).tolist() for one in ([13, 0], [1, 0]))
    assert [one.tolist() for one in encoded.single] == [[*hours, NULL_HASH], [*weekdays, NULL_HASH]]
    ages = np.log1p([(7 * 24 - 14 + 1 / 60) / 24, 1.0])
    assert np.allclose(encoded.dense[0][:2], (ages - ages.mean()) / ages.std(), atol=1e-5)
    assert encoded.dense[1].tolist() == [0, 0, 1]
    assert layout.single == (("born.hour", 2), ("born.weekday", 2))
    assert layout.dense == ("born.age", "born.null")
    assert types == {"born": pa.timestamp("us") if unit == "datetime" else pa.int64()}


@pytest.mark.parametrize(
    ("name", "values", "unit"),
    [
        ("created", [START, START + DAY], "s"),
        ("n", [START, START + DAY], None),  # so might be a count
        ("n", [START * 1000, (START + DAY) * 1000], "ms"),
        ("n", ["2024-01-01", "2024-01-02"], "datetime"),
        ("n", [dt.datetime(2024, 1, 1), dt.datetime(2024, 1, 2)], "datetime"),
        ("born", [1, 2], None),
        ("born", ["a", "b"], None),
    ],
)
def test_times_are_proposed(
    name: str, values: list[Any], unit: str | None, propose: Callable[..., Any]
) -> None:
    found = propose(name, pa.array(values), "timestamp")
    assert (None if found is None else found.options["unit"]) == unit
