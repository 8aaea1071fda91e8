"""The rankers against their papers, written out by hand, and what all have in common."""

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from recsys.data.batch import FeatureBlock, FeatureLayout, Jagged
from recsys.embeddings.backend import build_table
from recsys.embeddings.plan import EmbeddingPlan
from recsys.embeddings.table import TableConfig
from recsys.embeddings.unified import UnifiedEmbedding
from recsys.layers.norm import FieldNorm
from recsys.models.autoint import AutoIntConfig, InteractingLayer
from recsys.models.dcn import DCNConfig
from recsys.models.deep import DeepConfig
from recsys.models.finalmlp import FinalMLPConfig
from recsys.models.fm import FMConfig
from recsys.models.logistic import LogisticConfig
from recsys.models.masknet import MaskNetConfig
from recsys.models.mmoe import MMoEConfig
from recsys.models.rankers import RANKERS, RankerConfig, build_ranker, of_label
from recsys.models.shared_bottom import SharedBottomConfig

LAYOUT = FeatureLayout(
    (("user", 2), ("city", 1)), (("tags", 1),), ("price", "price.null", "age", "age.null")
)
CONFIGS: dict[str, RankerConfig] = {
    "autoint": AutoIntConfig(layers=2, head_dim=5, field_dim=6),
    "autoint+": AutoIntConfig(
        layers=2, field_dim=4, hidden=(8,), first_order=True, field_norm="layer", scaled=True
    ),
    "dcn": DCNConfig(hidden=(8, 4)),
    "mlp": DeepConfig(hidden=(8,)),
    "finalmlp": FinalMLPConfig(hidden=(8, 6), second_hidden=(9, 4), heads=2, gate_hidden=5),
    "masknet": MaskNetConfig(blocks=2, block_dim=6, hidden=(5,)),
    "masknet in series": MaskNetConfig(
        structure="serial", blocks=2, block_dim=6, hidden=(), field_norm="layer", mask_ratio=0.3
    ),
    "shared_bottom": SharedBottomConfig(hidden=(8, 6), towers=(5,)),
    "mmoe": MMoEConfig(experts=3, hidden=(8, 6), towers=(5,)),
    "fm": FMConfig(),
    "logistic": LogisticConfig(),
}


SEVERAL = [name for name, kind in RANKERS.items() if kind.has_outcomes]


def model_of(
    config: RankerConfig, layout: FeatureLayout = LAYOUT, rows: int = 5000, outcomes: int = 1
) -> Any:
    table = TableConfig(num_rows=rows, dim=4, backend="torch", learning_rate=0.1)
    plan = EmbeddingPlan.of(table, (layout,))
    embedding = UnifiedEmbedding(plan, build_table(table, device=torch.device("cpu"), seed=0))
    return build_ranker(config, embedding, outcomes)


def block(rows: int = 7) -> FeatureBlock:
    generator = torch.Generator().manual_seed(1)
    single = torch.randint(0, 50, (rows, 2), generator=generator)
    lengths = torch.tensor([1, 3, 2, 1, 1, 4, 2])[:rows]
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
    tags = Jagged(torch.randint(0, 9, (int(offsets[-1]),), generator=generator), offsets)
    return FeatureBlock(single, (tags,), torch.randn(rows, 4, generator=generator))


def paper_layer(layer: InteractingLayer, x: NDArray[np.float64], head_dim: int) -> Any:
    """Equations 5 to 8 as the paper writes them: head by head, field by field, in NumPy."""
    weights = np.split(layer.projections.weight.detach().double().numpy(), 4)
    query, key, value, residual = weights
    found = []
    for example in x:
        heads = []
        for h in range(layer.heads):
            own = slice(h * head_dim, (h + 1) * head_dim)
            mixed = []
            for m in range(len(example)):
                q = query[own] @ example[m]
                inner = np.array([q @ (key[own] @ example[k]) for k in range(len(example))])
                alpha = np.exp(inner) / np.exp(inner).sum()
                mixed.append(sum(a * (value[own] @ e) for a, e in zip(alpha, example, strict=True)))
            heads.append(np.stack(mixed))
        found.append(np.maximum(np.concatenate(heads, axis=1) + example @ residual.T, 0))
    return np.stack(found)


