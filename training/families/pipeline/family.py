"""The family of pipelines, which are made of other models."""

from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from recsys.features.propose.inspect import Report
from recsys.features.tables.checked import Tables
from recsys.models.registry import PIPELINES
from recsys.pipeline.rules import doubts
from recsys.training.evaluation.results import Evaluation
from recsys.training.families.family import Explainer, FittedFamily
from recsys.training.families.inspecting import inspect_tables
from recsys.training.families.list_evaluation import check_metric
from recsys.training.families.pipeline.config import PipelineExperiment
from recsys.training.families.pipeline.enough import check_requests
from recsys.training.families.pipeline.explaining import explain_candidate
from recsys.training.families.pipeline.fitting import (
    check_items,
    check_settings_of_sources,
    check_sources_fit,
)
from recsys.training.families.pipeline.job import open_pipeline
from recsys.training.families.pipeline.opening import PipelineData, answering, evaluate_opened
from recsys.training.families.pipeline.tuning import refuse_to_search
from recsys.training.families.plain.choose import check_baselines
from recsys.training.families.retrieval.comparing import LISTS, ask_lists
from recsys.training.reports.evaluation_table import evaluation_table


def _check(config: PipelineExperiment) -> None:
    """Refuse, before any work is done, a source, a metric or a baseline that is not available.

    Raises:
        ConfigError: which, and why.
    """
    check_metric(config)
    check_baselines(config)
    check_settings_of_sources(config)


def _inspect(config: PipelineExperiment) -> Report:
    """Describe the tables; refuse a filter, a rule or a source that does not fit them."""

    def fitting(tables: Tables, part: NDArray[np.int8]) -> tuple[str, ...]:
        check_items(config, config.schema_, tables)
        check_requests(config, tables, part)
        check_sources_fit(config, tables, part)
        return ()

    found = inspect_tables(config, fitting)
    return replace(found, warnings=(*found.warnings, *doubts(config.model.rules)))


PIPELINE = FittedFamily(
    plural="pipelines",
    kinds=tuple(PIPELINES),
    experiment=PipelineExperiment,
    check=_check,
    inspect=_inspect,
    open=open_pipeline,
    evaluate=evaluate_opened,
    evaluation=Evaluation,
    show=evaluation_table,
    ask=partial(ask_lists, PipelineData, answering),
    comparer=LISTS,
    space=refuse_to_search,
    explain=Explainer.of_lists(explain_candidate),
    evaluated_once=("source_reports",),
)
