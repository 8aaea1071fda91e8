"""A two-tower with several interests, smoothed or not: one contract, and two tastes told apart."""

from itertools import pairwise

import pytest
import torch
from torch.nn import functional as F

from recsys.bundle.weights import load_retrieval, save_weights, space_id
from recsys.data.batch import FeatureBlock, FeatureLayout, Jagged, PairBatch
from recsys.embeddings.backend import build_table
from recsys.embeddings.plan import EmbeddingPlan
from recsys.embeddings.table import TableConfig
from recsys.embeddings.unified import UnifiedEmbedding
from recsys.layers.geometry import Geometry
from recsys.layers.pooling import InterestPooling
from recsys.layers.smoothing import ItemSmoothing
from recsys.losses.retrieval import Pairs, softmax_loss
from recsys.models.retrieval import catalogue_vectors, query_vectors
from recsys.models.two_tower import TwoTower, TwoTowerConfig

LAYOUTS = (FeatureLayout((("item", 1),), (), ()), FeatureLayout((("user", 1),), (), ()))
TABLE = TableConfig(num_rows=512, dim=8, backend="torch")
SIZES = {"dim": 8, "hidden": (16,), "history_length": 4, "history_heads": 2, "dropout": 0.0}
HISTORY = Jagged(torch.tensor([0, 1, 2, 3, 2]), torch.tensor([0, 0, 4, 5]))


def tower(**changes: object) -> TwoTower:
    torch.manual_seed(5)
    plan = EmbeddingPlan(num_rows=512, dim=8, layouts=LAYOUTS)
    table = build_table(TABLE, device=torch.device("cpu"), seed=0)
    table.weight.mul_(20)  # items that differ
    config = TwoTowerConfig.model_validate({**SIZES, **changes})
    return TwoTower(config, UnifiedEmbedding(plan, table)).eval()


def rows(count: int, first: int = 0) -> FeatureBlock:
    ids = torch.arange(first, first + count).unsqueeze(1)
    return FeatureBlock(ids, (), torch.zeros(count, 0))


def smoothing() -> ItemSmoothing:
    users, items = torch.tensor([0, 0, 1, 2, 2]), torch.tensor([0, 1, 1, 2, 4])
    return ItemSmoothing(users.numpy(), items.numpy(), rows(3, 1000), 5, rounds=2, weight=0.5)


def whole_batch(num_candidates: int = 5) -> PairBatch:
    return PairBatch(
        items=rows(5),
        item_rows=torch.arange(5),
        num_candidates=num_candidates,
        query=rows(3, 1000),
        history=HISTORY,
        asks=torch.arange(3),
        positive=torch.tensor([0, 1, 2]),
        not_negative=Jagged(torch.tensor([0, 1, 2]), torch.arange(4)),
        log_inclusion=torch.zeros(5),
        weight=torch.ones(3),
        examples=torch.arange(3),
    )


@pytest.mark.parametrize("geometry", ["sphere", "biased_sphere", "ball"])
@pytest.mark.parametrize("smoothed", [False, True])
@pytest.mark.parametrize("interests", [1, 3])
def test_training_and_serving_paths_give_the_same_vectors(
    geometry: Geometry, smoothed: bool, interests: int
) -> None:
    model = tower(geometry=geometry, interests=interests, smoothing={"rounds": 2, "weight": 0.5})
    model.smoothing = smoothing() if smoothed else None
    with torch.no_grad():
        query, candidate = model(whole_batch())
    vectors = catalogue_vectors(model, rows(5), chunk_rows=2)
    torch.testing.assert_close(candidate, vectors)
    width = 8 + {"sphere": 0, "biased_sphere": 1, "ball": 2}[geometry]
    assert query.shape == ((3, width) if interests == 1 else (3, 3, width))
    asked = query_vectors(model, rows(3, 1000), vectors, HISTORY, chunk_rows=2)
    torch.testing.assert_close(query, asked)
    alone = model.encode_items(rows(5)).detach()
    torch.testing.assert_close(alone[3], vectors[3])  # nobody took it
    assert (float((alone[1] - vectors[1]).abs().max()) > 0.01) is smoothed


