"""Rules beside cases worked out by hand and a slow reading of them, request by request."""

from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from recsys.core.errors import ConfigError
from recsys.core.strict import StrictModel, parse
from recsys.features.filters.columns import CatalogueColumns
from recsys.features.filters.predicate import passing
from recsys.features.pipeline import diversity, rules
from recsys.features.pipeline.rules import RuleError, Rules
from recsys.features.schema import Schema
from recsys.pipeline.rules import Rule

SHOP = pa.table(
    {
        "sku": [f"i{row}" for row in range(8)],
        "brand": pa.array(["a", "a", "b", "a", None, "c", "b", "a"]).dictionary_encode(),
        "shelf": [1, 1, 2, 2, None, 3, 1, 3],
        "hot": [True, False, None, True, False, False, None, False],
        "tags": [["x", "y"], ["x"], ["y", "y"], [], None, ["x", "y", "z"], ["z", None], ["x"]],
        "price": [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, None],
        "nothing": pa.nulls(8),
    }
)
SIZE = len(SHOP)
SCHEMA = Schema.model_validate_json(
    """{"interactions": {"user": "user", "item": "sku"},
        "features": [{"name": "sku", "table": "items", "kind": "categorical"}]}"""
)
COLUMNS = CatalogueColumns(SCHEMA, lambda: SHOP)
# Their cosines are -1, 0 and 1, or 0 beside the zero vector.
VECTORS = np.asarray(
    [[1, 0], [2, 0], [0, 1], [-1, 0], [0, 0], [0, -4], [0, 0.5], [1, 0]], np.float32
)


class Settings(StrictModel):
    """A configuration with rules."""

    rules: tuple[Rule, ...] = ()


def read(*entries: dict[str, Any]) -> tuple[Rule, ...]:
    return parse(Settings, {"rules": list(entries)}, source="a.yaml").rules


def compiled(*entries: dict[str, Any], k: int | None = None) -> Rules:
    return Rules.compiled(read(*entries), COLUMNS, SIZE, VECTORS, k)


def listed(
    entries: list[dict[str, Any]],
    rows: list[int],
    scores: list[float],
    k: int,
    eligible: list[int] | None = None,
) -> tuple[list[int], list[float]]:
    """Return the list of one request without its empty places."""
    may = None if eligible is None else np.isin(np.arange(SIZE), eligible)[None]
    own_rows, own_scores = compiled(*entries).apply(
        np.asarray([rows]), np.asarray([scores], np.float32), k, may
    )
    assert own_rows.shape == own_scores.shape == (1, k)
    assert (own_rows.dtype, own_scores.dtype) == (np.int64, np.float32)
    return filled(own_rows[0], own_scores[0])


def filled(rows: NDArray[Any], scores: NDArray[Any]) -> tuple[list[int], list[float]]:
    """Return a list without its empty places, which are at its end."""
    count = int((rows >= 0).sum())
    assert (rows[count:] == -1).all()
    assert (scores[count:] == -np.inf).all()
    return rows[:count].tolist(), scores[:count].tolist()


def at_most(most: int, of: str) -> dict[str, Any]:
    return {"at_most": most, "of": of}


def diversify(by: str, weight: float) -> dict[str, Any]:
    return {"diversify": {"by": by, "lambda": weight}}


def boost(where: str, by: float) -> dict[str, Any]:
    return {"boost": {"where": where, "by": by}}


def pin(position: int, where: str) -> dict[str, Any]:
    return {"pin": {"position": position, "where": where}}


