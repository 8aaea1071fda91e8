"""The encoder: fitted on training rows only, the same at every stage, exact about nulls."""

import datetime as dt
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from sklearn.preprocessing import StandardScaler

from recsys.core.errors import DataError
from recsys.features.encoding.encoder import FeatureEncoder
from recsys.features.encoding.hashing import NULL_HASH, UNKNOWN_HASH, hash_values
from recsys.features.encoding.instants import as_microseconds
from recsys.features.encoding.scaling import Scaler
from recsys.features.schema import Schema

SCHEMA = Schema.model_validate_json(
    """{
    "interactions": {"user": "user", "item": "item"},
    "items": {"key": "item", "title": "title"},
    "users": {"key": "user"},
    "features": [
        {"name": "item", "table": "items", "kind": "categorical", "multiplicity": 2},
        {"name": "genres", "table": "items", "kind": "multi_categorical", "separator": "|"},
        {"name": "words", "table": "items", "kind": "text", "column": "title"},
        {"name": "price", "table": "items", "kind": "numeric"},
        {"name": "plot", "table": "items", "kind": "vector", "dim": 2},
        {"name": "launched", "table": "items", "kind": "timestamp", "unit": "s"},
        {"name": "user", "table": "users", "kind": "categorical"},
        {"name": "device", "table": "interactions", "kind": "categorical"}
    ]}"""
)
DAY = 86_400
ITEMS = pa.table(
    {
        "item": [1, 2, 3],
        "genres": ["Drama| War", None, ""],
        "title": ["The Big-Sleep", "", None],
        "price": [1.0, None, 3.0],
        "plot": [[0.5, 1.0], None, [2.0, 0.0]],
        "launched": pa.array([0, 3600 * 5, None], pa.int64()),
    }
)
USERS = pa.table({"user": ["a", "b"]})
CONTEXT = pa.table({"device": ["phone", None, "tv"]})


def encoder() -> FeatureEncoder:
    tables = {"items": ITEMS, "users": USERS, "interactions": CONTEXT}
    return FeatureEncoder.fit(SCHEMA, tables, reference_time=2 * DAY * 1_000_000)  # type: ignore[arg-type]


def bag(jagged: object, row: int) -> list[int]:
    return jagged.values[jagged.offsets[row] : jagged.offsets[row + 1]].tolist()  # type: ignore[attr-defined]


def test_items_are_encoded_feature_by_feature() -> None:
    block = encoder().encode("items", ITEMS)
    null = [int(NULL_HASH)]
    assert block.single[:, 0].tolist() == hash_values(pa.array([1, 2, 3])).tolist()
    genres, words = block.multi
    assert bag(genres, 0) == hash_values(pa.array(["Drama", "War"])).tolist()
    assert bag(genres, 1) == bag(genres, 2) == null
    assert bag(words, 0) == hash_values(pa.array(["the", "big", "sleep"])).tolist()
    assert bag(words, 1) == bag(words, 2) == null
    dense = dict(zip(encoder().layout("items").dense, block.dense.T, strict=True))
    assert dense["price"].tolist() == [-1.0, 0.0, 1.0]
    assert dense["price.null"].tolist() == [0.0, 1.0, 0.0]
    assert dense["plot.1"].tolist() == [1.0, 0.0, 0.0]
    assert dense["plot.null"].tolist() == [0.0, 1.0, 0.0]
    # Two days before the last training row, and five hours less; null is average and marked.
    assert dense["launched.age"].tolist() == pytest.approx([1.0, -1.0, 0.0], abs=1e-5)
    assert dense["launched.null"].tolist() == [0.0, 0.0, 1.0]
    hours = hash_values(pa.array([0, 5])).tolist()
    assert block.single[:, 1].tolist() == [*hours, int(NULL_HASH)]
    thursday = int(hash_values(pa.array([4]))[0])
    assert block.single[:, 2].tolist() == [thursday, thursday, int(NULL_HASH)]


def test_an_id_without_a_training_row_is_unknown_and_others_are_not() -> None:
    strangers = pa.table({"user": ["b", "zzz", None]})
    block = encoder().encode("users", strangers)
    b = int(hash_values(pa.array(["b"]))[0])
    assert block.single[:, 0].tolist() == [b, int(UNKNOWN_HASH), int(UNKNOWN_HASH)]


def test_a_request_may_come_without_context() -> None:
    block = encoder().encode("interactions", pa.table({"other": [1, 2]}))
    assert block.single[:, 0].tolist() == [int(NULL_HASH)] * 2