def test_smoothing_says_nothing_of_an_items_bias() -> None:
    model = tower(geometry="biased_sphere", smoothing={"rounds": 2})
    alone = catalogue_vectors(model, rows(5))
    model.smoothing = smoothing()
    torch.testing.assert_close(catalogue_vectors(model, rows(5))[:, 8], alone[:, 8])


def test_one_interest_is_the_model_without_the_key() -> None:
    plain, one = tower(), tower(interests=1)
    assert plain.state_dict().keys() == one.state_dict().keys()
    vectors = catalogue_vectors(plain, rows(5))
    assert torch.equal(catalogue_vectors(one, rows(5)), vectors)
    queries = query_vectors(plain, rows(3, 1000), vectors, HISTORY)
    assert torch.equal(query_vectors(one, rows(3, 1000), vectors, HISTORY), queries)
    assert not any("interests" in name for name in plain.state_dict())


def test_interests_survive_a_round_trip_and_smoothing_is_part_of_the_space() -> None:
    model = tower(interests=3)
    again = load_retrieval(save_weights(model), model.config, TABLE, LAYOUTS)
    vectors = catalogue_vectors(model, rows(5))
    asked = query_vectors(model, rows(3, 1000), vectors, HISTORY)
    assert torch.equal(query_vectors(again, rows(3, 1000), vectors, HISTORY), asked)
    before = space_id(model)
    assert before == space_id(again)
    model.smoothing = smoothing()
    smoothed = space_id(model)
    assert smoothed != before
    twice = model.config.smoothing.model_copy(update={"weight": 2.0})
    model.config = model.config.model_copy(update={"smoothing": twice})
    assert space_id(model) != smoothed
    smoothed = space_id(model)
    model.query[0].bias.data += 1  # users' own vectors are in what smooths
    moved = space_id(model)
    other = ItemSmoothing(
        torch.tensor([1, 0, 1, 2, 2]).numpy(),  # another user took item 0
        torch.tensor([0, 1, 1, 2, 4]).numpy(),
        rows(3, 1000),
        5,
        rounds=2,
        weight=0.5,
    )
    model.smoothing = other
    assert len({before, smoothed, moved, space_id(model)}) == 4


def pooled_by_hand(pooling: InterestPooling, vectors: torch.Tensor) -> torch.Tensor:
    num_interests = pooling.recency.shape[1]
    out = torch.zeros(len(HISTORY), num_interests, vectors.shape[1], dtype=vectors.dtype)
    for query, (start, stop) in enumerate(pairwise(HISTORY.offsets.tolist())):
        events = vectors[HISTORY.values[start:stop]]
        for interest in range(num_interests):
            hidden = torch.tanh(pooling.hidden(events * events.shape[1] ** 0.5))
            logit = hidden @ pooling.attention.weight[interest]
            logit = logit + pooling.recency[: stop - start, interest].flip(0)
            out[query, interest] = logit.softmax(0) @ events if stop > start else 0.0
    return out


def test_attention_over_a_history_by_its_definition() -> None:
    torch.manual_seed(1)
    pooling, vectors = InterestPooling(3, 5, 4).double(), torch.randn(6, 5, dtype=torch.double)
    pooling.recency.data.normal_()
    found = pooling(vectors, HISTORY)
    torch.testing.assert_close(found, pooled_by_hand(pooling, vectors).float(), check_dtype=False)
    assert not found[0].any()
    # Logits beyond what exp can hold.
    pooling.attention.weight.data *= 5000
    found = pooling(vectors, HISTORY)
    torch.testing.assert_close(found, pooled_by_hand(pooling, vectors).float(), check_dtype=False)


