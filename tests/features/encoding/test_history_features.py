"""Histories, counts, elapsed times and crosses: against loops over the rows, and without leaks."""

import json
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch.nn.functional import binary_cross_entropy_with_logits

from recsys.core.errors import ConfigError
from recsys.data.batch import FeatureBlock, FeatureLayout, Jagged
from recsys.embeddings.backend import build_table
from recsys.embeddings.plan import EmbeddingPlan, allocate
from recsys.embeddings.table import TableConfig
from recsys.embeddings.unified import UnifiedEmbedding
from recsys.features.batches.rows import RankingLoader
from recsys.features.clicks.log import encode_click_log
from recsys.features.dataset.dataset import Dataset, prepare
from recsys.features.dataset.split import TEST, TRAIN, SplitConfig
from recsys.features.encoding.crosses import Crosses
from recsys.features.encoding.encoder import FeatureEncoder
from recsys.features.encoding.hashing import NULL_HASH, UNKNOWN_HASH
from recsys.features.encoding.history_features import PastFeatures, past_layout, past_scalers
from recsys.features.encoding.scaling import Scaler
from recsys.features.kinds.cross import CrossFeature
from recsys.features.kinds.derived import DerivedFeature
from recsys.features.schema import Schema
from recsys.features.tables.checked import Events
from recsys.features.tables.sources import Policies, Sources
from recsys.metrics.classification import auc
from recsys.models.dcn import DCNConfig
from recsys.models.rankers import build_ranker
from recsys.training.families.load import parse_config

SECOND = 1_000_000
START = 1_700_000_000
NULL = int(NULL_HASH)
ITEMS = FeatureLayout((("brand", 1), ("id", 2)), (("genres", 1),), ())
NUM_ITEMS = 5
# The last item has no genre, which the encoder gives the null value.
GENRES = [[11], [12, 13], [11, 13, 14], [15], [NULL]]
CATALOGUE = FeatureBlock(
    torch.tensor([[100 + row % 2, 200 + row] for row in range(NUM_ITEMS)]),
    (
        Jagged(
            torch.tensor(list(chain(*GENRES))),
            torch.tensor([0, *np.cumsum([len(some) for some in GENRES])]),
            torch.arange(8) / 4,
        ),
    ),
    torch.zeros(NUM_ITEMS, 0),
)
PAST: list[dict[str, Any]] = [
    {"name": "ids", "kind": "history", "of": "id", "last": 3},
    {"name": "ids_of_all", "kind": "history", "of": "id", "last": 2, "rows": "all"},
    {"name": "genres_taken", "kind": "history", "of": "genres", "last": 2, "pooling": "sum"},
    {"name": "user_count", "kind": "count", "of": "user"},
    {"name": "item_rows", "kind": "count", "of": "item", "rows": "all"},
    {"name": "item_count", "kind": "count", "of": "item"},
    {"name": "user_pause", "kind": "elapsed", "of": "user"},
    {"name": "item_pause", "kind": "elapsed", "of": "item", "rows": "positives"},
]
SCALERS = {f["name"]: Scaler("log1p", 0.0, 1.0, 0.0, 1e9) for f in PAST if f["kind"] != "history"}
Row = tuple[int, int, int, int]
"""User, item, time in seconds, label."""


def schema_of(features: list[dict[str, Any]], **roles: Any) -> Schema:
    log = {"user": "user", "item": "item", "label": {"column": "click"}}
    raw = {
        "interactions": log | {"time": {"column": "time", "unit": "s"}} | roles,
        "items": {"key": "item"},
        "features": [
            {"name": "user", "table": "users", "kind": "categorical"},
            {"name": "brand", "table": "items", "kind": "categorical"},
            {"name": "id", "table": "items", "kind": "categorical", "column": "item"},
            {"name": "genres", "table": "items", "kind": "multi_categorical"},
            {"name": "words", "table": "items", "kind": "text"},
            {"name": "price", "table": "items", "kind": "numeric"},
            *features,
        ],
    }
    return Schema.model_validate_json(json.dumps(raw))


DERIVED = schema_of(PAST).derived_features


