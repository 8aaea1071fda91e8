"""Names on the map of items: on a page of either width none runs into another or off the page."""

from itertools import combinations

import numpy as np
import pytest

from recsys.training.reports.map import _HEIGHT, _NARROW, _WIDE, _WIDTH, _names, _Space, _to_name


@pytest.mark.parametrize("room", [_WIDE, _NARROW])
@pytest.mark.parametrize("seed", range(5))
def test_names_keep_apart_and_on_the_page(room: _Space, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, y = rng.uniform(24, _WIDTH - 24, 400), rng.uniform(24, _HEIGHT - 24, 400)
    counts = rng.permutation(400)
    named = _to_name(x, y, counts, room)
    assert 1 < len(named) <= room.most
    assert int(counts.argmax()) in named
    left = {i: x[i] - room.width if x[i] > _WIDTH / 2 else x[i] for i in named}
    assert all(start >= 0 and start + room.width <= _WIDTH for start in left.values())
    for i, j in combinations(named, 2):
        assert abs(left[i] - left[j]) > room.width or abs(y[i] - y[j]) > room.height


def test_a_narrow_page_has_the_names_of_the_most_taken_items() -> None:
    """Three dots in a row: the wide page has room for all of them, the narrow one for one."""
    x, y = np.array([100.0, 330.0, 860.0]), np.array([300.0, 300.0, 300.0])
    found = _names(x, y, np.array([3, 1, 2]))
    assert {i: (name.left, name.wide, name.narrow) for i, name in found.items()} == {
        0: (False, True, True),
        1: (False, True, False),
        2: (True, True, False),  # 860 - 422 is within the name that starts at 100
    }
    assert [name.css for name in found.values()] == [
        "name right",
        "name right wide-page",
        "name left wide-page",
    ]
