"""Sphere and ball: distances by hand, products that order by distance, steps that stay inside."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from recsys.bundle.weights import load_retrieval, save_weights, space_id
from recsys.data.batch import FeatureBlock, FeatureLayout, Jagged
from recsys.embeddings.backend import build_table
from recsys.embeddings.plan import EmbeddingPlan
from recsys.embeddings.table import TableConfig
from recsys.embeddings.unified import UnifiedEmbedding
from recsys.layers.geometry import (
    candidate_vectors,
    neighbours_of,
    points_of,
    query_vectors_of,
)
from recsys.losses.retrieval import Negatives, Pairs, metric_loss
from recsys.models.retrieval import catalogue_vectors, query_vectors
from recsys.models.two_tower import TwoTower, TwoTowerConfig
from recsys.retrieval.topk import exact_topk


def test_products_in_the_ball_by_hand() -> None:
    queries = query_vectors_of(torch.tensor([[0.6, 0.0], [3.0, 4.0]]), "ball")
    items = candidate_vectors(torch.tensor([[0.0, 0.8], [0.0, 0.0], [0.0, -2.0]]), "ball")
    torch.testing.assert_close(queries[0], torch.tensor([0.6, 0.0, 1.0, -0.18]))
    torch.testing.assert_close(items[0], torch.tensor([0.0, 0.8, -0.32, 1.0]))
    # (3, 4) lies at (0.6, 0.8), (0, -2) at (0, -1): squared distances by Pythagoras.
    squared = torch.tensor([[1.0, 0.36, 1.36], [0.36, 1.0, 0.36 + 1.8**2]])
    torch.testing.assert_close(queries @ items.T, -squared / 2)


def test_products_on_the_sphere_are_cosines() -> None:
    queries = query_vectors_of(torch.tensor([[3.0, 4.0]]), "sphere")
    items = candidate_vectors(torch.tensor([[0.1, 0.0], [-7.0, 0.0]]), "sphere")
    torch.testing.assert_close(queries @ items.T, torch.tensor([[0.6, -0.6]]))
    assert torch.equal(points_of(items, "sphere"), items)


@given(st.integers(0, 2**31), st.integers(1, 9), st.floats(0.05, 4))
def test_the_order_of_products_is_that_of_distances(seed: int, width: int, size: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    raw = torch.randn(23, width, generator=generator, dtype=torch.double) * size / width**0.5
    for geometry in ("sphere", "ball"):
        queries = query_vectors_of(raw[:3], geometry)  # type: ignore[arg-type]
        items = candidate_vectors(raw[3:], geometry)  # type: ignore[arg-type]
        points = [points_of(one, geometry) for one in (queries, items)]  # type: ignore[arg-type]
        assert float(torch.cat(points).norm(dim=1).max()) <= 1 + 1e-12
        squared = torch.cdist(*points).square()
        offset = 1.0 if geometry == "sphere" else 0.0
        torch.testing.assert_close(queries @ items.T, offset - squared / 2)


@pytest.mark.parametrize("geometry", ["sphere", "ball"])
def test_search_finds_the_nearest_among_many_by_the_screen_too(geometry: str) -> None:
    """40,000 items are screened in bytes or floats, whose bounds may not count on unit norms."""
    torch.manual_seed(0)
    items = candidate_vectors(torch.randn(40_000, 16) * 0.3, geometry)  # type: ignore[arg-type]
    queries = query_vectors_of(torch.randn(80, 16) * 0.3, geometry)  # type: ignore[arg-type]
    assert geometry == "sphere" or float(points_of(items, "ball").norm(dim=1).min()) < 0.6
    rows = exact_topk(queries, items, 10)[1]
    points = [points_of(one, geometry).double() for one in (queries, items)]  # type: ignore[arg-type]
    nearest = torch.cdist(*points).topk(10, largest=False).values
    found = torch.stack(
        [torch.cdist(points[0][q : q + 1], points[1][rows[q]])[0] for q in range(80)]
    )
    torch.testing.assert_close(found, nearest, rtol=0, atol=1e-6)


def ball_gradient(raw: list[float], upstream: list[float]) -> Tensor:
    """Return what descent along `upstream` at the point does to `raw`."""
    x = torch.tensor([raw], dtype=torch.double, requires_grad=True)
    points_of(candidate_vectors(x, "ball"), "ball").backward(  # type: ignore[no-untyped-call]
        torch.tensor([upstream], dtype=torch.double)
    )
    assert x.grad is not None
    return x.grad[0]


def test_gradients_inside_are_plain_and_outside_lead_back_in_but_not_further_out() -> None:
    inside = torch.randn(4, 3, dtype=torch.double) * 0.2
    assert torch.autograd.gradcheck(lambda x: candidate_vectors(x, "ball"), inside.requires_grad_())
    # At (4, 0) the point is (1, 0); descent subtracts the gradient.
    torch.testing.assert_close(
        ball_gradient([4, 0], [1, 2]), torch.tensor([0.25, 0.5], dtype=torch.double)
    )
    torch.testing.assert_close(
        ball_gradient([4, 0], [-1, 2]), torch.tensor([0.0, 0.5], dtype=torch.double)
    )
    torch.testing.assert_close(
        ball_gradient([0.5, 0], [-1, 2]), torch.tensor([-1.0, 2.0], dtype=torch.double)
    )


def test_descent_brings_a_point_from_outside_to_a_goal_inside() -> None:
    goal = torch.tensor([0.2, 0.1])
    x = torch.tensor([[3.0, -2.0]], requires_grad=True)
    descent = torch.optim.SGD([x], lr=0.5)
    for _ in range(200):
        descent.zero_grad()
        (points_of(candidate_vectors(x, "ball"), "ball") - goal).square().sum().backward()  # type: ignore[no-untyped-call]
        descent.step()
    torch.testing.assert_close(x.detach()[0], goal, atol=1e-4, rtol=0)


def test_neighbours_lie_off_by_the_noise() -> None:
    items = candidate_vectors(torch.tensor([[0.3, 0.0]]), "ball")
    near = neighbours_of(items, "ball", torch.tensor([[0.0, 0.4]]))
    torch.testing.assert_close(near @ items.T, torch.tensor([[-0.08]]))
    on_sphere = neighbours_of(torch.tensor([[1.0, 0.0]]), "sphere", torch.tensor([[0.0, 1.0]]))
    torch.testing.assert_close(on_sphere, torch.tensor([[math.sqrt(0.5)] * 2]))


LAYOUTS = (FeatureLayout((("item", 2),), (), ("price",)), FeatureLayout((("user", 1),), (), ()))
BALL = TwoTowerConfig(dim=6, geometry="ball", hidden=(8,), history_length=4, history_heads=2)
TABLE = TableConfig(num_rows=64, dim=4, backend="torch")
HISTORY = Jagged(torch.tensor([0, 1, 2, 3, 2]), torch.tensor([0, 0, 4, 5]))


def ball_tower() -> TwoTower:
    torch.manual_seed(5)
    plan = EmbeddingPlan(num_rows=64, dim=4, layouts=LAYOUTS)
    table = build_table(TABLE, device=torch.device("cpu"), seed=0)
    return TwoTower(BALL, UnifiedEmbedding(plan, table)).eval()


def catalogue() -> FeatureBlock:
    torch.manual_seed(1)
    return FeatureBlock(torch.arange(5).unsqueeze(1), (), torch.randn(5, 1))


def users() -> FeatureBlock:
    return FeatureBlock(torch.arange(3).unsqueeze(1) + 1000, (), torch.zeros(3, 0))


def test_a_tower_in_the_ball_pools_points_and_asks_for_what_resembles_the_history() -> None:
    model = ball_tower()
    last = model.query[-1]
    assert isinstance(last, torch.nn.Linear)
    torch.nn.init.zeros_(last.weight)
    torch.nn.init.zeros_(last.bias)
    items = catalogue_vectors(model, catalogue())
    assert items.shape == (5, 8)
    asked = query_vectors(model, users(), items, HISTORY)
    points = points_of(items, "ball")
    torch.testing.assert_close(points_of(asked, "ball")[0], torch.zeros(6))  # nobody: the middle
    torch.testing.assert_close(points_of(asked, "ball")[2], points[2])  # one event: the item
    assert float((asked[2] @ items[2]).abs()) < 1e-6  # at distance 0
    by_hand = model.history(points, HISTORY).mean(1)[1]
    torch.testing.assert_close(points_of(asked, "ball")[1], by_hand)


def test_weights_in_the_ball_survive_and_their_space_is_another() -> None:
    model = ball_tower()
    again = load_retrieval(save_weights(model), BALL, TABLE, LAYOUTS)
    vectors = catalogue_vectors(model, catalogue())
    torch.testing.assert_close(catalogue_vectors(again, catalogue()), vectors)
    assert space_id(again) == space_id(model)
    on_sphere = BALL.model_copy(update={"geometry": "sphere"})
    assert space_id(load_retrieval(save_weights(model), on_sphere, TABLE, LAYOUTS)) != space_id(
        model
    )


def test_metric_loss_by_hand_over_all_negatives_and_the_worst() -> None:
    """One user at the middle; its film 0.6 away, others at 1.0 and 0.5; margin 0.2."""
    query = query_vectors_of(torch.zeros(1, 1), "ball")
    films = candidate_vectors(torch.tensor([[0.6], [1.0], [-0.5]]), "ball")
    pairs = Pairs(torch.tensor([0]), torch.tensor([0]), torch.ones(1))
    excluded = Jagged(torch.tensor([0]), torch.tensor([0, 1]))
    negatives = Negatives.of(excluded, 3)
    # 0.2 + 0.36 - 1 < 0; 0.2 + 0.36 - 0.25 = 0.31: one of two is inside the margin.
    for worst, expected in ((True, 0.31), (False, 0.155)):
        flat, weighted = (
            metric_loss(
                query, films, pairs, negatives, margin=0.2, num_items=10, worst=worst,
                rank_weight=rank_weight,
            )
            for rank_weight in (False, True)
        )  # fmt: skip
        assert float(flat) == pytest.approx(expected, rel=1e-5)
        assert float(weighted) == pytest.approx(expected * math.log(1 + 5), rel=1e-5)
