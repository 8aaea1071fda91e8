"""Symbols: arrays of an ONNX graph that is written in Python's own arithmetic.

    graph = GraphWriter()
    x = graph.input("x", DOUBLE, ("batch",))
    y = graph.where(x > 2.0, x * x, 0.0)

Numbers beside a symbol take its type. What a graph has of operations beyond arithmetic comes
through `GraphWriter.op`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys.serving.export.onnx_graph import onnx_ir

FLOAT, INT32, INT64, TEXT, BOOL, DOUBLE, UINT32, UINT64 = 1, 6, 7, 8, 9, 11, 12, 13
"""As ONNX numbers its types."""
_NUMPY: dict[int, Any] = {
    FLOAT: np.float32, INT32: np.int32, INT64: np.int64, BOOL: np.bool_, DOUBLE: np.float64,
    UINT64: np.uint64,
}  # fmt: skip
_FEW = 64


@dataclass(frozen=True, eq=False)
class Symbol:
    """An array of a graph. value: what the graph calls it; kind: the type of its numbers."""

    graph: "GraphWriter"
    value: Any
    kind: int

    def _with(self, op: str, other: Any, kind: int | None = None) -> "Symbol":
        return self.graph.op(op, self, self.graph.like(other, self.kind), kind=kind or self.kind)

    def __add__(self, other: Any) -> "Symbol":
        return self._with("Add", other)

    def __sub__(self, other: Any) -> "Symbol":
        return self._with("Sub", other)

    def __mul__(self, other: Any) -> "Symbol":
        return self._with("Mul", other)

    def __truediv__(self, other: Any) -> "Symbol":
        return self._with("Div", other)

    def __mod__(self, other: int) -> "Symbol":
        """Of whole numbers: of the sign of `other`, as Python has it."""
        return self._with("Mod", other)

    def __floordiv__(self, other: int) -> "Symbol":
        """Of whole numbers, rounded down, which ONNX's own division is not."""
        return (self - self % other)._with("Div", other)

    def __lt__(self, other: Any) -> "Symbol":
        return self._with("Less", other, BOOL)

    def __le__(self, other: Any) -> "Symbol":
        return self._with("LessOrEqual", other, BOOL)

    def __gt__(self, other: Any) -> "Symbol":
        return self._with("Greater", other, BOOL)

    def __ge__(self, other: Any) -> "Symbol":
        return self._with("GreaterOrEqual", other, BOOL)

    def equals(self, other: Any) -> "Symbol":
        """Return where both are the same."""
        return self._with("Equal", other, BOOL)

    def __and__(self, other: Any) -> "Symbol":
        return self._with("And" if self.kind == BOOL else "BitwiseAnd", other)

    def __or__(self, other: Any) -> "Symbol":
        return self._with("Or" if self.kind == BOOL else "BitwiseOr", other)

    def __xor__(self, other: Any) -> "Symbol":
        return self._with("BitwiseXor", other)

    def __invert__(self) -> "Symbol":
        return self.graph.op("Not", self, kind=BOOL)

    def shifted(self, bits: int, direction: str) -> "Symbol":
        """Return unsigned numbers moved by `bits` to the LEFT or the RIGHT."""
        other = self.graph.like(bits, self.kind)
        return self.graph.op("BitShift", self, other, kind=self.kind, direction=direction)

    def cast(self, kind: int) -> "Symbol":
        """Return it in another type; unsigned and signed 64-bit numbers keep their bits."""
        return self if kind == self.kind else self.graph.op("Cast", self, kind=kind, to=kind)

    def at(self, places: "Symbol", axis: int = 0) -> "Symbol":
        """Return what is at `places` of an axis; negative ones count from the end."""
        return self.graph.op("Gather", self, places, kind=self.kind, axis=axis)

    def widened(self, axis: int) -> "Symbol":
        """Return it with one more axis, of length 1."""
        return self.graph.op("Unsqueeze", self, self.graph.whole([axis]), kind=self.kind)

    def shaped(self, *sizes: "int | Symbol") -> "Symbol":
        """Return it in another shape: 0 keeps a size, -1 takes what is left."""
        parts = [
            size.shaped(1) if isinstance(size, Symbol) else self.graph.whole([size])
            for size in sizes
        ]
        whole = parts[0]
        if len(parts) > 1:
            whole = self.graph.op("Concat", *parts, kind=INT64, axis=0)
        return self.graph.op("Reshape", self, whole, kind=self.kind)

    def size(self, axis: int) -> "Symbol":
        """Return the length of an axis, (1,) int64."""
        return self.graph.op("Shape", self, kind=INT64, start=axis, end=axis + 1)

    def summed(self, axis: int) -> "Symbol":
        """Return the sums over an axis."""
        return self.graph.op(
            "ReduceSum", self, self.graph.whole([axis]), kind=self.kind, keepdims=0
        )

    def largest(self, axis: int | None = None) -> "Symbol":
        """Return the largest of an axis; None: of all, a scalar."""
        axes = [] if axis is None else [self.graph.whole([axis])]
        return self.graph.op("ReduceMax", self, *axes, kind=self.kind, keepdims=0)


