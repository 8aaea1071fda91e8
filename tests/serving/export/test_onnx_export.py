"""The exported graph against the model: every ranker, every input, hashing at its edges."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from recsys.bundle.calibration import Calibrator
from recsys.core.errors import ConfigError
from recsys.data.batch import FeatureBlock, FeatureLayout, Jagged
from recsys.embeddings.backend import build_table
from recsys.embeddings.hashing import table_rows
from recsys.embeddings.plan import EmbeddingPlan
from recsys.embeddings.table import GroupConfig, TableConfig
from recsys.embeddings.unified import UnifiedEmbedding
from recsys.models.autoint import AutoIntConfig
from recsys.models.dcn import DCNConfig
from recsys.models.deep import DeepConfig
from recsys.models.finalmlp import FinalMLPConfig
from recsys.models.fm import FMConfig
from recsys.models.logistic import LogisticConfig
from recsys.models.masknet import MaskNetConfig
from recsys.models.mmoe import MMoEConfig
from recsys.models.rankers import RankerConfig, build_ranker
from recsys.models.shared_bottom import SharedBottomConfig
from recsys.serving.export.onnx_export import OnnxRanker
from recsys.serving.export.onnx_graph import (
    PaddedRanker,
    graph_inputs,
    input_names,
    write_graph,
    write_onnx,
)

TABLE = TableConfig(
    num_rows=997,
    dim=4,
    backend="torch",
    init_scale=0.5,
    groups={"people": GroupConfig(num_rows=31, features=("user", "tags"))},
)
LAYOUT = FeatureLayout(
    (("user", 2), ("city", 1), ("shop", 1)),
    (("last_tags", 2), ("tags", 2), ("words", 1), ("last_shops", 1)),
    ("price", "price.null", "age", "age.null"),
    ("attention", "mean", "sum", "attention"),
    (("last_shops", "shop"), ("last_tags", "tags")),
)
SMALL_TABLE = TableConfig(num_rows=997, dim=4, backend="torch", init_scale=0.5)
CONFIGS: dict[str, RankerConfig] = {
    "autoint": AutoIntConfig(layers=2, head_dim=5, field_dim=6),
    "autoint+": AutoIntConfig(
        layers=2, field_dim=4, hidden=(8,), first_order=True, field_norm="layer", scaled=True
    ),
    "dcn": DCNConfig(hidden=(8, 4)),
    "mlp": DeepConfig(hidden=(8,)),
    "finalmlp": FinalMLPConfig(hidden=(8, 6), second_hidden=(8,), heads=2, gate_hidden=5),
    "masknet": MaskNetConfig(blocks=2, block_dim=6, hidden=(5,)),
    "masknet in series": MaskNetConfig(structure="serial", field_norm="layer"),
    "shared_bottom": SharedBottomConfig(hidden=(8,), towers=()),
    "mmoe": MMoEConfig(experts=3, hidden=(8,), towers=(4,)),
    "fm": FMConfig(),
    "logistic": LogisticConfig(),
}
OUTCOMES = {"shared_bottom": 2, "mmoe": 3}
"""How many outcomes are predicted, where more than the label."""


LAYOUTS = {
    "autoint": LAYOUT,
    "autoint+": FeatureLayout((("user", 2), ("city", 1)), (), ("price", "price.null")),
    "dcn": FeatureLayout((("user", 3),), (("tags", 2),), (), ("sqrtn",)),
    "mlp": FeatureLayout((), (), ("price", "price.null")),
    "finalmlp": FeatureLayout(
        (("user", 2), ("city", 1)),
        (("tags", 2), ("last_users", 2)),
        ("price", "price.null"),
        ("mean", "activation"),
        (("last_users", "user"),),
    ),
    "masknet": FeatureLayout((("user", 2), ("city", 1)), (("tags", 2),), ("price", "price.null")),
    "masknet in series": FeatureLayout((("user", 2), ("city", 1)), (), ()),
    "shared_bottom": FeatureLayout((("user", 2), ("city", 1)), (), ()),
    "mmoe": FeatureLayout((("user", 2),), (("tags", 2),), ("price", "price.null")),
    "fm": FeatureLayout((("user", 2), ("city", 1)), (), ()),
    "logistic": FeatureLayout((), (("tags", 2),), ("price", "price.null")),
}
INPUTS = {
    "autoint+": ["single", "dense"],
    "dcn": ["single", "values.tags", "weights.tags"],
    "mlp": ["dense"],
    "masknet in series": ["single"],
    "shared_bottom": ["single"],
    "fm": ["single"],
    "logistic": ["values.tags", "weights.tags", "dense"],
}
CALIBRATORS = {
    "autoint": Calibrator(
        "isotonic",
        0.3,
        logits=(-1.0, -0.5, -0.25, 0.0, 2.0),
        probabilities=(0.1, 0.1, 0.2, 0.7, 1.0),
    ),
    "autoint+": Calibrator(),
    "dcn": Calibrator(offset=-1.25),
    "mlp": Calibrator("temperature", 0.5, 0.05),
    "finalmlp": Calibrator("beta", 0.5, slopes=(0.6, 1.1), shift=-1.0),
    "masknet": Calibrator("temperature", 2.0),
    "masknet in series": Calibrator(),
    "shared_bottom": Calibrator(offset=-1.0, others={"purchase": Calibrator()}),
    "mmoe": Calibrator(
        "temperature",
        0.5,
        2.0,
        others={
            "purchase": Calibrator("isotonic", 0.0, logits=(-0.5, 0.5), probabilities=(0.25, 0.75)),
            "kept": Calibrator("isotonic", 0.0, logits=(0.0, 1.0), probabilities=(0.1, 0.2)),
        },
    ),
    "fm": Calibrator("isotonic", 0.0, logits=(-0.5, 0.5), probabilities=(0.25, 0.75)),
    "logistic": Calibrator("isotonic", 0.0, logits=(0.5,), probabilities=(0.4,)),
}


def model_of(
    config: RankerConfig, layout: FeatureLayout, table: TableConfig, outcomes: int = 1
) -> nn.Module:
    plan = EmbeddingPlan.of(table, (layout,))
    embedding = UnifiedEmbedding(plan, build_table(table, device=torch.device("cpu"), seed=0))
    return build_ranker(config, embedding, outcomes).eval()


def anything(shape: tuple[int, ...]) -> Tensor:
    """64-bit values of either sign."""
    return torch.randint(-(2**63), 2**63 - 1, shape)


def block(rows: int, layout: FeatureLayout = LAYOUT) -> FeatureBlock:
    """Lists of 0 to 5 values, every other one weighted, some weights 0."""
    multi = []
    for number in range(len(layout.multi)):
        lengths = torch.randint(0, 6, (rows,))
        offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
        weights = torch.rand(int(offsets[-1])) * (torch.rand(int(offsets[-1])) < 0.8)
        values = anything((int(offsets[-1]),))
        multi.append(Jagged(values, offsets, weights if number % 2 else None))
    dense = torch.randn(rows, len(layout.dense))
    return FeatureBlock(anything((rows, len(layout.single))), tuple(multi), dense)


@pytest.mark.parametrize("kind", CONFIGS)
def test_the_graph_computes_the_models_logits_and_probabilities(kind: str, tmp_path: Path) -> None:
    layout = LAYOUTS[kind]
    table, outcomes = TABLE if layout is LAYOUT else SMALL_TABLE, OUTCOMES.get(kind, 1)
    model = model_of(CONFIGS[kind], layout, table, outcomes)
    calibrator = CALIBRATORS[kind]
    write_onnx(tmp_path / "model.onnx", model, layout, calibrator)
    exported = OnnxRanker(tmp_path / "model.onnx", layout)
    for rows in (1, 7, 1000):
        features = block(rows, layout)
        with torch.no_grad():
            expected = model(features).numpy()
        assert list(graph_inputs(features, layout)) == INPUTS.get(kind, list(input_names(layout)))
        logit, probability = exported(features)
        assert logit.shape == probability.shape == ((rows, outcomes) if outcomes > 1 else (rows,))
        assert np.abs(logit - expected).max() < 1e-5
        wanted = np.stack(list(calibrator.by_outcome(logit).values()), axis=1)
        wanted = wanted.reshape(probability.shape)
        np.testing.assert_allclose(probability, wanted, rtol=0, atol=1e-6)


class _Hash(nn.Module):
    """The hash alone, over as many rows as a table can have."""

    def forward(self, *given: Tensor) -> tuple[Tensor, Tensor]:
        rows = torch.ops.recsys.table_rows(*given)
        return rows, rows.float()


def splitmix(value: int, salt: int, num_rows: int) -> int:
    """The row in Python's own numbers, which do not wrap."""
    x = (value ^ salt) % 2**64
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB % 2**64
    x ^= x >> 31
    return (x >> 32) * num_rows >> 32