def events_of(rows: list[Row]) -> Events:
    """Rows as `read_tables` gives them: by user, then time, then as they stand."""
    rows = sorted(rows, key=lambda row: (row[0], row[2]))
    users, items, times, labels = (np.array(column) for column in zip(*rows, strict=True))
    return Events(
        user_row=users.astype(np.int32),
        item_row=items.astype(np.int32),
        time=times.astype(np.int64) * SECOND,
        weight=np.ones(len(rows), np.float32),
        row=np.arange(len(rows)),
        split=None,
        context=pa.table({}),
        label=labels.astype(np.float32),
    )


def past_of(events: Events) -> PastFeatures:
    return PastFeatures(DERIVED, events, CATALOGUE, ITEMS, SCALERS)


def told(events: Events, number: int, item: int | None = None) -> list[list[float]]:
    """What one event is told of its past: a list a history, the dense columns."""
    numbers = np.array([number])
    items = events.item_row[numbers].astype(np.int64) if item is None else np.array([item])
    empty = FeatureBlock(torch.zeros(1, 0, dtype=torch.int64), (), torch.zeros(1, 0))
    block = past_of(events).beside(empty, numbers, items)
    assert block.dense.dtype == torch.float32
    return [*(jagged.values.tolist() for jagged in block.multi), block.dense[0].tolist()]


def looked_up(events: Events, number: int, item: int) -> list[list[float]]:
    """The same by a loop over all rows, straight from the words of the schema."""

    def earlier(of: str, rows: str) -> list[int]:
        wanted = events.user_row[number] if of == "user" else item
        owner = events.user_row if of == "user" else events.item_row
        assert events.label is not None
        found = [
            other
            for other in range(len(events))
            if owner[other] == wanted
            and events.time[other] < events.time[number]
            and (rows == "all" or events.label[other] == 1)
        ]
        return sorted(found, key=lambda other: events.time[other])

    ids = [200 + int(events.item_row[k]) for k in earlier("user", "positives")][-3:]
    every = [200 + int(events.item_row[k]) for k in earlier("user", "all")][-2:]
    genres = [g for k in earlier("user", "positives")[-2:] for g in GENRES[events.item_row[k]]]
    dense: list[float] = []
    for feature in PAST[3:]:
        rows = "all" if feature["name"] == "user_pause" else feature.get("rows", "positives")
        before = earlier(feature["of"], rows)
        value = float(len(before))
        if feature["kind"] == "elapsed" and before:
            value = (events.time[number] - max(events.time[k] for k in before)) / SECOND
        dense += [float(np.log1p(value)) if before else 0.0, float(not before)]
    return [ids or [NULL], every or [NULL], genres or [NULL], dense]


LOGS = st.lists(
    st.tuples(st.integers(0, 2), st.integers(0, 3), st.integers(0, 5), st.integers(0, 1)),
    min_size=1,
    max_size=25,
)


@settings(max_examples=60)
@given(rows=LOGS)
def test_the_past_is_what_a_loop_over_all_rows_finds(rows: list[Row]) -> None:
    events = events_of(rows)
    numbers = np.arange(len(events))
    # Beside its own item each row is asked about one that it did not take, as negatives are.
    for items in (events.item_row.astype(np.int64), (events.item_row + 1) % NUM_ITEMS):
        empty = FeatureBlock(
            torch.zeros(len(events), 0, dtype=torch.int64), (), torch.zeros(len(events), 0)
        )
        block = past_of(events).beside(empty, numbers, items.astype(np.int64))
        for number in numbers:
            one = block.take(torch.tensor([number]))
            got = [*(jagged.values.tolist() for jagged in one.multi), one.dense[0].tolist()]
            expected = looked_up(events, number, int(items[number]))
            assert got[:-1] == expected[:-1]
            assert got[-1] == pytest.approx(expected[-1], abs=1e-5)


@settings(max_examples=60)
@given(rows=LOGS, data=st.data())
def test_nothing_at_or_after_a_row_changes_what_it_is_told(
    rows: list[Row], data: st.DataObject
) -> None:
    """The log is cut after the row; or what follows has other labels, other items, other users."""
    events = events_of(rows)
    assert events.label is not None
    number = data.draw(st.integers(0, len(events) - 1))
    whole = told(events, number)

    others = np.arange(len(events)) != number
    later = others & (events.time >= events.time[number])
    kept = np.flatnonzero(~later)
    cut = events.take(kept)
    assert told(cut, int(np.searchsorted(kept, number))) == whole
    of_user = later & (events.user_row == events.user_row[number])
    kept = np.flatnonzero(~of_user)
    own = told(events.take(kept), int(np.searchsorted(kept, number)))
    assert own[:3] == whole[:3]  # of others' rows only the item's numbers know

    # Also the row's own label: it is what is to be predicted.
    after = later | ~others
    label = np.where(after, 1 - events.label, events.label).astype(np.float32)
    assert told(replace(events, label=label), number) == whole
    item = np.where(later, (events.item_row + 1) % 4, events.item_row).astype(np.int32)
    assert told(replace(events, label=label, item_row=item), number) == whole


