"""The MLflow model around a bundle, as models-from-code: MLflow copies and runs this very file.

It holds no logic of its own: requests or rows come as a data frame, and what serves the model
(`recsys.serving.answering`) answers.

Example:
    model = mlflow.pyfunc.load_model("models:/shop@champion")
    model.predict(pd.DataFrame({"user_id": [7], "history": [[3, 1, 4]]}), params={"k": 10})

    ranker.predict(pd.DataFrame({"shop": ["s1", "s2"], "price": [2.5, 10.0]}))   # probability
"""

from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow.pyfunc import PythonModel


class BundleModel(PythonModel):  # type: ignore[misc]
    """Answers requests, a row a user with lists of item ids, or scores rows."""

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

        Raises:
            RefusedRequestError: the requests or parameters do not fit the model; row and column are
                named. A server answers with status 400 and the message.
        """
        from recsys.core.errors import UserError
        from recsys.features.requests.origin import RequestOrigin
        from recsys.serving.frames import INPUT, as_table, to_frame
        from recsys.serving.refusal import refused

        try:
            table = as_table(model_input, self.server.columns)
            return to_frame(self.server.answer(table, params or {}, RequestOrigin(INPUT)))
        except UserError as error:
            raise refused(error) from error


mlflow.models.set_model(BundleModel())
