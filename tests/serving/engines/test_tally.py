"""Counts of lists: over batches, however they are put together."""

import json
from typing import Any

import pyarrow as pa

from recsys.serving.engines.tally import Tally


def answers(reasons: list[str | None], **facts: Any) -> pa.Table:
    """Answers to a batch with some facts."""
    metadata = {name: json.dumps(value) for name, value in facts.items()}
    return pa.table({"reason": pa.array(reasons, pa.string())}).replace_schema_metadata(metadata)


BATCHES = [
    answers([None, "filtered"], unknown_history_items=0, first_unknown_history_item=None),
    answers(
        ["filtered", "exhausted", None],
        lists_by_popularity=2,
        listed_items=31,
        unknown_history_items=2,
        first_unknown_history_item="i9",
        sources_by_popularity={"a": 1, "b": 2},
    ),
    answers(
        [None],
        lists_by_popularity=1,
        listed_items=10,
        unknown_history_items=1,
        first_unknown_history_item="i7",
        unknown_listed_items=4,
        first_unknown_listed_item="x",
        sources_by_popularity={"b": 1},
    ),
]


def counted(batches: list[pa.Table]) -> Tally:
    tally = Tally()
    for batch in batches:
        tally.add(batch)
    return tally


def facts_of(tally: Tally) -> dict[str, Any]:
    items = {name: getattr(tally, name) for name in ("listed", "unknown")}
    return vars(tally) | {name: (one.count, one.first) for name, one in items.items()}


def test_counts_by_hand() -> None:
    assert facts_of(counted(BATCHES)) == {
        "users": 6,
        "short": {"filtered": 2, "exhausted": 1},
        "popular": 3,
        "of_sources": {"a": 1, "b": 3},
        "listed_items": 41,
        "unknown": (3, "i9"),
        "listed": (4, "x"),
    }
    assert counted(BATCHES[:1]).popular is None


def test_tallies_of_parts_add_up_to_that_of_the_whole() -> None:
    for cut in range(len(BATCHES) + 1):
        tally = counted(BATCHES[:cut])
        tally.merge(counted(BATCHES[cut:]))
        assert facts_of(tally) == facts_of(counted(BATCHES))