def test_the_past_by_hand() -> None:
    rows = [(0, 1, 0, 1), (0, 2, 3, 1), (0, 2, 3, 0), (0, 3, 3, 1), (0, 0, 9, 1), (1, 3, 5, 1)]
    events = events_of(rows)
    first, tied, last = told(events, 0), told(events, 2), told(events, 4)
    assert first == [[NULL], [NULL], [NULL], [0.0, 1.0] * 5]
    assert tied[:3] == [[201], [201], [12, 13]]  # the three rows at 3 s do not see each other
    assert last[:3] == [[201, 202, 203], [202, 203], [11, 13, 14, 15]]
    log = np.log
    of_item_3 = told(events, 4, item=3)[3]  # as if user 0 had been shown item 3 at 9 s
    assert of_item_3 == pytest.approx(
        [log(4), 0, log(3), 0, log(3), 0, log(7), 0, log(5), 0], abs=1e-6
    )


def test_weights_of_values_come_along() -> None:
    events = events_of([(0, 1, 0, 1), (0, 2, 1, 1), (0, 0, 2, 1)])
    empty = FeatureBlock(torch.zeros(3, 0, dtype=torch.int64), (), torch.zeros(3, 0))
    items = events.item_row.astype(np.int64)
    taken = past_of(events).beside(empty, np.arange(3), items).multi[2]
    assert taken.weights is not None
    assert taken.weights.tolist() == [1.0, 1 / 4, 2 / 4, 1 / 4, 2 / 4, 3 / 4, 4 / 4, 5 / 4]
    assert taken.values.tolist() == [NULL, 12, 13, 12, 13, 11, 13, 14]


def test_scales_are_fitted_on_the_rows_they_are_given() -> None:
    events = events_of([(0, 0, second, 1) for second in range(5)])
    count = schema_of([{"name": "n", "kind": "count", "of": "user"}]).derived_features
    found = past_scalers(count, events, np.array([1, 3]))["n"]
    assert (found.transform, found.low, found.high) == ("log1p", 1.0, 3.0)
    assert found.mean == pytest.approx((np.log(2) + np.log(4)) / 2)


# Crosses


def crossed(of: list[str], columns: FeatureLayout, block: FeatureBlock) -> FeatureBlock:
    cross: DerivedFeature = CrossFeature.model_validate_json(json.dumps({"name": "x", "of": of}))
    return Crosses([cross], columns).beside(block)


def rows_of(single: list[list[int]], lists: list[list[int]]) -> FeatureBlock:
    offsets = torch.tensor([0, *np.cumsum([len(one) for one in lists])])
    jagged = Jagged(torch.tensor(list(chain(*lists))), offsets)
    return FeatureBlock(torch.tensor(single), (jagged,), torch.zeros(len(single), 0))


COLUMNS = FeatureLayout((("a", 1), ("b", 1)), (("tags", 1),), ())


FROZEN_PAIRS = [-6789725666549340428, 3882556812766370346]
FROZEN_LISTS = [2580181214568963853, -2907287242911029520, -4779221547602630009]


def test_crosses_are_frozen() -> None:
    block = rows_of([[1, 2], [NULL, 2]], [[3, 4], [5]])
    assert crossed(["a", "b"], COLUMNS, block).single[:, 2].tolist() == FROZEN_PAIRS
    assert crossed(["a", "tags"], COLUMNS, block).multi[1].values.tolist() == FROZEN_LISTS


