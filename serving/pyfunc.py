"""The MLflow model around a bundle, as models-from-code: MLflow copies and runs this very file.

It holds no logic of its own: requests come as a data frame and
`recsys.serving.recommend.scorer.Scorer` answers, or rows, which
`recsys.serving.recommend.rows.RowScorer` judges where the bundle is a ranker's.

Example:
    model = mlflow.pyfunc.load_model("models:/shop@champion")
    model.predict(pd.DataFrame({"user_id": [7], "history": [[3, 1, 4]]}), params={"k": 10})

    ranker.predict(pd.DataFrame({"shop": ["s1", "s2"], "price": [2.5, 10.0]}))   # probability
"""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from mlflow.models import ModelSignature
from mlflow.pyfunc import PythonModel
from mlflow.types import schema as types

from recsys.core.errors import DataError

HISTORY, SEEN, TIMES = "history", "seen", "history_times"
DEFAULTS: dict[str, Any] = {"k": 20, "filter_seen": None, "probability": False}
"""Parameters of those who ask for a list; filter_seen None: as when the model was evaluated."""
INPUT = "the model input"


class BundleModel(PythonModel):  # type: ignore[misc]
    """Answers requests, a row a user with lists of item ids, or judges rows."""

    def load_context(self, context: Any) -> None:
        """Open the bundle: hashes checked, probe replayed."""
        from recsys.bundle.directory import Bundle
        from recsys.serving.recommend.rows import is_ranker

        path = Path(context.artifacts["bundle"])
        self.answer = _judge(path) if is_ranker(Bundle.open(path)) else _recommend(path)

    def predict(
        self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Return one row a request or row, in order.

        User key, items, scores and reason of a request, with the parameter `probability` also the
        probability of each item; the keys of a row that the model reads and its probability.
        """
        return to_frame(self.answer(model_input, params or {}))


def _recommend(path: Path) -> Callable[[pd.DataFrame, dict[str, Any]], pa.Table]:
    from recsys.features.requests.origin import RequestOrigin
    from recsys.serving.recommend.scorer import Scorer

    scorer, origin = Scorer.open(path), RequestOrigin(INPUT)
    columns = request_columns(scorer.bundle.read("probe.parquet"))

    def answer(frame: pd.DataFrame, params: dict[str, Any]) -> pa.Table:
        chosen = {**DEFAULTS, **params}
        table = request_table(frame, columns)
        return scorer.score(table, **{name: chosen[name] for name in DEFAULTS}, origin=origin)

    return answer


def _judge(path: Path) -> Callable[[pd.DataFrame, dict[str, Any]], pa.Table]:
    from recsys.serving.recommend.rows import RowScorer

    scorer = RowScorer.open(path)
    columns = scorer.rows.types
    return lambda frame, params: scorer.score(pa.table(_arrays(frame, columns)))


def request_columns(probe: bytes) -> pa.Schema:
    """Return the columns that requests may have: those of the probe, and `seen`."""
    schema = pq.read_schema(io.BytesIO(probe))
    fields = [field for field in schema if not field.name.startswith("expected_")]
    if SEEN not in schema.names:
        fields.append(pa.field(SEEN, schema.field(HISTORY).type))
    return pa.schema(fields)


def request_signature(columns: pa.Schema, user_key: str, *, filter_seen: bool) -> ModelSignature:
    """Return MLflow's description of requests with these columns, answers and parameters.

    filter_seen: what is done where a request says nothing: what was done in the evaluation.
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
    params = [
        types.ParamSpec("k", "long", DEFAULTS["k"]),
        types.ParamSpec("filter_seen", "boolean", filter_seen),
        types.ParamSpec("probability", "boolean", DEFAULTS["probability"]),
    ]
    return ModelSignature(
        types.Schema([spec(name) for name in columns.names]),
        types.Schema(outputs),
        types.ParamSchema(params),
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


def request_table(frame: pd.DataFrame, columns: pa.Schema) -> pa.Table:
    """Return a data frame as a request table; no history is an empty one.

    Raises:
        DataError: a column cannot be what the model was trained with.
    """
    arrays = _arrays(frame, columns)
    if HISTORY not in arrays:
        arrays[HISTORY] = pa.array([[]] * len(frame), columns.field(HISTORY).type)
    return pa.table(arrays)


def _arrays(frame: pd.DataFrame, columns: pa.Schema) -> dict[str, pa.Array]:
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
    return arrays


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
                    f"{INPUT}, column '{field.name}', row {row + 1}: must be {field.type}: "
                    f"{error}; give values of that type"
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
