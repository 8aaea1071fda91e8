"""The family of rankers, which score labelled rows."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from recsys.core.errors import ConfigError
from recsys.core.imports import on_first_use
from recsys.features.dataset.split import PART_NAMES
from recsys.features.propose.inspect import Report
from recsys.models.rankers import RANKERS
from recsys.training.families.costs import Rates
from recsys.training.families.encoded import Encoded, Encoding, encode_tables
from recsys.training.families.family import Explainer, LearnedFamily
from recsys.training.families.inspecting import inspect_tables
from recsys.training.families.ranker.config import RankerExperiment

with on_first_use():
    from recsys.features.clicks.inspect import ClickReport, inspect_clicks
    from recsys.features.clicks.log import open_click_log
    from recsys.training.embedding.output import tracked_study
    from recsys.training.explain.explanation import RowExplanation, explain_rows
    from recsys.training.explain.rankers import explain_log_row, explain_model, explain_pair
    from recsys.training.explain.wanted import Wanted
    from recsys.training.families.opened import OpenedModel
    from recsys.training.families.ranker.comparing import ROWS, ask_rows
    from recsys.training.families.ranker.enough import check_clicks, check_rows
    from recsys.training.families.ranker.evaluation import (
        RankingEvaluation,
        evaluate_ranker,
        evaluation_of,
    )
    from recsys.training.families.ranker.inspecting import rate_notes
    from recsys.training.families.ranker.job import open_ranking, report_on_ranker
    from recsys.training.families.ranker.opening import opened_ranker
    from recsys.training.families.ranker.rows import encoded_log_folder, rows_of
    from recsys.training.families.ranker.space import ranker_space
    from recsys.training.reports.evaluation_table import ranking_table

_RATES = Rates(seconds=3.8, row_us=53, epoch_row_us=87, mib=650, row_kib=1.7)
"""Of AutoInt+ and the other kinds trained to compare with."""


def _check(_config: RankerExperiment) -> None:
    """Whatever the configuration allows can be trained."""


def _inspect(config: RankerExperiment) -> Report | ClickReport:
    """Check the tables; a streamed log is encoded to where training reads it from."""
    if not config.data.stream:
        notes = partial(rate_notes, config)
        return inspect_tables(config, notes, check_rows=check_rows, rates=_RATES)
    parts = (config.schema_, config.data, config.policies, config.split)
    log = open_click_log(*parts, encoded_log_folder(config), config.embedding.lookups)
    check_clicks(config, log)
    return inspect_clicks(
        log, table_bytes=config.embedding.memory_bytes, expected=config.split.parts
    )


def _encode(config: RankerExperiment, how: Encoding) -> Encoded:
    """Encode tables to the cache, a streamed log to where training reads it from.

    Raises:
        ConfigError: the settings are not for such a log, or nothing can be trained on it.
        DataError: the data are not as declared.
    """
    if not config.data.stream:
        return encode_tables(config, how, check_rows)
    parts = (config.schema_, config.data, config.policies, config.split)
    folder, lookups = encoded_log_folder(config), config.embedding.lookups
    log = open_click_log(*parts, folder, lookups, how.earlier, how.engine)
    check_clicks(config, log)
    rows = dict(zip(PART_NAMES, log.counts, strict=True))
    return Encoded(log.folder, rows, log.was_there, log.drops)


def _evaluate(opened: OpenedModel, report: Path) -> RankingEvaluation:
    """Evaluate a ranker on its own split of the data, and write `report`.

    Raises:
        ConfigError: its log is streamed.
    """
    config: RankerExperiment = opened.config
    if config.data.stream:
        raise ConfigError("a streamed log is evaluated at the end of its training, not again")
    rows = rows_of(config, opened.data())
    model, calibrator = opened_ranker(opened)
    evaluation = evaluation_of(config, evaluate_ranker(config, rows, model, calibrator))
    explanation = explain_rows(config, rows, model, calibrator)
    report_on_ranker(report, config, rows, evaluation, explanation=explanation)
    return evaluation


def _explain_pair(opened: OpenedModel, user: str, item: str, wanted: Wanted) -> RowExplanation:
    """Explain a row of a user and an item.

    Raises:
        ConfigError: filters are given.
    """
    if not wanted.is_everything:
        raise ConfigError(
            f"{opened.bundle.path}: a {opened.config.model.kind} scores rows and gives no lists: "
            "leave out where, exclude and allow"
        )
    return explain_pair(opened, user, item)


RANKER = LearnedFamily(
    plural="rankers",
    kinds=tuple(RANKERS),
    experiment=RankerExperiment,
    check=_check,
    inspect=_inspect,
    encode=_encode,
    check_rows=check_rows,
    open=open_ranking,
    evaluate=_evaluate,
    evaluation=RankingEvaluation,
    show=ranking_table,
    ask=ask_rows,
    comparer=ROWS,
    space=ranker_space,
    explain=Explainer(explain_model, _explain_pair, explain_log_row),
    study_embedding=tracked_study,
    evaluated_once=("rankers",),
)
