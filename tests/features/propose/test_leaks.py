"""Features that know the answer are named, and those that do not are left alone."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys.features.propose.leaks import leak_warnings
from recsys.features.schema import Schema
from recsys.features.tables.checked import read_tables
from recsys.features.tables.sources import Policies, Sources

ROWS = 2_000
RNG = np.random.default_rng(0)
LABEL = RNG.random(ROWS) < 0.3
WEIGHT = RNG.integers(1, 6, ROWS).astype(float)
RATING = np.where(LABEL, RNG.integers(4, 6, ROWS), RNG.integers(1, 4, ROWS))
BOOKED = pa.array([int(k) if one else None for k, one in enumerate(LABEL)])


def warnings(
    folder: Path, values: Any, *, kind: str = "numeric", label: bool = True, name: str = "extra"
) -> list[str]:
    """What is said of one column of a log whose other columns are noise."""
    columns = {
        "user": RNG.integers(0, 50, ROWS),
        "item": RNG.integers(0, 40, ROWS),
        "clicked": LABEL.astype(np.int8),
        "amount": WEIGHT,
        "noise": RNG.normal(size=ROWS),
    }
    pq.write_table(pa.table(columns | {name: values}), folder / "log.parquet")
    features = [
        {"name": "item", "table": "items", "kind": "categorical"},
        {"name": "noise", "table": "interactions", "kind": "numeric"},
        {"name": "known", "table": "interactions", "kind": kind, "column": name},
    ]
    roles: dict[str, Any] = {"user": "user", "item": "item", "weight": "amount"}
    if label:
        roles["label"] = {"column": "clicked"}
    raw = {"interactions": roles, "items": {"key": "item"}, "features": features}
    schema = Schema.model_validate_json(json.dumps(raw))
    pq.write_table(pa.table({"item": np.arange(40)}), folder / "items.parquet")
    paths = {name: str(folder / f"{name}.parquet") for name in ("log", "items")}
    sources = Sources(interactions=paths["log"], items=paths["items"])
    tables = read_tables(schema, sources, Policies())
    return leak_warnings(schema, tables, np.zeros(ROWS, np.int8))


@pytest.mark.parametrize(
    ("values", "kind", "said"),
    [
        (LABEL.astype(np.int64), "categorical", "alone separates the labels"),
        (-3.0 * LABEL + 7, "numeric", "alone separates the labels"),
        (RATING, "numeric", "alone separates the labels"),  # the label is a threshold of it
        (pa.array(np.where(LABEL, "yes", "no").tolist()), "categorical", "alone separates"),
        (BOOKED, "numeric", "is filled only in rows with label 1"),
        (WEIGHT, "numeric", "holds the weight of the row under another name"),
        (-np.log(WEIGHT), "numeric", "holds the weight of the row under another name"),
    ],
)
def test_copies_of_the_answer_are_named(values: Any, kind: str, said: str, tmp_path: Path) -> None:
    (found,) = warnings(tmp_path, values, kind=kind)
    assert found.startswith(f"feature 'known' {said}")


@pytest.mark.parametrize(("name", "what"), [("clicked", "the label"), ("amount", "the weight")])
def test_the_column_of_a_role_is_no_feature(name: str, what: str, tmp_path: Path) -> None:
    values = LABEL.astype(np.int8) if name == "clicked" else WEIGHT
    (found,) = warnings(tmp_path, values, name=name)
    assert f"feature 'known' is {what} itself (column '{name}')" in found


NOISE: tuple[Callable[[], Any], ...] = (
    lambda: RNG.normal(size=ROWS) + 2.0 * LABEL,  # useful, and no copy
    lambda: RNG.integers(0, 1_000_000, ROWS),  # a value a row: judged on the other half
    lambda: pa.array([None if one < 0.9 else float(one) for one in RNG.random(ROWS)]),
    lambda: np.full(ROWS, 3.0),
    lambda: pa.nulls(ROWS, pa.float64()),
)


@pytest.mark.parametrize("number", range(len(NOISE)))
@pytest.mark.parametrize("kind", ["numeric", "categorical"])
def test_what_is_useful_or_noise_is_not_named(number: int, kind: str, tmp_path: Path) -> None:
    values = NOISE[number]()
    if kind == "categorical" and number != 1:
        values = pa.array(values).cast(pa.string())
    assert warnings(tmp_path, values, kind=kind) == []


def test_a_log_without_labels_has_weights_to_leak(tmp_path: Path) -> None:
    (found,) = warnings(tmp_path, WEIGHT * 2, label=False)
    assert "holds the weight" in found
    assert warnings(tmp_path, RATING, label=False) == []