ALL = list(range(8))
FALLING = [8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0]
A, B, C = "brand = 'a'", "brand = 'b'", "brand = 'c'"
BY_HAND: dict[str, tuple[list[dict[str, Any]], list[int], list[float], int, list[int]]] = {
    "no rules": ([], ALL, FALLING, 3, [0, 1, 2]),
    "fewer candidates than k": ([], [3, 1], [2, 1], 3, [3, 1]),
    "at most 1 of a brand; no brand is no limit": (
        [at_most(1, "brand")],
        ALL,
        FALLING,
        8,
        [0, 2, 4, 5],
    ),
    "a list that gets short stays short": ([at_most(1, "brand")], [0, 1, 3], [3, 2, 1], 2, [0]),
    "the limit is looked at before the cut": (
        [at_most(2, "brand")],
        [0, 1, 3, 7, 2],
        [5, 4, 3, 2, 1],
        3,
        [0, 1, 2],
    ),
    "at most 1 of true and false": ([at_most(1, "hot")], ALL, FALLING, 8, [0, 1, 2, 6]),
    # 0 has x and y, so 1, 2, 5 and 7 are too many; 6 has z, which 5, left out, does not count.
    "an item with a list counts for each of its values": (
        [at_most(1, "tags")],
        ALL,
        FALLING,
        8,
        [0, 3, 4, 6],
    ),
    # Scaled: 1, 1/2, 0. 1 is of the shelf of 0: 1/2 * 1/2 - 1/2 < 1/2 * 0.
    "the next item is of another shelf": (
        [diversify("shelf", 0.5)],
        [0, 1, 2],
        [3, 2, 1],
        3,
        [0, 2, 1],
    ),
    "a small weight changes less": ([diversify("shelf", 0.25)], [0, 1, 2], [3, 2, 1], 3, [0, 1, 2]),
    "items without a value are unlike each other": (
        [diversify("hot", 0.5)],
        [2, 6, 0],
        [3, 2, 1],
        3,
        [2, 6, 0],
    ),
    # Jaccard to 0: of 1 1/2, of 5 2/3, of 6 0. Values at lambda 1/2 with relevance 1, .9, .8, 0:
    # 1: .45 - .25, 5: .4 - .333, 6: 0. Then 5 is 1/3 like 1, still 2/3 like 0: .067; 6: 0.
    "lists are alike in the values that they share": (
        [diversify("tags", 0.5)],
        [0, 5, 1, 6],
        [10, 8, 9, 0],
        4,
        [0, 1, 5, 6],
    ),
    # Cosine to 0: of 7 1, of 3 -1, of 2 0. At lambda 1/2 with relevance 1, 2/3, 1/3, 0 they have
    # 1/3 - 1/2, 1/6 - 0 and 0 + 1/2; then 2 has 1/6 - 0.
    "vectors are alike by their angle": (
        [diversify("vectors", 0.5)],
        [0, 7, 2, 3],
        [3, 2, 1, 0],
        4,
        [0, 3, 2, 7],
    ),
    # 1 has 0 - 1/2 * 1/2, less than an item of no score and no tags would have.
    "a short list has no holes": ([diversify("tags", 0.5)], [0, 1], [2, 1], 3, [0, 1]),
    "lambda 0 changes nothing": ([diversify("brand", 0)], ALL, FALLING, 4, [0, 1, 2, 3]),
    "lambda 1 is about similarity alone": (
        [diversify("brand", 1)],
        [0, 1, 3, 2, 5],
        [5, 4, 3, 2, 1],
        5,
        [0, 2, 5, 1, 3],
    ),
    "what is boosted comes up": ([boost(C, 3)], [0, 1, 5], [3, 2, 1.5], 3, [5, 0, 1]),
    "at equal scores the order stays": ([boost(C, 2)], [0, 1, 5], [3, 2, 1.5], 3, [0, 5, 1]),
    "a score below 0 comes up, too": ([boost(C, 4)], [0, 5], [-1, -2], 2, [5, 0]),
    "less than 1 is down": ([boost(A, 0.25)], [0, 5], [3, 2], 2, [5, 0]),
    "a candidate comes to its place": ([pin(1, B)], [0, 1, 2, 6], [4, 3, 2, 1], 3, [2, 0, 1]),
    "down, too": ([pin(3, A)], [0, 2, 5, 6], [4, 3, 2, 1], 4, [2, 5, 0, 6]),
    "one from behind the cut": ([pin(2, B)], [0, 1, 3, 2], [4, 3, 2, 1], 2, [0, 2]),
    "without one the first of the catalogue": ([pin(1, B)], [0, 1], [2, 1], 2, [2, 0]),
    "without any the list is as it was": ([pin(1, "price > 9")], [0, 1], [2, 1], 2, [0, 1]),
    "a place behind the list does nothing": ([pin(3, B)], [0, 2], [2, 1], 2, [0, 2]),
    "a short list ends with the pin": ([pin(5, B)], [2, 0, 1], [3, 2, 1], 6, [0, 1, 2]),
    "an empty list, too": ([pin(5, B)], [], [], 6, [2]),
    "two pins at a place are in their order": (
        [pin(1, B), pin(1, C)],
        [0, 1, 2, 5],
        [4, 3, 2, 1],
        4,
        [2, 5, 0, 1],
    ),
    "two pins of the same items have two items": (
        [pin(1, B), pin(2, B)],
        [0, 2],
        [2, 1],
        3,
        [2, 6, 0],
    ),
    "a pin that finds no free place does nothing": (
        [pin(2, B), pin(2, C)],
        [5, 0, 2],
        [3, 2, 1],
        2,
        [5, 2],
    ),
    "a later rule leaves a pin where it is": (
        [pin(2, B), boost(C, 9), at_most(1, "brand")],
        [0, 1, 6, 5, 2],
        [5, 4, 3, 2, 1],
        5,
        [5, 6, 0],
    ),
    "and what follows is unlike it": (
        [pin(1, B), diversify("brand", 0.5)],
        [0, 2, 6, 5],
        [4, 3, 2, 1],
        4,
        [2, 0, 5, 6],
    ),
    "a pin that found nothing is like nothing": (
        [pin(1, "price > 9"), diversify("vectors", 0.5)],
        [0, 7, 2, 3],
        [3, 2, 1, 0],
        4,
        [0, 3, 2, 7],
    ),
    # 0 and 5 stay though both have x; what they have counts: 6 has z, as 5 has.
    "pins count, however many they are": (
        [pin(1, "sku = 'i0'"), pin(2, "sku = 'i5'"), at_most(1, "tags")],
        [0, 5, 6, 3],
        [4, 3, 2, 1],
        4,
        [0, 5, 3],
    ),
    # As above 1 comes before 5, behind the cut as well.
    "a pin is the best one of all that are diverse": (
        [diversify("tags", 0.5), pin(1, "sku in ('i1', 'i5')")],
        [0, 5, 1, 6],
        [10, 8, 9, 0],
        1,
        [1],
    ),
    "first the limit": ([at_most(1, "brand"), boost(B, 9)], [0, 2, 6], [3, 2, 1], 3, [2, 0]),
    "first the boost": (
        [boost("sku = 'i6'", 9), at_most(1, "brand")],
        [0, 2, 6],
        [3, 2, 1],
        3,
        [6, 0],
    ),
    "a column of nulls limits nothing": (
        [at_most(1, "nothing"), diversify("nothing", 0.5)],
        [2, 1, 0],
        [3, 2, 1],
        3,
        [2, 1, 0],
    ),
}