@pytest.mark.parametrize(("heads", "head_dim"), [(1, 3), (2, 5), (3, 4)])
def test_the_layer_is_the_papers(heads: int, head_dim: int) -> None:
    layer = InteractingLayer(6, heads, head_dim, scaled=False, dropout=0.0)
    x = torch.randn(3, 5, 6)
    expected = paper_layer(layer, x.double().numpy(), head_dim)
    np.testing.assert_allclose(layer(x).detach().numpy(), expected, rtol=1e-4, atol=1e-5)


def test_scaling_divides_the_inner_products() -> None:
    raw = InteractingLayer(6, 2, 9, scaled=False, dropout=0.0)
    scaled = InteractingLayer(6, 2, 9, scaled=True, dropout=0.0)
    scaled.load_state_dict(raw.state_dict())
    x = torch.randn(2, 4, 6)
    query, key = (part.view(2, 4, 2, 9) for part in raw.projections(x).chunk(4, dim=2)[:2])
    inner = torch.einsum("bmhd,bkhd->bhmk", query, key)
    torch.testing.assert_close(scaled.attention(x), torch.softmax(inner / 3, dim=3))
    torch.testing.assert_close(raw.attention(x), torch.softmax(inner, dim=3))


def test_every_layer_and_every_field_reach_the_logit() -> None:
    model = model_of(CONFIGS["autoint"].model_copy(update={"norm": "none", "field_norm": "none"}))
    features = block()
    (embedded,) = model.embedding([features])
    x = model.fields(embedded).detach().double().numpy()
    for layer in model.layers:
        x = paper_layer(layer, x, 5)
    weight = model.readout.weight.detach().double().numpy().reshape(5, 10)
    expected = np.einsum("bnd,nd->b", x, weight) + model.readout.bias.item()
    np.testing.assert_allclose(model(features).detach().numpy(), expected, rtol=1e-4, atol=1e-5)


def test_autoint_plus_adds_the_perceptron_and_the_linear_term() -> None:
    config = AutoIntConfig(
        layers=1, field_dim=4, hidden=(8,), first_order=True, norm="none", field_norm="none"
    )
    model = model_of(config).eval()
    features = block()
    (embedded,) = model.embedding([features])
    fields = model.fields(embedded)
    first, second = model.deep[0], model.deep[-1]
    deep = F.relu(fields.flatten(1) @ first.weight.T + first.bias) @ second.weight.T + second.bias
    linear = embedded @ model.first_order.weight.T
    mixed = model.layers[0](fields).flatten(1) @ model.readout.weight.T + model.readout.bias
    torch.testing.assert_close(model(features), (mixed + deep + linear).squeeze(1))


def test_attention_maps_are_those_of_the_forward_pass() -> None:
    model = model_of(CONFIGS["autoint+"]).eval()
    maps = model.attention(block())
    assert maps.shape == (2, 7, 2, 5, 5)
    torch.testing.assert_close(maps.sum(4), torch.ones(2, 7, 2, 5))
    (embedded,) = model.embedding([block()])
    x = model.fields(embedded)
    for number, layer in enumerate(model.layers):
        normed = model.norms[number](x)
        torch.testing.assert_close(maps[number], layer.attention(normed))
        x = layer(normed)


def test_fm_sums_over_all_pairs() -> None:
    model = model_of(FMConfig())
    features = block()
    (embedded,) = model.embedding([features])
    fields = model.fields(embedded)
    pairs = sum((fields[:, i] * fields[:, j]).sum(1) for i, j in combinations(range(5), 2))
    expected = embedded @ model.linear.weight[0] + model.linear.bias + pairs
    torch.testing.assert_close(model(features), expected)


def test_logistic_is_linear_in_values_and_numbers() -> None:
    model = model_of(LogisticConfig())
    features = block()
    (embedded,) = model.embedding([features])
    dense = features.dense @ model.dense.weight[0]
    weights = embedded[:, :16].view(7, 4, 4).mean(2)  # four lookups, four numbers each
    torch.testing.assert_close(model(features), weights.sum(1) + dense + model.bias)


