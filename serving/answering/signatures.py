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

    params: the defaults of `k`, `filter_seen`, `probability`, `cut`, `where` and, of a model that
    has vectors, `vectors`, with which the answers are those. MLflow has no lists that may be null,
    so that `allow` is a column of requests alone: an empty list allows nothing.
    """

    def spec(name: str) -> Any:
        kind = _mlflow_type(columns.field(name).type) or types.AnyType()
        return types.ColSpec(kind, name, required=name == user_key)

    items = _mlflow_type(columns.field(HISTORY).type) or types.AnyType()
    outputs = [
        spec(user_key),
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
        types.Schema([spec(name) for name in columns.names]),
        types.Schema(outputs),
        types.ParamSchema(specs),
    )


def row_signature(columns: pa.Schema, answers: Sequence[str]) -> ModelSignature:
    """Return MLflow's description of rows with these columns, and of the probabilities."""
    specs = []
    for field in columns:
        # MLflow refuses whole numbers where floats are declared: those are left unchecked.
        kind = None if pa.types.is_floating(field.type) else _mlflow_type(field.type)
        specs.append(types.ColSpec(kind or types.AnyType(), field.name, required=kind is not None))
    return ModelSignature(
        types.Schema(specs), types.Schema([types.ColSpec("double", name) for name in answers])
    )


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
