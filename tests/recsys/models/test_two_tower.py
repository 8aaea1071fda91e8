"""The two-tower's contract: alone equals in a batch, histories pool as written, save and load."""

from typing import Any

import pytest
import torch
from torch.nn import functional as F

from recsys.bundle.weights import load_retrieval, save_weights, space_id
from recsys.core.errors import IntegrityError
from recsys.data.batch import FeatureBlock, FeatureLayout, Jagged, PairBatch
from recsys.embeddings.backend import build_table
from recsys.embeddings.plan import EmbeddingPlan
from recsys.embeddings.table import TableConfig
from recsys.embeddings.unified import UnifiedEmbedding
from recsys.layers.geometry import Geometry, points_of
from recsys.layers.pooling import RecencyPooling
from recsys.models.retrieval import catalogue_vectors, query_vectors
from recsys.models.two_tower import TwoTower, TwoTowerConfig

LAYOUTS = (FeatureLayout((("item", 2),), (), ("price",)), FeatureLayout((("user", 1),), (), ()))
CONFIG = TwoTowerConfig(dim=8, hidden=(16,), history_length=4, history_heads=2)
TABLE = TableConfig(num_rows=64, dim=4, backend="torch")


def tower(config: TwoTowerConfig = CONFIG) -> TwoTower:
    torch.manual_seed(5)
    plan = EmbeddingPlan(num_rows=64, dim=4, layouts=LAYOUTS)
    table = build_table(TABLE, device=torch.device("cpu"), seed=0)
    return TwoTower(config, UnifiedEmbedding(plan, table)).eval()


def items(count: int) -> FeatureBlock:
    return FeatureBlock(torch.arange(count).unsqueeze(1), (), torch.randn(count, 1))


def users(count: int) -> FeatureBlock:
    return FeatureBlock(torch.arange(count).unsqueeze(1) + 1000, (), torch.zeros(count, 0))


HISTORY = Jagged(torch.tensor([0, 1, 2, 3, 2]), torch.tensor([0, 0, 4, 5]))


def pooled_by_hand(pooling: RecencyPooling, vectors: torch.Tensor, history: Jagged) -> torch.Tensor:
    out = torch.zeros(len(history), pooling.num_heads, vectors.shape[1])
    for query in range(len(history)):
        rows = history.values[history.offsets[query] : history.offsets[query + 1]].tolist()
        if rows:
            weights = pooling.recency[: len(rows)].flip(0).softmax(0).T  # the newest event last
            out[query] = weights @ vectors[rows]
    return out


def test_pooling_equals_a_softmax_by_recency() -> None:
    torch.manual_seed(0)
    pooling, vectors = RecencyPooling(3, 4), torch.randn(6, 5)
    pooling.recency.data.normal_(std=3)
    torch.testing.assert_close(pooling(vectors, HISTORY), pooled_by_hand(pooling, vectors, HISTORY))


def test_heads_start_from_the_whole_history_to_mostly_the_last_event() -> None:
    weights = RecencyPooling(3, 4).recency.detach().softmax(0).T  # by steps back
    torch.testing.assert_close(weights[0], torch.full((4,), 0.25))
    torch.testing.assert_close(weights[2, 1:] / weights[2, :-1], torch.full((3,), 1 / torch.e))
    assert float(weights[0, 0]) < float(weights[1, 0]) < float(weights[2, 0])


