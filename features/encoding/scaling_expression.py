"""`Scaler` as a graph: the same formulas in symbols.

Shape letters: N rows, D bins.
"""

from collections.abc import Callable

import numpy as np

from recsys.features.encoding.scaling import Scaler
from recsys.features.kinds.expression import Operations, Symbol


def scaled(ops: Operations, scaler: Scaler, values: Symbol) -> Symbol:
    """Return `Scaler.apply` of values (N,) float64, NaN where null: (N,) float32."""
    null = ops.is_nan(values)
    inside = ops.clip(ops.where(null, scaler.low, values), scaler.low, scaler.high)
    made = _share_below(ops, scaler, inside) if scaler.knots else _squashed(ops, scaler, inside)
    return ops.float32(ops.where(null, 0.0, (made - scaler.mean) / scaler.deviation))


def piecewise(ops: Operations, scaler: Scaler, values: Symbol) -> Symbol:
    """Return `Scaler.piecewise` of values (N,) float64: (N, D) float32."""
    edges = np.array(scaler.knots if len(scaler.knots) > 1 else (scaler.low, scaler.low + 1.0))
    null = ops.is_nan(values)
    inside = ops.clip(ops.where(null, scaler.low, values), scaler.low, scaler.high)
    shares = (ops.columns(inside) - edges[:-1]) / np.diff(edges)
    return ops.float32(ops.where(ops.columns(null), 0.0, ops.clip(shares, 0.0, 1.0)))


def category(ops: Operations, scaler: Scaler, values: Symbol) -> Symbol:
    """Return `Scaler.category` of values (N,) float64: (N,) int64."""
    inside = ops.clip(ops.where(ops.is_nan(values), 0.0, values), scaler.low, scaler.high)
    if scaler.bins == "log_squared":
        root = ops.log(ops.where(inside > 2.0, inside, 2.0))
        return ops.int64(ops.where(inside > 2.0, ops.floor(root * root) + 3.0, ops.floor(inside)))
    return ops.count_at_most(inside, np.array(scaler.knots))


def _share_below(ops: Operations, scaler: Scaler, inside: Symbol) -> Symbol:
    knots = np.array(scaler.knots)
    last = len(knots) - 1
    high = ops.count_at_most(inside, knots)
    # What is not below a value is at most it with both signs turned.
    low = ops.count_at_most(inside * -1.0, -knots[::-1]) * -1 + (last + 1)
    at = ops.where(high > last, last - 1, high - 1)
    start, step = ops.taken(knots[:-1], at), ops.taken(np.diff(knots), at)
    part = ops.where(step > 0.0, (inside - start) / ops.where(step > 0.0, step, 1.0), 0.0)
    between = (ops.float64(at) + part) / last
    tie = (ops.float64(low + high) - 1.0) / (2 * last)
    return ops.where(high - low > 1, tie, between)


def _log1p(ops: Operations, x: Symbol) -> Symbol:
    size = ops.log(ops.where(x < 0.0, x * -1.0, x) + 1.0)
    return ops.where(x < 0.0, size * -1.0, size)


def _log_squared(ops: Operations, x: Symbol) -> Symbol:
    root = ops.log(ops.where(x > 2.0, x, 2.0))
    return ops.where(x > 2.0, root * root, x)


def _as_it_is(ops: Operations, x: Symbol) -> Symbol:
    return x


_SQUASHES: dict[str, Callable[[Operations, Symbol], Symbol]] = {
    "log1p": _log1p,
    "log_squared": _log_squared,
}


def _squashed(ops: Operations, scaler: Scaler, inside: Symbol) -> Symbol:
    return _SQUASHES.get(scaler.transform, _as_it_is)(ops, inside)