def test_dcn_crosses_with_the_first_row() -> None:
    model = model_of(CONFIGS["dcn"]).eval()
    features = block()
    (x0,) = model.embedding([features])
    x = x0
    for layer in model.cross:
        x = torch.stack(
            [a * (layer.weight @ b + layer.bias) + b for a, b in zip(x0, x, strict=True)]
        )
    deep = F.relu(model.deep(x0))
    expected = torch.cat([x, deep], 1) @ model.out.weight[0] + model.out.bias
    torch.testing.assert_close(model(features), expected)


def test_finalmlp_weighs_the_row_for_each_stream_and_fuses_by_heads() -> None:
    model = model_of(CONFIGS["finalmlp"]).eval()
    features = block()
    (x,) = model.embedding([features])
    found = []
    for gate, stream in zip(model.gates, model.streams, strict=True):
        first, second = gate.weights[0], gate.weights[-1]
        inner = F.relu(x @ first.weight.T + first.bias) @ second.weight.T + second.bias
        found.append(stream(x * 2 / (1 + (-inner).exp())))
    left, right = found
    expected = torch.cat([left, right], 1) @ model.fusion.linear.weight[0]
    expected = expected + model.fusion.linear.bias
    for row in range(7):
        for head in range(2):
            one, other = left[row, head * 3 : head * 3 + 3], right[row, head * 2 : head * 2 + 2]
            expected[row] = expected[row] + one @ model.fusion.bilinear[head] @ other
    torch.testing.assert_close(model(features), expected)


def test_heads_divide_both_streams() -> None:
    with pytest.raises(ValueError, match=r"model.second_hidden ends with 9, which 2 heads do not"):
        FinalMLPConfig(hidden=(8,), second_hidden=(9,), heads=2)


def paper_block(layer: Any, row: Tensor, x: Tensor) -> Tensor:
    """Equations 6 and 8 of MaskNet for one row."""
    first, second = layer.mask[0], layer.mask[-1]
    mask = second.weight @ F.relu(first.weight @ x + first.bias) + second.bias
    out = layer.hidden[0].weight @ (mask * row) + layer.hidden[0].bias
    normed = (out - out.mean()) / (out.var(correction=0) + 1e-5).sqrt()
    return F.relu(normed * layer.hidden[1].weight + layer.hidden[1].bias)


@pytest.mark.parametrize("name", ["masknet", "masknet in series"])
def test_masknet_is_the_papers(name: str) -> None:
    config = CONFIGS[name].model_copy(update={"field_norm": "layer", "norm": "layer"})
    model, features = model_of(config).eval(), block()
    for layer in model.blocks:  # so that scale and shift are not those of no normalisation
        nn.init.normal_(layer.hidden[1].weight)
        nn.init.normal_(layer.hidden[1].bias)
    nn.init.normal_(model.field_norm.norm[0].weight)
    (x,) = model.embedding([features])
    for number, row in enumerate(x):
        lookups = row[:16].view(4, 4)
        centred = lookups - lookups.mean(1, keepdim=True)
        normed = centred / (centred.square().mean(1, keepdim=True) + 1e-5).sqrt()
        start = torch.cat([(normed * model.field_norm.norm[0].weight).flatten(), row[16:]])
        if model.in_parallel:
            read = torch.cat([paper_block(layer, start, row) for layer in model.blocks])
        else:
            read = paper_block(model.blocks[1], paper_block(model.blocks[0], start, row), row)
        torch.testing.assert_close(model(features)[number], model.deep(read[None])[0, 0])


