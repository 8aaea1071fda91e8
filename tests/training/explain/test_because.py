"""The place of an item in a list."""

import numpy as np
import pytest

from recsys.training.explain.because import place_in_list


@pytest.mark.parametrize(
    ("item", "hidden", "place"),
    [(7, [], 1), (2, [], 3), (2, [7], 2), (2, [7, 4, 2], 1), (7, [7], 1), (9, [], 0), (9, [9], 0)],
)
def test_hidden_items_take_no_place_but_the_item_itself_does(
    item: int, hidden: list[int], place: int
) -> None:
    assert place_in_list(np.array([7, 4, 2]), item, np.array(hidden, np.int64)) == place