@pytest.mark.parametrize("case", BY_HAND)
def test_lists_are_those_worked_out_by_hand(case: str) -> None:
    entries, rows, scores, k, expected = BY_HAND[case]
    assert listed(entries, rows, scores, k)[0] == expected


def test_scores_are_those_after_boosts_and_a_pin_has_that_of_its_place() -> None:
    entries = [boost("brand in ('b', 'c')", 2), pin(2, C)]
    found = listed(entries, [0, 1, 2, 5], [4, 3, 2.5, -1], 4)
    assert found == ([2, 5, 0, 1], [5, 4, 4, 3])
    assert listed([boost(C, 2)], [5], [-1], 1) == ([5], [-0.5])
    assert listed([pin(2, A)], [0, 2, 5], [3, 2, 1], 3) == ([2, 0, 5], [2, 2, 1])
    assert listed([pin(9, C)], [0, 1], [2, 1], 9) == ([0, 1, 5], [2, 1, 1])
    assert listed([pin(1, C)], [], [], 1) == ([5], [0])


def test_a_boost_of_any_size_leaves_finite_scores() -> None:
    for by, expected in ((1e300, [5, 0, 2]), (1e-300, [0, 5, 2])):
        entry = boost("brand in ('b', 'c')", by)
        rows, scores = listed([entry, entry], [0, 5, 2], [2, 1, -1], 3)
        assert rows == expected
        assert np.isfinite(scores).all()


def test_a_pin_takes_what_the_request_may_be_answered_with() -> None:
    assert listed([pin(1, B)], [0, 1], [2, 1], 2, eligible=[0, 1, 6])[0] == [6, 0]
    assert listed([pin(1, B)], [0, 1], [2, 1], 2, eligible=[0, 1])[0] == [0, 1]
    assert listed([pin(1, B)], [0, 6], [2, 1], 2, eligible=[0, 2, 6])[0] == [6, 0]  # a candidate


