"""Why lists are short: against a count item by item, and of a pipeline as it is served."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import recsys
from recsys.data.batch import Jagged
from recsys.retrieval.passing import Passing
from recsys.serving.recommend.reasons import reasons_of

ITEMS = 8
SETS = st.lists(st.integers(0, ITEMS - 1), max_size=12)


def by_hand(passes: set[int], seen: set[int], k: int, named: int | None, length: int) -> str:
    """Say it in words: the first thing that leaves fewer than k, or than there are items."""
    wanted = min(k, ITEMS)
    if length >= k:
        return ""
    if len(passes) < wanted:
        return "filtered"
    left = passes - seen
    if named is None or len(left) < wanted or length == len(left):
        return "exhausted"
    return "candidates" if named < wanted else "rules"


@given(SETS, SETS, st.integers(1, ITEMS + 2), st.booleans(), st.booleans(), st.data())
def test_the_reason_is_the_first_thing_that_leaves_too_few(
    passing: list[int], seen: list[int], k: int, filtered: bool, hides: bool, data: st.DataObject
) -> None:
    passes = set(passing) if filtered else set(range(ITEMS))
    left = passes - (set(seen) if hides else set())
    named = data.draw(st.none() | st.integers(0, min(k, len(left))))
    length = min(k, len(left)) if named is None else data.draw(st.integers(0, named))
    mask = np.zeros((1, ITEMS), bool)
    mask[0, list(passes)] = True
    found = reasons_of(
        np.array([length]),
        k,
        ITEMS,
        Passing.of(mask, np.zeros(1, np.int64)) if filtered else None,
        Jagged.of_lengths(np.array(seen, np.int64), np.array([len(seen)])) if hides else None,
        None if named is None else np.array([named]),
    )
    assert found.tolist() == [by_hand(passes, set(seen) if hides else set(), k, named, length)]


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train a pipeline whose sources name 6 items, and whose lists have one item of a shelf."""
    folder = tmp_path_factory.mktemp("short")
    rng = np.random.default_rng(0)
    log = pd.DataFrame(
        {"user": np.repeat(np.arange(60), 6), "at": np.tile(1_700_000_000 + np.arange(6), 60)}
    )
    log["item"] = rng.integers(20, size=len(log))
    items = pd.DataFrame({"item": np.arange(20), "shelf": [f"s{row % 4}" for row in range(20)]})
    names = ["item", "shelf"]
    config: dict[str, Any] = {
        "data": {
            "interactions": str(folder / "log.parquet"),
            "items": str(folder / "i.parquet"),
            "users": str(folder / "u.parquet"),
        },
        "schema": {
            "interactions": {"user": "user", "item": "item", "time": {"column": "at", "unit": "s"}},
            "items": {"key": "item"},
            "users": {"key": "user"},
            "features": [
                *({"name": name, "table": "items", "kind": "categorical"} for name in names),
                {"name": "age", "table": "users", "kind": "numeric"},
            ],
        },
        "split": {"kind": "leave_one_out"},
        "model": {
            "kind": "pipeline",
            "sources": [
                {"model": {"kind": "item_knn"}, "take": 6},
                {"model": {"kind": "markov"}, "take": 6},
                {"new_items": {"days": 0.00002}, "take": 6},
            ],
            "rules": [{"at_most": 1, "of": "shelf"}],
        },
        "evaluation": {"ks": [5], "baselines": ["popularity"], "bootstrap_samples": 5},
        "training": {"metric": "ndcg_at_5"},
        "tracking": {"enabled": False},
        "output": str(folder / "runs"),
    }
    log.to_parquet(folder / "log.parquet")
    items.to_parquet(folder / "i.parquet")
    pd.DataFrame({"user": np.arange(60), "age": np.arange(60)}).to_parquet(folder / "u.parquet")
    return recsys.train(config, quiet=True).bundle


def test_a_list_of_a_pipeline_is_short_by_candidates_or_by_rules(
    pipeline: Path, tmp_path: Path
) -> None:
    every = list(range(20))
    rows: list[dict[str, Any]] = [
        {"history": [1, 2]},  # four shelves
        {"history": [1, 2], "where": "item < 3"},
        {"history": every[:-2]},
        {"history": []},
    ]
    requests = pd.DataFrame(
        [{"user": number, "where": None, **one} for number, one in enumerate(rows)]
    )
    found = recsys.score(pipeline, tmp_path / "out", requests=requests, k=5)
    parts = pd.read_parquet(tmp_path / "out" / "part-00000-00000.parquet")
    assert parts.reason.tolist() == ["rules", "filtered", "exhausted", "rules"]
    assert parts["items"].str.len().tolist()[0] <= 4
    assert (found["lists_short_by_rules"], found["lists_short_by_candidates"]) == (2, 0)
    assert (found["lists_short_by_filters"], found["short_lists"]) == (1, 4)
    # Of 18 items that pass and are unseen the sources name 6 to 18, and never as many as 17.
    more = recsys.score(pipeline, tmp_path / "more", requests=requests.head(1), k=17)
    assert (more["lists_short_by_rules"], more["lists_short_by_candidates"]) == (0, 1)


def test_sources_that_read_items_alone_need_no_table_of_users(
    pipeline: Path, tmp_path: Path
) -> None:
    log = pd.DataFrame({"user": [1, 1, 2], "item": [1, 2, 3], "at": 1_700_000_000})
    found = recsys.score(pipeline, tmp_path / "out", history=log, k=2)
    assert found["users"] == 2


def test_lists_by_popularity_are_counted_source_by_source(pipeline: Path, tmp_path: Path) -> None:
    """New items are named by their attributes whatever the history: they do not count."""
    requests = pd.DataFrame({"user": [1, 2, 3], "history": [[1, 2], [], []]})
    found = recsys.score(pipeline, tmp_path / "out", requests=requests, k=2)
    assert found["lists_by_popularity"] == 2
    assert found["sources_by_popularity"] == {"item_knn": 2, "markov": 2}
    assert "filters" not in found
