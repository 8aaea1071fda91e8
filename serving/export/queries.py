"""Query vectors out of query_tower.onnx: needs numpy and onnxruntime, and nothing else.

    tower = QueryTower("folder")
    vectors = tower([{"user_id": "u1", "history": ["i3", "i1"]}])["vector"]     # (1, width) float32

A request is a dictionary: the user key, `history` (item ids, oldest first, [] for a new user) and
whatever the model reads; a value that is None or absent is not known. `tower.columns` lists the
columns. Text, whole numbers and booleans are as they were in training: 7 is not "7".
"""

import json
import unicodedata
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

Requests = Sequence[Mapping[str, Any]]
_HISTORY = "history"
_DTYPES: dict[str, Any] = {
    "integer": np.int64, "boolean": np.bool_, "number": np.float64, "instant": np.int64,
    "string": object, "vector": np.float32, "weight": np.float32,
}  # fmt: skip
_FILLERS: dict[str, Any] = {"string": "", "number": np.nan}
_TYPES: dict[str, tuple[type, ...]] = {
    "integer": (int, np.integer), "boolean": (bool, np.bool_), "string": (str,),
}  # fmt: skip


class QueryTower:
    """An exported query tower that is asked with dictionaries."""

    def __init__(self, folder: str | Path = ".", threads: int = 1) -> None:
        """Open the graph in `folder`; `threads` work on one call."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3  # that inputs have defaults is meant so
        path = str(Path(folder) / "query_tower.onnx")
        self.session = onnxruntime.InferenceSession(
            path, options, providers=["CPUExecutionProvider"]
        )
        about = self.session.get_modelmeta().custom_metadata_map
        self.columns: list[dict[str, Any]] = json.loads(about["columns"])
        self.names = [one.name for one in self.session.get_outputs()]

    def __call__(self, requests: Requests) -> dict[str, Any]:
        """Return the outputs by name, a row a request: `vector` (B, width), and what else there is.

        Raises:
            ValueError: a value is not of its column's type, or a history is missing.
        """
        found = self.session.run(None, self.inputs(requests))
        return dict(zip(self.names, found, strict=True))

    def inputs(self, requests: Requests) -> dict[str, Any]:
        """Return requests as the inputs of the graph, arrays by name."""
        for number, request in enumerate(requests):
            if request.get(_HISTORY) is None:
                raise ValueError(f"request {number + 1} has no 'history': give [] for a new user")
        steps = max([1, *(len(request[_HISTORY]) for request in requests)])
        cells = {one["input"]: _cells(requests, one, steps) for one in self.columns}
        found: dict[str, Any] = {}
        for column in self.columns:
            rows = cells[column["input"]]
            if column["beside"]:
                weighed = next(
                    one
                    for one in self.columns
                    if one["column"] == column["beside"] and one["lists"]
                )
                _check_weights(rows, column, cells[weighed["input"]], weighed)
            shape = (len(requests), steps) if column["steps"] else (len(requests),)
            for name, array in _arrays(rows, column).items():
                found[name] = array.reshape(*shape, *array.shape[1:])
        return found


def _cells(requests: Requests, column: Mapping[str, Any], steps: int) -> list[Any]:
    """Return the cells of a column: one a request, or one for each of `steps` steps of each."""
    rows = [request.get(column["column"]) for request in requests]
    if not column["steps"]:
        return rows
    each = [
        _of_steps(row, column, len(request[_HISTORY]))
        for row, request in zip(rows, requests, strict=True)
    ]
    return [cell for row in each for cell in _padded(row, steps)]


def _check_weights(
    rows: list[Any], column: Mapping[str, Any], values: list[Any], weighed: Mapping[str, Any]
) -> None:
    for weights, cell in zip(rows, values, strict=True):
        counts = [0 if weights is None else len(weights), len(_several(cell, weighed))]
        if counts[0] != counts[1]:
            raise ValueError(
                f"'{column['column']}' has {counts[0]} weights for {counts[1]} values of "
                f"'{weighed['column']}'"
            )


def _of_steps(row: Any, column: Mapping[str, Any], steps: int) -> list[Any]:
    """Return one value a step of the history."""
    if row is None:
        return [None] * steps
    if len(row) != steps:
        raise ValueError(
            f"'{column['column']}' has {len(row)} values, the history {steps} items: None where a "
            "value is not known"
        )
    return list(row)


def _arrays(cells: list[Any], column: Mapping[str, Any]) -> dict[str, Any]:
    """Return the input of a column and those beside it, for N cells."""
    name, kind = column["input"], column["type"]
    if not column["lists"]:
        values = [_plain(cell, column) for cell in cells]
        found = {name: _array(values, (len(cells),), column)}
        return found if kind == "number" else {**found, f"{name}.null": _nulls(values)}
    rows = [_several(cell, column) for cell in cells]
    shape = (len(rows), max([1, *map(len, rows)]))
    flat = [value for row in rows for value in _padded(row, shape[1])]
    found = {name: _array(flat, shape, column)}
    if kind == "weight":
        return found
    lengths = np.array([len(row) for row in rows], np.int64)
    return {**found, f"{name}.null": _nulls(flat).reshape(shape), f"{name}.length": lengths}


def _array(values: list[Any], shape: tuple[int, ...], column: Mapping[str, Any]) -> Any:
    dim, kind = column["dim"], column["type"]
    filler = [0.0] * dim if dim else _FILLERS.get(kind, 0)
    try:
        array = np.array([filler if one is None else one for one in values], _DTYPES[kind])
        return array.reshape(*shape, dim) if dim else array.reshape(shape)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"column '{column['column']}': {error}") from None


def _nulls(values: list[Any]) -> Any:
    return np.array([value is None for value in values], np.bool_)


def _padded(row: list[Any], length: int) -> list[Any]:
    return [*row, *[None] * (length - len(row))]


def _several(cell: Any, column: Mapping[str, Any]) -> list[Any]:
    """Return the values of a list, those of text that is cut, or the words of a text."""
    cut = column["cut"]
    if cell is None:
        return []
    if not cut:
        return [_plain(value, column) for value in cell]
    if not isinstance(cell, str):
        raise ValueError(f"column '{column['column']}' is text, got {cell!r}")
    if cut == "words":
        return words(cell)
    return [part.strip() for part in cell.split(cut)] if cell else []


def words(text: str) -> list[str]:
    """Return the lower-cased runs of letters and digits of a text."""
    # Character by character, so that each stays one, whatever comes before and after it.
    lowered = (character.lower()[0] for character in text)
    kept = (one if unicodedata.category(one)[0] in "LN" else " " for one in lowered)
    return "".join(kept).split()


def _plain(value: Any, column: Mapping[str, Any]) -> Any:
    """Return a value as its input holds it, None where it is not known."""
    kind = column["type"]
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return None
    if kind == "instant":
        return instant(value, column["unit"])
    types: Any = _TYPES.get(kind, object)
    flag = isinstance(value, bool | np.bool_)
    if not isinstance(value, types) or (flag and kind != "boolean"):
        raise ValueError(f"column '{column['column']}' holds {kind} values, got {value!r}")
    if kind == "integer":  # above 2**63 the negative number of the same bits
        return (int(value) + 2**63) % 2**64 - 2**63
    return value


def instant(value: Any, unit: str) -> int:
    """Return a time as the graph reads it: whole numbers of `unit`, of datetime microseconds.

    Times of datetime are a datetime, a numpy.datetime64 or ISO text, UTC where no zone is given, or
    whole microseconds since 1970.
    """
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    if not isinstance(value, datetime | np.datetime64):
        return int(value)
    if unit != "datetime":
        raise ValueError(f"a time is a whole number of {unit} since 1970, got {value!r}")
    if isinstance(value, np.datetime64):
        return int(value.astype("datetime64[us]").astype(np.int64))
    zoned = value if value.tzinfo else value.replace(tzinfo=UTC)
    passed = zoned - datetime(1970, 1, 1, tzinfo=UTC)
    return (passed.days * 86_400 + passed.seconds) * 1_000_000 + passed.microseconds
