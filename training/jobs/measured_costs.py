"""The constants of `recsys plan`, as `tests/benchmarks/scale_plan.py` fitted them (`scale.py`)."""

from collections.abc import Mapping

MEASURED: Mapping[str, Mapping[str, Mapping[str, float]]] = {
    "autoint": {
        "finish_cpu_s": {"m_cells": 0.0007801, "m_items": 0.0, "m_rows": 33.4, "start": 2.172},
        "prepare_cpu_s": {"m_items": 2.519, "m_rows": 0.4281, "start": 0.9664},
        "score_cpu_s": {
            "m_cells": 0.0,
            "m_items": 0.0,
            "m_rows": 1.501,
            "m_users": 0.0,
            "start": 0.05482,
        },
        "train_cpu_s": {"m_rows_an_epoch": 7.884, "m_rows_an_epoch_m_items": 0.0},
        "train_mib": {"start": 787.5},
    },
    "session": {
        "finish_cpu_s": {"m_cells": 0.0, "m_items": 109.8, "m_rows": 23.41, "start": 5.123},
        "prepare_cpu_s": {"m_items": 4.944, "m_rows": 0.6635, "start": 1.022},
        "score_cpu_s": {
            "m_cells": 0.0009214,
            "m_items": 0.0,
            "m_rows": 7.866,
            "m_users": 4.851,
            "start": 0.0,
        },
        "train_cpu_s": {"m_rows_an_epoch": 19.23, "m_rows_an_epoch_m_items": 341.1},
        "train_mib": {"m_items": 189.5, "m_rows": 503.4, "start": 1318.0},
    },
    "two_tower": {
        "finish_cpu_s": {"m_cells": 0.002597, "m_items": 0.9829, "m_rows": 5.416, "start": 3.15},
        "prepare_cpu_s": {"m_items": 0.05797, "m_rows": 0.3514, "start": 0.9393},
        "score_cpu_s": {
            "m_cells": 0.0002777,
            "m_items": 0.0,
            "m_rows": 0.0,
            "m_users": 25.48,
            "start": 0.04721,
        },
        "train_cpu_s": {"m_rows_an_epoch": 16.14, "m_rows_an_epoch_m_items": 201.5},
        "train_mib": {"m_items": 4542.0, "m_rows": 503.9, "start": 894.2},
    },
}