def test_pooling_gradients() -> None:
    pooling, vectors = RecencyPooling(2, 4).double(), torch.randn(6, 3, dtype=torch.double)

    def run(vectors: torch.Tensor, recency: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(pooling, {"recency": recency}, (vectors, HISTORY))

    recency = torch.randn(4, 2, dtype=torch.double)
    inputs = (vectors.requires_grad_(), recency.requires_grad_())
    assert torch.autograd.gradcheck(run, inputs)


def test_a_query_scores_the_same_alone_as_in_a_batch() -> None:
    model, catalogue = tower(), items(5)
    vectors = catalogue_vectors(model, catalogue)
    together = query_vectors(model, users(3), vectors, HISTORY)
    for query in range(3):
        row = torch.tensor([query])
        alone = query_vectors(model, users(3).take(row), vectors, HISTORY.take(row))
        torch.testing.assert_close(alone[0], together[query])
    torch.testing.assert_close(together.norm(dim=1), torch.ones(3))


def test_training_and_serving_paths_give_the_same_vectors() -> None:
    """One batch through `forward` equals catalogue and queries encoded apart."""
    model, catalogue = tower(), items(5)
    batch = PairBatch(
        items=catalogue,
        item_rows=torch.arange(5),
        num_candidates=3,
        query=users(3),
        history=HISTORY,
        asks=torch.arange(3),
        positive=torch.tensor([0, 1, 2]),
        not_negative=Jagged(torch.tensor([0, 1, 2]), torch.arange(4)),
        log_inclusion=torch.zeros(3),
        weight=torch.ones(3),
        examples=torch.arange(3),
    )
    with torch.no_grad():
        query, candidate = model(batch)
    vectors = catalogue_vectors(model, catalogue)
    torch.testing.assert_close(candidate, vectors[:3])
    torch.testing.assert_close(query, query_vectors(model, users(3), vectors, HISTORY))


def test_vectors_are_made_without_dropout_and_training_goes_on() -> None:
    model, catalogue = tower().train(), items(5)
    vectors = catalogue_vectors(model, catalogue)
    asked = query_vectors(model, users(3), vectors, HISTORY)
    assert model.training
    assert torch.equal(catalogue_vectors(model.eval(), catalogue), vectors)
    assert torch.equal(query_vectors(model, users(3), vectors, HISTORY), asked)


def test_a_tower_that_learnt_nothing_asks_for_what_resembles_the_history() -> None:
    model = tower()
    last = model.query[-1]
    assert isinstance(last, torch.nn.Linear)
    torch.nn.init.zeros_(last.weight)
    torch.nn.init.zeros_(last.bias)
    vectors = catalogue_vectors(model, items(5))
    asked = query_vectors(model, users(3), vectors, HISTORY)
    expected = F.normalize(model.history(vectors, HISTORY).mean(1), dim=1)
    torch.testing.assert_close(asked, expected)
    torch.testing.assert_close(asked[2], vectors[2])  # one event: the item itself


def test_towers_start_without_a_direction_that_all_vectors_share() -> None:
    model = tower()
    nothing = {name: torch.zeros(1, layer[0].in_features) for name, layer in towers(model)}
    model.eval()
    for name, layer in towers(model):
        for hidden in layer[:-1]:
            if isinstance(hidden, torch.nn.Linear):
                torch.nn.init.zeros_(hidden.bias)
        assert layer(nothing[name]).abs().max() == 0
    longer = torch.zeros(1, model.query[0].in_features)  # type: ignore[arg-type]
    longer[0, -1] = 5.0  # the length of the history
    assert model.query(longer).abs().max() == 0


def towers(model: TwoTower) -> list[tuple[str, Any]]:
    return [("candidate", model.candidate), ("query", model.query)]


def test_the_temperature_starts_as_given_and_learns_only_if_asked() -> None:
    embedding = tower().embedding
    fixed = CONFIG.model_copy(update={"temperature": 0.2, "learn_temperature": False})
    for config, learns in ((CONFIG, True), (fixed, False)):
        model = TwoTower(config, embedding)
        assert float(model.temperature.detach()) == pytest.approx(config.temperature)
        assert model.log_temperature.requires_grad is learns


def test_an_item_in_the_history_moves_the_query_and_the_table() -> None:
    """History and candidates share the table: training through a history reaches item rows."""
    model = tower()
    before = model.embedding.table.weight.clone()
    empty = FeatureBlock(torch.zeros(1, 1, dtype=torch.int64), (), torch.zeros(1, 0))
    embedded, asked = model.embedding([items(1), empty])
    vectors = F.normalize(model.candidate(embedded), dim=1)
    once = Jagged(torch.tensor([0]), torch.tensor([0, 1]))
    model._queries(asked, vectors, once)[0, 0].backward()  # type: ignore[no-untyped-call]
    changed = (model.embedding.table.weight != before).any(1).sum()
    assert int(changed) >= 2  # both lookups of the item and the one of the user, collisions aside


def test_weights_survive_a_round_trip_and_know_their_space() -> None:
    model, catalogue = tower(), items(5)
    again = load_retrieval(save_weights(model), CONFIG, TABLE, LAYOUTS)
    vectors = catalogue_vectors(model, catalogue)
    torch.testing.assert_close(catalogue_vectors(again, catalogue), vectors)
    assert space_id(again) == space_id(model)
    with torch.no_grad():
        again.query[0].bias += 1  # the query tower may move on; the items' space stays
    assert space_id(again) == space_id(model)
    with torch.no_grad():
        again.candidate[0].bias += 1
    assert space_id(again) != space_id(model)
    moved = load_retrieval(save_weights(model), CONFIG, TABLE, LAYOUTS)
    moved.embedding.table.weight[7, 0] += 1
    assert space_id(moved) != space_id(model)
    renamed = (FeatureLayout((("article", 2),), (), ("price",)), LAYOUTS[1])  # other salts
    named = load_retrieval(save_weights(model), CONFIG, TABLE, renamed)
    assert space_id(named) != space_id(model)
    other = TwoTowerConfig(dim=4, hidden=(16,), history_length=4, history_heads=2)
    with pytest.raises(IntegrityError, match="do not fit the configuration"):
        load_retrieval(save_weights(model), other, TABLE, LAYOUTS)


@pytest.mark.parametrize("hidden", [(), (16,)])
@pytest.mark.parametrize("interests", [1, 3])
@pytest.mark.parametrize("geometry", ["sphere", "biased_sphere", "ball"])
def test_a_rotated_model_has_other_vectors_and_the_same_products(
    geometry: Geometry, interests: int, hidden: tuple[int, ...]
) -> None:
    sizes = {"geometry": geometry, "interests": interests, "hidden": hidden}
    config = CONFIG.model_copy(update=sizes)
    model = tower(config)
    torch.nn.init.normal_(model.query[-1].bias)  # type: ignore[arg-type]
    torch.nn.init.normal_(model.candidate[-1].bias)  # type: ignore[arg-type]
    catalogue, asking = items(6), users(3)
    before = catalogue_vectors(model, catalogue)
    asked = query_vectors(model, asking, before, HISTORY)
    rotation = torch.linalg.qr(torch.randn(8, 8).double())[0]
    model.rotate(rotation)
    again = load_retrieval(save_weights(model), config, TABLE, LAYOUTS)
    now = catalogue_vectors(again, catalogue)
    turned = points_of(before, geometry) @ rotation.float()
    torch.testing.assert_close(points_of(now, geometry), turned, rtol=1e-4, atol=1e-5)
    found = query_vectors(again, asking, now, HISTORY) @ now.T
    torch.testing.assert_close(found, asked @ before.T, rtol=1e-4, atol=1e-5)
