"""Equal rows, titles and shares, counted by hand."""

from pathlib import Path

import numpy as np
import pytest

from recsys.features.propose.repeats import repeat_warnings, spread
from tests.features.propose.test_inspect import START, report


def test_equal_rows_and_titles_are_counted(tmp_path: Path) -> None:
    log = {
        "user": [1, 1, 1, 2, 2, 2],
        "item": [1, 1, 1, 2, 2, 2],
        # User 1: three rows of one instant, on two devices. User 2: twice the same row.
        "time": [START, START, START, START, START, START + 1],
        "device": ["a", "a", "b", "c", "c", "c"],
    }
    context = [{"name": "device", "table": "interactions", "kind": "categorical"}]
    items = {"item": [1, 2, 3, 4], "name": ["Mug ", "mug", "Cup", None]}
    found = report(tmp_path, log, [0] * 6, context=context, items=items, title="name")
    assert found.repeats.exact_rows == 2
    assert found.repeats.same_title == 2
    assert found.repeats.titles == (("mug", 2),)
    text = "\n".join(found.warnings)
    assert "2 rows are equal to another one in every column that is read (33%)" in text
    assert "2 of 4 items share their title with another ('mug' is that of 2)" in text
    without = report(tmp_path, log, [0] * 6, items=items)
    assert without.repeats.exact_rows == 3  # the device is not read
    assert without.repeats.same_title is None


def test_equal_shares_count_as_they_are_and_a_few_with_most_as_few() -> None:
    even = spread(np.full(10, 3), np.full(50, 3))
    assert (round(even.users, 6), round(even.items, 6)) == (10, 50)
    # 1/2, 1/4, 1/4: entropy ln 2 / 2 + ln 4 / 2 = ln 2^1.5
    assert spread(np.array([2, 1, 1, 0]), np.array([1])).users == pytest.approx(2**1.5)
    assert spread(np.array([1]), np.array([75, *[1] * 25])).top_items == 0.75


def test_few_repeats_are_no_warning(tmp_path: Path) -> None:
    log = {"user": [1, 2], "item": [1, 2], "time": [START, START]}
    found = report(tmp_path, log, [0, 0])
    assert found.repeats.exact_rows == 0
    assert repeat_warnings(found.repeats, 2, 4) == []