@pytest.mark.parametrize("outcomes", [1, 2, 3])
def test_mmoe_is_the_papers(outcomes: int) -> None:
    """Each row, outcome and expert by itself, all layers written out in NumPy."""
    config = MMoEConfig(experts=3, hidden=(5,), towers=(4,), norm="none", dropout=0.0)
    model = model_of(config, outcomes=outcomes).eval()
    with torch.no_grad():
        model.output_bias.copy_(torch.arange(outcomes) - 0.5)
        model.gates.weight *= 20  # the gates of the rows and outcomes differ
    features = block()
    own = {name: tensor.double().numpy() for name, tensor in model.state_dict().items()}
    (embedded,) = model.embedding([features])
    expected = np.zeros((7, outcomes))
    for row, x in enumerate(embedded.detach().double().numpy()):
        experts = [
            np.maximum(own[f"experts.{e}.0.weight"] @ x + own[f"experts.{e}.0.bias"], 0)
            for e in range(3)
        ]
        for t in range(outcomes):
            scores = np.exp(own["gates.weight"][3 * t : 3 * t + 3] @ x)
            mixed = sum(s / scores.sum() * seen for s, seen in zip(scores, experts, strict=True))
            tower = f"towers.parts.{t}"
            hidden = np.maximum(own[f"{tower}.0.weight"] @ mixed + own[f"{tower}.0.bias"], 0)
            logit = own[f"{tower}.3.weight"] @ hidden + own["towers.bias"][t]
            expected[row, t] = logit.item()
    found = model(features)
    assert found.shape == ((7, outcomes) if outcomes > 1 else (7,))
    np.testing.assert_allclose(found.detach().view(7, -1), expected, rtol=1e-4, atol=1e-5)


def test_the_outcomes_of_a_shared_bottom_differ_in_their_towers_alone() -> None:
    config = SharedBottomConfig(hidden=(6,), towers=(), norm="none", dropout=0.0)
    model, features = model_of(config, outcomes=2).eval(), block()
    (embedded,) = model.embedding([features])
    seen = torch.relu(model.bottom[0](embedded))
    weights = torch.cat([tower[0].weight for tower in model.towers.parts])
    torch.testing.assert_close(model(features), seen @ weights.T + model.output_bias)


@pytest.mark.parametrize("name", SEVERAL)
def test_every_outcome_trains_what_all_share_and_its_own_tower(name: str) -> None:
    model, features = model_of(CONFIGS[name], outcomes=3).eval(), block()
    alone = torch.cat([model(features.take(torch.tensor([row]))) for row in range(7)])
    torch.testing.assert_close(model(features), alone)
    torch.testing.assert_close(of_label(model(features)), alone[:, 0])
    for outcome in range(3):
        model.zero_grad()
        (model(features)[:, outcome] * torch.randn(7)).sum().backward()
        moved = {n for n, one in model.named_parameters() if one.grad.abs().sum() > 0}
        towers = {one.split(".")[2] for one in moved if one.startswith("towers.parts")}
        assert towers == {str(outcome)}
        shared = {n for n, _ in model.named_parameters() if "towers" not in n}
        assert shared <= moved


def test_a_model_of_the_label_alone_is_not_asked_for_more() -> None:
    with pytest.raises(ValueError, match="mlp predicts the label alone, not 2 outcomes"):
        model_of(CONFIGS["mlp"], outcomes=2)


def test_the_kinds_of_configurations_are_the_rankers() -> None:
    assert {config.kind for config in CONFIGS.values()} == set(RANKERS)


READOUTS = {
    "autoint": lambda model, seen: model.readout(seen),
    "dcn": lambda model, seen: model.out(seen),
    "mlp": lambda model, seen: model.deep[-1](seen),
    "finalmlp": lambda model, seen: model.fusion(seen),
    "masknet": lambda model, seen: model.deep[-1](seen),
    "masknet in series": lambda model, seen: model.deep[-1](seen),
    "shared_bottom": lambda model, seen: model.towers([seen]).unsqueeze(1),
    "mmoe": lambda model, seen: model.towers([seen]).unsqueeze(1),
}


@pytest.mark.parametrize("name", READOUTS)
def test_the_representation_is_what_the_readout_sees(name: str) -> None:
    model, features = model_of(CONFIGS[name]).eval(), block()
    logits = READOUTS[name](model, model.represent(features)).squeeze(1)
    torch.testing.assert_close(logits, model(features))


@pytest.mark.parametrize("name", CONFIGS)
def test_a_row_scores_the_same_alone_as_in_a_batch(name: str) -> None:
    model, features = model_of(CONFIGS[name]).eval(), block()
    alone = [model(features.take(torch.tensor([row]))) for row in range(7)]
    torch.testing.assert_close(model(features), torch.cat(alone))


