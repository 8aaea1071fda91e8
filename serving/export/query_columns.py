"""The columns of requests as inputs of a graph, hashed and scaled inside it.

`Columns` is `recsys.features.kinds.expression.Operations` over ONNX: strings through the operator
`com.microsoft::MurmurHash3`, which is part of ONNX Runtime and gives the two halves of
`recsys.features.encoding.hashing.murmur3_64`; whole numbers through splitmix64; ids that the
training knew through buckets of their sorted hashes.

Each input is written down as an `InputColumn`: what a caller needs to fill it.

Shape letters: N rows, B requests, L longest list, M steps that the model sees, K known values.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from recsys.features.encoding.hashing import NULL_HASH, UNKNOWN_HASH
from recsys.features.encoding.instants import MICROSECONDS
from recsys.features.kinds.expression import ExpressedLists
from recsys.serving.export.graph_symbols import (
    BOOL,
    DOUBLE,
    FLOAT,
    INT64,
    TEXT,
    UINT32,
    UINT64,
    GraphWriter,
    Symbol,
)

_SEEDS = (0x9747B28C - 2**32, 0x3C6EF372)  # as signed numbers, which is how ONNX keeps them
_STEP = 0x9E3779B97F4A7C15 - 2**64
_FACTORS = (0xBF58476D1CE4E5B9 - 2**64, 0x94D049BB133111EB - 2**64)
_TYPES = {"string": TEXT, "integer": INT64, "boolean": BOOL, "number": DOUBLE, "instant": INT64}
_TYPES |= {"vector": FLOAT, "weight": FLOAT}


@dataclass(frozen=True)
class InputColumn:
    """What a caller needs to fill one input of the graph.

    Attributes:
        input: its name; `input.null` says where a value is null, `input.length` how long lists are.
        column: the column of requests that it holds.
        type: `string`, `integer`, `boolean`, `number` (NaN where null), `instant` (whole numbers in
            `unit`, microseconds for datetime), `vector` or `weight` (of the values of a list).
        lists: whether a request has several values, or each of its steps has.
        steps: whether it is about the steps of the history.
        cut: what separates values in text of that column, `words` for free text; else empty.
        dim: numbers of a vector.
        unit: of an instant.
        beside: the column whose values weights are of.
    """

    input: str
    column: str
    type: str
    lists: bool = False
    steps: bool = False
    cut: str = ""
    dim: int = 0
    unit: str = ""
    beside: str = ""

    @property
    def has_nulls(self) -> bool:
        """Whether there is an input that says where it is null."""
        return self.type not in ("number", "weight")

    @property
    def has_lengths(self) -> bool:
        """Whether there is an input that says how long lists are."""
        return self.lists and self.type != "weight"


class Given(NamedTuple):
    """A column: its values, where they are null, how long lists are (-1: as long as the input)."""

    values: Symbol
    null: Symbol | None
    length: Symbol | None


class Inputs:
    """All inputs of a graph, each once however many features read it."""

    def __init__(self, graph: GraphWriter) -> None:
        self.graph = graph
        self.columns: list[InputColumn] = []
        self._given: dict[str, Given] = {}

    def given(self, column: str, kind: str, **more: Any) -> Given:
        """Return a column, which becomes an input unless it is one already."""
        wanted = InputColumn(column, column, kind, **more)
        for one in self.columns:
            if asdict(one) == {**asdict(wanted), "input": one.input}:
                return self._given[one.input]
        if column in self._given:  # read in another way, too
            wanted = InputColumn(f"{column}.{more.get('cut') or kind}", column, kind, **more)
        self.columns.append(wanted)
        return self._given.setdefault(wanted.input, self._made(wanted))

    def read(self, name: str) -> Given:
        """Return what an input gave before."""
        return self._given[name]

    def _made(self, one: InputColumn) -> Given:
        shape: list[str | int] = ["batch"]
        shape += ["history steps"] if one.steps else []
        shape += [f"{one.column} longest"] if one.lists else []
        null = length = None
        if one.has_nulls:
            no = np.zeros((1,) * len(shape), np.bool_)
            null = self.graph.default(f"{one.input}.null", no, BOOL)
        if one.has_lengths:
            whole = np.full((1,) * (len(shape) - 1), -1, np.int64)
            length = self.graph.default(f"{one.input}.length", whole, INT64)
        shape += [one.dim] if one.dim else []
        return Given(self.graph.input(one.input, _TYPES[one.type], shape), null, length)

    def to_json(self) -> list[dict[str, Any]]:
        """Return the columns as JSON."""
        return [asdict(one) for one in self.columns]


@dataclass(frozen=True)
class Steps:
    """Which steps of the histories the model sees.

    order: (B * M,) int64, their places among all B * L. prefix: of the columns about steps.
    """

    order: Symbol
    prefix: str


class Columns:
    """See `Operations`: N rows are requests, or with `steps` the steps that a model sees."""

    def __init__(self, inputs: Inputs, steps: Steps | None = None) -> None:
        self.inputs, self.graph, self.steps = inputs, inputs.graph, steps

    def _hashed(self, column: str, family: str, **more: Any) -> Given:
        """Return a column whose values are hashes."""
        # ONNX Runtime gathers the first of several strings alone, so they are hashed before.
        return self._read(column, "string" if family == "null" else family, hashes, **more)

    def _read(
        self,
        column: str,
        kind: str,
        made: Callable[[Symbol], Symbol] = lambda values: values,
        **more: Any,
    ) -> Given:
        """Return a column as N rows, `made` applied to its values before they are cut into rows."""
        if self.steps is None:
            given = self.inputs.given(column, kind, **more)
            return given._replace(values=made(given.values))
        name = f"{self.steps.prefix}{column}"
        values, null, length = self.inputs.given(name, kind, steps=True, **more)
        lists = bool(more.get("lists"))
        return Given(
            self._flat(made(values), lists or bool(more.get("dim"))),
            None if null is None else self._flat(self._whole(null, values, lists), lists),
            None if length is None else self._flat(self._whole(length, values), False),
        )

    def _whole(self, given: Symbol, values: Symbol, lists: bool = False) -> Symbol:
        """Return what may have one row for all as (B, L), of lists (B, L, ...)."""
        sizes = [values.size(0), values.size(1), *([given.size(2)] if lists else [])]
        return self.graph.op("Expand", given, self.graph.joined(sizes, 0), kind=given.kind)

    def _flat(self, values: Symbol, several: bool) -> Symbol:
        """Return the rows of the steps that are seen, of (B, L) or (B, L, ...)."""
        assert self.steps is not None
        rows = values.shaped(-1, values.size(2)) if several else values.shaped(-1)
        return rows.at(self.steps.order)

    def category(self, column: str, family: str) -> Symbol:
        """Return the value hashes of a column, that of null where null."""
        found, null, _ = self._hashed(column, family)
        return self.graph.where(_there(null), int(NULL_HASH), found)

    def categories(
        self, column: str, family: str, *, cut: str = "", weights: str | None = None
    ) -> ExpressedLists:
        """Return the value hashes of lists, padded, and their weights."""
        found, null, length = self._hashed(column, family, lists=True, cut=cut)
        found = self.graph.where(_there(null), int(NULL_HASH), found)
        longest = found.size(1)
        length = _there(length)
        length = self.graph.where(length < 0, longest, length).widened(1)
        place = self.graph.counted(longest).widened(0)
        # A row without a value has the one of null.
        found = self.graph.where((length < 1) & (place < 1), int(NULL_HASH), found)
        there = place < self.graph.where(length < 1, 1, length)
        if weights is None:
            return ExpressedLists(found, there.cast(FLOAT))
        beside = f"{self.steps.prefix}{column}" if self.steps else column
        counts, _, _ = self._read(weights, "weight", lists=True, beside=beside)
        counts = self.graph.where(length < 1, 1.0, counts)
        return ExpressedLists(found, self.graph.where(there, counts, 0.0))

    def number(self, column: str) -> Symbol:
        """Return numbers, NaN where null or infinite."""
        values, _, _ = self._read(column, "number")
        infinite = self.graph.op("IsInf", values.cast(FLOAT), kind=BOOL)
        return self.graph.where(infinite, np.nan, values)

    def vector(self, column: str, dim: int) -> tuple[Symbol, Symbol]:
        """Return vectors, 0 where null, and where they are null."""
        values, null, _ = self._read(column, "vector", dim=dim)
        null = _there(null)
        return self.graph.where(null.widened(1), 0.0, values), null

    def instant(self, column: str, unit: str) -> tuple[Symbol, Symbol]:
        """Return microseconds and where they are null."""
        values, null, _ = self._read(column, "instant", unit=unit)
        null = _there(null)
        return microseconds(self.graph.where(null, 0, values), unit), null

    def known(self, hashes: Symbol, known: NDArray[np.int64]) -> Symbol:
        """Return hashes, those that `known` lacks replaced."""
        found = places_in(hashes, known)
        return self.graph.where(found < 0, int(UNKNOWN_HASH), hashes)

    def hashed(self, whole: Symbol) -> Symbol:
        """Return the value hashes of whole numbers."""
        return hashes(whole)

    def where(self, condition: Symbol, yes: Any, no: Any) -> Symbol:
        """Return one or the other."""
        return self.graph.where(condition, yes, no)

    def count_at_most(self, values: Symbol, knots: NDArray[np.float64]) -> Symbol:
        """Return how many of `knots` are at most each value."""
        if not len(knots):
            return (values > np.inf).cast(INT64)
        return (values.widened(1) >= knots).cast(INT64).summed(1)

    def taken(self, numbers: NDArray[np.float64], at: Symbol) -> Symbol:
        """Return numbers[at]."""
        return self.graph.constant(numbers).at(at)

    def columns(self, values: Symbol) -> Symbol:
        """Return a column, to be compared with several numbers a row."""
        return values.widened(1)

    def log(self, values: Symbol) -> Symbol:
        """Return the natural logarithm."""
        return self.graph.op("Log", values, kind=values.kind)

    def floor(self, values: Symbol) -> Symbol:
        """Return the next whole number below."""
        return self.graph.op("Floor", values, kind=values.kind)

    def clip(self, values: Symbol, low: float, high: float) -> Symbol:
        """Return values between two numbers."""
        ends = [self.graph.like(end, values.kind) for end in (low, high)]
        return self.graph.op("Clip", values, *ends, kind=values.kind)

    def is_nan(self, values: Symbol) -> Symbol:
        """Return where values are NaN."""
        return self.graph.op("IsNaN", values, kind=BOOL)

    def float64(self, values: Symbol) -> Symbol:
        """Return float64."""
        return values.cast(DOUBLE)

    def float32(self, values: Symbol) -> Symbol:
        """Return float32."""
        return values.cast(FLOAT)

    def int64(self, values: Symbol) -> Symbol:
        """Return int64."""
        return values.cast(INT64)


def hashes(values: Symbol) -> Symbol:
    """Return value hashes, int64, of text, whole numbers or booleans of any shape."""
    if values.kind == TEXT:
        halves = (
            values.graph.op(
                "MurmurHash3",
                values,
                kind=UINT32,
                domain="com.microsoft",
                seed=seed,
                positive=1,
            )
            for seed in _SEEDS
        )
        low, high = (half.cast(UINT64) for half in halves)
        return (low | high.shifted(32, "LEFT")).cast(INT64)
    mixed = (values.cast(INT64) + _STEP).cast(UINT64)
    for bits, factor in zip((30, 27), _FACTORS, strict=True):
        mixed = mixed ^ mixed.shifted(bits, "RIGHT")
        # ONNX multiplies signed numbers alone, to the same bits.
        mixed = (mixed.cast(INT64) * factor).cast(UINT64)
    return (mixed ^ mixed.shifted(31, "RIGHT")).cast(INT64)


def microseconds(whole: Symbol, unit: str) -> Symbol:
    """Return times in `unit` in microseconds, whole numbers rounded down."""
    factor, divisor = MICROSECONDS.get(unit, (1, 1))
    scaled = whole if factor == 1 else whole * factor
    return scaled if divisor == 1 else scaled // divisor


def places_in(wanted: Symbol, known: NDArray[np.int64]) -> Symbol:
    """Return the place of each hash among `known`, sorted as unsigned numbers; -1: it is not there.

    A hash is looked for among the few whose first bits it shares: hashes are spread evenly.
    """
    graph, unsigned = wanted.graph, np.sort(known.view(np.uint64))
    if not len(known):
        return (wanted ^ wanted) - 1
    bits = max(1, int(np.ceil(np.log2(len(known)))))
    bucket = (unsigned >> np.uint64(64 - bits)).astype(np.int64)
    counts = np.bincount(bucket, minlength=2**bits)
    most = int(counts.max())
    first = graph.constant((np.cumsum(counts) - counts).astype(np.int64))
    # Zeros behind the end are in the first bucket, which no search that gets there is about.
    values = graph.constant(np.append(unsigned, np.zeros(most, np.uint64)).view(np.int64))
    place = wanted.cast(UINT64).shifted(64 - bits, "RIGHT").cast(INT64)
    places = first.at(place).widened(-1) + np.arange(most)
    same = values.at(places).equals(wanted.widened(-1))
    return graph.where(same, places, -1).largest(-1)


def _there(symbol: Symbol | None) -> Symbol:
    assert symbol is not None
    return symbol
