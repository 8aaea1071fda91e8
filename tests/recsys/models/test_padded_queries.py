"""Padded histories against packed ones: every form of both models, histories of every length."""

from typing import Any

import pytest
import torch
from torch import Tensor

from recsys.data.batch import FeatureBlock, FeatureLayout, History, Jagged
from recsys.embeddings.backend import build_table
from recsys.embeddings.plan import EmbeddingPlan
from recsys.embeddings.table import TableConfig
from recsys.embeddings.unified import UnifiedEmbedding
from recsys.layers.geometry import points_of, vector_width
from recsys.models.padded_queries import padded_gap_classes, session_queries, two_tower_queries
from recsys.models.session import (
    EVENTS,
    USERS,
    SessionTransformer,
    SessionTransformerConfig,
    gap_classes,
)
from recsys.models.two_tower import QUERY, TwoTower, TwoTowerConfig

ITEMS = FeatureLayout((("item", 1),), (), ())
PEOPLE = FeatureLayout((("user", 2),), (), ("age",))
STEPS = FeatureLayout((("kind", 1),), (), ("paid",))
NOTHING = FeatureLayout((), (), ())
TABLE = TableConfig(num_rows=200, dim=4, backend="torch", init_scale=1.0)
LENGTHS = torch.tensor([3, 0, 6, 1, 5])
NUM_ITEMS, DIM = 11, 8


def embedding(*layouts: FeatureLayout) -> UnifiedEmbedding:
    table = build_table(TABLE, device=torch.device("cpu"), seed=0)
    plan = EmbeddingPlan(num_rows=TABLE.num_rows, dim=TABLE.dim, layouts=layouts)
    return UnifiedEmbedding(plan, table)


def unsettled(model: torch.nn.Module) -> Any:
    """Weights that differ from each other and from where training starts."""
    generator = torch.Generator().manual_seed(3)
    for weight in model.parameters():
        weight.data += torch.randn(weight.shape, generator=generator) * 0.3
    return model.eval().requires_grad_(False)


def block(rows: int, layout: FeatureLayout) -> FeatureBlock:
    single = torch.randint(1000, (rows, len(layout.single)))
    return FeatureBlock(single, (), torch.randn(rows, len(layout.dense)))


def padded(flat: Tensor, filler: float) -> Tensor:
    """Steps (T, ...) as (B, M, ...), the rest `filler`: it must not be seen."""
    rows = flat.split(LENGTHS.tolist())
    out = flat.new_full((len(LENGTHS), int(LENGTHS.max()), *flat.shape[1:]), filler)
    for number, row in enumerate(rows):
        out[number, : len(row)] = row
    return out


def offsets() -> Tensor:
    return torch.cat([torch.zeros(1, dtype=torch.int64), LENGTHS.cumsum(0)])


@pytest.mark.parametrize("geometry", ["sphere", "biased_sphere", "ball"])
@pytest.mark.parametrize("interests", [1, 3])
def test_a_two_towers_queries(geometry: str, interests: int) -> None:
    config = TwoTowerConfig.model_validate(
        {"dim": DIM, "hidden": (12,), "history_length": 6, "history_heads": 2}
        | {"geometry": geometry, "interests": interests}
    )
    model: TwoTower = unsettled(TwoTower(config, embedding(ITEMS, PEOPLE)))
    vectors = torch.randn(NUM_ITEMS, vector_width(DIM, config.geometry))
    history = Jagged(torch.randint(NUM_ITEMS, (int(LENGTHS.sum()),)), offsets())
    people = block(len(LENGTHS), PEOPLE)
    points = padded(points_of(vectors, config.geometry)[history.values], 50.0)
    found = two_tower_queries(model, model.embedding.side(QUERY, people), points, LENGTHS)
    wanted = model.encode_queries(people, vectors, history)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("rich", [True, False])
@pytest.mark.parametrize("readout", ["last", "items"])
@pytest.mark.parametrize("positions", ["learned", "rotary", "none"])
def test_a_sessions_queries(rich: bool, readout: str, positions: str) -> None:
    geometry = {"learned": "ball", "rotary": "dot", "none": "sphere"}[positions]
    activation = {"learned": "swiglu", "rotary": "gelu", "none": "relu2"}[positions]
    config = SessionTransformerConfig.model_validate(
        {"dim": DIM, "history_length": 6, "geometry": geometry, "readout": readout}
        | {"time_gaps": rich, "repeats": rich}
        | {"transformer": {"positions": positions, "activation": activation}}
    )
    layouts = (ITEMS, PEOPLE, STEPS) if rich else (ITEMS, NOTHING, NOTHING)
    model: SessionTransformer = unsettled(SessionTransformer(config, embedding(*layouts)))
    vectors = torch.randn(NUM_ITEMS, vector_width(DIM, config.geometry))
    steps = int(LENGTHS.sum())
    items = Jagged(torch.randint(NUM_ITEMS, (steps,)), offsets())
    gap = torch.where(torch.rand(steps) < 0.2, torch.nan, torch.rand(steps) * 10_000)
    history = History(items, block(steps, layouts[EVENTS]), gap)
    people = block(len(LENGTHS), layouts[USERS])
    found = session_queries(
        model,
        model.embedding.side(USERS, people),
        padded(model.embedding.side(EVENTS, history.features), 9.0),
        padded(points_of(vectors, config.geometry)[items.values], 50.0),
        padded(gap, 3.0),
        LENGTHS,
    )
    wanted = model.encode_queries(people, vectors, history)
    assert found.shape == (len(LENGTHS), vector_width(DIM, config.geometry) + rich)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def test_gaps_fall_into_the_same_classes() -> None:
    whole = 2.0 ** torch.arange(40) - 1
    around = torch.cat([whole, torch.nextafter(whole, torch.tensor(0.0)), whole + 0.5])
    gap = torch.cat([around, -around, torch.tensor([torch.nan, 1e30])])
    assert torch.equal(padded_gap_classes(gap), gap_classes(gap))