def test_a_cross_is_the_pair_in_its_order_and_nothing_else() -> None:
    pairs = [[a, b] for a in (NULL, 0, 1, 2, -5) for b in (NULL, 0, 1, 2, -5)]
    block = rows_of(pairs, [[7, NULL, 1]] * len(pairs))
    forth = crossed(["a", "b"], COLUMNS, block).single[:, 2]
    back = crossed(["b", "a"], COLUMNS, block).single[:, 2]
    assert len(set(forth.tolist())) == len(pairs)
    swapped = [pairs.index([b, a]) for a, b in pairs]
    assert torch.equal(forth == back[swapped], torch.ones(len(pairs), dtype=torch.bool))
    equal = torch.tensor([a == b for a, b in pairs])
    assert torch.equal(forth == back, equal)

    # A list takes part value by value, wherever it stands among the parts.
    for of in (["a", "tags", "b"], ["tags", "a", "b"], ["b", "a", "tags"]):
        whole = crossed(of, COLUMNS, block).multi[1]
        assert torch.equal(whole.offsets, block.multi[0].offsets)
        as_one = torch.cat(
            [block.single.repeat_interleave(3, 0), block.multi[0].values[:, None]], 1
        )
        flat = FeatureBlock(as_one, (), torch.zeros(len(as_one), 0))
        names = FeatureLayout((("a", 1), ("b", 1), ("tags", 1)), (), ())
        assert torch.equal(crossed(of, names, flat).single[:, 3], whole.values)


# Through the engine

CROSSES = [
    {"name": "user_brand", "kind": "cross", "of": ["user", "brand"], "multiplicity": 2},
    {"name": "user_genre", "kind": "cross", "of": ["user", "genres"], "pooling": "sum"},
]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return shop_in(tmp_path_factory.mktemp("shop"))


def shop_in(
    folder: Path,
    features: list[dict[str, Any]] | None = None,
    *,
    lookups: int | None = None,
    **roles: Any,
) -> Dataset:
    rng = np.random.default_rng(5)
    rows = 240
    log = {
        "user": rng.integers(0, 12, rows),
        "item": rng.integers(0, NUM_ITEMS, rows),
        "time": START + rng.integers(0, 60, rows),
        "click": rng.integers(0, 2, rows),
    }
    items = {
        "item": np.arange(NUM_ITEMS),
        "brand": ["x", "y", "x", None, "z"],
        "genres": [["a"], ["b", "c"], ["a", "c", "d"], [], None],
        "words": ["red shoe", "hat", "", None, "shoe"],
        "price": [1.0, 2.0, 3.0, 4.0, 5.0],
    }
    pq.write_table(pa.table(log), folder / "log.parquet")
    pq.write_table(pa.table(items), folder / "items.parquet")
    sources = {"interactions": str(folder / "log.parquet"), "items": str(folder / "items.parquet")}
    return prepare(
        schema_of(PAST + CROSSES if features is None else features, **roles),
        Sources.model_validate(sources),
        Policies.model_validate({"duplicate_events": "keep"}),
        SplitConfig(validation=0.2, test=0.2),
        lookups,
    )


def test_rows_of_every_part_have_their_past_behind_their_columns(shop: Dataset) -> None:
    loader = RankingLoader(shop, batch_size=50, seed=0)
    layout, events = loader.layout, shop.tables.events
    columns = shop.encoder.columns_layout()
    assert layout.single == (*columns.single, ("user_brand", 2))
    assert [name for name, _ in layout.multi] == [
        *("genres", "words", "user_genre", "ids", "ids_of_all", "genres_taken")
    ]
    assert layout.poolings[2:] == ("sum", "mean", "mean", "sum")
    assert layout.reads == (("ids", "id"), ("ids_of_all", "id"), ("genres_taken", "genres"))
    assert FeatureLayout.from_json(json.loads(json.dumps(layout.__dict__))) == layout
    batch = next(loader.ordered(TEST, 30))
    assert len(layout.dense) == batch.features.dense.shape[1] == 2 + 10
    id_column = [name for name, _ in columns.single].index("id")
    brand = [name for name, _ in columns.single].index("brand")
    item_ids = shop.items.single[:, 1]
    for row, number in enumerate(batch.examples.tolist()):
        one = batch.features.take(torch.tensor([row]))
        expected = looked_up(events, number, int(events.item_row[number]))
        ids = [int(item_ids[k - 200]) if k != NULL else NULL for k in map(int, expected[0])]
        assert one.multi[3].values.tolist() == ids
        assert one.single[0, id_column] == item_ids[events.item_row[number]]
        pair = FeatureBlock(one.single[:, [0, brand]], (), torch.zeros(1, 0))
        user_brand = crossed(["u", "v"], FeatureLayout((("u", 1), ("v", 1)), (), ()), pair)
        assert user_brand.single[0, 2] == one.single[0, -1]
    # The bundle's encoder scales as the one that was fitted.
    again = FeatureEncoder.from_bytes(*shop.encoder._to_bytes().values())
    assert again.ranking_layout() == layout
    assert again.scalers == shop.encoder.scalers
    train = shop.events_of((TRAIN,))
    counted = past_scalers(shop.schema.derived_features, events, train)
    assert {name: again.scalers[name] for name in counted} == counted