@pytest.mark.parametrize("name", CONFIGS)
def test_every_parameter_is_trained(name: str) -> None:
    model = model_of(CONFIGS[name]).train()
    (model(block()) * torch.randn(7)).sum().backward()
    for parameter, tensor in model.named_parameters():
        assert tensor.grad is not None, parameter
        assert tensor.grad.abs().sum() > 0, parameter


def xor_rows(count: int, shuffled: bool) -> tuple[FeatureBlock, Tensor]:
    bits = torch.randint(0, 2, (count, 2))
    label = (bits[:, 0] ^ bits[:, 1]).float()
    if shuffled:
        label = label[torch.randperm(count)]
    return FeatureBlock(bits, (), torch.zeros(count, 0)), label


def learnt(config: RankerConfig, shuffled: bool) -> float:
    """Return the accuracy on rows that were not trained on."""
    layout = FeatureLayout((("left", 1), ("right", 1)), (), ())
    model: nn.Module = model_of(config, layout)
    features, label = xor_rows(512, shuffled)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    order = torch.arange(512)
    train, test = features.take(order[:256]), features.take(order[256:])
    for _ in range(150):
        optimizer.zero_grad()
        F.binary_cross_entropy_with_logits(model(train), label[:256]).backward()
        optimizer.step()
    return float(((model(test) > 0) == label[256:].bool()).float().mean())


CROSSING: Sequence[str] = (
    "autoint", "autoint+", "dcn", "mlp", "finalmlp", "masknet", "masknet in series",
    "shared_bottom", "mmoe", "fm",
)  # fmt: skip


@pytest.mark.parametrize("name", CROSSING)
def test_learns_xor_and_nothing_from_noise(name: str) -> None:
    config = CONFIGS[name]
    assert learnt(config, shuffled=False) > 0.95
    assert 0.3 < learnt(config, shuffled=True) < 0.7


def test_logistic_cannot_cross() -> None:
    assert 0.2 < learnt(LogisticConfig(), shuffled=False) < 0.8


def test_gradients_match_finite_differences() -> None:
    layer = InteractingLayer(3, 2, 4, scaled=False, dropout=0.0).double()
    rows = torch.randn(2, 3, 3, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(layer, rows)


@pytest.mark.parametrize(
    ("config", "before", "now"),
    [
        (DeepConfig, {"kind": "mlp"}, {"norm": "none"}),
        (DCNConfig, {"kind": "dcn", "norm": "layer"}, {"norm": "layer"}),
        (AutoIntConfig, {"layer_norm": True}, {"norm": "none", "field_norm": "layer"}),
        (AutoIntConfig, {"layer_norm": False}, {"norm": "none", "field_norm": "none"}),
        (AutoIntConfig, {"norm": "none", "field_norm": "batch"}, {"field_norm": "batch"}),
    ],
)
def test_a_model_from_before_a_setting_is_what_it_was(
    config: Any, before: dict[str, Any], now: dict[str, str]
) -> None:
    found = config.model_validate(config.of_earlier(before))
    assert {name: getattr(found, name) for name in now} == now


def test_fields_are_normalised_over_rows_or_each_by_itself() -> None:
    x = torch.randn(50, 4, 6) * 3 + 2
    by_row = FieldNorm("batch", 4, 6).train()(x)
    torch.testing.assert_close(by_row.mean(0), torch.zeros(4, 6), atol=1e-5, rtol=0)
    by_field = FieldNorm("layer", 4, 6)(x)
    torch.testing.assert_close(by_field.mean(2), torch.zeros(50, 4), atol=1e-5, rtol=0)
    assert torch.equal(FieldNorm("none", 4, 6)(x), x)


@pytest.mark.parametrize("kind", CONFIGS)
def test_the_output_bias_is_added_to_every_logit(kind: str) -> None:
    model = model_of(CONFIGS[kind]).eval()
    with torch.no_grad():
        before = model(block())
        model.output_bias.add_(1.5)
        torch.testing.assert_close(model(block()), before + 1.5)
