"""Reserved places beside cases by hand and a slow reading, request by request."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.core.errors import ConfigError
from recsys.core.strict import parse
from recsys.data.batch import Jagged
from recsys.features.pipeline.candidates import Candidates
from recsys.features.pipeline.ranked import Ranked
from recsys.features.pipeline.reserving import reserved
from recsys.pipeline.config import PipelineConfig

Pin = tuple[int, int]


def ranked_of(rows: list[int], k: int, pins: list[Pin]) -> Ranked:
    scores = np.arange(len(rows), 0, -1, dtype=np.float32)[None]
    found = Ranked.of(np.array([rows]).reshape(1, -1), scores, k)
    for item, place in pins:
        found = found.pinned(np.array([item]), np.array([place]), k)
    return found


def listed(
    rows: list[int], named: list[int], most: int, k: int, pins: list[Pin] | None = None
) -> list[int]:
    ranked = ranked_of(rows, k, pins or [])
    found = reserved(ranked, np.array([named]).reshape(1, -1), most, k)
    every = found.rows[found.rows >= 0].tolist()
    assert len(set(every)) == len(every)
    assert set(every) >= set(ranked.rows[ranked.rows >= 0].tolist())
    own, scores = found.listed(k)
    assert ((own >= 0) == (scores > -np.inf)).all()
    return [item for item in own[0].tolist() if item >= 0]


@pytest.mark.parametrize(
    ("rows", "named", "most", "k", "wanted"),
    [
        ([0, 1, 2, 3, 4], [8, 9], 2, 4, [0, 1, 8, 9]),
        ([0, 1, 2, 3, 4], [8, 9], 1, 4, [0, 1, 2, 8]),
        ([0, 1, 2, 3, 4], [8, 1], 2, 4, [0, 1, 2, 8]),  # one is there already
        ([0, 1, 2, 8, 4], [9, 8], 2, 4, [0, 1, 8, 9]),  # and stays
        ([0, 1, 2, 3, 8], [9, 8], 1, 4, [0, 1, 2, 9]),  # the source's own order
        ([8, 9, 2, 3], [8, 9], 1, 4, [8, 9, 2, 3]),  # more than asked for
        ([0, 1], [8, 9], 1, 4, [0, 1, 8]),  # a short list gets longer
        ([], [8, 9], 2, 4, [8, 9]),
        ([0, 1, 2], [], 2, 3, [0, 1, 2]),
        ([0, 1, 2], [8, -1], 2, 3, [0, 1, 8]),
        ([0, 1, 2], [7, 8, 9], 3, 2, [7, 8]),  # more places than there are
    ],
)
def test_by_hand(rows: list[int], named: list[int], most: int, k: int, wanted: list[int]) -> None:
    assert listed(rows, named, most, k) == wanted


def test_pins_stay() -> None:
    assert listed([0, 1, 2, 3], [8, 9], 2, 4, [(7, 3)]) == [0, 8, 9, 7]
    assert listed([0, 1, 2, 3], [8, 9], 2, 4, [(8, 0)]) == [8, 0, 1, 9]  # a pin counts as one


def slowly(rows: list[int], named: list[int], most: int, k: int, pins: list[Pin]) -> list[int]:
    """Return the list, an item at a time."""
    pinned = {place: item for item, place in pins}
    rest = [item for item in rows if item not in pinned.values()]
    free = k - len(pinned)
    own = rest[:free]
    there = [item for item in named if item in own or item in pinned.values()]
    for item in [one for one in named if one not in there][: max(0, most - len(there))]:
        if len(own) == free:
            others = [one for one in own if one not in named]
            if not others:
                break
            own.remove(others[-1])
        own.append(item)
    found = []
    for place in range(k):
        if place in pinned:
            found.append(pinned[place])
        elif own:
            found.append(own.pop(0))
    return found


@given(
    st.lists(st.integers(0, 9), unique=True, max_size=8),
    st.lists(st.integers(0, 12), unique=True, max_size=5),
    st.integers(1, 4),
    st.integers(1, 6),
    st.lists(st.tuples(st.integers(20, 22), st.integers(0, 5)), max_size=2),
)
def test_as_an_item_at_a_time(
    rows: list[int], named: list[int], most: int, k: int, drawn: list[Pin]
) -> None:
    by_place = {place: item for item, place in drawn if place < k}
    pins = [(item, place) for item, place in {i: p for p, i in by_place.items()}.items()]
    assert listed(rows, named, most, k, pins) == slowly(rows, named, most, k, pins)


def test_many_requests_are_each_as_alone() -> None:
    rng = np.random.default_rng(0)
    rows = np.stack([rng.permutation(30)[:12] for _ in range(50)])
    named = np.stack([rng.permutation(40)[:5] for _ in range(50)])
    named[::7, 2:] = -1
    together = reserved(Ranked.of(rows, -rows.astype(np.float32), 6), named, 3, 6).listed(6)[0]
    for one in range(50):
        alone = named[one][named[one] >= 0].tolist()
        assert together[one].tolist() == listed(rows[one].tolist(), alone, 3, 6)


def test_what_a_source_names_in_its_order() -> None:
    rank = np.array([[2, 1], [1, 0], [0, 2], [1, 3]], np.int32)
    zeros = np.zeros((4, 2), np.float32)
    items = Jagged.of_lengths(np.array([3, 5, 9, 4]), np.array([3, 1, 0]))
    found = Candidates(items, rank, zeros, zeros, np.array([2, 3]))
    assert found.named_by(0, 2).tolist() == [[5, 3], [4, -1], [-1, -1]]
    assert found.named_by(1, 3).tolist() == [[3, 9, -1], [-1, -1, 4], [-1, -1, -1]]
    assert found.named_by(1, 1).tolist() == [[3], [-1], [-1]]


def test_a_rule_for_no_source_is_refused() -> None:
    sources = [{"model": {"kind": "ease"}}, {"new_items": {}}]
    rules = [{"at_most": 3, "of": "brand"}, {"reserve": 2, "of": "new_item"}]
    with pytest.raises(ConfigError, match=r"rule 2 \(reserve\): there is no source 'new_item' "):
        parse(PipelineConfig, {"sources": sources, "rules": rules}, source="a.yaml")
    rules[1]["of"] = "new_items"
    found = parse(PipelineConfig, {"sources": sources, "rules": rules}, source="a.yaml")
    assert found.rules[1].of == "new_items"  # type: ignore[union-attr]