def test_attention_and_its_gradients_reach_every_part() -> None:
    torch.manual_seed(1)
    pooling, grads = InterestPooling(3, 5, 4), []
    vectors = torch.randn(6, 5)
    for pool in (pooling, lambda given, _: pooled_by_hand(pooling, given)):
        pooling.zero_grad()
        given = vectors.clone().requires_grad_()
        (pool(given, HISTORY) * torch.arange(45.0).view(3, 3, 5)).sum().backward()
        parts = [given, *pooling.parameters()]
        grads.append([part.grad.clone() for part in parts if part.grad is not None])
    assert len(grads[0]) == 4
    for one, other in zip(*grads, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_interests_differ_from_the_first_step_on_but_not_without_a_history() -> None:
    model = tower(interests=4)
    vectors = catalogue_vectors(model, rows(5))
    queries = query_vectors(model, rows(3, 1000), vectors, HISTORY)
    assert torch.isfinite(queries).all()
    torch.testing.assert_close(queries[0], queries[0, :1].expand(4, -1))
    cosine = queries[1] @ queries[1].T
    assert float(cosine[0, 3]) < 0.95  # the whole history beside the last event
    batch = whole_batch()
    model(batch)[0].sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


GROUPS, GROUP_SIZE = 4, 10


def two_tastes(count: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Return histories (B, 6) that mix two groups of items, and those two groups (B, 2)."""
    tastes = torch.stack([torch.randperm(GROUPS, generator=generator)[:2] for _ in range(count)])
    which = torch.randint(0, 2, (count, 6), generator=generator)
    which[:, 0], which[:, 1] = 0, 1
    item = torch.randint(0, GROUP_SIZE, (count, 6), generator=generator)
    return tastes.gather(1, which) * GROUP_SIZE + item, tastes


def test_interests_of_a_user_with_two_tastes_come_to_differ() -> None:
    """Each group of items ends nearest to another interest than the user's other group."""
    config = {"interests": 4, "history_length": 6, "dim": 16, "temperature": 0.2}
    model, generator = tower(**config).train(), torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    catalogue = rows(GROUPS * GROUP_SIZE)
    for _ in range(150):
        items, tastes = two_tastes(48, generator)
        history = Jagged(items.flatten(), torch.arange(49) * 6)
        wanted = torch.randint(0, GROUP_SIZE, (48, 2), generator=generator)
        positive = (tastes * GROUP_SIZE + wanted).flatten()
        asks = torch.arange(48).repeat_interleave(2)
        batch = PairBatch(
            items=catalogue,
            item_rows=torch.arange(len(catalogue)),
            num_candidates=len(catalogue),
            query=FeatureBlock(torch.full((48, 1), 7), (), torch.zeros(48, 0)),
            history=history,
            asks=asks,
            positive=positive,
            not_negative=Jagged(positive, torch.arange(49) * 2),
            log_inclusion=torch.zeros(len(catalogue)),
            weight=torch.ones(96),
            examples=asks,
        )
        query, candidate = model(batch)
        pairs = Pairs(batch.asks, batch.positive, batch.weight)
        loss = softmax_loss(query / 0.2, candidate, pairs, batch.not_negative)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    vectors = catalogue_vectors(model, catalogue)
    items, tastes = two_tastes(200, generator)
    history = Jagged(items.flatten(), torch.arange(201) * 6)
    block = FeatureBlock(torch.full((200, 1), 7), (), torch.zeros(200, 0))
    queries = query_vectors(model, block, vectors, history)
    groups = F.normalize(vectors.view(GROUPS, GROUP_SIZE, -1).mean(1), dim=1)
    scores = torch.einsum("bie,bte->bti", queries, groups[tastes])
    nearest = scores.argmax(2)
    assert float((nearest[:, 0] != nearest[:, 1]).float().mean()) > 0.8
    assert float(scores.amax(2).mean()) > 0.7  # and each lies near its group
    best = torch.einsum("bie,ne->bin", queries, vectors).amax(1).view(200, GROUPS, -1).mean(2)
    top = best.topk(2, dim=1).indices.sort(1).values
    assert float((top == tastes.sort(1).values).all(1).float().mean()) > 0.9


def test_a_tower_that_learnt_nothing_asks_for_the_history_and_what_each_attends_to() -> None:
    model = tower(interests=3)
    last = model.query[-1]
    assert isinstance(last, torch.nn.Linear)
    torch.nn.init.zeros_(last.weight)
    torch.nn.init.zeros_(last.bias)
    vectors = catalogue_vectors(model, rows(5))
    assert model.interests is not None
    whole = model.history(vectors, HISTORY).mean(1, keepdim=True)
    expected = F.normalize(whole + model.interests(vectors, HISTORY), dim=2)
    asked = query_vectors(model, rows(3, 1000), vectors, HISTORY)
    torch.testing.assert_close(asked[1:], expected[1:])
