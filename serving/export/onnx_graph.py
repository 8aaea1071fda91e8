"""Rankers as one ONNX graph: hashed values in, logit and calibrated probability out.

The table is an initializer, the hash from a 64-bit value to a row of it is part of the graph, bit
for bit that of `recsys.embeddings.hashing`, and so is the calibration. What stays outside is the
encoder, which makes value hashes and scaled numbers of raw columns.

    single        (B, F) int64, a value hash of each single-valued feature
    values.NAME   (B, L) int64, the value hashes of a multi-valued feature, padded to any L
    weights.NAME  (B, L) float32, how much each counts: 1 without weights, 0 for padding
    dense         (B, D) float32
    ->
    logit         (B,) float32, the model's own; (B, T) of a model of T outcomes, the label's first
    probability   of the same shape, calibrated

Inputs that the features do not call for are absent. Lists are padded since gathers and products
of fixed shape are what ONNX Runtime does well; it has no fast sum over rows of unlike length.

Shape letters: B rows, L longest list, M lookups of a feature, S lookups of the single-valued
features, E width of a feature's vector, K knots.
"""

import copy
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from recsys.bundle.calibration import Calibrator
from recsys.core.errors import ConfigError
from recsys.data.batch import FeatureBlock, FeatureLayout, Jagged
from recsys.data.feature_options import BY_CANDIDATE, HistoryPooling
from recsys.embeddings.hashing import FIRST_FACTOR, SECOND_FACTOR, salts_of, table_rows
from recsys.embeddings.unified import UnifiedEmbedding, activation_in

OPSET = 18
_LOOKUP = ("salts", "count", "first")
_INT64, _UINT64 = 7, 13  # as ONNX numbers its types


@torch.library.custom_op("recsys::table_rows", mutates_args=())
def _table_rows(values: Tensor, salts: Tensor, num_rows: Tensor) -> Tensor:
    """One node of the graph in torch, so that it can be written out by hand in ONNX."""
    return table_rows(values, salts, num_rows)


@_table_rows.register_fake
def _shape_of_table_rows(values: Tensor, salts: Tensor, num_rows: Tensor) -> Tensor:
    return values.new_empty(torch.broadcast_shapes(values.shape, salts.shape))


