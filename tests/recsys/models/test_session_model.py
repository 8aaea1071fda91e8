"""The session transformer's contract: serving equals training, items are their features."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from recsys.bundle.weights import load_retrieval, save_weights, space_id
from recsys.core.errors import IntegrityError
from recsys.data.batch import FeatureBlock, FeatureLayout, History, Jagged, SessionBatch
from recsys.embeddings.backend import build_table
from recsys.embeddings.plan import EmbeddingPlan
from recsys.embeddings.table import TableConfig
from recsys.embeddings.unified import UnifiedEmbedding
from recsys.layers.geometry import Geometry, points_of, vector_width
from recsys.losses.next_item import full_softmax
from recsys.models.retrieval import (
    RETRIEVAL,
    build_retrieval,
    catalogue_vectors,
    query_vectors,
    vectors_of,
)
from recsys.models.session import (
    NUM_GAPS,
    SessionTransformer,
    SessionTransformerConfig,
    gap_classes,
)
from recsys.models.two_tower import TwoTower, TwoTowerConfig
from recsys.retrieval.index.exact import ExactVectors
from recsys.retrieval.recommend import recommend

TABLE = TableConfig(num_rows=512, dim=8, backend="torch")
NOTHING = FeatureLayout((), (), ())
ITEMS = FeatureLayout((("item", 1), ("brand", 2)), (("tags", 1),), ("price",))
USERS = FeatureLayout((("user", 1),), (), ())
EVENTS = FeatureLayout((("kind", 1),), (), ("paid",))
RICH, BARE = (ITEMS, USERS, EVENTS), (ITEMS, NOTHING, NOTHING)
GEOMETRIES: list[Geometry] = ["sphere", "biased_sphere", "dot", "ball"]
LENGTHS = [3, 1, 5, 0, 3]


def model_of(layouts: tuple[FeatureLayout, ...] = RICH, **changes: Any) -> SessionTransformer:
    torch.manual_seed(5)
    table = build_table(TABLE, device=torch.device("cpu"), seed=0)
    table.weight.mul_(20)  # items that differ
    sizes = {"dim": 8, "history_length": 6, "time_gaps": layouts == RICH, "hidden": (10,)}
    config = SessionTransformerConfig.model_validate({**sizes, **changes})
    plan = EmbeddingPlan(num_rows=512, dim=8, layouts=layouts)
    model = SessionTransformer(config, UnifiedEmbedding(plan, table)).eval()
    for layer in (model.position, model.gap, model.user, model.event):
        if layer is not None:  # what is known beside the item shall count
            torch.nn.init.normal_(layer.weight, std=0.5)
    return model.requires_grad_(False)


def items(count: int, seed: int = 0) -> FeatureBlock:
    generator = torch.Generator().manual_seed(seed)
    number = torch.arange(count)
    tags = Jagged(number.repeat_interleave(2) % 5 + 900, torch.arange(count + 1) * 2)
    price = torch.rand(10_000, 1, generator=generator)[:count]
    return FeatureBlock(torch.stack([number, 100 + number % 3], dim=1), (tags,), price)


def users(layouts: tuple[FeatureLayout, ...], count: int, first: int = 7000) -> FeatureBlock:
    ids = torch.arange(first, first + count)[:, None]
    return FeatureBlock(ids[:, : len(layouts[1].single)], (), torch.zeros(count, 0))


def histories(
    layouts: tuple[FeatureLayout, ...], lengths: list[int], num_items: int = 9
) -> History:
    generator = torch.Generator().manual_seed(6)
    total = sum(lengths)
    taken = torch.randint(num_items, (total,), generator=generator)
    offsets = torch.tensor([0, *lengths]).cumsum(0)
    kinds = torch.randint(8000, 8003, (total, len(layouts[2].single)), generator=generator)
    paid = torch.rand(total, len(layouts[2].dense), generator=generator)
    gap = torch.randint(1, 5000, (total,), generator=generator).float()
    gap[offsets[:-1][offsets.diff() > 0]] = 0
    return History(Jagged(taken, offsets), FeatureBlock(kinds, (), paid), gap)


def beginning(history: History, row: int, length: int) -> History:
    """Return the first `length` steps of one row."""
    start = int(history.items.offsets[row])
    steps = torch.arange(start, start + length)
    taken = Jagged(history.items.values[steps], torch.tensor([0, length]))
    return History(taken, history.features.take(steps), history.gap[steps])


def batch_of(layouts: tuple[FeatureLayout, ...], lengths: list[int]) -> SessionBatch:
    history = histories(layouts, lengths)
    asks = torch.arange(0, sum(lengths), 2)
    return SessionBatch(
        items=items(9),
        item_rows=torch.arange(9),
        num_candidates=9,
        users=users(layouts, len(lengths)),
        history=history,
        asks=asks,
        positive=torch.zeros(len(asks), dtype=torch.int64),
        log_inclusion=torch.zeros(9),
        weight=torch.ones(len(asks)),
        examples=asks,
    )


@pytest.mark.parametrize("layouts", [RICH, BARE], ids=["rich", "bare"])
@pytest.mark.parametrize("positions", ["learned", "rotary", "none"])
@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("readout", ["last", "items"])
def test_what_a_step_asks_in_training_is_what_its_history_asks_when_served(
    layouts: tuple[FeatureLayout, ...], positions: str, geometry: Geometry, readout: str
) -> None:
    inside = {"positions": positions}
    model = model_of(layouts, geometry=geometry, transformer=inside, readout=readout)
    batch = batch_of(layouts, LENGTHS)
    encoded = model(batch)
    vectors = model.encode_items(batch.items)
    torch.testing.assert_close(encoded.items, vectors)
    assert vectors.shape == (9, vector_width(8, geometry))
    asked = model.queries_of(encoded.states)
    ends = torch.tensor(LENGTHS).cumsum(0).tolist()
    for step, query in zip(batch.asks.tolist(), asked, strict=True):
        row = next(number for number, end in enumerate(ends) if step < end)
        length = step - (ends[row] - LENGTHS[row]) + 1
        history = beginning(batch.history, row, length)
        user = batch.users.take(torch.tensor([row]))
        alone = model.encode_queries(user, vectors, history)
        torch.testing.assert_close(alone[0], query, rtol=1e-4, atol=1e-5)
    empty = [beginning(batch.history, 0, 0)] * len(LENGTHS)
    nothing = Jagged(batch.history.items.values[:0], torch.zeros(6, dtype=torch.int64))
    starts = History(nothing, empty[0].features, empty[0].gap)
    torch.testing.assert_close(
        model.encode_queries(batch.users, vectors, starts), model.queries_of(encoded.starts)
    )


@pytest.mark.parametrize("chunk_rows", [1, 2, 100])
@pytest.mark.parametrize("readout", ["last", "items"])
def test_a_query_asks_the_same_alone_as_in_a_batch(chunk_rows: int, readout: str) -> None:
    model = model_of(readout=readout)
    history, asking = histories(RICH, LENGTHS), users(RICH, 5)
    vectors = catalogue_vectors(model, items(9), chunk_rows=chunk_rows)
    torch.testing.assert_close(vectors, model.encode_items(items(9)))
    together = query_vectors(model, asking, vectors, history, chunk_rows=chunk_rows)
    torch.testing.assert_close(together, vectors_of(model, asking, vectors, history))
    for number in reversed(range(5)):
        row = torch.tensor([number])
        alone = query_vectors(model, asking.take(row), vectors, history.take(row))
        torch.testing.assert_close(alone[0], together[number])


def test_long_histories_are_encoded_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    model, history, asking = model_of(), histories(RICH, LENGTHS), users(RICH, 5)
    vectors = model.encode_items(items(9))
    together, steps = query_vectors(model, asking, vectors, history), list[int]()
    monkeypatch.setattr("recsys.models.retrieval._CHUNK_STEPS", 4)
    model.transformer.register_forward_pre_hook(lambda _, inputs: steps.append(len(inputs[0])))
    torch.testing.assert_close(query_vectors(model, asking, vectors, history), together)
    assert steps == [4, 5, 3 + 1]  # 3 and 1; 5; the start of an empty one, and 3
    nobody = query_vectors(model, users(RICH, 0), vectors, histories(RICH, []))
    assert nobody.shape == (0, together.shape[1])


def test_vectors_are_made_without_dropout_and_training_goes_on() -> None:
    model, history, asking = model_of(), histories(RICH, LENGTHS), users(RICH, 5)
    vectors = catalogue_vectors(model.train(), items(9))
    asked = query_vectors(model, asking, vectors, history)
    assert model.training
    assert not torch.equal(model.encode_items(items(9)), vectors)
    assert not torch.equal(model.encode_queries(asking, vectors, history), asked)
    assert torch.equal(catalogue_vectors(model.eval(), items(9)), vectors)
    assert torch.equal(query_vectors(model, asking, vectors, history), asked)
    assert not model.training


def test_dropout_of_the_inputs_and_of_the_transformer_are_apart() -> None:
    history, asking = histories(RICH, LENGTHS), users(RICH, 5)
    for inputs, inside in ((0.5, 0.0), (0.0, 0.5), (0.0, 0.0)):
        model = model_of(dropout=inputs, transformer={"dropout": inside}).train()
        vectors = catalogue_vectors(model, items(9))
        once, again = (model.encode_queries(asking, vectors, history) for _ in range(2))
        assert torch.equal(once, again) is (inputs == inside == 0)


def test_an_item_is_its_features() -> None:
    """Without ids two items of equal features are one, and a new one has a vector at once."""
    model = model_of((FeatureLayout((("brand", 2),), (), ("price",)), USERS, EVENTS))
    known = FeatureBlock(torch.tensor([[1], [2], [1], [1]]), (), torch.ones(4, 1))
    known.dense[3] = 2.0
    vectors = model.encode_items(known)
    torch.testing.assert_close(vectors[0], vectors[2])
    for other in (1, 3):  # another brand, another price
        assert not torch.allclose(vectors[0], vectors[other], atol=1e-3)
    new = FeatureBlock(torch.tensor([[77]]), (), torch.full((1, 1), 0.5))
    vector = model.encode_items(new)
    assert torch.isfinite(vector).all()
    assert not torch.allclose(vectors[:1], vector, atol=1e-3)
    history = histories(RICH, [3], num_items=4)
    grown = torch.cat([vectors, vector])
    asked = model.encode_queries(users(RICH, 1), grown, history)
    assert torch.equal(model.encode_queries(users(RICH, 1), vectors, history), asked)
    replaced = replace(history, items=Jagged(torch.tensor([0, 1, 4]), history.items.offsets))
    assert not torch.allclose(model.encode_queries(users(RICH, 1), grown, replaced), asked)


def test_weights_do_not_grow_with_the_catalogue() -> None:
    model = model_of()
    assert max(max(p.shape) for p in model.parameters() if p.ndim) < 64 < 1000
    many = model.encode_items(items(1000))
    torch.testing.assert_close(many[:9], model.encode_items(items(9)))


def difference(one: Tensor, other: Tensor) -> float:
    return float((one - other).detach().abs().max())


def test_all_that_is_known_of_who_and_when_counts() -> None:
    model = model_of()
    vectors, history = model.encode_items(items(9)), histories(RICH, LENGTHS)

    def ask(history: History, first_user: int = 7000) -> Tensor:
        return model.encode_queries(users(RICH, 5, first_user), vectors, history)

    asked = ask(history)
    assert (ask(history, 7100) - asked).abs().amax(1).min() > 1e-3  # the empty one, too
    features = history.features
    for other in (
        replace(history, features=replace(features, single=features.single + 50)),
        replace(history, features=replace(features, dense=features.dense + 1)),
        replace(history, gap=history.gap * 100 + 90),
        replace(history, gap=torch.full_like(history.gap, torch.nan)),
    ):
        changed = (ask(other) - asked).abs().amax(1)
        assert changed[3] == 0  # the empty one
        assert changed[[0, 1, 2, 4]].min() > 1e-3
    # Times are told apart by powers of two.
    assert difference(ask(replace(history, gap=history.gap + 0.01)), asked) == 0


def test_a_step_is_the_sum_of_what_is_known_of_it() -> None:
    model, history = model_of(), histories(RICH, [4])
    vectors, user = model.encode_items(items(9)), users(RICH, 1)
    entered: list[Tensor] = []
    model.transformer.register_forward_pre_hook(lambda _, inputs: entered.append(inputs[0]))
    model.encode_queries(user, vectors, history)
    assert model.user is not None
    assert model.event is not None
    assert model.gap is not None
    assert model.position is not None
    events = model.embedding.side(2, history.features)
    for step in range(4):
        known = points_of(vectors, model.config.geometry)[history.items.values[step]]
        known = known + model.event.weight @ events[step]
        known = known + model.gap.weight[gap_classes(history.gap[step : step + 1])[0]]
        known = known + model.user.weight @ model.embedding.side(1, user)[0]
        known = known + model.position.weight[step]
        torch.testing.assert_close(entered[0][step], model.norm(known))
    model.encode_queries(user, vectors, beginning(history, 0, 0))
    start = model.start + model.user.weight @ model.embedding.side(1, user)[0]
    torch.testing.assert_close(entered[1][0], model.norm(start + model.position.weight[0]))


def test_a_query_takes_from_the_items_themselves_and_from_nothing_else_of_the_steps() -> None:
    model, history = model_of(readout="items", time_gaps=True), histories(RICH, [4])
    assert model.readout is not None
    torch.nn.init.zeros_(model.readout.state.weight)
    torch.nn.init.zeros_(model.readout.shares.weight)  # each item the same share
    vectors, user = model.encode_items(items(9)), users(RICH, 1)
    mean = vectors[history.items.values].mean(0)
    query = model.encode_queries(user, vectors, history)[0]
    torch.testing.assert_close(query, mean / mean.norm())
    start = model.encode_queries(user, vectors, beginning(history, 0, 0))[0]
    torch.testing.assert_close(start, model.start / model.start.norm())
    seen = torch.tensor([False, True, False, False])
    hidden = (seen, torch.ones(8))
    events = model.embedding.side(2, history.features)
    for causal in (True, False):
        states = model.encode_view(vectors, events, history, hidden, causal=causal)
        points = vectors[history.items.values].clone()
        points[1] = 1
        count = torch.arange(1, 5)[:, None]
        expected = points.cumsum(0) / count if causal else points.mean(0).expand(4, 8)
        torch.testing.assert_close(states, expected * 8**0.5)


def test_the_order_of_steps_counts() -> None:
    history = histories(RICH, [4])
    backwards = replace(
        history, items=Jagged(history.items.values[[1, 0, 2, 3]], history.items.offsets)
    )
    for positions in ("learned", "rotary"):
        model = model_of(transformer={"positions": positions})
        vectors = model.encode_items(items(9))
        one, other = (
            model.encode_queries(users(RICH, 1), vectors, h) for h in (history, backwards)
        )
        assert difference(one, other) > 1e-3


def test_a_model_that_is_told_nothing_more_has_no_weights_for_it() -> None:
    model = model_of(BARE, transformer={"positions": "rotary"})
    assert model.user is model.event is model.gap is model.position is None
    vectors, history = model.encode_items(items(9)), histories(BARE, LENGTHS)
    asked = model.encode_queries(users(BARE, 5), vectors, history)
    assert torch.isfinite(asked).all()
    without = replace(history, gap=torch.full_like(history.gap, torch.nan))
    assert torch.equal(model.encode_queries(users(BARE, 5), vectors, without), asked)
    rich = model_of(time_gaps=False)
    names = {name.split(".")[0] for name, _ in rich.named_parameters()}
    assert {"user", "event", "position", "start"} <= names
    assert "gap" not in names


def test_gaps_by_hand() -> None:
    nan, day = math.nan, 86_400.0
    seconds = torch.tensor([nan, -5, 0, 0.9, 1, 2.9, 3, 7, 127, day, 2.0**30, 2.0**31, 1e30])
    expected = [0, 1, 1, 1, 2, 2, 3, 4, 8, 17, 31, 32, 32]
    assert gap_classes(seconds).tolist() == expected
    assert gap_classes(torch.tensor([math.inf])).tolist() == [NUM_GAPS - 1]


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_geometries_place_queries_and_items(geometry: Geometry) -> None:
    model = model_of(geometry=geometry)
    vectors = model.encode_items(items(9))
    asked = model.encode_queries(users(RICH, 5), vectors, histories(RICH, LENGTHS))
    assert asked.shape == (5, vectors.shape[1])
    assert asked.dtype == torch.float32
    points, centres = points_of(vectors, geometry), points_of(asked, geometry)
    if geometry in ("sphere", "biased_sphere"):
        torch.testing.assert_close(centres.norm(dim=1), torch.ones(5))
        torch.testing.assert_close(points.norm(dim=1), torch.ones(9))
    if geometry in ("biased_sphere", "dot"):
        torch.testing.assert_close(asked @ vectors.T, centres @ points.T + vectors[:, -1])
    if geometry == "ball":
        squared = (centres[:, None] - points).square().sum(2)
        torch.testing.assert_close(asked @ vectors.T, -squared / 2, rtol=1e-4, atol=1e-5)
    # A step is the point of its item; what an index needs beside it says nothing to a session.
    other = vectors.clone()
    other[:, 8:] += 1
    again = model.encode_queries(users(RICH, 5), other, histories(RICH, LENGTHS))
    assert torch.equal(again, asked)


def test_at_first_a_step_is_mostly_its_item() -> None:
    torch.manual_seed(0)
    table = build_table(TABLE, device=torch.device("cpu"), seed=0)
    embedding = UnifiedEmbedding(EmbeddingPlan(num_rows=512, dim=8, layouts=RICH), table)
    config = SessionTransformerConfig(dim=64, history_length=6, time_gaps=True)
    model = SessionTransformer(config, embedding).eval().requires_grad_(False)
    last = model.candidate[-1]
    assert isinstance(last, torch.nn.Linear)
    assert float(last.bias.abs().max()) == 0  # no direction that all items share
    assert model.position is not None
    assert model.gap is not None
    assert model.user is not None
    known = [model.position.weight, model.gap.weight]
    known.append(model.user(embedding.side(1, users(RICH, 50)).detach()))
    for contribution in known:
        assert 0 < float(contribution.norm(dim=1).mean()) < 0.15  # beside an item's 1
    assert 0.7 < float(model.start.norm()) < 1.4


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("layouts", [RICH, BARE], ids=["rich", "bare"])
def test_weights_survive_a_round_trip_and_know_their_space(
    geometry: Geometry, layouts: tuple[FeatureLayout, ...]
) -> None:
    readout = "last" if layouts == BARE else "items"
    model = model_of(layouts, geometry=geometry, readout=readout)
    again = load_retrieval(save_weights(model), model.config, TABLE, layouts)
    assert isinstance(again, SessionTransformer)
    assert not again.training
    vectors, asking, history = items(9), users(layouts, 5), histories(layouts, LENGTHS)
    made = catalogue_vectors(model, vectors)
    assert torch.equal(catalogue_vectors(again, vectors), made)
    asked = query_vectors(model, asking, made, history)
    assert torch.equal(query_vectors(again, asking, made, history), asked)
    assert space_id(again) == space_id(model)
    with torch.no_grad():
        again.start += 1  # what asks may move on; the items' space stays
        again.norm.weight += 1
    assert space_id(again) == space_id(model)
    again.candidate[0].bias.data += 1  # type: ignore[operator]
    assert space_id(again) != space_id(model)
    other = model.config.model_copy(update={"history_length": 7})
    with pytest.raises(IntegrityError, match="do not fit the configuration"):
        load_retrieval(save_weights(model), other, TABLE, layouts)


def test_what_a_session_holds_is_in_no_list_where_nothing_comes_back() -> None:
    history, asking = histories(RICH, LENGTHS), users(RICH, 5)
    plain, model = model_of(repeats=False), model_of(repeats="never")
    model.load_state_dict(plain.state_dict())  # the same weights
    vectors = plain.encode_items(items(9))
    asked = plain.encode_queries(asking, vectors, history)
    query, gain = model.without_gain(model.encode_queries(asking, vectors, history))
    torch.testing.assert_close(query, asked)
    assert gain is not None
    assert gain.tolist() == [-math.inf] * 5
    _, rows = recommend(model, ExactVectors(vectors), vectors, asking, history, k=9, exclude=None)
    for query, found in enumerate(rows.tolist()):
        own = history.items.take(torch.tensor([query])).values.tolist()
        assert sorted({*found} - {-1}) == sorted({*range(9)} - {*own})


def test_what_a_session_holds_gains_beside_the_vector() -> None:
    history, asking = histories(RICH, LENGTHS), users(RICH, 5)
    plain, model = model_of(), model_of(repeats=True, temperature=0.2)
    model.load_state_dict(plain.state_dict(), strict=False)
    model.log_temperature.fill_(math.log(0.2))
    vectors = plain.encode_items(items(9))
    torch.testing.assert_close(model.encode_items(items(9)), vectors)
    asked = plain.encode_queries(asking, vectors, history)
    whole = model.encode_queries(asking, vectors, history)
    query, gain = model.without_gain(whole)
    torch.testing.assert_close(query, asked)
    assert gain is not None
    assert (gain == 0).all()  # at first repeats are as good as anything else
    assert plain.without_gain(asked)[1] is None
    assert plain.without_gain(asked)[0] is asked
    pairs = UnifiedEmbedding(
        EmbeddingPlan(num_rows=512, dim=8, layouts=(ITEMS, USERS)), model.embedding.table
    )
    vectors_alone = TwoTower(TwoTowerConfig(), pairs).without_gain(asked)
    assert vectors_alone[0] is asked
    assert vectors_alone[1] is None
    assert model.repeat is not None
    torch.nn.init.normal_(model.repeat.weight)
    torch.nn.init.normal_(model.repeat.bias)
    states = torch.randn(4, 8)
    by_hand = states @ model.repeat.weight[0] + model.repeat.bias
    query, gain = model.without_gain(model.queries_of(states))
    assert gain is not None
    torch.testing.assert_close(gain, 0.2 * by_hand)
    torch.testing.assert_close(query, plain.queries_of(states))
    again = load_retrieval(save_weights(model), model.config, TABLE, RICH)
    assert torch.equal(
        query_vectors(again, asking, vectors, history),
        query_vectors(model, asking, vectors, history),
    )


def test_items_that_others_encoded_join_those_of_the_batch() -> None:
    model, batch = model_of(), batch_of(RICH, LENGTHS)
    whole = model(batch)
    own = replace(batch, items=batch.items.take(torch.arange(4)))
    asked: list[tuple[int, int]] = []

    def gather(rows: Tensor, count: int) -> Tensor:
        asked.append((len(rows), count))
        return torch.cat([rows, whole.items[4:]])

    shared = model(own, gather)
    assert asked == [(4, 9)]
    torch.testing.assert_close(shared.items, whole.items)
    torch.testing.assert_close(shared.states, whole.states)


def test_axes_that_run_over_embedded_rows_are_as_wide_as_these() -> None:
    model = model_of()
    axes = RETRIEVAL["session"].axes(model.config)
    assert axes is not None
    assert {name: sides for name, ((_, sides),) in axes.items()} == {
        "candidate.0.weight": 0,
        "user.weight": 1,
        "event.weight": 2,
    }
    for name, ((axis, side),) in axes.items():
        assert model.get_parameter(name).shape[axis] == model.embedding.plan.width(side)
    of_towers = RETRIEVAL["two_tower"].axes(TwoTowerConfig())
    assert of_towers is not None
    assert of_towers.keys() == {"candidate.0.weight", "query.0.weight"}


def test_the_configuration_says_which_model_is_built() -> None:
    embedding = model_of().embedding
    assert isinstance(build_retrieval(SessionTransformerConfig(), embedding), SessionTransformer)
    pairs = UnifiedEmbedding(
        EmbeddingPlan(num_rows=512, dim=8, layouts=(ITEMS, USERS)), embedding.table
    )
    assert isinstance(build_retrieval(TwoTowerConfig(), pairs), TwoTower)
    assert SessionTransformerConfig().interests == 1
    with pytest.raises(ValueError, match="a width of 9 does not part into 2 heads"):
        SessionTransformerConfig(dim=9)


def test_the_temperature_starts_as_given_and_learns_only_if_asked() -> None:
    embedding = model_of().embedding
    for asked in (True, False):
        config = SessionTransformerConfig(temperature=0.2, learn_temperature=asked)
        model = SessionTransformer(config, embedding)
        assert float(model.temperature.detach()) == pytest.approx(0.2)
        assert model.log_temperature.requires_grad is asked


WORLD, STEPS = 8, 5


def walks(count: int, noise: bool, generator: torch.Generator) -> Tensor:
    """Return sessions (N, STEPS + 1): the step before the last one, plus one, comes next."""
    rows = torch.randint(WORLD, (count, STEPS + 1), generator=generator)
    if not noise:
        for step in range(2, STEPS + 1):
            rows[:, step] = (rows[:, step - 2] + 1) % WORLD
    return rows


@pytest.mark.parametrize("positions", ["learned", "rotary"])
def test_learns_what_the_last_step_cannot_tell_and_nothing_from_noise(positions: str) -> None:
    """A chain of the second order, whose last step alone says nothing of what comes next."""
    layouts = (FeatureLayout((("item", 1),), (), ()), NOTHING, NOTHING)
    catalogue = FeatureBlock(torch.arange(WORLD)[:, None], (), torch.zeros(WORLD, 0))
    hit = {}
    for noise in (False, True):
        changes = {"dim": 32, "history_length": STEPS, "hidden": (), "dropout": 0.0}
        inside = {"positions": positions, "dropout": 0.0}
        model = model_of(layouts, **changes, transformer=inside).requires_grad_(True)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
        generator = torch.Generator().manual_seed(0)
        shared: dict[str, Any] = {
            "items": catalogue,
            "item_rows": torch.arange(WORLD),
            "num_candidates": WORLD,
            "users": FeatureBlock(torch.zeros(32, 0, dtype=torch.int64), (), torch.zeros(32, 0)),
            "log_inclusion": torch.zeros(WORLD),
        }
        asks = (torch.arange(32 * STEPS).view(32, STEPS)[:, 1:]).flatten()
        for _ in range(100):
            rows = walks(32, noise, generator)
            batch = SessionBatch(
                history=whole_rows(rows[:, :-1]),
                asks=asks,
                positive=rows[:, 2:].flatten(),
                weight=torch.ones(len(asks)),
                examples=asks,
                **shared,
            )
            encoded = model(batch)
            asked = model.queries_of(encoded.states) / model.temperature
            optimizer.zero_grad()
            full_softmax(asked, encoded.items, batch.positive).mean().backward()
            optimizer.step()
        rows = walks(400, noise, generator)
        vectors = catalogue_vectors(model, catalogue)
        nobody = FeatureBlock(torch.zeros(400, 0, dtype=torch.int64), (), torch.zeros(400, 0))
        scores = query_vectors(model, nobody, vectors, whole_rows(rows[:, :-1])) @ vectors.T
        hit[noise] = float((scores.argmax(1) == rows[:, -1]).float().mean())
    assert hit[False] > 0.9
    assert abs(hit[True] - 1 / WORLD) < 4 * math.sqrt(1 / WORLD / 400)


def whole_rows(rows: Tensor) -> History:
    count, length = rows.shape
    total = count * length
    none = FeatureBlock(torch.zeros(total, 0, dtype=torch.int64), (), torch.zeros(total, 0))
    offsets = torch.arange(count + 1) * length
    return History(Jagged(rows.flatten(), offsets), none, torch.full((total,), torch.nan))


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_a_rotated_model_has_other_vectors_and_the_same_products(geometry: Geometry) -> None:
    model = model_of(geometry=geometry, readout="items", repeats=True)
    asking, history = users(RICH, 5), histories(RICH, LENGTHS)
    items_before = catalogue_vectors(model, items(9))
    before = query_vectors(model, asking, items_before, history)
    space = space_id(model)
    one, two = (torch.linalg.qr(torch.randn(8, 8).double())[0] for _ in range(2))
    model.rotate(one)
    model.rotate(two)
    again = load_retrieval(save_weights(model), model.config, TABLE, RICH)
    now = catalogue_vectors(again, items(9))
    turned = points_of(items_before, geometry) @ (one @ two).float()
    torch.testing.assert_close(points_of(now, geometry), turned)
    asked = query_vectors(again, asking, now, history)
    products = model.without_gain(before)[0] @ items_before.T
    torch.testing.assert_close(again.without_gain(asked)[0] @ now.T, products, rtol=0, atol=2e-5)
    torch.testing.assert_close(asked[:, -1], before[:, -1])  # what repeats gain
    assert space_id(again) == space_id(model) != space
