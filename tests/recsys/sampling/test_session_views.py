"""Views of sessions against a loop over them, and what a model of sessions sees of a view."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from recsys.data.batch import FeatureBlock, FeatureLayout, History, Jagged, SessionBatch
from recsys.embeddings.backend import build_table
from recsys.embeddings.plan import EmbeddingPlan
from recsys.embeddings.table import TableConfig
from recsys.embeddings.unified import UnifiedEmbedding
from recsys.layers.transformer import TransformerConfig
from recsys.models.session import SessionTransformer, SessionTransformerConfig
from recsys.sampling.session_views import View, augmented, cropped, hidden, reordered

LENGTHS = st.lists(st.integers(0, 9), min_size=1, max_size=6)
SHARES = st.sampled_from([0.0, 0.2, 0.3, 0.5, 0.9, 1.0])
SEEDS = st.integers(0, 1_000)
MOSTLY = 0.999_999


def sessions(lengths: list[int]) -> Jagged:
    """Sessions of the steps 100, 101, ..."""
    total = sum(lengths)
    return Jagged(100 + torch.arange(total), torch.tensor([0, *lengths]).cumsum(0))


def rows(steps: Jagged) -> list[list[int]]:
    return [steps.values[a:b].tolist() for a, b in pairwise(steps.offsets.tolist())]


def cut(values: Tensor, lengths: list[int]) -> list[list[float]]:
    return [part.tolist() for part in values.split(lengths)]


@settings(max_examples=50)
@given(LENGTHS, SHARES, SEEDS)
def test_hidden_are_the_luckiest_of_each_session(
    lengths: list[int], share: float, seed: int
) -> None:
    torch.manual_seed(seed)
    luck = torch.randint(0, 10_000, (sum(lengths),)) / 10_000
    luck = luck + torch.arange(len(luck)) / 1e6  # no ties
    found = hidden(sessions(lengths), torch.full((len(lengths),), share), luck)
    for own, chosen in zip(cut(luck, lengths), cut(found, lengths), strict=True):
        count = min(max(round(share * len(own)), 1), len(own) - 1) if share else 0
        expected = sorted(own)[: max(count, 0)]
        assert [one in expected for one in own] == chosen


@settings(max_examples=50)
@given(LENGTHS, SHARES, SHARES, SEEDS)
def test_hidden_of_a_smaller_share_are_hidden_of_a_larger(
    lengths: list[int], one: float, other: float, seed: int
) -> None:
    torch.manual_seed(seed)
    luck, every = torch.rand(sum(lengths)), torch.ones(len(lengths))
    few, many = (hidden(sessions(lengths), every * s, luck) for s in sorted((one, other)))
    assert not (few & ~many).any()


def test_each_session_has_its_own_share() -> None:
    shares, luck = torch.tensor([0.0, 0.5, 0.75]), torch.rand(12)
    steps = sessions([4, 4, 4])
    assert [sum(one) for one in cut(hidden(steps, shares, luck), [4, 4, 4])] == [0, 2, 3]
    kept = cropped(steps, torch.tensor([1.0, 0.5, 0.25]), torch.rand(3))
    assert kept.lengths().tolist() == [4, 2, 1]
    still = rows(reordered(steps, torch.tensor([0.0, 0.0, 1.0]), torch.rand(3), luck))
    assert still[:2] == rows(steps)[:2]
    assert still[2] == [108 + place for place in luck[8:].argsort().tolist()]


@settings(max_examples=50)
@given(LENGTHS, st.sampled_from([0.1, 0.5, 0.6, 0.9, 1.0]), SEEDS)
def test_a_crop_is_steps_side_by_side(lengths: list[int], share: float, seed: int) -> None:
    torch.manual_seed(seed)
    steps, luck = sessions(lengths), torch.rand(len(lengths))
    found = cropped(steps, torch.full((len(lengths),), share), luck)
    for whole, kept, own in zip(rows(steps), rows(found), luck.tolist(), strict=True):
        size = min(max(round(share * len(whole)), 1), len(whole))
        start = int(own * (len(whole) - size + 1))
        assert kept == whole[start : start + size]


@pytest.mark.parametrize(("luck", "first"), [(0.0, 100), (0.3, 101), (MOSTLY, 103)])
def test_a_crop_lies_anywhere_alike(luck: float, first: int) -> None:
    kept = cropped(sessions([5]), torch.tensor([0.4]), torch.tensor([luck]))
    assert kept.values.tolist() == [first, first + 1]


@settings(max_examples=50)
@given(LENGTHS, SHARES, SEEDS)
def test_a_stretch_of_each_session_is_in_the_order_of_luck(
    lengths: list[int], share: float, seed: int
) -> None:
    torch.manual_seed(seed)
    steps, luck_n = sessions(lengths), torch.rand(len(lengths))
    luck_v = torch.randperm(sum(lengths)) / max(sum(lengths), 1)
    found = reordered(steps, torch.full((len(lengths),), share), luck_n, luck_v)
    assert torch.equal(found.offsets, steps.offsets)
    for whole, seen, own in zip(rows(steps), rows(found), luck_n.tolist(), strict=True):
        size = min(max(round(share * len(whole)), 2), len(whole)) if share else 0
        start = int(own * (len(whole) - size + 1))
        stretch = sorted(whole[start : start + size], key=lambda step: float(luck_v[step - 100]))
        assert seen == whole[:start] + stretch + whole[start + size :]


def test_every_way_of_a_view_is_drawn_alike_and_alone() -> None:
    count, length = 3_000, 10
    steps = sessions([length] * count)
    view = augmented(steps, crop=0.6, mask=0.3, reorder=0.2)
    ways = {"crop": 0, "mask": 0, "reorder": 0}
    unseen = cut(view.hidden, view.steps.lengths().tolist())
    for whole, seen, blank in zip(rows(steps), rows(view.steps), unseen, strict=True):
        if len(seen) < length:
            ways["crop"] += 1
            assert len(seen) == 6
            assert seen == whole[seen[0] - whole[0] :][:6]
            assert not any(blank)
        elif any(blank):
            ways["mask"] += 1
            assert sum(blank) == 3
            assert seen == whole
        else:
            ways["reorder"] += 1
            moved = sum(a != b for a, b in zip(seen, whole, strict=True))
            assert moved in (0, 2)  # a shuffle of two steps changes nothing half of the time
    assert all(abs(times - count / 3) < 5 * (count * 2 / 9) ** 0.5 for times in ways.values())


@pytest.mark.parametrize(
    ("crop", "mask", "reorder"), [(0.5, 0.0, 0.0), (1.0, 0.5, 0.0), (1.0, 0.0, 1.0)]
)
def test_a_way_that_is_off_is_never_drawn(crop: float, mask: float, reorder: float) -> None:
    steps = sessions([8] * 50)
    view = augmented(steps, crop=crop, mask=mask, reorder=reorder)
    assert (view.steps.lengths() == (4 if crop < 1 else 8)).all()
    assert [sum(one) for one in cut(view.hidden, view.steps.lengths().tolist())] == [
        4 if mask else 0
    ] * 50
    moved = [seen != sorted(seen) for seen in rows(view.steps)]
    assert sum(moved) > 45 if reorder else not any(moved)


def test_views_are_functions_of_the_generator() -> None:
    def view(seed: int) -> View:
        torch.manual_seed(seed)
        return augmented(sessions([9] * 20), crop=0.6, mask=0.3, reorder=0.4)

    one, same, other = view(1), view(1), view(2)
    assert torch.equal(one.steps.values, same.steps.values)
    assert torch.equal(one.hidden, same.hidden)
    assert rows(one.steps) != rows(other.steps)


NAN = float("nan")


@pytest.mark.parametrize(
    ("seen", "gaps"),
    [
        ([[0, 1, 2], [3, 4]], [0.0, 7.0, NAN, 0.0, 9.0]),  # as it was
        ([[1, 2], [4]], [0.0, NAN, 0.0]),  # the first one has none before it
        ([[0, 2, 1], [4, 3]], [0.0, NAN, NAN, 0.0, NAN]),  # others stand before it
        ([[2, 1], [3]], [NAN, NAN, 0.0]),  # where no clock is known no step is the first
        ([[0], [1, 2, 3]], [0.0, 0.0, NAN, 0.0]),
    ],
)
def test_a_gap_is_known_where_the_same_step_is_before(
    seen: list[list[int]], gaps: list[float]
) -> None:
    features = FeatureBlock(torch.arange(5)[:, None] * 11, (), torch.zeros(5, 0))
    items = Jagged(torch.tensor([50, 51, 52, 53, 54]), torch.tensor([0, 3, 5]))
    history = History(items, features, torch.tensor([0.0, 7.0, NAN, 0.0, 9.0]))
    flat = [step for row in seen for step in row]
    steps = Jagged(torch.tensor(flat), torch.tensor([0, len(seen[0]), len(flat)]))
    view = View(steps, torch.zeros(len(flat), dtype=torch.bool)).of(history)
    torch.testing.assert_close(view.gap, torch.tensor(gaps), equal_nan=True)
    assert rows(view.items) == [[50 + step for step in row] for row in seen]
    assert view.features.single[:, 0].tolist() == [11 * step for step in flat]


LAYOUTS = (
    FeatureLayout((("item", 1),), (), ()),
    FeatureLayout((("user", 1),), (), ()),
    FeatureLayout((("device", 1),), (), ("price",)),
)
COUNT = 7


def model_of(positions: str = "learned", **changes: object) -> SessionTransformer:
    table = build_table(
        TableConfig(num_rows=64, dim=4, backend="torch"), device=torch.device("cpu"), seed=0
    )
    sizes = TransformerConfig.model_validate({"positions": positions, "num_heads": 2})
    config = SessionTransformerConfig(dim=8, history_length=6, transformer=sizes, time_gaps=True)
    plan = EmbeddingPlan(num_rows=64, dim=4, layouts=LAYOUTS)
    model = SessionTransformer(config, UnifiedEmbedding(plan, table)).eval()
    for one in model.parameters():
        if one.requires_grad and one.ndim == 2:
            torch.nn.init.normal_(one, std=0.5)
    return model


def block(first: int, count: int, dense: int = 0) -> FeatureBlock:
    return FeatureBlock(first + torch.arange(count)[:, None], (), torch.randn(count, dense))


def batch_of(lengths: list[int]) -> SessionBatch:
    total, offsets = sum(lengths), torch.tensor([0, *lengths]).cumsum(0)
    history = History(
        Jagged(torch.randint(COUNT, (total,)), offsets),
        block(900, total, 1),
        torch.rand(total) * 1_000,
    )
    every = torch.arange(total)
    return SessionBatch(
        items=block(0, COUNT),
        item_rows=torch.arange(COUNT),
        num_candidates=COUNT,
        users=block(500, len(lengths)),
        history=history,
        asks=every,
        positive=torch.randint(COUNT, (total,)),
        log_inclusion=torch.zeros(COUNT),
        weight=torch.ones(total),
        examples=every,
    )


def nothing(batch: SessionBatch) -> tuple[Tensor, Tensor]:
    return torch.zeros(len(batch.history.gap), dtype=torch.bool), torch.randn(8)


@pytest.mark.parametrize("positions", ["learned", "rotary", "none"])
def test_a_view_that_hides_nothing_has_the_states_of_the_batch(positions: str) -> None:
    model, batch = model_of(positions), batch_of([3, 1, 4])
    encoded = model(batch)
    states = model.encode_view(
        encoded.items, encoded.events, batch.history, nothing(batch), users_BX=encoded.users
    )
    torch.testing.assert_close(states, encoded.states)
    unknown = model.encode_view(encoded.items, encoded.events, batch.history, nothing(batch))
    assert ((unknown - states).abs().sum(1) > 1e-3).all()
    both = model.encode_view(
        encoded.items,
        encoded.events,
        batch.history,
        nothing(batch),
        users_BX=encoded.users,
        causal=False,
    )
    last = torch.tensor([2, 3, 7])
    before = [0, 1, 4, 5, 6]
    assert ((both - states)[before].abs().sum(1) > 1e-3).all()
    torch.testing.assert_close(both[3], states[3])  # alone it has nobody to look at
    assert ((both - states)[last[[0, 2]]].abs().sum(1) > 1e-4).all()  # of those that see further


def spoilt(batch: SessionBatch, step: int) -> History:
    """Another item, event and gap at `step`."""
    values, gap = batch.history.items.values.clone(), batch.history.gap.clone()
    values[step], gap[step] = (values[step] + 1) % COUNT, 40_000.0
    items = replace(batch.history.items, values=values)
    return replace(batch.history, items=items, gap=gap)


@pytest.mark.parametrize("causal", [True, False])
def test_of_a_hidden_step_nothing_is_seen_but_its_place(causal: bool) -> None:
    model, batch = model_of(), batch_of([5, 2])
    encoded = model(batch)
    other_events = encoded.events.clone()
    other_events[1] += 1.0
    blank, mask = nothing(batch)
    blank[1] = True

    def states(events: Tensor, history: History, hidden: tuple[Tensor, Tensor]) -> Tensor:
        return model.encode_view(encoded.items, events, history, hidden, causal=causal)

    plain = states(encoded.events, batch.history, (blank, mask))
    for events, history in (
        (other_events, batch.history),
        (encoded.events, spoilt(batch, 1)),
    ):
        torch.testing.assert_close(states(events, history, (blank, mask)), plain)
        open_eyes = states(events, history, nothing(batch))
        assert (open_eyes - states(encoded.events, batch.history, nothing(batch))).abs().sum() > 0.1
    told = states(encoded.events, batch.history, (blank, torch.randn(8))) - plain
    sees_it = [False, True, True, True, True] if causal else [True] * 5
    assert (told.abs().sum(1) > 1e-4).tolist() == [*sees_it, False, False]
    later = states(encoded.events, spoilt(batch, 4), (blank, mask)) - plain
    assert (later.abs().sum(1) > 1e-5).tolist()[:5] == ([False] * 4 if causal else [True] * 4) + [
        True
    ]