def test_a_dropped_id_is_dropped_from_its_crosses_too(shop: Dataset) -> None:
    """A user never seen is unknown in every cross at serving, so training must know that value."""
    loader = RankingLoader(shop, batch_size=100, seed=0, id_dropout=0.5)
    (batch, *_) = loader.epoch(0)
    plain = loader.rows(batch.examples.numpy()).features
    single = [name for name, _ in loader.layout.single]
    user, brand = single.index("user"), single.index("brand")
    dropped = batch.features.single[:, user] == int(UNKNOWN_HASH)
    assert 0.3 < float(dropped.float().mean()) < 0.7
    columns = FeatureLayout((("u", 1), ("v", 1)), (), ())
    pairs = FeatureBlock(batch.features.single[:, [user, brand]], (), torch.zeros(len(batch), 0))
    assert torch.equal(
        batch.features.single[:, -1], crossed(["u", "v"], columns, pairs).single[:, 2]
    )
    assert (batch.features.single[dropped, -1] != plain.single[dropped, -1]).all()
    assert torch.equal(batch.features.single[~dropped, -1], plain.single[~dropped, -1])
    for got, expected in zip(batch.features.multi[3:], plain.multi[3:], strict=True):
        assert torch.equal(got.values, expected.values)  # what was taken is known all the same
    assert torch.equal(batch.features.dense, plain.dense)


def test_another_item_in_the_place_of_the_taken_one_keeps_the_users_past(shop: Dataset) -> None:
    loader = RankingLoader(shop, batch_size=50, seed=0)
    numbers = shop.events_of((TRAIN,))[:40]
    others = (shop.tables.events.item_row[numbers] + 1).astype(np.int64) % NUM_ITEMS
    own, other = loader.rows(numbers).features, loader.rows(numbers, others).features
    for got, expected in zip(other.multi[3:], own.multi[3:], strict=True):
        assert torch.equal(got.values, expected.values)
    for row, number in enumerate(numbers.tolist()):
        expected = looked_up(shop.tables.events, number, int(others[row]))[3]
        absent = other.dense[row, 3::2].tolist()
        assert absent == expected[1::2]


