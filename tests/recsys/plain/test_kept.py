"""Every plain model: fitted by its settings, kept as arrays, asked again with the same answers."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from recsys.core.errors import IntegrityError
from recsys.data.batch import Jagged
from recsys.plain.answering import MovedModel, PlainModel, PopularFirst
from recsys.plain.interactions import Baseline
from recsys.plain.kind import Counted
from recsys.plain.registry import PLAIN, fit_plain
from recsys.plain.saved import arrays_of, from_bytes, model_of, to_bytes

ITEMS, USERS = 13, 20
SMALL: dict[str, dict[str, Any]] = {
    "gf_cf": {"rank": 3},
    "cheby_cf": {"rank": 3},
    "ials": {"factors": 3, "iterations": 2},
}


def rows(seed: int = 0) -> Counted:
    """Sequences of a few users, the last item in none of them."""
    rng = np.random.default_rng(seed)
    sequence = np.sort(rng.integers(0, USERS, 90))
    return Counted(
        user=sequence.astype(np.int32),
        sequence=sequence,
        item=rng.integers(0, ITEMS - 1, 90).astype(np.int32),
        time=np.arange(90) * 3_600_000_000,
        num_items=ITEMS,
        attributes=(
            sparse.csr_array(np.eye(3, dtype=np.float32)[np.arange(ITEMS) % 3]),
            sparse.csr_array(np.eye(2, dtype=np.float32)[np.arange(ITEMS) // 7]),
        ),
    )


def fitted(kind: str, seed: int = 0) -> PlainModel:
    if kind == "ials":
        pytest.importorskip("implicit")
    config = PLAIN[kind].config.model_validate({"kind": kind, **SMALL.get(kind, {})})
    log = rows(seed)
    popular = PopularFirst.of(log.user, log.item, ITEMS, time=log.time, window=10 * 3_600_000_000)
    return PlainModel.of(PLAIN[kind], fit_plain(config, log), popular)


def jagged(histories: list[list[int]]) -> Jagged:
    values = np.array([item for one in histories for item in one], np.int64)
    return Jagged.of_lengths(values, np.array([len(one) for one in histories]))


HISTORIES = jagged([[], [0], [3, 5, 3], [12], [1, 2, 3, 4, 5, 6, 7]])


@pytest.mark.parametrize("kind", PLAIN)
def test_what_is_kept_answers_as_before_to_the_bit(kind: str) -> None:
    model = fitted(kind)
    config = PLAIN[kind].config.model_validate({"kind": kind, **SMALL.get(kind, {})})
    again = PlainModel.from_bytes(config, model.to_bytes())
    assert again.popular.words == "recent popularity"
    assert (again.breaks_ties, again.falls_back) == (model.breaks_ties, model.falls_back)
    one, other = (each.top(HISTORIES, 6, exclude=HISTORIES) for each in (model, again))
    assert one.scores.tolist() == other.scores.tolist()
    assert one.rows.tolist() == other.rows.tolist()
    assert one.popular.tolist() == other.popular.tolist()
    assert type(again.fitted) is PLAIN[kind].model
    with pytest.raises(IntegrityError, match="the weights are not those of a"):
        model_of(PLAIN[kind].model, {})


@pytest.mark.parametrize("kind", PLAIN)
def test_a_list_is_the_catalogue_sorted_without_what_is_excluded(kind: str) -> None:
    model = fitted(kind)
    top = model.top(HISTORIES, ITEMS + 2, exclude=HISTORIES)
    scores = model.scores(HISTORIES)
    order = list(range(ITEMS)) if model.breaks_ties else model.popular.order.tolist()
    for query, popular in enumerate(top.popular):
        bounds = HISTORIES.offsets[query : query + 2].tolist()
        seen = set(HISTORIES.values[slice(*bounds)].tolist())
        left = [item for item in order if item not in seen]
        if popular:
            wanted = [item for item in model.popular.order.tolist() if item not in seen]
        else:
            wanted = sorted(left, key=lambda item: -scores[query][item])
        found = top.rows[query].tolist()
        assert found == wanted + [-1] * (ITEMS + 2 - len(wanted))
    among = np.array([1, 4, 9, 12])
    few = model.top(HISTORIES, 3, among=among)
    assert set(few.rows.flatten().tolist()) <= set(among.tolist())
    assert (few.rows >= 0).all()


@pytest.mark.parametrize("kind", ["item_knn", "markov", "ease", "popularity"])
@settings(max_examples=25)
@given(st.lists(st.integers(-1, ITEMS + 3), min_size=1, max_size=ITEMS + 3, unique=True))
def test_another_catalogue_ranks_the_items_that_both_have(kind: str, own: list[int]) -> None:
    own = [item if item < ITEMS else -1 for item in own]
    model = fitted(kind)
    moved = MovedModel(model, np.array(own))
    shared = sorted(item for item in own if item >= 0)
    history = [row for row, item in enumerate(own) if item in (0, 3, 5)]
    top = moved.top(jagged([history]), len(own), exclude=jagged([history]))
    steps = [own[row] for row in history]
    wanted = model.top(
        jagged([steps]), len(own), exclude=jagged([steps]), among=np.array(shared, np.int64)
    )
    found = [own[row] for row in top.rows[0].tolist() if row >= 0]
    assert found == [item for item in wanted.rows[0].tolist() if item >= 0]
    assert (top.rows < 0).sum() == (wanted.rows < 0).sum()


def test_models_of_users_count_users_and_others_sequences() -> None:
    log = rows()
    halves = replace(log, sequence=2 * log.sequence + (np.arange(90) % 2 == 0))
    order = np.argsort(halves.sequence, kind="stable")
    halves = replace(
        halves, sequence=halves.sequence[order], item=halves.item[order], user=halves.user[order]
    )
    popular = PLAIN["popularity"].config.model_validate({"kind": "popularity"})
    markov = PLAIN["markov"].config.model_validate({"kind": "markov"})

    def scores(config: Any, given: Counted) -> np.ndarray:
        model: Baseline = fit_plain(config, given)
        return model.score(np.array([1, 2]), np.array([0, 2]))

    assert (scores(popular, log) == scores(popular, halves)).all()
    assert (scores(markov, log) != scores(markov, halves)).any()


def test_arrays_survive_bytes() -> None:
    arrays = arrays_of(fitted("attributes").fitted)
    assert {name.split(".")[0] for name in arrays} == {
        "attributes",
        "log_expected",
        "steps",
        "decay",
    }
    again = from_bytes(to_bytes(arrays))
    assert {name: one.tobytes() for name, one in arrays.items()} == {
        name: one.tobytes() for name, one in again.items()
    }
