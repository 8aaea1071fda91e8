"""Types of events: what a row counts, which rows are asked for, and which take others back."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from recsys.core.errors import DataError
from recsys.features.table_roles import EventTypes, InteractionsTable
from recsys.features.tables.checked import Tables
from recsys.features.tables.undone import taken_back

Read = Callable[..., Tables]
EVENTS = {"column": "event", "weights": {"view": 1, "cart": 3, "purchase": 10}}
UNDO = {**EVENTS, "undo": {"return": "purchase", "cancel": "purchase"}}
BOUGHT = {"column": "event", "one_of": ["purchase"]}


def typed(read_shop: Read, types: list[Any], roles: dict[str, Any], **more: Any) -> Tables:
    return read_shop(log={"event": types}, roles=roles, **more)


def test_a_row_weighs_its_weight_times_that_of_its_type(read_shop: Read) -> None:
    types = ["view", "purchase", "cart", "view", "cart"]
    roles = {"events": EVENTS, "targets": BOUGHT}
    events = typed(read_shop, types, roles).events
    assert events.weight.tolist() == [1 * 1, 2 * 10, 1 * 3, 1 * 1, 0.5 * 3]
    assert events.type is not None
    assert events.type.tolist() == [0, 2, 1, 0, 1]
    assert events.target is not None
    assert np.flatnonzero(events.target).tolist() == [1]
    alone = typed(read_shop, types, {**roles, "weight": None}).events
    assert alone.weight.tolist() == [1, 10, 3, 1, 3]


def test_types_may_be_whole_numbers(read_shop: Read) -> None:
    events = {"column": "event", "weights": {1: 1, 4: 5}}
    found = typed(read_shop, [1, 4, 4, 1, 1], {"events": events, "weight": None}).events
    assert found.weight.tolist() == [1, 5, 5, 1, 1]


def test_a_type_that_is_not_named_is_an_error_or_counted(read_shop: Read) -> None:
    types = ["view", "purchase", "purchse", "view", None]
    with pytest.raises(DataError, match="'purchse' is not among view, cart, purchase") as refused:
        typed(read_shop, types, {"events": EVENTS})
    assert "did you mean 'purchase'?" in str(refused.value)
    assert "policies.unknown_events: drop" in str(refused.value)
    tables = typed(read_shop, types, {"events": EVENTS}, policies={"unknown_events": "drop"})
    assert len(tables.events) == 3
    assert sorted((drop.rows, drop.column) for drop in tables.drops) == [(1, "event")] * 2


def test_types_are_neither_fractions_nor_lists(read_shop: Read) -> None:
    with pytest.raises(DataError, match="types are text, or whole numbers"):
        typed(read_shop, [1.5, 1, 1, 1, 1], {"events": EVENTS})


def test_a_label_may_be_one_of_several_types(read_shop: Read) -> None:
    roles = {"label": {"column": "event", "one_of": ["purchase", "cart"]}}
    found = typed(read_shop, ["view", "purchase", "cart", "view", "view"], roles).events
    assert found.label is not None
    assert found.label.tolist() == [0, 1, 1, 0, 0]
    with pytest.raises(DataError, match="the label is null"):
        typed(read_shop, ["view", None, "cart", "view", "view"], roles)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"undo": {"view": "purchase"}}, "'view' is in weights and in undo"),
        ({"undo": {"return": "purchases"}}, "none of the weights.*did you mean 'purchase'"),
        ({"seen": ["buy"]}, "seen: 'buy' is none of the weights"),
        ({"weights": {"view": 0}}, "all weights are 0"),
        ({"weights": {}}, "at least 1 item"),
    ],
)
def test_what_types_cannot_mean_is_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        EventTypes.model_validate({**EVENTS, **wrong})


def test_targets_and_a_label_do_not_go_together() -> None:
    with pytest.raises(ValidationError, match="keep one of them"):
        InteractionsTable.model_validate_json(
            json.dumps({"user": "u", "item": "i", "targets": BOUGHT, "label": {"column": "event"}})
        )


def bought_and_returned(types: str, items: list[int] | None = None) -> list[int]:
    """Return by which row each was taken back: p purchase, r return, c cancel, v view."""
    role = EventTypes.model_validate(UNDO)
    code = [{"v": 0, "p": 2, "r": 3, "c": 4}[one] for one in types]
    item = np.array(items or [0] * len(types), np.int32)
    return taken_back(np.zeros(len(types), np.int32), item, np.array(code, np.int8), role).tolist()


def test_a_return_takes_back_the_last_purchase_that_is_left() -> None:
    assert bought_and_returned("pr") == [1, -1]
    assert bought_and_returned("rp") == [-1, -1]  # nothing was there to return
    assert bought_and_returned("ppr") == [-1, 2, -1]
    assert bought_and_returned("pprc") == [3, 2, -1, -1]  # two of them take back two
    assert bought_and_returned("prr") == [1, -1, -1]  # the second finds none
    assert bought_and_returned("rpvr") == [-1, 3, -1, -1]
    assert bought_and_returned("ppr", [0, 1, 0]) == [2, -1, -1]


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1), st.integers(0, 4)), max_size=40))
def test_returns_match_as_a_stack_does(rows: list[tuple[int, int, int]]) -> None:
    rows = sorted(rows, key=lambda row: row[0])
    expected, stacks = [-1] * len(rows), dict[tuple[int, int], list[int]]()
    for place, (user, item, kind) in enumerate(rows):
        stack = stacks.setdefault((user, item), [])
        if kind == 2:
            stack.append(place)
        elif kind > 2 and stack:
            expected[stack.pop()] = place
    user, item, kind = np.array(rows or [(0, 0, 0)] * 0, np.int64).reshape(-1, 3).T
    found = taken_back(
        user.astype(np.int32),
        item.astype(np.int32),
        kind.astype(np.int8),
        EventTypes.model_validate(UNDO),
    )
    assert found.tolist() == expected


def test_rows_that_take_back_and_those_taken_back_leave_and_are_counted(read_shop: Read) -> None:
    log = {
        "user": [1, 1, 1, 2, 3],
        "item": [10, 10, 10, 12, 11],
        "event": ["purchase", "return", "return", "view", "purchase"],
    }
    tables = read_shop(log=log, roles={"events": UNDO})
    assert tables.events.row.tolist() == [3, 4]
    assert tables.events.undone is None
    said = [str(drop) for drop in tables.drops]
    assert len(said) == 3
    assert "1 rows of interactions, column 'event': takes back an earlier 'purchase'" in said[0]
    assert "1 rows of interactions, column 'event': finds no earlier 'purchase'" in said[1]
    assert "1 rows of interactions, column 'event': taken back by a later row" in said[2]


def test_a_log_of_which_all_was_taken_back_is_refused(read_shop: Read) -> None:
    log = {
        "user": [1, 1, 1, 1],
        "item": [10, 11, 11, 10],
        "time": [1_700_000_000 + k for k in range(4)],
        "weight": None,
        "place": ["a"] * 4,
        "event": ["purchase", "purchase", "return", "return"],
    }
    with pytest.raises(DataError, match="later rows take all back"):
        read_shop(log=log, roles={"events": UNDO, "weight": None})