class PaddedRanker(nn.Module):
    """A ranker over plain tensors: its table read by gathers, its lists padded.

    The weights are those of the model, not copies, but for the layers above the table.
    """

    def __init__(self, model: nn.Module, layout: FeatureLayout, calibrator: Calibrator) -> None:
        super().__init__()
        embedding = model.embedding
        assert isinstance(embedding, UnifiedEmbedding)
        self.layout, self.plan = layout, embedding.plan
        self.register_buffer("table", embedding.table.weight.detach())
        # The embedded row replaces the lookup of the model.
        self.above = copy.deepcopy(model, {id(embedding): _Given()}).eval()
        self.activations = copy.deepcopy(embedding.activations).eval()
        self.inputs = input_names(layout)
        single = [(column, *pair) for column, pair in enumerate(layout.single)]
        where = [self._lookups(name, m) for _, name, m in single]
        columns = [column for column, _, m in single for _ in range(m)]
        self._add("single", [torch.cat(parts) for parts in zip(*where, strict=True)])
        self.register_buffer("columns", torch.tensor(columns, dtype=torch.int64))
        for number, (name, multiplicity) in enumerate(layout.multi):
            self._add(f"multi_{number}", self._lookups(name, multiplicity))
        self.probability = _Probability(calibrator)
        self.others = nn.ModuleList(_Probability(one) for one in calibrator.others.values())

    def forward(self, *given: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits and probabilities, (B,) or (B, T), of inputs in the order of `inputs`."""
        inputs = dict(zip(self.inputs, given, strict=True))
        found: dict[str, Tensor] = {}
        if "single" in inputs:
            columns_BS = inputs["single"][:, self.get_buffer("columns")]
            widths = [multiplicity * self.plan.dim for _, multiplicity in self.layout.single]
            parts = self._read("single", columns_BS).flatten(1).split(widths, dim=1)
            names = [name for name, _ in self.layout.single]
            found = dict(zip(names, parts, strict=True))
        multi = [
            (f"multi_{number}", name, pooling)
            for number, ((name, _), pooling) in enumerate(
                zip(self.layout.multi, self.layout.poolings, strict=True)
            )
        ]
        # What attention asks with comes first.
        for lookups, name, pooling in sorted(multi, key=lambda one: one[2] in BY_CANDIDATE):
            vectors_BLE = self._read(lookups, inputs[f"values.{name}"].unsqueeze(2)).flatten(2)
            query_BE, weights_BL = found.get(self.layout.source_of(name)), inputs[f"weights.{name}"]
            if pooling == "activation":
                unit = activation_in(self.activations, name)
                assert query_BE is not None
                assert unit is not None
                query_BLE = query_BE.unsqueeze(1).expand_as(vectors_BLE)
                weights_BL = weights_BL * unit.shares(query_BLE, vectors_BLE)
            found[name] = _pooled(vectors_BLE, weights_BL, pooling, query_BE)
        embedded = [found[name] for name, _ in self.layout.features]
        embedded += [inputs["dense"]] if "dense" in inputs else []
        logits: Tensor = self.above(torch.cat(embedded, dim=1))
        if not self.others:
            return logits, self.probability(logits)
        each = zip((self.probability, *self.others), logits.unbind(1), strict=True)
        return logits, torch.stack([one(logits_B) for one, logits_B in each], dim=1)

    def _lookups(self, name: str, multiplicity: int) -> list[Tensor]:
        """Return salt, number of rows and first row of each lookup, (M,) int64 each."""
        first, count = self.plan.range_of(name)
        ones = torch.ones(multiplicity, dtype=torch.int64)
        return [salts_of(self.layout.source_of(name), multiplicity), ones * count, ones * first]

    def _add(self, name: str, lookups: list[Tensor]) -> None:
        for kind, tensor in zip(_LOOKUP, lookups, strict=bool(lookups)):
            self.register_buffer(f"{name}_{kind}", tensor)

    def _read(self, name: str, values: Tensor) -> Tensor:
        """Return what the lookups read for values (..., M) or (..., 1), (..., M, dim)."""
        salts, count, first = (self.get_buffer(f"{name}_{kind}") for kind in _LOOKUP)
        rows = torch.ops.recsys.table_rows(values, salts, count) + first
        return F.embedding(rows, self.get_buffer("table"))


class _Probability(nn.Module):
    """A calibrator: logits to probabilities."""

    def __init__(self, calibrator: Calibrator) -> None:
        super().__init__()
        self.calibrator = calibrator
        if calibrator.kind == "isotonic":  # one more knot, from which on all is constant
            x, y = calibrator.logits, calibrator.probabilities
            self.register_buffer("x_K", torch.tensor((*x, x[-1] + 1), dtype=torch.float64))
            self.register_buffer("y_K", torch.tensor((*y, y[-1]), dtype=torch.float64))

    def forward(self, logits_B: Tensor) -> Tensor:
        """Return probabilities (B,)."""
        z_B = logits_B.double() + self.calibrator.offset
        if self.calibrator.kind == "beta":
            above, below = self.calibrator.slopes
            z_B = below * F.softplus(z_B) - above * F.softplus(-z_B) + self.calibrator.shift
            return torch.sigmoid(z_B).float()
        if self.calibrator.kind != "isotonic":
            return torch.sigmoid(z_B / self.calibrator.temperature).float()
        x_K, y_K = self.get_buffer("x_K"), self.get_buffer("y_K")
        z_B = z_B.clamp(min=self.calibrator.logits[0])
        left_B = (z_B.unsqueeze(1) >= x_K[1:-1]).sum(1)
        x_B, y_B = x_K[left_B], y_K[left_B]
        slope_B = (y_K[left_B + 1] - y_B) / (x_K[left_B + 1] - x_B)
        return (y_B + (z_B - x_B) * slope_B).float()


class _Given(nn.Module):
    """Replaces an embedding: its input is embedded already."""

    def forward(self, blocks: list[Tensor]) -> list[Tensor]:
        """Return `blocks`."""
        return blocks


def _pooled(
    vectors_BLE: Tensor, weights_BL: Tensor, pooling: HistoryPooling, query_BE: Tensor | None
) -> Tensor:
    """Return the vector of each list, (B, E): `UnifiedEmbedding`'s poolings over padded lists."""
    if pooling == "attention":
        assert query_BE is not None
        score_BL = (vectors_BLE @ query_BE.unsqueeze(2)).squeeze(2) * query_BE.shape[1] ** -0.5
        lowest = torch.finfo(score_BL.dtype).min
        top_B1 = torch.where(weights_BL > 0, score_BL, lowest).amax(1, keepdim=True)
        # Padding may be more similar than all that counts: its exponent must not overflow.
        weights_BL = weights_BL * (score_BL - top_B1).clamp(max=0).exp()
        total_B1 = weights_BL.sum(1, keepdim=True).clamp(min=torch.finfo(score_BL.dtype).tiny)
        weights_BL = weights_BL / total_B1
    summed_BE = (weights_BL.unsqueeze(1) @ vectors_BLE).squeeze(1)
    if pooling in ("sum", *BY_CANDIDATE):
        return summed_BE
    squares_BL = weights_BL if pooling == "mean" else weights_BL.square()
    total_B1 = squares_BL.sum(1, keepdim=True)
    total_B1 = total_B1.sqrt() if pooling == "sqrtn" else total_B1
    return summed_BE / torch.where(total_B1 > 0, total_B1, 1.0)


def input_names(layout: FeatureLayout) -> tuple[str, ...]:
    """Return the names of the graph's inputs, in order."""
    multi = [f"{kind}.{name}" for name, _ in layout.multi for kind in ("values", "weights")]
    single, dense = ["single"] * bool(layout.single), ["dense"] * bool(layout.dense)
    return (*single, *multi, *dense)


def graph_inputs(features: FeatureBlock, layout: FeatureLayout) -> dict[str, NDArray[Any]]:
    """Return encoded rows as the inputs of the graph of `layout`."""
    found: dict[str, NDArray[Any]] = {}
    if layout.single:
        found["single"] = features.single.numpy()
    for (name, _), jagged in zip(layout.multi, features.multi, strict=True):
        found[f"values.{name}"], found[f"weights.{name}"] = _padded(jagged)
    if layout.dense:
        found["dense"] = features.dense.numpy()
    return found


def _padded(jagged: Jagged) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return values and weights (B, L); L is 1 at least."""
    lengths = jagged.lengths().numpy()
    there = np.arange(max([1, *lengths])) < lengths[:, None]
    values = np.zeros(there.shape, np.int64)
    weights = np.zeros(there.shape, np.float32)
    values[there] = jagged.values.numpy()
    weights[there] = 1.0 if jagged.weights is None else jagged.weights.numpy()
    return values, weights


def write_onnx(
    path: Path, model: nn.Module, layout: FeatureLayout, calibrator: Calibrator | None = None
) -> None:
    """Write the graph of a ranker; weights of 2 GB and more go to a second file next to `path`.

    Raises:
        ConfigError: the libraries are not installed.
    """
    module = PaddedRanker(model, layout, calibrator or Calibrator())
    batch = torch.export.Dim("batch")
    example: list[Tensor] = []
    shapes: list[dict[int, Any]] = []
    if layout.single:
        example.append(torch.zeros(2, len(layout.single), dtype=torch.int64))
        shapes.append({0: batch})
    for number in range(len(layout.multi)):
        # A length that no other dimension has, so that none is mistaken for another.
        example += [torch.zeros(2, 3, dtype=torch.int64), torch.ones(2, 3)]
        shapes += [{0: batch, 1: torch.export.Dim(f"length_{number}")}] * 2
    if layout.dense:
        example.append(torch.zeros(2, len(layout.dense)))
        shapes.append({0: batch})
    write_graph(path, module, module.inputs, tuple(example), tuple(shapes))


def write_graph(
    path: Path,
    module: nn.Module,
    inputs: tuple[str, ...],
    example: tuple[Tensor, ...],
    shapes: tuple[dict[int, Any], ...],
) -> None:
    """Write `module`, called with positional tensors, as ONNX.

    Args:
        path: of the file.
        module: returns logit and probability.
        inputs: names of its arguments.
        example: tensors that it can be called with.
        shapes: which dimensions of each are free.
    """
    libraries()
    with _silence():
        program = torch.onnx.export(
            module.eval(),
            example,
            dynamo=True,
            opset_version=OPSET,
            input_names=list(inputs),
            output_names=["logit", "probability"],
            dynamic_shapes=(shapes,),
            custom_translation_table={torch.ops.recsys.table_rows.default: _table_rows_in_onnx()},
            verbose=False,
        )
        assert program is not None
        program.save(path)


def _table_rows_in_onnx() -> Callable[..., Any]:
    """Return `table_rows` in ONNX: its shifts know unsigned numbers alone, its products signed."""
    from onnxscript import ir, opset18

    def constant(value: int, kind: type) -> Any:
        return opset18.Constant(value=ir.tensor(np.array(value, kind)))

    def shifted(x: Any, bits: int) -> Any:
        return opset18.BitShift(x, constant(bits, np.uint64), direction="RIGHT")

    def stirred(x: Any, bits: int) -> Any:
        x = opset18.Cast(x, to=_UINT64)
        return opset18.BitwiseXor(x, shifted(x, bits))

    def times(x: Any, factor: Any) -> Any:
        return opset18.Mul(opset18.Cast(x, to=_INT64), factor)

    def translated(values: Any, salts: Any, num_rows: Any) -> Any:
        x = opset18.BitwiseXor(values, salts)
        x = times(stirred(x, 30), constant(FIRST_FACTOR, np.int64))
        x = times(stirred(x, 27), constant(SECOND_FACTOR, np.int64))
        x = times(shifted(stirred(x, 31), 32), num_rows)
        return opset18.Cast(shifted(opset18.Cast(x, to=_UINT64), 32), to=_INT64)

    return translated


def libraries() -> Any:
    """Return ONNX Runtime, where it and what writes graphs are installed."""
    try:
        import onnx  # noqa: F401
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            f"ONNX needs the package '{error.name}': pip install 'recsys-engine[onnx]'"
        ) from None
    return onnxruntime


@contextmanager
def _silence() -> Iterator[None]:
    """Keep what the exporter says of its own parts off the screen."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
