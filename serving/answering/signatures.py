"""MLflow's descriptions of what a model is asked and answers."""

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
from mlflow.models import ModelSignature
from mlflow.types import schema as types

from recsys.features.requests.table import HISTORY


def request_signature(
    columns: pa.Schema, user_key: str, params: Mapping[str, Any]
) -> ModelSignature:
    """Return MLflow's description of requests with these columns, answers and parameters.

    The columns are of any type and none is required: MLflow would refuse whole numbers among which
    one is missing, or times as text, and name neither row nor column. The reader of requests takes
    and refuses them instead (`recsys.features.requests.values`).

    params: the defaults of `k`, `filter_seen`, `probability`, `cut`, `where` and, of a model that
    has vectors, `vectors`, with which the answers are those. MLflow has no lists that may be null,
    so that `allow` is a column of requests alone: an empty list allows nothing.
    """
    key = _mlflow_type(columns.field(user_key).type) or types.AnyType()
    items = _mlflow_type(columns.field(HISTORY).type) or types.AnyType()
    outputs = [
        types.ColSpec(key, user_key, required=True),
        types.ColSpec(items, "items", required="vectors" not in params),
        types.ColSpec(types.Array("float"), "scores", required="vectors" not in params),
        types.ColSpec(types.Array("double"), "probabilities", required=False),
        types.ColSpec("string", "reason", required=False),
    ]
    flags = dict.fromkeys(("filter_seen", "probability", "cut"), "boolean")
    kinds = {"k": "long", **flags, "where": "string"}
    if "vectors" in params:
        kinds["vectors"] = "boolean"
        outputs.append(types.ColSpec(types.AnyType(), "vector", required=False))
        outputs.append(types.ColSpec("float", "repeat_gain", required=False))
    specs = [types.ParamSpec(name, kind, params[name]) for name, kind in kinds.items()]
    one_item = _mlflow_type(columns.field(HISTORY).type.value_type)
    if one_item is not None:
        specs.append(types.ParamSpec("exclude", one_item, [], (-1,)))
    return ModelSignature(
        _asked(columns),
        types.Schema(outputs),
        types.ParamSchema(specs),
    )


def row_signature(columns: pa.Schema, answers: Sequence[str]) -> ModelSignature:
    """Return MLflow's description of rows with these columns, and of the probabilities."""
    return ModelSignature(
        _asked(columns), types.Schema([types.ColSpec("double", name) for name in answers])
    )


def _asked(columns: pa.Schema) -> Any:
    return types.Schema(
        [types.ColSpec(types.AnyType(), name, required=False) for name in columns.names]
    )


def column_types(columns: pa.Schema) -> dict[str, str]:
    """Return the types that a model reads its columns as, in Arrow's words."""

    def plain(kind: Any) -> str:
        return str(kind.value_type if pa.types.is_dictionary(kind) else kind)

    return {field.name: plain(field.type) for field in columns}


def _mlflow_type(kind: Any) -> Any:
    """Return MLflow's name of an Arrow type; None: it has none, so it is left unchecked."""
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        inner = _mlflow_type(kind.value_type)
        return None if inner is None else types.Array(inner)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return "string"
    if pa.types.is_dictionary(kind):
        return _mlflow_type(kind.value_type)
    names = {"int64": "long", "int32": "integer", "double": "double", "float": "float"}
    return {**names, "bool": "boolean"}.get(str(kind))
