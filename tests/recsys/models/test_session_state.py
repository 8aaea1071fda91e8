"""A session followed event by event asks what the whole session asks, at every length."""

import math
from dataclasses import FrozenInstanceError, replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from recsys.data.batch import FeatureBlock, FeatureLayout, History, Jagged
from recsys.embeddings.backend import build_table
from recsys.embeddings.plan import EmbeddingPlan
from recsys.embeddings.table import TableConfig
from recsys.embeddings.unified import UnifiedEmbedding
from recsys.layers.geometry import Geometry
from recsys.models.session import SessionTransformer, SessionTransformerConfig
from recsys.models.session_state import SessionState

NOTHING = FeatureLayout((), (), ())
ITEMS = FeatureLayout((("item", 1),), (), ())
USERS = FeatureLayout((("user", 1),), (), ("age",))
EVENTS = FeatureLayout((("kind", 1),), (("words", 2),), ("paid",))
RICH, BARE = (ITEMS, USERS, EVENTS), (ITEMS, NOTHING, NOTHING)
LENGTH, LIMIT = 11, 6
"""Steps of the session, and how many of them the model sees."""


def model_of(
    layouts: tuple[FeatureLayout, ...], positions: str = "learned", geometry: Geometry = "sphere"
) -> SessionTransformer:
    torch.manual_seed(5)
    embedding = TableConfig(num_rows=256, dim=8, backend="torch")
    table = build_table(embedding, device=torch.device("cpu"), seed=0)
    table.weight.mul_(20)
    config = SessionTransformerConfig.model_validate(
        {
            "dim": 8,
            "geometry": geometry,
            "history_length": LIMIT,
            "time_gaps": layouts == RICH,
            "repeats": positions == "rotary",
            "readout": "last" if positions == "none" else "items",
            "transformer": {"positions": positions, "num_blocks": 3},
        }
    )
    plan = EmbeddingPlan(num_rows=256, dim=8, layouts=layouts)
    model = SessionTransformer(config, UnifiedEmbedding(plan, table)).eval()
    for parameter in model.parameters():
        if parameter.ndim:
            torch.nn.init.normal_(parameter, std=0.5)
    return model.requires_grad_(False)


def vectors_of(model: SessionTransformer) -> Tensor:
    rows = FeatureBlock(torch.arange(9)[:, None], (), torch.zeros(9, 0))
    return model.encode_items(rows).detach()


def user_of(layouts: tuple[FeatureLayout, ...]) -> FeatureBlock:
    if layouts == BARE:
        return FeatureBlock(torch.zeros(1, 0, dtype=torch.int64), (), torch.zeros(1, 0))
    return FeatureBlock(torch.tensor([[77]]), (), torch.tensor([[0.3]]))


def session_of(layouts: tuple[FeatureLayout, ...]) -> History:
    generator = torch.Generator().manual_seed(6)
    taken = torch.randint(9, (LENGTH,), generator=generator)
    gap = torch.tensor([0.0, 3, 100, 5, math.nan, 7, 20_000, 1, math.nan, 2, 9])
    features = FeatureBlock(torch.zeros(LENGTH, 0, dtype=torch.int64), (), torch.zeros(LENGTH, 0))
    if layouts == RICH:
        sizes = torch.randint(1, 4, (LENGTH,), generator=generator)
        words = Jagged(
            torch.randint(50, (int(sizes.sum()),), generator=generator),
            torch.cat([torch.zeros(1, dtype=torch.int64), sizes.cumsum(0)]),
        )
        kinds = torch.randint(40, 43, (LENGTH, 1), generator=generator)
        features = FeatureBlock(kinds, (words,), torch.rand(LENGTH, 1, generator=generator))
    return History(Jagged(taken, torch.tensor([0, LENGTH])), features, gap)


def steps(history: History, start: int, stop: int) -> History:
    rows = torch.arange(start, stop)
    items = Jagged(history.items.values[rows], torch.tensor([0, stop - start]))
    return History(items, history.features.take(rows), history.gap[rows])


def seen(history: History, length: int) -> History:
    """Return what the model sees of the first `length` steps: the last ones, as a history."""
    start = max(length - LIMIT, 0)
    last = steps(history, start, length)
    if start and not last.gap[0].isnan():
        last.gap[0] = 0  # no step before it is seen
    return last


def asked(model: SessionTransformer, layouts: Any, vectors: Tensor, history: History) -> Tensor:
    return model.encode_queries(user_of(layouts), vectors, history)


def append(state: SessionState, vectors: Tensor, history: History, step: int) -> SessionState:
    features = history.features.take(torch.tensor([step]))
    return state.append(
        vectors, int(history.items.values[step]), features, float(history.gap[step])
    )


