"""What `check` says where a model of sessions is asked for what its session has already."""

from pathlib import Path

import numpy as np
import pytest
import yaml

from recsys.features.dataset.sessions import Sessions
from recsys.features.propose.funnel import repeated_in_session
from recsys.training.families.load import load_config
from recsys.training.families.registry import family_of

SAID = "evaluation.queries is events"


def test_an_item_is_repeated_where_its_session_has_it_near_enough_before() -> None:
    items = np.array([4, 5, 4, 4, 5, 9, 4], np.int32)
    # Rows 0, 2, 3 and 5 are one session, 1, 4 and 6 the other.
    order = np.array([0, 2, 3, 5, 1, 4, 6])
    sessions = Sessions(order, np.array([0, 4, 7]), np.zeros(2, np.int64))
    found = repeated_in_session(items, sessions, history_length=10)
    assert np.flatnonzero(found).tolist() == [2, 3, 4]
    far = np.array([4, 5, 6, 4, 5], np.int32)
    whole = Sessions(np.arange(5), np.array([0, 5]), np.zeros(1, np.int64))
    assert repeated_in_session(far, whole, 3).tolist() == [False, False, False, True, True]
    assert not repeated_in_session(far, whole, 2).any()


def notes(folder: Path, **changes: dict[str, object]) -> list[str]:
    """What `check` says of visits of which each views two items and buys the second."""
    lines = ["user,item,at,type,visit"]
    for k in range(120):
        start = 1_700_000_000 + 10_000 * k
        for step, (item, kind) in enumerate(((k, "view"), (k + 3, "view"), (k + 3, "buy"))):
            lines.append(f"u{k % 40},i{item % 13},{start + 60 * step},{kind},v{k}")
    (folder / "log.csv").write_text("\n".join(lines) + "\n")
    interactions = {
        "user": "user",
        "item": "item",
        "session": "visit",
        "time": {"column": "at", "unit": "s"},
        "targets": {"column": "type", "one_of": ["buy"]},
    }
    raw = {
        "data": {"interactions": "log.csv"},
        "schema": {
            "interactions": {**interactions, **changes.get("interactions", {})},
            "features": [{"name": "item", "table": "items", "kind": "categorical"}],
        },
        "model": {"kind": "session"},
        "evaluation": {"queries": "events", "filter_seen": False, **changes.get("evaluation", {})},
    }
    (folder / "recsys.yaml").write_text(yaml.safe_dump(raw))
    config = load_config(folder / "recsys.yaml")
    return [note for note in family_of(config).inspect(config).notes if SAID in note]


def test_check_says_how_many_queries_repeat_their_session(tmp_path: Path) -> None:
    (said,) = notes(tmp_path)
    assert "12 of 12 test queries (100%)" in said
    assert "evaluation.queries: users" in said


@pytest.mark.parametrize(
    "changes",
    [
        {"evaluation": {"queries": "users"}},
        {"evaluation": {"filter_seen": True}, "interactions": {"targets": None}},
        {"interactions": {"where": [{"column": "type", "one_of": ["view"]}], "targets": None}},
    ],
    ids=["asked before the part", "had items do not count", "only views are read"],
)
def test_nothing_is_said_where_no_answer_is_a_repeat(
    changes: dict[str, dict[str, object]], tmp_path: Path
) -> None:
    assert not notes(tmp_path, **changes)


def test_of_all_rows_alike_the_share_is_said_with_the_baseline(tmp_path: Path) -> None:
    (said,) = notes(tmp_path, interactions={"targets": None})
    assert "12 of 24 test queries (50%)" in said
    assert "session_items" in said
