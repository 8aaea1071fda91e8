"""The constants of `recsys plan`, as `tests/benchmarks/scale_plan.py` fitted them (`scale.py`)."""

from collections.abc import Mapping

MEASURED: Mapping[str, Mapping[str, Mapping[str, float]]] = {
    "autoint": {
        "finish_cpu_s": {"m_cells": 0.003665, "m_items": 0.0, "m_rows": 31.79, "start": 2.44},
        "prepare_cpu_s": {"m_items": 0.0, "m_rows": 0.3449, "start": 1.08},
        "score_cpu_s": {
            "m_cells": 1.41e-05,
            "m_items": 0.0,
            "m_rows": 1.769,
            "m_users": 0.0,
            "start": 0.03839,
        },
        "train_cpu_s": {"m_rows_an_epoch": 8.523},
        "train_mib": {"m_items": 0.0, "m_rows": 153.9, "start": 735.0},
    },
    "session": {
        "finish_cpu_s": {"m_cells": 0.0, "m_items": 135.7, "m_rows": 27.79, "start": 5.607},
        "prepare_cpu_s": {"m_items": 8.258, "m_rows": 0.7743, "start": 1.308},
        "score_cpu_s": {
            "m_cells": 0.001142,
            "m_items": 0.0,
            "m_rows": 8.093,
            "m_users": 11.63,
            "start": 0.0,
        },
        "train_cpu_s": {"m_rows_an_epoch": 27.69},
        "train_mib": {"m_items": 71.42, "m_rows": 393.2, "start": 1327.0},
    },
    "two_tower": {
        "finish_cpu_s": {"m_cells": 0.001933, "m_items": 0.0, "m_rows": 7.152, "start": 4.562},
        "prepare_cpu_s": {"m_items": 4.942, "m_rows": 0.1034, "start": 1.396},
        "score_cpu_s": {
            "m_cells": 0.0001634,
            "m_items": 0.0,
            "m_rows": 0.0,
            "m_users": 33.77,
            "start": 0.05759,
        },
        "train_cpu_s": {"m_rows_an_epoch": 26.43},
        "train_mib": {"m_items": 4791.0, "m_rows": 474.4, "start": 890.6},
    },
}