def test_a_row_is_encoded_the_same_alone_as_in_a_table() -> None:
    fitted = encoder()
    whole = fitted.encode("items", ITEMS)
    for row in range(3):
        alone, taken = fitted.encode("items", ITEMS.slice(row, 1)), whole.take(torch.tensor([row]))
        assert torch.equal(alone.single, taken.single)
        assert torch.equal(alone.dense, taken.dense)
        assert [bag(j, 0) for j in alone.multi] == [bag(j, 0) for j in taken.multi]


def test_a_saved_encoder_encodes_the_same(tmp_path: Path) -> None:
    fitted = encoder()
    fitted.save(tmp_path / "encoder")
    names = ("encoder.json", "known_ids.safetensors")
    again = FeatureEncoder.from_bytes(*((tmp_path / "encoder" / n).read_bytes() for n in names))
    one, two = fitted.encode("items", ITEMS), again.encode("items", ITEMS)
    assert torch.equal(one.single, two.single)
    assert torch.equal(one.dense, two.dense)
    assert again.query_layout() == fitted.query_layout()
    query = again.encode("users", USERS).beside(again.encode("interactions", CONTEXT[:2]))
    assert query.single.shape == (2, len(again.query_layout().single))


@pytest.mark.parametrize(
    ("side", "table", "message"),
    [
        ("users", pa.table({"user": [1, 2]}), "holds integer values, .* trained on string"),
        ("users", pa.table({"usr": ["a"]}), r"column 'user' .* is missing \(did you mean 'usr'"),
        ("users", pa.table({"user": [1.5]}), "double, where a categorical feature needs"),
        (
            "items",
            ITEMS.set_column(4, "plot", pa.array([[1.0]] * 3)),
            "row 1 .*'plot': a vector of 1",
        ),
    ],
)
def test_tables_that_do_not_fit_are_refused(side: str, table: pa.Table, message: str) -> None:
    with pytest.raises(DataError, match=message):
        encoder().encode(side, table)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("values", "unit"),
    [
        (pa.array([86_400, None]), "s"),
        (pa.array([86_400_000, None]), "ms"),
        (pa.array([86_400 * 10**9, None]), "ns"),
        (pa.array(["1970-01-02", None]), "datetime"),
        (pa.array(["1970-01-02T02:00:00+02:00", None]), "datetime"),
        (pa.array([dt.date(1970, 1, 2), None]), "datetime"),
        (pa.array([86_400, None], pa.timestamp("s", "Europe/Berlin")), "datetime"),
    ],
)
def test_one_instant_in_every_spelling(values: pa.Array, unit: str) -> None:
    times = as_microseconds(pa.chunked_array([values]), unit)
    assert times.values[0] == DAY * 1_000_000
    assert times.valid.tolist() == [True, False]


def test_scalers_against_scikit_learn_and_by_hand() -> None:
    values = np.random.default_rng(0).lognormal(size=2000)
    expected = StandardScaler().fit_transform(values.reshape(-1, 1)).ravel()
    np.testing.assert_allclose(Scaler.fit("standardise", values).apply(values), expected, rtol=1e-5)
    logs = StandardScaler().fit_transform(np.log1p(values).reshape(-1, 1)).ravel()
    np.testing.assert_allclose(
        Scaler.fit("log1p", values).apply(values), logs, rtol=1e-4, atol=1e-6
    )
    ranks = Scaler.fit("quantile", values).apply(values)
    share = (np.argsort(np.argsort(values)) + 0.5) / 2000
    np.testing.assert_allclose(ranks, (share - 0.5) * np.sqrt(12), atol=0.05)
    tied = Scaler.fit("quantile", np.array([0.0] * 50 + [1.0] * 50)).apply(np.array([0.0, 1.0]))
    np.testing.assert_allclose(tied, np.array([-0.25, 0.25]) * np.sqrt(12), atol=0.05)
    for transform in ("standardise", "log1p", "quantile"):
        fitted = Scaler.fit(transform, values)  # type: ignore[arg-type]
        outside = fitted.apply(np.array([-np.inf, -5.0, 1e9, np.inf]))
        ends = fitted.apply(np.array([values.min(), values.max()]))
        assert outside.tolist() == [ends[0], ends[0], ends[1], ends[1]]
    constant = Scaler.fit("standardise", np.full(5, 3.0)).apply(np.array([3.0, 4.0, np.nan]))
    assert constant.tolist() == [0.0, 0.0, 0.0]
    nothing = Scaler.fit("quantile", np.array([np.nan])).apply(np.array([np.nan, 4.0]))
    assert np.isfinite(nothing).all()