def test_the_first_eligible_is_found_wherever_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "_SEARCHED", 2)
    eligible = np.zeros((4, SIZE), bool)
    eligible[0, 7] = eligible[1, [1, 3]] = eligible[3, [0, 7]] = True
    rows, scores = np.full((4, 1), 2), np.ones((4, 1), np.float32)
    found, _ = compiled(pin(1, A), pin(2, A)).apply(rows, scores, 3, eligible)
    assert found.tolist() == [[7, 2, -1], [1, 3, 2], [2, -1, -1], [0, 7, 2]]


def test_each_request_has_its_own_free_places() -> None:
    rows, scores = np.asarray([[0, 2, 5], [0, 1, 5]]), np.asarray([[3, 2, 1]] * 2, np.float32)
    eligible = np.zeros((2, SIZE), bool)
    found, _ = compiled(pin(1, B), pin(1, C)).apply(rows, scores, 3, eligible)
    assert found.tolist() == [[2, 5, 0], [5, 0, 1]]


@pytest.mark.parametrize(
    "entry", [boost("hot", 2), diversify("hot", 0.5), diversify("lists", 0.5)], ids=str
)
def test_in_long_lists_candidates_of_equal_value_keep_their_order(entry: dict[str, Any]) -> None:
    """150 items are hot; the others have no value, so that each is unlike all."""
    hot = np.arange(300) < 150
    values = [bool(one) or None for one in hot]
    table = pa.table({"hot": values, "lists": [[0, 1] if one else None for one in hot]})
    applied = Rules.compiled(read(entry), CatalogueColumns(SCHEMA, lambda: table), 300)
    rows = np.random.default_rng(0).permutation(300)
    found, _ = applied.apply(rows[None], np.ones((1, 300), np.float32), 300)
    first = hot[rows] if "boost" in entry else ~hot[rows] | (np.cumsum(hot[rows]) == 1)
    assert found[0].tolist() == [*rows[first], *rows[~first]]


def test_what_is_given_stays_as_it_is() -> None:
    rows, scores = np.asarray([ALL]), np.asarray([FALLING], np.float32)
    applied = compiled(boost(C, 9), at_most(1, "brand"), diversify("tags", 0.5), pin(1, B))
    applied.apply(rows, scores, 4)
    assert (rows.tolist(), scores.tolist()) == ([ALL], [FALLING])


def test_no_requests_have_no_lists() -> None:
    applied = compiled(boost(C, 9), at_most(1, "tags"), diversify("tags", 0.5), pin(1, B))
    rows, scores = applied.apply(np.zeros((0, 5), np.int64), np.zeros((0, 5), np.float32), 3)
    assert rows.shape == scores.shape == (0, 3)


def slow(
    entries: list[dict[str, Any]],
    free: list[tuple[int, float]],
    k: int,
    eligible: list[int],
) -> tuple[list[int], list[float]]:
    """Return the list of one request: its candidates, best first, after the rules."""
    pins: dict[int, tuple[int, float]] = {}
    for entry in entries:
        if "at_most" in entry:
            free = _slow_at_most(free, [row for row, _ in pins.values()], **entry)
        elif "diversify" in entry:
            own = entry["diversify"]
            free = _slow_diversify(
                free, [row for row, _ in pins.values()], own["by"], own["lambda"]
            )
        elif "boost" in entry:
            by, fits = entry["boost"]["by"], passing(entry["boost"]["where"], COLUMNS, SIZE)
            factor = {True: by, False: 1 / by}
            scored = [(row, s * factor[s > 0] if fits[row] else s) for row, s in free]
            free = sorted(scored, key=lambda pair: -pair[1])
        else:
            place = entry["pin"]["position"] - 1
            while place in pins:
                place += 1
            fits = passing(entry["pin"]["where"], COLUMNS, SIZE)
            there = {row for row, _ in pins.values()}
            own = [row for row, _ in free if fits[row]]
            own = own or [row for row in sorted(eligible) if fits[row] and row not in there]
            if own and place < k:
                now = _slow_list(free, pins, k)
                score = now[min(place, len(now) - 1)][1] if now else 0.0
                pins[place] = own[0], score
                free = [pair for pair in free if pair[0] != own[0]]
    found = _slow_list(free, pins, k)
    return [row for row, _ in found], [score for _, score in found]


