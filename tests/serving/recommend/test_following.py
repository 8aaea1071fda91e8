"""A session followed event by event is answered as a request with the same history is."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

import recsys
from recsys.bundle.relevance import Relevance
from recsys.core.errors import ConfigError, DataError
from recsys.serving.recommend.filters import FilterOptions, Filters
from recsys.serving.recommend.following import Following
from recsys.serving.recommend.scorer import Scorer
from recsys.training.families.load import load_config
from recsys.training.jobs.train import train

ITEMS, LIMIT, MINUTE = 30, 4, 60
SETTINGS: dict[str, Any] = {
    "data": {"interactions": "log.parquet", "users": "users.parquet"},
    "schema": {
        "interactions": {"user": "user", "item": "item", "time": {"column": "at", "unit": "s"}},
        "users": {"key": "user"},
        "features": [
            {"name": "item", "table": "items", "kind": "categorical"},
            {"name": "age", "table": "users", "kind": "numeric"},
            {"name": "what", "table": "interactions", "kind": "categorical"},
            {"name": "tags", "table": "interactions", "kind": "multi_categorical"},
        ],
    },
    "sessions": {"inactivity_minutes": 60},
    "embedding": {"num_rows": 512, "dim": 8, "backend": "torch"},
    "model": {
        "kind": "session",
        "dim": 16,
        "history_length": LIMIT,
        "time_gaps": True,
        "repeats": True,
    },
    "training": {"batch_size": 64, "epochs": 1, "learning_rate": 0.01, "precision": "float32"},
    "evaluation": {"queries": "events", "bootstrap_samples": 10, "baselines": []},
    "index": {"kind": "exact"},
    "tracking": {"enabled": False},
}
# Item, time, what, tags: a repeat, an item that the catalogue lacks, a time and a kind that are
# not known, a pause that ends the session, and more events than the model sees.
EVENTS: list[tuple[str, int | None, str | None, list[str] | None]] = [
    ("i03", 1000, "view", ["a", "b"]),
    ("i07", 1030, None, []),
    ("i03", 1030, "cart", ["b"]),
    ("nowhere", 1100, "view", ["a"]),
    ("i11", None, "view", None),
    ("i12", 1200, "cart", ["c", "a"]),
    ("i29", 1300, "view", ["a"]),
    ("i02", 1400, "never seen", ["a"]),
    ("i04", 1400 + 61 * MINUTE, "view", ["b"]),
    ("nowhere", 1500 + 122 * MINUTE, "view", ["a"]),
    ("i05", 1600 + 122 * MINUTE, "view", ["b"]),
]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("followed")
    rng = np.random.default_rng(0)
    rows = 900
    columns = {
        "user": [f"u{user}" for user in np.sort(rng.integers(0, 60, rows))],
        "item": [f"i{item:02}" for item in rng.permutation(np.arange(rows) % ITEMS)],
        "at": 1_700_000_000 + np.cumsum(rng.integers(10, 2_000, rows)),
        "what": rng.choice(["view", "cart"], rows),
        "tags": [["a", "b", "c"][: row % 4] for row in range(rows)],
    }
    pq.write_table(pa.table(columns), folder / "log.parquet")
    users = sorted(set(columns["user"]))
    ages = np.arange(len(users)) % 50
    pq.write_table(pa.table({"user": users, "age": ages}), folder / "users.parquet")
    path = folder / "recsys.yaml"
    path.write_text(yaml.safe_dump({**SETTINGS, "output": str(folder / "runs")}))
    result = train(load_config(path))
    assert result is not None
    return result.bundle


@pytest.fixture(scope="module")
def scorer(bundle: Path) -> Scorer:
    return Scorer.open(bundle, k=8)


def request_of(user: dict[str, Any], events: list[Any]) -> pa.Table:
    items, times, what, tags = ([event[place] for event in events] for place in range(4))
    row = {
        **user,
        "history": items,
        "history_times": times,
        "history_what": what,
        "history_tags": tags,
    }
    return pa.Table.from_pylist([row])


@pytest.mark.parametrize("without_seen", [True, False])
def test_after_each_event_the_list_is_that_of_a_request(scorer: Scorer, without_seen: bool) -> None:
    user = {"user": "somebody", "age": 31}
    following = Following.start(scorer, user)
    for count in range(len(EVENTS) + 1):
        if count:
            item, time, what, tags = EVENTS[count - 1]
            following = following.append(item, time, what=what, tags=tags)
        wanted = scorer.score(request_of(user, EVENTS[:count]), filter_seen=without_seen)
        found = following.recommend(filter_seen=without_seen)
        assert found.schema == wanted.schema
        assert found.column("items").to_pylist() == wanted.column("items").to_pylist(), count
        assert found.column("reason").to_pylist() == wanted.column("reason").to_pylist()
        scores = (one.column("scores").to_pylist()[0] for one in (found, wanted))
        np.testing.assert_allclose(*scores, atol=1e-5)


def test_filters_are_those_of_a_request(scorer: Scorer) -> None:
    user = {"user": "somebody", "age": 31, "exclude": ["i07"], "where": "item > 'i03'"}
    following = Following.start(scorer, user).append("i02", 1_700_000_000)
    request = pa.Table.from_pylist([{**user, "history": ["i02"], "history_times": [1_700_000_000]}])
    asked = {"where": "item != 'i05'", "exclude": ["i06", "gone"], "allow": ["i01", "i05", "i08"]}
    filters = Filters.of(scorer, FilterOptions(**asked))
    found = following.recommend(**asked)
    assert found.equals(scorer.score(request, filters=filters))
    assert found.column("items").to_pylist() == [["i08"]]
    assert found.column("reason").to_pylist() == ["filtered"]
    unasked = following.recommend(k=ITEMS, filter_seen=False).column("items").to_pylist()[0]
    assert set(unasked) == {f"i{row:02}" for row in range(4, ITEMS)} - {"i07"}
    with pytest.raises(ConfigError, match="no column 'price'"):
        following.recommend(where="price < 3")


def test_a_session_may_go_on_in_two_ways(scorer: Scorer) -> None:
    start = Following.start(scorer, {"user": "somebody", "seen": ["i01"]})
    before = start.recommend()
    both = (start.append("i02"), start.append("i03"))
    assert start.recommend().equals(before)
    lists = [one.recommend(k=ITEMS, filter_seen=True).column("items")[0].as_py() for one in both]
    assert {*lists[0]} == {f"i{row:02}" for row in range(ITEMS)} - {"i01", "i02"}
    assert {*lists[1]} == {f"i{row:02}" for row in range(ITEMS)} - {"i01", "i03"}


def test_it_ends_where_a_list_of_requests_does(scorer: Scorer) -> None:
    relevance = Relevance(1.0, 0.0, 0.0, crowd=-1.0, activity=0.2, sharpness=2.0, anchors=5)
    user = {"user": "somebody", "age": 31}
    found_by = replace(scorer.by_vectors, relevance=relevance)
    request = request_of(user, EVENTS[:3])
    whole = replace(scorer, found_by=found_by)
    z = whole.search(whole.encode(request), 8, filter_seen=True).logits
    assert z is not None
    assert z[0, 2] > z[0, 3]
    ends = replace(relevance, threshold=float(z[0, 2] + z[0, 3]) / 2)
    cutting = replace(scorer, found_by=replace(found_by, relevance=ends), cut=True)
    following = Following.start(cutting, user)
    for item, time, what, tags in EVENTS[:3]:
        following = following.append(item, time, what=what, tags=tags)
    cut = following.recommend()
    assert len(cut.column("items")[0]) == 3
    assert cut.column("reason").to_pylist() == ["relevance"]
    assert cut.column("items").equals(cutting.score(request).column("items"))
    assert len(following.recommend(cut=False).column("items")[0]) == 8


def test_from_python(bundle: Path) -> None:
    following = recsys.load(bundle).follow({"user": "u1", "age": 20}).append("i03", time=5)
    assert following.recommend(k=3).column("user").to_pylist() == ["u1"]


def test_what_cannot_be_followed_is_refused(scorer: Scorer, trained: Path) -> None:
    with pytest.raises(ConfigError, match="model of kind two_tower reads whole histories"):
        Following.start(Scorer.open(trained), {"user_id": "u000001"})
    with pytest.raises(
        DataError, match="the user, column 'user': the requests table has no such column"
    ):
        Following.start(scorer, {"age": 3})
    start = Following.start(scorer, {"user": "somebody"})
    with pytest.raises(DataError, match=r"the event, column 'history_wat': .* 'history_what'"):
        start.append("i03", wat="view")
    with pytest.raises(DataError, match="its time 9 is before that of the last event"):
        start.append("i03", 10).append("i04", 9)
    with pytest.raises(DataError, match="the event row 1, column 'history': holds int64 ids"):
        start.append(3)
    with pytest.raises(ConfigError, match="k must be at least 1, got 0"):
        start.recommend(k=0)