def test_a_streamed_log_has_the_crosses_of_a_log_in_memory(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    columns = {
        "click": rng.integers(0, 2, 90),
        "user": rng.integers(0, 9, 90),
        "shop": rng.choice(["x", "y", "z"], 90),
        "tags": [["p", "q"][: k % 3] for k in range(90)],
    }
    pq.write_table(pa.table(columns), tmp_path / "log.parquet")
    names = {"user": "categorical", "shop": "categorical", "tags": "multi_categorical"}
    features = [{"name": n, "table": "interactions", "kind": k} for n, k in names.items()]
    features.append({"name": "a", "kind": "cross", "of": ["user", "shop"], "multiplicity": "auto"})  # type: ignore[dict-item]
    features.append({"name": "b", "kind": "cross", "of": ["shop", "tags"]})  # type: ignore[dict-item]
    raw = {"interactions": {"label": {"column": "click"}}, "features": features}
    log = encode_click_log(
        Schema.model_validate_json(json.dumps(raw)),
        Sources(interactions=str(tmp_path / "log.parquet")),
        Policies(),
        SplitConfig(validation=0.2, test=0.2),
        tmp_path / "encoded",
        lookups=6,
    )
    assert log.layout.single[2] == ("a", 5)  # 27 pairs: as many rows as bits, nearly
    block = log.read(TRAIN, slice(None)).features
    assert torch.equal(
        block.single[:, 2],
        crossed(
            ["u", "v"],
            FeatureLayout((("u", 1), ("v", 1)), (), ()),
            FeatureBlock(block.single[:, :2], (), block.dense),
        ).single[:, 2],
    )
    assert torch.equal(block.multi[0].offsets, block.multi[1].offsets)
    assert len(block.multi[1].values.unique()) == 3 * 3  # p, q and null in each of three shops


def test_auto_multiplicity_of_a_cross_counts_pairs_up_to_the_rows(tmp_path: Path) -> None:
    wide = {"name": "wide", "kind": "cross", "of": ["user", "words", "brand", "id"]}
    slim = {"name": "slim", "kind": "cross", "of": ["user", "brand"]}
    data = shop_in(tmp_path, [{**one, "multiplicity": "auto"} for one in (wide, slim)], lookups=6)
    train = len(data.events_of((TRAIN,)))
    # 12 users, 4 words and null or none, 4 brands, 5 ids: 1,200 and more, were there the rows.
    assert 48 < train < 240
    found = dict(data.encoder.ranking_layout().features)
    assert {n: found[n] for n in ("wide", "slim")} == allocate({"wide": train, "slim": 48}, 6)
    assert allocate({"wide": 1200, "slim": 48}, 6) == {"wide": 4, "slim": 2}
    assert found["wide"] == 3


# What is refused

HISTORY = {"name": "h", "kind": "history", "of": "id"}


@pytest.mark.parametrize(
    ("feature", "roles", "message"),
    [
        (HISTORY, {"time": None}, "feature 'h': history needs an order: give .*interactions.time"),
        ({**HISTORY, "of": "user"}, {}, "history of 'user', which is none of .* brand, id, genres"),
        ({**HISTORY, "of": "genre"}, {}, "of the items .* words .did you mean 'genres'"),
        ({**HISTORY, "of": "price"}, {}, "history of 'price', which is none"),
        ({**HISTORY, "last": 0}, {}, "last"),
        (
            {"name": "n", "kind": "count", "of": "item"},
            {"time": None, "order": "time"},
            "feature 'n': count of the item needs clock times",
        ),
        (
            {"name": "n", "kind": "elapsed", "of": "user"},
            {"time": None, "order": "time"},
            "feature 'n': elapsed of the user needs clock times",
        ),
        ({"name": "x", "kind": "cross", "of": ["user", "pric"]}, {}, "'x' crosses 'pric', which"),
        ({"name": "x", "kind": "cross", "of": ["user", "price"]}, {}, "'x' crosses 'price', which"),
        (
            {"name": "x", "kind": "cross", "of": ["id", "id"]},
            {},
            "'x' crosses a feature with itself",
        ),
        (
            {"name": "x", "kind": "cross", "of": ["genres", "id", "words"]},
            {},
            "'x' crosses 'genres' and 'words', which both hold several",
        ),
        ({"name": "x", "kind": "cross", "of": ["id"]}, {}, "of"),
        (
            {"name": "x", "kind": "cross", "of": ["user", "id"], "pooling": "sum"},
            {},
            "'x': none of user, id has several values a row, .*: leave pooling: sum out",
        ),
        ({**HISTORY, "rows": "all"}, {"label": None}, "'h': rows: all is about rows with a label"),
        (
            {"name": "n", "kind": "elapsed", "of": "user", "rows": "positives"},
            {"label": None},
            "'n': rows: positives is about rows with a label .*interactions.label",
        ),
        ({**HISTORY, "name": "id"}, {}, "two features are named 'id'"),
    ],
)
def test_a_feature_that_cannot_be_had_is_named(
    feature: dict[str, Any], roles: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValidationError, match=message):
        schema_of([feature], **roles)


def test_counts_of_a_user_need_no_clock(tmp_path: Path) -> None:
    features = [{"name": "n", "kind": "count", "of": "user"}, HISTORY]
    data = shop_in(tmp_path, features, time=None, order="time")
    block = next(RankingLoader(data, batch_size=9, seed=0).ordered(TEST, 9)).features
    assert block.dense[:, -1].sum() < len(block)


def test_streams_and_two_towers_have_no_past(tmp_path: Path) -> None:
    label = {"label": {"column": "click"}, "time": {"column": "time", "unit": "s"}}
    feature = {"name": "n", "kind": "count", "of": "user"}
    column = {"name": "a", "table": "interactions", "kind": "categorical"}
    raw: dict[str, Any] = {"interactions": label, "features": [column, feature]}
    with pytest.raises(ConfigError, match=r"feature 'n': a streamed log is never .* kind: count"):
        encode_click_log(
            Schema.model_validate_json(json.dumps(raw)),
            Sources(interactions="none.parquet"),
            Policies(),
            SplitConfig(),
            tmp_path / "encoded",
        )
    schema = schema_of([HISTORY]).model_dump(mode="json")
    schema["interactions"]["label"] = None
    experiment = {"data": {"interactions": "x", "items": "y"}, "schema": schema}
    with pytest.raises(ConfigError, match="feature 'h': kind: history is for rankers"):
        parse_config({**experiment, "model": {"kind": "two_tower"}}, source="test")


def test_layouts_of_the_past_follow_what_they_read() -> None:
    layout = past_layout(DERIVED, ITEMS)
    assert layout.multi == (("ids", 2), ("ids_of_all", 2), ("genres_taken", 1))
    assert layout.dense[:4] == ("user_count", "user_count.null", "item_rows", "item_rows.null")


def clicks(folder: Path, *, planted: bool, pooling: str) -> Dataset:
    """80 users are shown 20 films each; a click where the kind is that of the last click."""
    rng = np.random.default_rng(2)
    users, length, kinds = 80, 20, 3
    item = rng.integers(0, 4 * kinds, (users, length))
    click = rng.random((users, length)) < 1 / kinds
    for user in range(users) if planted else ():
        last = rng.integers(0, kinds)
        for step in range(length):
            click[user, step] = item[user, step] % kinds == last or rng.random() < 0.1
            last = item[user, step] % kinds if click[user, step] else last
    log = {
        "user": np.repeat(np.arange(users), length),
        "item": item.ravel(),
        "time": np.tile(np.arange(length), users),
        "click": click.ravel().astype(int),
    }
    films = {"item": np.arange(4 * kinds), "kind": np.arange(4 * kinds) % kinds}
    pq.write_table(pa.table(log), folder / "log.parquet")
    pq.write_table(pa.table(films), folder / "items.parquet")
    features: list[dict[str, Any]] = [{"name": "kind", "table": "items", "kind": "categorical"}]
    if pooling:
        last = {"name": "last", "kind": "history", "of": "kind", "last": 1, "pooling": pooling}
        features.append(last)
    roles = {"user": "user", "item": "item", "label": {"column": "click"}, "order": "time"}
    raw = {"interactions": roles, "items": {"key": "item"}, "features": features}
    return prepare(
        Schema.model_validate_json(json.dumps(raw)),
        Sources(interactions=f"{folder}/log.parquet", items=f"{folder}/items.parquet"),
        Policies.model_validate({"duplicate_events": "keep"}),
        SplitConfig(validation=0.1, test=0.2),
    )


@pytest.mark.parametrize(
    ("planted", "pooling", "low", "high"),
    [
        (True, "mean", 0.85, 1.0),
        (True, "activation", 0.85, 1.0),
        (True, "", 0.4, 0.6),
        (False, "mean", 0.4, 0.6),
    ],
)
def test_a_ranker_learns_from_the_last_click_what_nothing_else_tells(
    tmp_path: Path, planted: bool, pooling: str, low: float, high: float
) -> None:
    loader = RankingLoader(
        clicks(tmp_path, planted=planted, pooling=pooling), batch_size=100, seed=0
    )
    config = TableConfig(num_rows=500, dim=8, backend="torch", learning_rate=0.1)
    plan = EmbeddingPlan.of(config, (loader.layout,))
    embedding = UnifiedEmbedding(plan, build_table(config, device=torch.device("cpu"), seed=0))
    model = build_ranker(DCNConfig(hidden=(16,), dropout=0.0), embedding)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for epoch in range(6):
        for batch in loader.epoch(epoch):
            optimizer.zero_grad()
            loss = binary_cross_entropy_with_logits(model(batch.features), batch.label)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    (batch,) = loader.ordered(TEST, 1000)
    with torch.no_grad():
        logit = model.eval()(batch.features).numpy()
    assert low <= auc(logit, batch.label.numpy(), np.ones(len(batch))) <= high
