"""Recommender-system engine for offline training, batch scoring and the MLflow registry.

    import recsys

    config = recsys.init("orders.csv", "products.csv")
    run = recsys.train(config)
    run.model.recommend(["u1"], k=10)

Importing costs nothing: what is asked for is imported when it is first used.
"""

import importlib
from typing import Any

_PROMOTING = ("promote", "Promotion")
_EXPERIMENTS = ("sync", "train", "tune", "tune_embedding")
_DELTAS = ("export_delta", "patch")
_DEMO = ("demo", "demo_tables")
_PREPARING = ("prepare", "Prepared")
_RECOUNTING = ("recount", "Recounted")
_MODELS = (
    "evaluate",
    "explain",
    "export",
    "load",
    "register",
    "score",
    "score_new_items",
)
_ERRORS = (
    "ArgumentError",
    "ConfigError",
    "DataError",
    "IntegrityError",
    "NotBetterError",
    "NotDeliveredError",
    "NotFoundError",
    "NumericalError",
    "StoreError",
    "UserError",
    "WorkerError",
)
_EVENTS = ("PartDone", "PointLogged", "StepDone")
_PLACES = {
    "check": "recsys.app.checking",
    "compare": "recsys.app.comparing",
    "init": "recsys.app.proposing",
    "Config": "recsys.app.configuration",
    "batch_function": "recsys.app.batch_function",
    "Model": "recsys.app.model",
    "Run": "recsys.app.run",
    "Tuned": "recsys.app.tuned",
    "plan": "recsys.app.planning",
    "export_query_vectors": "recsys.app.query_exporting",
    **dict.fromkeys(_EXPERIMENTS, "recsys.app.experiments"),
    "verify": "recsys.app.exporting",
    **dict.fromkeys(_DELTAS, "recsys.app.deltas"),
    **dict.fromkeys(_DEMO, "recsys.app.demo"),
    **dict.fromkeys(_PROMOTING, "recsys.app.promoting"),
    **dict.fromkeys(_PREPARING, "recsys.app.preparing"),
    **dict.fromkeys(_RECOUNTING, "recsys.app.recounting"),
    **dict.fromkeys(_MODELS, "recsys.app.models"),
    **dict.fromkeys(_EVENTS, "recsys.core.events"),
    **dict.fromkeys(_ERRORS, "recsys.core.errors"),
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("recsys-engine")
    if name not in _PLACES:
        raise AttributeError(f"module 'recsys' has no attribute '{name}'")
    value = getattr(importlib.import_module(_PLACES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*_PLACES, "__version__"])