@pytest.mark.parametrize("layouts", [RICH, BARE], ids=["rich", "bare"])
@pytest.mark.parametrize("positions", ["learned", "rotary", "none"])
@pytest.mark.parametrize("geometry", ["sphere", "biased_sphere", "dot", "ball"])
def test_every_length_asks_what_its_history_asks(
    layouts: tuple[FeatureLayout, ...], positions: str, geometry: Geometry
) -> None:
    model = model_of(layouts, positions, geometry)
    vectors, history = vectors_of(model), session_of(layouts)
    state = SessionState.empty(model, user_of(layouts))
    found = []
    for length in range(LENGTH + 1):
        expected = asked(model, layouts, vectors, seen(history, length))
        torch.testing.assert_close(state.query(), expected, rtol=1e-5, atol=1e-5)
        assert not state.query().requires_grad
        found.append(state.query())
        if length < LENGTH:
            state = append(state, vectors, history, length)
    together = torch.cat(found)
    different = (together[1:] - together[:-1]).abs().amax(1)
    assert float(different.min()) > 1e-3  # no event said nothing


@given(st.lists(st.integers(0, LENGTH), min_size=0, max_size=4), st.sampled_from([RICH, BARE]))
@settings(max_examples=25)
def test_several_events_at_once_are_events_one_by_one(cuts: list[int], layouts: Any) -> None:
    model = model_of(layouts, "rotary")
    vectors, history = vectors_of(model), session_of(layouts)
    state, at = SessionState.empty(model, user_of(layouts)), 0
    for stop in [*sorted(cuts), LENGTH]:
        state, at = state.extend(vectors, steps(history, at, stop)), stop
        expected = asked(model, layouts, vectors, seen(history, at))
        torch.testing.assert_close(state.query(), expected, rtol=1e-5, atol=1e-5)


def test_a_session_may_go_on_in_two_ways() -> None:
    model = model_of(RICH)
    vectors, history = vectors_of(model), session_of(RICH)
    for shared in (0, 3, LIMIT - 1, LIMIT, LIMIT + 2):
        state = SessionState.empty(model, user_of(RICH)).extend(vectors, steps(history, 0, shared))
        before = state.query()
        one = append(append(state, vectors, history, 9), vectors, history, 10)
        other = append(append(state, vectors, history, 10), vectors, history, 9)
        assert float((one.query() - other.query()).abs().max()) > 1e-3
        assert torch.equal(state.query(), before)
        again = append(append(state, vectors, history, 9), vectors, history, 10)
        assert torch.equal(again.query(), one.query())


def test_a_step_reads_what_was_kept_until_the_window_is_full() -> None:
    model = model_of(RICH)
    vectors, history = vectors_of(model), session_of(RICH)
    state = SessionState.empty(model, user_of(RICH))
    for length in range(LENGTH):
        lost = replace(state, vectors=torch.zeros_like(state.vectors))
        expected, found = (append(one, vectors, history, length) for one in (state, lost))
        assert torch.equal(expected.query(), found.query()) is (length < LIMIT)
        kept = length + 1 if length + 1 < LIMIT else 0  # a full window is encoded anew
        assert {len(one) for one in expected.cache} == {kept}
        assert len(expected.vectors) == len(expected.history.gap) == min(length + 1, LIMIT)
        state = expected


def test_a_step_keeps_the_vector_that_its_item_had() -> None:
    """An index may be made anew while a session goes on, with its rows in another order."""
    model = model_of(BARE)
    vectors, history = vectors_of(model), session_of(BARE)
    state = SessionState.empty(model, user_of(BARE))
    order = torch.arange(9).flip(0)
    for step in range(LENGTH):
        if step % 2:
            taken = 8 - int(history.items.values[step])
            features = history.features.take(torch.tensor([step]))
            state = state.append(vectors[order], taken, features, float(history.gap[step]))
        else:
            state = append(state, vectors, history, step)
    expected = asked(model, BARE, vectors, seen(history, LENGTH))
    torch.testing.assert_close(state.query(), expected, rtol=1e-5, atol=1e-5)


def test_nothing_more_leaves_the_state_as_it_is() -> None:
    model = model_of(RICH)
    vectors, history = vectors_of(model), session_of(RICH)
    state = SessionState.empty(model, user_of(RICH)).extend(vectors, steps(history, 0, 3))
    assert state.extend(vectors, steps(history, 3, 3)) is state
    with pytest.raises(FrozenInstanceError):
        state.user = state.user  # type: ignore[misc]


def test_what_cannot_be_followed_is_refused() -> None:
    model = model_of(RICH)
    vectors, history, user = vectors_of(model), session_of(RICH), user_of(RICH)
    with pytest.raises(ValueError, match=r"without dropout: call model\.eval\(\) first"):
        SessionState.empty(model.train(), user)
    model.eval()
    with pytest.raises(ValueError, match="a session has one user, got 2 rows of user features"):
        SessionState.empty(model, user.above(user))
    state = SessionState.empty(model, user)
    features = history.features.take(torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="got 1 rows, 1 steps, 2 features"):
        state.append(vectors, 0, features, 0.0)
    two = History(Jagged(torch.tensor([0, 1]), torch.arange(3)), features, torch.zeros(2))
    with pytest.raises(ValueError, match=r"continues by one row of steps.* got 2 rows, 2 steps"):
        state.extend(vectors, two)