def test_hashing_in_the_graph_is_equal_to_the_last_bit(tmp_path: Path) -> None:
    import onnxruntime

    edges = [0, 1, -1, 2**63 - 1, -(2**63), 2**32, -(2**32), 2**31 - 1, -(2**63) + 1]
    values = torch.cat([torch.tensor(edges), anything((991,))]).reshape(-1, 1)
    salts = torch.tensor([0, -1, 2**63 - 1, -(2**63), 0x5851F42D4C957F2D])
    counts = torch.tensor([1, 2, 1000003, 2**31 - 1, 2**31])
    example = (values[:3], salts, counts)
    free: tuple[dict[int, Any], ...] = ({0: torch.export.Dim("rows")}, {}, {})
    path = tmp_path / "hash.onnx"
    write_graph(path, _Hash(), ("values", "salts", "num_rows"), example, free)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    inputs = {"values": values.numpy(), "salts": salts.numpy(), "num_rows": counts.numpy()}
    found = session.run(None, inputs)[0]
    np.testing.assert_array_equal(found, table_rows(values, salts, counts).numpy())
    for row in range(20):
        for column in range(5):
            parts = (values[row], salts[column], counts[column])
            assert found[row, column] == splitmix(*(int(part) for part in parts))


def test_without_its_libraries_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ConfigError, match=r"'onnxruntime'.*recsys-engine\[onnx\]"):
        OnnxRanker(tmp_path / "model.onnx", LAYOUT)


def test_padding_takes_nothing_from_attention_however_alike_it_is() -> None:
    layout = FeatureLayout(
        (("shop", 1),), (("last_shops", 1),), (), ("attention",), (("last_shops", "shop"),)
    )
    model = model_of(LogisticConfig(), layout, TableConfig(num_rows=50, dim=4, backend="torch"))
    weight = model.embedding.table.weight  # type: ignore[union-attr]
    weight *= 300  # inner products of hundreds
    features = block(200, layout)
    padded = [torch.from_numpy(array) for array in graph_inputs(features, layout).values()]
    # What is looked up at padding, 0, is the shop of every other row.
    features.single[::2] = padded[0][::2] = 0
    with torch.no_grad():
        expected = model(features)
        logit, _ = PaddedRanker(model, layout, Calibrator())(*padded)
    torch.testing.assert_close(logit, expected, rtol=1e-5, atol=1e-3)