def _slow_list(
    free: list[tuple[int, float]], pins: dict[int, tuple[int, float]], k: int
) -> list[tuple[int, float]]:
    found, rest = [], list(free)
    for place in range(k):
        if place in pins:
            found.append(pins[place])
        elif rest:
            found.append(rest.pop(0))
    return found


def _values(column: str, row: int) -> set[Any]:
    value = SHOP.column(column)[row].as_py()
    return {one for one in (value if isinstance(value, list) else [value]) if one is not None}


def _slow_at_most(
    free: list[tuple[int, float]], there: list[int], at_most: int, of: str
) -> list[tuple[int, float]]:
    counts = Counter(value for row in there for value in _values(of, row))
    found = []
    for row, score in free:
        if all(counts[value] < at_most for value in _values(of, row)):
            counts.update(_values(of, row))
            found.append((row, score))
    return found


def _similar(by: str, one: int, other: int) -> float:
    if by == "vectors":
        lengths = np.linalg.norm(VECTORS[one]) * np.linalg.norm(VECTORS[other])
        return float(VECTORS[one] @ VECTORS[other] / lengths) if lengths else 0.0
    mine, its = _values(by, one), _values(by, other)
    return float(np.float32(len(mine & its)) / np.float32(len(mine | its) or 1))


def _slow_diversify(
    free: list[tuple[int, float]], there: list[int], by: str, weight: float
) -> list[tuple[int, float]]:
    scores = [score for _, score in free]
    if not weight or not scores:
        return free
    low, span = min(scores), max(scores) - min(scores)
    left, found = list(free), []
    while left:
        above = there + [row for row, _ in found]
        values = [
            (1 - weight) * ((score - low) / span if span else 0.0)
            - weight * max((_similar(by, row, other) for other in above), default=0.0)
            for row, score in left
        ]
        found.append(left.pop(values.index(max(values))))
    return found


CONDITIONS = st.sampled_from([A, B, C, "price > 4", "hot", "tags contains 'x'", "price > 9"])
COUNTED = st.sampled_from(["brand", "shelf", "hot", "tags", "nothing"])
WEIGHTS = st.sampled_from([0, 0.25, 0.5, 1])
ENTRIES = st.lists(
    st.builds(at_most, st.integers(1, 3), COUNTED)
    | st.builds(diversify, COUNTED | st.just("vectors"), WEIGHTS)
    | st.builds(boost, CONDITIONS, st.sampled_from([0.25, 0.5, 2, 4]))
    | st.builds(pin, st.integers(1, 9), CONDITIONS),
    max_size=5,
)
REQUEST = st.tuples(
    st.permutations(ALL),
    st.lists(st.integers(-8, 8), max_size=8),
    st.sets(st.sampled_from(ALL)),
)


@settings(max_examples=300)
@given(ENTRIES, st.lists(REQUEST, min_size=1, max_size=4), st.integers(1, 9), st.booleans())
@example([pin(2, A), diversify("vectors", 0.5)], [(ALL, [4, 3, 2, 1], set())], 4, True)
@example([at_most(1, "tags"), pin(1, C)], [(ALL, [8, 7, 6, 5], {5})], 8, True)
@example(
    [diversify("brand", 1), diversify("shelf", 1)],
    [(ALL, [], set()), ([3, 1, 6, 0, 4, 5, 2, 7], [0, 0, -1], set())],
    2,
    False,
)
def test_lists_are_those_of_the_slow_reading(
    entries: list[dict[str, Any]],
    requests: list[tuple[list[int], list[int], set[int]]],
    k: int,
    is_limited: bool,
) -> None:
    width = max(k, *(len(scores) for _, scores, _ in requests))
    rows = np.full((len(requests), width), -1)
    scores = np.full((len(requests), width), -np.inf, np.float32)
    eligible = np.zeros((len(requests), SIZE), bool)
    for number, (order, own, may) in enumerate(requests):
        rows[number, : len(own)] = order[: len(own)]
        scores[number, : len(own)] = sorted(own, reverse=True)
        eligible[number, list(may)] = True
    applied = compiled(*entries)
    found = applied.apply(rows, scores, k, eligible if is_limited else None)
    for number, (order, own, may) in enumerate(requests):
        free = list(zip(order, sorted(map(float, own), reverse=True), strict=False))
        expected = slow(entries, free, k, sorted(may) if is_limited else ALL)
        assert filled(found[0][number], found[1][number]) == expected
        only = slice(number, number + 1)
        alone = applied.apply(rows[only], scores[only], k, eligible[only] if is_limited else None)
        assert filled(alone[0][0], alone[1][0]) == expected


