"""Scoring inside a Spark job that exists already: data frames in, data frames out.

    import recsys.spark

    requests = recsys.spark.requests_from(log, "models:/shop@champion", users=users)
    lists = recsys.spark.recommend("models:/shop@champion", requests, k=20)
    chances = recsys.spark.predict("models:/clicks@champion", rows)

The functions are in `recsys.app.spark`; pyspark is imported when one is first asked for.
"""

import importlib
from typing import Any

_PLACES = {
    "counts": "recsys.app.spark.answering",
    "predict": "recsys.app.spark.answering",
    "recommend": "recsys.app.spark.answering",
    "requests_from": "recsys.app.spark.requests",
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'recsys.spark' has no attribute '{name}'")
    value = getattr(importlib.import_module(_PLACES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(_PLACES)
