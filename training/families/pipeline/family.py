"""The family of pipelines, which are made of other models."""

from functools import partial

from recsys.core.errors import ConfigError
from recsys.features.propose.inspect import Report
from recsys.features.tables.checked import Tables
from recsys.models.registry import PIPELINES
from recsys.training.config.ranges import Space
from recsys.training.evaluation.results import Evaluation
from recsys.training.families.family import Explainer, FittedFamily
from recsys.training.families.inspecting import inspect_tables
from recsys.training.families.list_evaluation import check_metric
from recsys.training.families.pipeline.config import PipelineExperiment
from recsys.training.families.pipeline.explaining import explain_candidate
from recsys.training.families.pipeline.job import check_items, open_pipeline
from recsys.training.families.pipeline.opening import PipelineData, answering, evaluate_opened
from recsys.training.families.pipeline.sources import check_ranker, check_source
from recsys.training.families.plain.choose import check_baselines
from recsys.training.families.retrieval.comparing import LISTS, ask_lists
from recsys.training.reports.evaluation_table import evaluation_table


def _check(config: PipelineExperiment) -> None:
    """Refuse, before any work is done, a source, a metric or a baseline that is not available.

    Raises:
        ConfigError: which, and why.
    """
    # These know all families, and so this one.
    from recsys.training.families.load import parse_config
    from recsys.training.families.registry import family_of

    check_metric(config)
    check_baselines(config)
    for number, name in enumerate(config.model.names):
        source = check_source(config, number, parse_config)
        try:
            family_of(source).check(source)
        except ConfigError as error:
            raise ConfigError(f"model.sources: {name}: {error}") from None
    check_ranker(config, parse_config)


def _inspect(config: PipelineExperiment) -> Report:
    """Describe the tables, and refuse a filter or a rule that does not fit the items."""

    def fitting(tables: Tables) -> tuple[str, ...]:
        check_items(config, config.schema_, tables)
        return ()

    return inspect_tables(config, fitting)


def _nothing_searched(_config: PipelineExperiment) -> Space:
    """Return nothing: its sources are tuned one by one."""
    return {}


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
    space=_nothing_searched,
    explain=Explainer.of_lists(explain_candidate),
)