@pytest.mark.parametrize("with_pin", [False, True])
@pytest.mark.parametrize("by", ["vectors", "tags"])
def test_each_next_item_has_the_largest_value(
    by: str, with_pin: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Vectors and lists without structure, some requests at a time, all or k of the candidates."""
    monkeypatch.setattr(diversity, "_MOST_NUMBERS", 30_000)
    drawn = np.random.default_rng(3)
    vectors = drawn.normal(size=(200, 5)).astype(np.float32)
    tags = [drawn.choice(30, size=drawn.integers(0, 6), replace=False).tolist() for _ in range(200)]
    table = pa.table({"tags": pa.array(tags, pa.large_list(pa.int64()))})
    columns = CatalogueColumns(SCHEMA, lambda: table)
    entries = [diversify(by, 0.5), *([pin(9, "tags is null")] if with_pin else [])]
    applied = Rules.compiled(read(*entries), columns, 200, vectors)
    rows = np.stack([drawn.permutation(200)[:40] for _ in range(9)])
    scores = -np.sort(-drawn.normal(size=rows.shape).astype(np.float32), axis=1)
    found, _ = applied.apply(rows, scores, 8)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    sets = [set(one) for one in tags]
    for request, own in enumerate(found):
        own_scores = dict(zip(rows[request].tolist(), scores[request].tolist(), strict=True))
        low, span = min(own_scores.values()), max(own_scores.values()) - min(own_scores.values())

        def value(row: int, above: list[int]) -> float:
            alike = [
                float(unit[row] @ unit[other])
                if by == "vectors"
                else len(sets[row] & sets[other]) / (len(sets[row] | sets[other]) or 1)
                for other in above
            ]
            return 0.5 * (own_scores[row] - low) / span - 0.5 * max(alike, default=0)  # noqa: B023

        for place, row in enumerate(own.tolist()):
            above = own[:place].tolist()
            best = max(value(other, above) for other in own_scores if other not in above)
            assert value(row, above) == pytest.approx(best, abs=1e-6)


WRONG: dict[str, tuple[dict[str, Any], str, str]] = {
    "a column that is missing": (
        at_most(1, "brnd"),
        "the items of the model's catalogue have no column 'brnd' (did you mean 'brand'?); their "
        "columns are sku, brand, shelf, hot, tags, price, nothing; other columns can be read from "
        "a table given as items",
        "brnd",
    ),
    "a column of numbers": (
        diversify("price", 0.5),
        "column 'price' (double) of the model's catalogue is not of text, whole numbers, true and "
        "false, or lists of them; name one that is: sku, brand, shelf, hot, tags, nothing",
        "price",
    ),
    "a condition on a column that is missing": (
        boost("hot and pric > 1", 2),
        "where: the items of the model's catalogue have no column 'pric' (did you mean 'price'?); "
        "their columns are sku, brand, shelf, hot, tags, price, nothing; other columns can be read "
        "from a table given as items\n  hot and pric > 1\n          ^",
        "pric",
    ),
    "a condition that is none": (
        pin(1, "price >"),
        "where: expected a value, and the text ends\n  price >\n         ^",
        "",
    ),
    "no vectors": (
        diversify("vectors", 0.5),
        "by: vectors, and there are no vectors of items; name a column",
        "",
    ),
    "a place behind the end": (
        pin(6, A),
        "position 6, and lists have 5 items; name a place of these",
        "",
    ),
}


def test_vectors_are_those_of_all_items() -> None:
    with pytest.raises(ValueError, match="7 vectors for 8 items"):
        Rules.compiled((), COLUMNS, SIZE, VECTORS[:7])


@pytest.mark.parametrize("what", WRONG)
def test_a_rule_that_does_not_fit_is_named(what: str) -> None:
    entry, reason, column = WRONG[what]
    given_ = read(at_most(1, "brand"), entry)
    with pytest.raises(RuleError) as caught:
        Rules.compiled(given_, COLUMNS, SIZE, None, k=5)
    kind = next(iter(entry))
    assert str(caught.value) == f"rule 2 ({kind}): {reason}"
    assert isinstance(caught.value, ConfigError)
    known = {"number": 2, "kind": kind, "reason": reason, "column": column}
    assert known.items() <= caught.value.fields().items()
