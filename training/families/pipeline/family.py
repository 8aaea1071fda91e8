"""The family of pipelines, which are made of other models."""

from dataclasses import replace
from functools import partial

from recsys.core.imports import on_first_use
from recsys.features.propose.inspect import Report
from recsys.models.registry import PIPELINES
from recsys.pipeline.rules import doubts
from recsys.training.families.family import Explainer, FittedFamily
from recsys.training.families.inspecting import inspect_tables
from recsys.training.families.list_metrics import check_metric
from recsys.training.families.pipeline.config import PipelineExperiment

with on_first_use():
    from recsys.training.evaluation.results import Evaluation
    from recsys.training.families.pipeline.explaining import explain_candidate
    from recsys.training.families.pipeline.fitting import check_rows, check_settings_of_sources
    from recsys.training.families.pipeline.job import open_pipeline
    from recsys.training.families.pipeline.opening import PipelineData, answering, evaluate_opened
    from recsys.training.families.pipeline.sources import experiments_of
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
    """Describe the tables, and say which rules may not mean what they say."""
    found = inspect_tables(config, check_rows=check_rows)
    return replace(found, warnings=(*found.warnings, *doubts(config.model.rules)))


PIPELINE = FittedFamily(
    plural="pipelines",
    kinds=tuple(PIPELINES),
    experiment=PipelineExperiment,
    check=_check,
    inspect=_inspect,
    below=experiments_of,
    open=open_pipeline,
    evaluate=evaluate_opened,
    evaluation=Evaluation,
    show=evaluation_table,
    ask=partial(ask_lists, PipelineData, answering),
    comparer=LISTS,
    check_rows=check_rows,
    space=refuse_to_search,
    explain=Explainer.of_lists(explain_candidate),
    evaluated_once=("source_reports",),
)
