"""The MLflow model around a bundle, as models-from-code: MLflow copies and runs this very file.

It holds no logic of its own: requests or rows come as a data frame, and what serves the model
(`recsys.serving.answering`) answers.

Example:
    model = mlflow.pyfunc.load_model("models:/shop@champion")
    model.predict(pd.DataFrame({"user_id": [7], "history": [[3, 1, 4]]}), params={"k": 10})

    ranker.predict(pd.DataFrame({"shop": ["s1", "s2"], "price": [2.5, 10.0]}))   # probability
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pyarrow as pa
from mlflow.models import ModelSignature
from mlflow.pyfunc import PythonModel
from mlflow.types import schema as types

from recsys.core.errors import DataError, Row

HISTORY, TIMES = "history", "history_times"
INPUT = "the model input"


class BundleModel(PythonModel):  # type: ignore[misc]
    """Answers requests, a row a user with lists of item ids, or judges rows."""

    def load_context(self, context: Any) -> None:
        """Open the bundle: hashes checked, probe replayed."""
        from recsys.bundle.directory import Bundle
        from recsys.serving.answering.registry import answering_of

        path = Path(context.artifacts["bundle"])
        self.server = answering_of(Bundle.open(path)).server(path)

    def predict(
        self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Return one row a request or row, in order.

        User key, items, scores and reason of a request, with the parameter `probability` also the
        probability of each item; the keys of a row that the model reads and its probability.
        """
        from recsys.features.requests.origin import RequestOrigin

        table = as_table(model_input, self.server.columns)
        return to_frame(self.server.answer(table, params or {}, RequestOrigin(INPUT)))


def request_signature(
    columns: pa.Schema, user_key: str, params: Mapping[str, Any]
) -> ModelSignature:
    """Return MLflow's description of requests with these columns, answers and parameters.

    params: the defaults of `k`, `filter_seen` and `probability`.
    """

    def spec(name: str) -> Any:
        kind = _mlflow_type(columns.field(name).type) or types.AnyType()
        return types.ColSpec(kind, name, required=name == user_key)

    items = _mlflow_type(columns.field(HISTORY).type) or types.AnyType()
    outputs = [
        spec(user_key),
        types.ColSpec(items, "items"),
        types.ColSpec(types.Array("float"), "scores"),
        types.ColSpec(types.Array("double"), "probabilities", required=False),
        types.ColSpec("string", "reason", required=False),
    ]
    kinds = {"k": "long", "filter_seen": "boolean", "probability": "boolean"}
    specs = [types.ParamSpec(name, kind, params[name]) for name, kind in kinds.items()]
    return ModelSignature(
        types.Schema([spec(name) for name in columns.names]),
        types.Schema(outputs),
        types.ParamSchema(specs),
    )


def row_signature(columns: pa.Schema) -> ModelSignature:
    """Return MLflow's description of rows with these columns, and of their probability."""
    specs = []
    for field in columns:
        # MLflow refuses whole numbers where floats are declared: those are left unchecked.
        kind = None if pa.types.is_floating(field.type) else _mlflow_type(field.type)
        specs.append(types.ColSpec(kind or types.AnyType(), field.name, required=kind is not None))
    return ModelSignature(
        types.Schema(specs), types.Schema([types.ColSpec("double", "probability")])
    )


def as_table(frame: pd.DataFrame, columns: pa.Schema) -> pa.Table:
    """Return those of `columns` that a data frame has, in their types.

    Raises:
        DataError: a column cannot be what the model was trained with.
    """
    arrays = {}
    for field in columns:
        if field.name not in frame.columns:
            continue
        values = [_plain(value) for value in frame[field.name]]
        kind = field.type
        lists = (row for row in values if isinstance(row, list))
        if field.name == TIMES and any(isinstance(one, str) for row in lists for one in row):
            kind = pa.large_list(pa.string())  # ISO text, which whoever reads requests takes too
        arrays[field.name] = _array(values, field.with_type(kind))
    return pa.table(arrays)


def _array(values: list[Any], field: pa.Field) -> pa.Array:
    wrong = (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError)
    try:
        return pa.array(values, field.type)
    except wrong:
        for row, value in enumerate(values):
            try:
                pa.array([value], field.type)
            except wrong as error:
                raise DataError(
                    f"must be {field.type}: {error}",
                    column=field.name,
                    rows=[Row(INPUT, row + 1)],
                    remedy="give values of that type",
                ) from None
        raise


def to_frame(table: pa.Table) -> pd.DataFrame:
    """Return a table as a data frame whose lists are lists and whose ids never were floats."""

    def series(values: Any) -> "pd.Series[Any]":
        numbers = pa.types.is_floating(values.type)
        whole = pa.types.is_integer(values.type) and not values.null_count
        return pd.Series(values.to_pylist(), dtype=None if numbers or whole else object)

    return pd.DataFrame({name: series(table.column(name)) for name in table.schema.names})


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


def _plain(value: Any) -> Any:
    """Undo what data frames do to missing values and to lists."""
    if isinstance(value, np.ndarray):
        # As nanoseconds times would become plain numbers.
        return (value.astype("datetime64[us]") if value.dtype.kind == "M" else value).tolist()
    if isinstance(value, list | tuple):
        return list(value)
    return None if pd.isna(value) else value


mlflow.models.set_model(BundleModel())