class GraphWriter:
    """Collects the nodes and constants of a graph; the same constant is there once."""

    def __init__(self) -> None:
        """Begin with nothing.

        Raises:
            ConfigError: the libraries are not installed.
        """
        self.ir = onnx_ir()
        self.tape = self.ir.tape.Tape()
        self.inputs: list[Any] = []
        self.defaults: list[Any] = []
        self._constants: dict[tuple[Any, ...], Symbol] = {}

    def input(self, name: str, kind: int, shape: Sequence[str | int | None]) -> Symbol:
        """Return an input that must be given."""
        value = self._value(name, kind, shape)
        self.inputs.append(value)
        return Symbol(self, value, kind)

    def default(self, name: str, values: NDArray[Any], kind: int) -> Symbol:
        """Return an input that is `values` where it is not given, which others broadcast with."""
        value = self._value(name, kind, [None] * values.ndim)
        value.const_value = self.ir.tensor(values, name=name)
        self.inputs.append(value)
        self.defaults.append(value)
        return Symbol(self, value, kind)

    def _value(self, name: str, kind: int, shape: Sequence[str | int | None]) -> Any:
        tensor = self.ir.TensorType(self.ir.DataType(kind))
        return self.ir.Value(name=name, type=tensor, shape=self.ir.Shape(list(shape)))

    def op(self, name: str, *inputs: Symbol, kind: int, domain: str = "", **given: Any) -> Symbol:
        """Return what one node makes of its inputs."""
        values = [one.value for one in inputs]
        return Symbol(self, self.tape.op(name, values, given or None, domain=domain), kind)

    def constant(self, values: NDArray[Any]) -> Symbol:
        """Return an array of the graph's own."""
        kind = next(kind for kind, numpy in _NUMPY.items() if values.dtype == numpy)
        number = len(self._constants)
        small = values.size < _FEW
        key = (kind, values.shape, values.tobytes()) if small else (number,)
        if key not in self._constants:
            name = f"queries.constant_{number}"
            value = self.tape.initializer(self.ir.tensor(values, name=name), name)
            self._constants[key] = Symbol(self, value, kind)
        return self._constants[key]

    def whole(self, numbers: Sequence[int]) -> Symbol:
        """Return int64 numbers."""
        return self.constant(np.array(numbers, np.int64))

    def like(self, other: Any, kind: int) -> Symbol:
        """Return a symbol as it is, numbers as constants of that type."""
        if isinstance(other, Symbol):
            return other
        return self.constant(np.asarray(other, _NUMPY[kind]))

    def where(self, condition: Symbol, yes: Any, no: Any) -> Symbol:
        """Return one or the other, in the type of the one that is a symbol."""
        kind = next(one.kind for one in (yes, no) if isinstance(one, Symbol))
        return self.op("Where", condition, self.like(yes, kind), self.like(no, kind), kind=kind)

    def joined(self, parts: Sequence[Symbol], axis: int) -> Symbol:
        """Return arrays side by side."""
        if len(parts) == 1:
            return parts[0]
        return self.op("Concat", *parts, kind=parts[0].kind, axis=axis)

    def counted(self, size: Symbol) -> Symbol:
        """Return 0, 1, ... below `size`, a number of one element, int64."""
        zero, one = (self.constant(np.array(number, np.int64)) for number in (0, 1))
        scalar = self.op("Reshape", size, self.whole([]), kind=INT64)
        return self.op("Range", zero, scalar, one, kind=INT64)
