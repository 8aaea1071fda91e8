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

Shape letters: B rows, L longest list, K knots.
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
from recsys.embeddings.hashing import FIRST_FACTOR, SECOND_FACTOR
from recsys.embeddings.unified import UnifiedEmbedding
from recsys.serving.export.padded_embedding import PaddedEmbedding, input_names

OPSET = 18
_INT64, _UINT64 = 7, 13  # as ONNX numbers its types


class PaddedRanker(nn.Module):
    """A ranker over plain tensors: its table read by gathers, its lists padded.

    The weights are those of the model, not copies, but for the layers above the table.
    """

    def __init__(self, model: nn.Module, layout: FeatureLayout, calibrator: Calibrator) -> None:
        super().__init__()
        embedding = model.embedding
        assert isinstance(embedding, UnifiedEmbedding)
        self.embedding = PaddedEmbedding(embedding, layout)
        # The embedded row replaces the lookup of the model.
        self.above = copy.deepcopy(model, {id(embedding): _Given()}).eval()
        self.inputs = input_names(layout)
        self.probability = _Probability(calibrator)
        self.others = nn.ModuleList(_Probability(one) for one in calibrator.others.values())

    def forward(self, *given: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits and probabilities, (B,) or (B, T), of inputs in the order of `inputs`."""
        logits: Tensor = self.above(self.embedding(*given))
        if not self.others:
            return logits, self.probability(logits)
        each = zip((self.probability, *self.others), logits.unbind(1), strict=True)
        return logits, torch.stack([one(logits_B) for one, logits_B in each], dim=1)


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
    traced(module, inputs, example, shapes, ("logit", "probability")).save(path)


def traced(
    module: nn.Module,
    inputs: tuple[str, ...],
    example: tuple[Tensor, ...],
    shapes: tuple[dict[int, Any], ...],
    outputs: tuple[str, ...],
) -> Any:
    """Return `module` as torch's ONNX program, whose `save` writes it.

    Args:
        module: called with positional tensors.
        inputs: names of its arguments.
        example: tensors that it can be called with.
        shapes: which dimensions of each are free.
        outputs: names of what it returns.
    """
    libraries()
    with _silence():
        program = torch.onnx.export(
            module.eval(),
            example,
            dynamo=True,
            opset_version=OPSET,
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_shapes=(shapes,),
            custom_translation_table={torch.ops.recsys.table_rows.default: _table_rows_in_onnx()},
            verbose=False,
        )
        assert program is not None
        return program


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


def onnx_ir() -> Any:
    """Return the library that graphs are written with node by node, where it is installed."""
    libraries()
    import onnx_ir as ir

    return ir


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
