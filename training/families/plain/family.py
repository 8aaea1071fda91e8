"""The family of plain models, which count and solve."""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import NDArray

from recsys.core.imports import on_first_use
from recsys.features.dataset.sessions import sessions_of
from recsys.features.propose.inspect import Report
from recsys.features.tables.checked import Tables
from recsys.plain.registry import PLAIN
from recsys.training.families.costs import Rates
from recsys.training.families.family import Explainer, FittedFamily
from recsys.training.families.inspecting import inspect_tables
from recsys.training.families.list_metrics import check_metric
from recsys.training.families.plain.config import PlainExperiment

with on_first_use():
    from recsys.features.dataset.dataset import Dataset
    from recsys.features.dataset.queries import Queries
    from recsys.training.evaluation.results import Evaluation
    from recsys.training.families.comparing import ModelOnTest
    from recsys.training.families.plain.choose import check_baselines
    from recsys.training.families.plain.explaining import explain_list
    from recsys.training.families.plain.fallback import PlainRanker
    from recsys.training.families.plain.fitting import check_fit, check_rows
    from recsys.training.families.plain.job import evaluate_opened, model_on, open_plain, refitted
    from recsys.training.families.plain.reading import PlainData
    from recsys.training.families.plain.space import plain_space
    from recsys.training.families.retrieval.comparing import LISTS, ask_lists
    from recsys.training.reports.evaluation_table import evaluation_table

_RATES = {
    "ease": Rates(seconds=1.25, row_us=10, asked_item_ns=73, mib=415, row_kib=0.9, ease_bytes=14)
}
"""What was measured, by kind."""


def _check(config: PlainExperiment) -> None:
    """Refuse, before any work is done, a metric or a baseline that is not available.

    Raises:
        ConfigError: which, and why.
    """
    check_metric(config)
    check_baselines(config)


def _inspect(config: PlainExperiment) -> Report:
    """Check the tables; say how the log is cut."""
    cutting = config.sessions

    def notes(tables: Tables, part: NDArray[np.int8]) -> tuple[str, ...]:
        if cutting is None:
            return ()
        return (sessions_of(config.schema_, tables.events, cutting).in_words(),)

    return inspect_tables(
        config, notes, check_rows=check_rows, cutting=cutting, rates=_RATES.get(config.model.kind)
    )


def _read(config: PlainExperiment, data: Dataset) -> PlainData:
    return PlainData.of(config, data)


def _answering(here: ModelOnTest, reading: PlainData, _queries: Queries) -> PlainRanker:
    """Return what answers queries on the data of a comparison."""
    return reading.ranker(model_on(here.opened, here.data))


PLAIN_MODELS = FittedFamily(
    plural="plain models",
    kinds=tuple(PLAIN),
    experiment=PlainExperiment,
    check=_check,
    inspect=_inspect,
    open=open_plain,
    evaluate=evaluate_opened,
    evaluation=Evaluation,
    show=evaluation_table,
    ask=partial(ask_lists, _read, _answering),
    comparer=LISTS,
    space=plain_space,
    explain=Explainer.of_lists(explain_list),
    fits=check_fit,
    check_rows=check_rows,
    recount=refitted,
)
