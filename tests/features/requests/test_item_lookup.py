"""Rows of items against Arrow's own lookup, for few ids and for many."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from recsys.features.requests import item_lookup
from recsys.features.requests.item_lookup import rows_of_items

TEXT = pa.array([f"i{number:05}" for number in range(5000)], pa.large_string())
WHOLE = pa.array(np.arange(-2500, 2500) * 7919)


@pytest.mark.parametrize("ids", [TEXT, WHOLE], ids=["text", "numbers"])
@pytest.mark.parametrize("count", [0, 1, 7, 4000])
def test_few_and_many_ids_have_the_rows_that_arrow_gives(ids: pa.Array, count: int) -> None:
    rng = np.random.default_rng(count)
    picked = ids.take(pa.array(rng.integers(0, len(ids), count)))
    stranger = pa.array(["nobody" if ids is TEXT else 1, None], ids.type)
    values = pa.concat_arrays([picked, stranger])
    wanted = np.asarray(pc.index_in(values, ids).fill_null(-1), np.int64)
    np.testing.assert_array_equal(rows_of_items(values, ids), wanted)
    assert (rows_of_items(values, ids)[-2:] == -1).all()


def test_a_catalogue_is_hashed_once_and_forgotten_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    ids, hashed = pa.array(list(range(1000))), list[int]()
    real = item_lookup.hash_values

    def counting(values: pa.Array) -> np.ndarray:
        hashed.append(len(values))
        return real(values)

    monkeypatch.setattr(item_lookup, "hash_values", counting)
    assert rows_of_items(ids[:0], ids).tolist() == []
    for _ in range(3):
        assert rows_of_items(ids[5:6], ids)[0] == 5
    assert hashed == [1000, 1, 1, 1]
    before = len(item_lookup._made)
    del ids
    assert len(item_lookup._made) == before - 1


def test_ids_that_share_a_hash_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(item_lookup, "hash_values", lambda values: np.zeros(len(values), np.int64))
    ids = pa.array([f"x{number}" for number in range(500)])
    assert rows_of_items(pa.array(["x7", "y"]), ids).tolist() == [7, -1]
    assert rows_of_items(pa.array(["x3", None]), pa.array([*["q"] * 0, "x3"])).tolist() == [0, -1]
