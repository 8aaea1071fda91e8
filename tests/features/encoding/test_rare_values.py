"""`min_count`: values that few training rows hold are one value, however the rows are read."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recsys.core.errors import ConfigError
from recsys.embeddings.fields import dense_features
from recsys.features.clicks.log import ClickLog, encode_click_log
from recsys.features.dataset.dataset import prepare
from recsys.features.dataset.split import TEST, TRAIN, SplitConfig
from recsys.features.encoding import value_counts
from recsys.features.encoding.encoder import FeatureEncoder
from recsys.features.encoding.hashing import NULL_HASH, UNKNOWN_HASH, hash_values
from recsys.features.encoding.multiplicity import settle
from recsys.features.encoding.value_counts import ValueCounts
from recsys.features.kinds.multi_categorical import MultiCategoricalFeature
from recsys.features.schema import Schema
from recsys.features.tables import csv_files, parquet_files
from recsys.features.tables.sources import Policies, Sources

NULL, UNKNOWN = int(NULL_HASH), int(UNKNOWN_HASH)
SHARES = SplitConfig(validation=0.2, test=0.2)


def hashes(*values: object) -> list[int]:
    return [int(one) for one in hash_values(pa.array(values))] if values else []


def schema_of(*features: dict[str, Any]) -> Schema:
    tables = [{"table": "interactions", **feature} for feature in features]
    raw = {"interactions": {"label": {"column": "click"}}, "features": tables}
    return Schema.model_validate_json(json.dumps(raw))


def fitted(schema: Schema, **columns: Any) -> FeatureEncoder:
    tables = {"interactions": pa.table(columns)}
    return FeatureEncoder.fit(schema, tables, reference_time=0)  # type: ignore[arg-type]


def test_rare_and_unseen_values_are_unknown_and_null_stays_null() -> None:
    schema = schema_of({"name": "site", "kind": "categorical", "min_count": 2})
    encoder = fitted(schema, site=["a", "b", "a", None, "c", "c", "c"])
    later = pa.table({"site": ["a", "b", "c", "new", None]})
    a, c = hashes("a", "c")
    assert encoder.encode("interactions", later).single[:, 0].tolist() == [
        a,
        UNKNOWN,
        c,
        UNKNOWN,
        NULL,
    ]
    nothing = encoder.encode("interactions", pa.table({"site": pa.nulls(2)}))
    assert nothing.single[:, 0].tolist() == [NULL, NULL]
    assert encoder.known_ids == {}


def test_one_is_the_default_and_keeps_every_value() -> None:
    encoder = fitted(schema_of({"name": "site", "kind": "categorical"}), site=["a"])
    block = encoder.encode("interactions", pa.table({"site": ["new"]}))
    assert block.single[:, 0].tolist() == hashes("new")


def test_values_of_lists_and_words_count_once_a_row() -> None:
    schema = schema_of(
        {"name": "tags", "kind": "multi_categorical", "separator": "|", "min_count": 2},
        {"name": "words", "kind": "text", "min_count": 2},
    )
    encoder = fitted(schema, tags=["x|x", "y|z", None, "y"], words=["Red red", "a hat", "hat", ""])
    rows = pa.table({"tags": ["x|y", "", "z"], "words": ["Hat red", None, "hat hat"]})
    tags, words = encoder.encode("interactions", rows).multi
    y, hat = hashes("y", "hat")
    assert tags.values.tolist() == [UNKNOWN, y, NULL, UNKNOWN]
    assert words.values.tolist() == [hat, UNKNOWN, NULL, hat, hat]


def test_a_saved_encoder_keeps_what_is_rare(tmp_path: Path) -> None:
    schema = schema_of({"name": "site", "kind": "categorical", "min_count": 2})
    encoder = fitted(schema, site=["a", "b", "a"])
    encoder.save(tmp_path)
    names = ("encoder.json", "known_ids.safetensors")
    again = FeatureEncoder.from_bytes(*((tmp_path / name).read_bytes() for name in names))
    assert again.digest() == encoder.digest()
    assert again.known["site"].tolist() == encoder.known["site"].tolist()
    assert len(again.known["site"]) == 2  # "a" and null


def test_a_model_that_goes_on_forgets_no_value_that_it_knew() -> None:
    schema = schema_of(
        {"name": "site", "kind": "categorical", "min_count": 2},
        {"name": "price", "kind": "numeric", "transform": "piecewise", "bins": 2},
        {"name": "views", "kind": "numeric", "transform": "discretise", "bins": 2},
    )
    earlier = fitted(schema, site=["a", "a", "b"], price=[0.0, 1, 4], views=[0, 5, 9])
    newer = fitted(schema, site=["a", "b", "b"], price=[0.0, 10, 40], views=[0, 50, 90])
    both = newer.continuing(earlier)
    rows = pa.table({"site": ["a", "b", "c"], "price": [1.0] * 3, "views": [6] * 3})
    one, two = both.encode("interactions", rows), earlier.encode("interactions", rows)
    assert one.single[:, 0].tolist() == [*hashes("a", "b"), UNKNOWN]
    assert torch.equal(one.single[:, 1], two.single[:, 1])
    assert torch.equal(one.dense, two.dense)
    assert not torch.equal(one.dense, newer.encode("interactions", rows).dense)
    more = [
        {**f.model_dump(), "bins": 3} if f.kind == "numeric" else f.model_dump()
        for f in schema.column_features
    ]
    other = fitted(schema_of(*more), site=["a"] * 3, price=[0.0, 10, 40], views=[0, 50, 90])
    assert other.continuing(earlier).scalers == other.scalers  # other bins, other meaning


def test_numbers_as_bins_stand_where_their_kind_stands() -> None:
    schema = schema_of(
        {"name": "views", "kind": "numeric", "transform": "discretise", "bins": 2},
        {"name": "site", "kind": "categorical"},
        {"name": "price", "kind": "numeric", "transform": "piecewise", "bins": 2},
        {"name": "age", "kind": "numeric"},
    )
    encoder = fitted(
        schema, views=[1, 2, 3, 4, None], site=["a"] * 5, price=[0.0, 1, 4, None, 2], age=[1] * 5
    )
    layout = encoder.layout("interactions")
    assert layout.single == (("views", 1), ("site", 1))
    assert layout.dense == ("price.0", "price.1", "price.null", "age", "age.null")
    assert dense_features(layout.dense) == [("price", 3), ("age", 2)]  # two fields
    block = encoder.encode(
        "interactions", pa.table({"views": [1, 4, None], "price": [3.0, None, 4]})
    )
    assert block.single[:, 0].tolist() == [*hashes(0, 1), NULL]
    # Half of 0, 1, 2, 4 lies below 1.5.
    expected = torch.tensor([[1, 0.6, 0], [0, 0, 1], [1, 1, 0]])
    torch.testing.assert_close(block.dense[:, :3], expected)


def test_an_items_training_rows_count_not_its_row_in_the_catalogue(tmp_path: Path) -> None:
    log = {"user": [1, 2, 1, 3, 2, 9], "item": [7, 7, 8, 8, 9, 7], "part": ["train"] * 5 + ["test"]}
    items = {"item": [7, 8, 9], "brand": ["p", "q", "q"], "shop": ["s", "t", "u"]}
    pq.write_table(pa.table(log), tmp_path / "log.parquet")
    pq.write_table(pa.table(items), tmp_path / "items.parquet")
    features = [
        {"name": "item", "table": "items", "kind": "categorical", "min_count": 2},
        {"name": "brand", "table": "items", "kind": "categorical", "min_count": 3},
        {"name": "shop", "table": "items", "kind": "categorical", "min_count": 2},
        {"name": "user", "table": "users", "kind": "categorical"},
    ]
    raw = {"interactions": {"user": "user", "item": "item"}, "items": {"key": "item"}}
    data = prepare(
        Schema.model_validate_json(json.dumps({**raw, "features": features})),
        Sources(interactions=str(tmp_path / "log.parquet"), items=str(tmp_path / "items.parquet")),
        Policies(),
        SplitConfig(kind="column", column="part"),
    )
    assert data.items.single.T.tolist() == [
        [*hashes(7, 8), UNKNOWN],  # two, two and one row
        [UNKNOWN, *hashes("q", "q")],  # two rows of "p", three of "q"
        [*hashes("s", "t"), UNKNOWN],
    ]
    assert sorted(data.encoder.known_ids) == ["item", "user"]
    assert data.encoder.id_columns("items") == (0,)


STREAMED: list[dict[str, Any]] = [
    {"name": "site", "kind": "categorical", "min_count": 3, "multiplicity": "auto"},
    {"name": "code", "kind": "categorical", "min_count": 4},
    {"name": "tags", "kind": "multi_categorical", "separator": "|", "min_count": 12},
    {"name": "views", "kind": "numeric", "transform": "discretise", "bins": 4},
    {"name": "price", "kind": "numeric", "transform": "piecewise", "bins": 4},
]


def stream(folder: Path, columns: dict[str, Any], split: SplitConfig, kind: str) -> ClickLog:
    path = folder / f"log.{kind}"
    if kind == "csv":
        pyarrow.csv.write_csv(pa.table(columns), path)
    else:
        pq.write_table(pa.table(columns), path, row_group_size=7)
    sources = Sources(interactions=str(path))
    return encode_click_log(schema_of(*STREAMED), sources, Policies(), split, folder / "log")


@pytest.mark.parametrize("kind", ["parquet", "csv"])
@pytest.mark.parametrize("by", ["order", "column"])
def test_a_streamed_log_counts_its_training_rows_and_no_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, by: str
) -> None:
    monkeypatch.setattr(parquet_files, "_BATCH_ROWS", 16)
    monkeypatch.setattr(csv_files, "_BLOCK_BYTES", 512)
    monkeypatch.setattr(value_counts, "_PENDING", 3)
    monkeypatch.setattr("recsys.features.clicks.survey.SAMPLE_ROWS", 1000)
    rng = np.random.default_rng(4)
    columns: dict[str, Any] = {
        "click": rng.integers(0, 2, 200).tolist(),
        "site": rng.choice([*"abcdefgh"], 200, p=[0.5, 0.3, 0.1, *[0.02] * 5]).tolist(),
        "code": (rng.integers(0, 30, 200) ** 2).tolist(),
        "tags": rng.choice(["p|q", "q", "r|p|p", "s"], 200).tolist(),
        "views": rng.integers(0, 90, 200).tolist(),
        "price": rng.normal(size=200).tolist(),
        "part": rng.choice(["train", "valid", "test"], 200).tolist(),
    }
    split = SHARES if by == "order" else SplitConfig(kind="column", column="part")
    log = stream(tmp_path, columns, split, kind)
    words = np.array(columns["part"])
    train = np.arange(120) if by == "order" else np.flatnonzero(words == "train")
    test = np.arange(160, 200) if by == "order" else np.flatnonzero(words == "test")
    table = pa.table(columns)
    oracle = FeatureEncoder.fit(
        schema_of(*STREAMED),
        {"interactions": table.take(pa.array(train))},
        reference_time=0,  # type: ignore[arg-type]
    )
    assert {name: set(v) for name, v in log.encoder.known.items()} == {
        name: set(v) for name, v in oracle.known.items()
    }
    counts = Counter(columns["site"][row] for row in train)
    kept = {site for site, count in counts.items() if count >= 3}
    assert set(log.encoder.known["site"].tolist()) == {NULL, *hashes(*kept)}
    assert 0 < len(kept) < len(counts)
    for part, rows in ((TRAIN, train), (TEST, test)):
        got = log.read(part, slice(None)).features
        want = oracle.encode("interactions", table.take(pa.array(rows)))
        assert torch.equal(got.single, want.single)
        assert torch.equal(got.multi[0].values, want.multi[0].values)
        torch.testing.assert_close(got.dense, want.dense)
    # `auto` goes by the values that are told apart: few are left of this feature.
    assert dict(log.layout.single)["site"] in (1, 2)


def test_lookups_go_by_the_values_that_are_left() -> None:
    site = {"name": "site", "kind": "categorical", "multiplicity": "auto"}
    code = {"name": "code", "kind": "categorical", "multiplicity": "auto"}
    columns = {"site": ["a"] * 60 + [f"s{k}" for k in range(60)], "code": [*range(20)] * 6}
    for least, expected in ((1, {"site": 2, "code": 2}), (2, {"site": 1, "code": 3})):
        schema = schema_of({**site, "min_count": least}, code)
        tables = {"interactions": pa.table(columns)}
        known = fitted(schema, **columns).known
        settled = settle(schema, tables, None, known)  # type: ignore[arg-type]
        assert {f.name: f.multiplicity for f in settled.column_features} == expected  # type: ignore[union-attr]


@given(st.lists(st.binary(max_size=12), max_size=8), st.integers(1, 4))
def test_counting_in_pieces_is_counting(drawn: list[bytes], least: int) -> None:
    batches = [[byte % 10 for byte in batch] for batch in drawn]
    feature = schema_of({"name": "x", "kind": "categorical"}).column_features[0]
    counts = ValueCounts(feature)
    for batch in batches:
        counts.add(pa.array(batch, pa.int64()))
    every = Counter(value for batch in batches for value in batch)
    assert set(counts.at_least(least).tolist()) == set(
        hashes(*(value for value, count in every.items() if count >= least))
    )


def test_a_row_may_stand_for_several() -> None:
    feature = MultiCategoricalFeature(name="x", table="items")
    counts = ValueCounts(feature)
    counts.add(pa.chunked_array([[["a", "b", "a"], [], None, ["b"]]]), np.array([3, 9, 9, 0]))
    assert set(counts.at_least(3).tolist()) == set(hashes("a", "b"))
    assert counts.at_least(4).tolist() == []


def test_too_many_values_to_count_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(value_counts, "MOST_VALUES", 5)
    schema = schema_of({"name": "site", "kind": "categorical", "min_count": 2})
    with pytest.raises(
        ConfigError, match=r"feature 'site' has more than 5 distinct values.*min_co"
    ):
        fitted(schema, site=list("abcdef"))
