"""The family of models of sessions."""

from functools import partial

import numpy as np
from numpy.typing import NDArray

from recsys.core.imports import on_first_use
from recsys.features.propose.inspect import Report
from recsys.features.tables.checked import Tables
from recsys.retrieval.recurrence import Recurrence
from recsys.training.families.costs import Rates
from recsys.training.families.family import LearnedFamily
from recsys.training.families.inspecting import inspect_tables
from recsys.training.families.session.config import SessionExperiment

with on_first_use():
    from recsys.features.dataset.dataset import Dataset
    from recsys.features.dataset.sessions import sessions_of
    from recsys.features.propose.funnel import repeat_query_words
    from recsys.training.evaluation.results import Evaluation
    from recsys.training.families.retrieval.comparing import LISTS, ask_vectors
    from recsys.training.families.retrieval.evaluating import evaluate_opened
    from recsys.training.families.retrieval.explaining import EXPLAINER
    from recsys.training.families.retrieval.job import open_retrieval
    from recsys.training.families.retrieval.settings import check_settings
    from recsys.training.families.retrieval.space import retrieval_space
    from recsys.training.families.session.enough import check_fit, check_rows
    from recsys.training.families.session.reading import SessionData
    from recsys.training.families.session.repeats import recounted_session
    from recsys.training.reports.evaluation_table import evaluation_table

_TITLE = "Session transformer"
_RATES = Rates(
    seconds=3.6,
    row_us=35,
    epoch_row_us=25,
    asked_item_ns=100,
    mib=750,
    row_kib=4.2,
    many_rows=250_000,
    more_row_kib=0.1,
)


def _inspect(config: SessionExperiment) -> Report:
    """Check the tables; say how the log is cut into sessions, and where answers are repeats."""
    length = config.model.history_length

    def notes(tables: Tables, parts: NDArray[np.int8]) -> tuple[str, ...]:
        sessions = sessions_of(config.schema_, tables.events, config.sessions)
        sequence = np.repeat(np.arange(len(sessions)), sessions.lengths())
        items = tables.events.item_row[sessions.order]
        found = Recurrence.of(sequence, items, length)
        words = [sessions.in_words(), f"repeats: {found.in_words()}"]
        evaluated = config.split.evaluated
        if config.evaluation.queries == "events" and evaluated is not None:
            words += repeat_query_words(
                config.schema_,
                tables,
                parts,
                sessions,
                part=evaluated,
                history_length=length,
                filter_seen=config.evaluation.filter_seen,
            )
        return tuple(words)

    return inspect_tables(
        config, notes, check_rows=check_rows, cutting=config.sessions, rates=_RATES
    )


def _read(config: SessionExperiment, data: Dataset) -> SessionData:
    return SessionData.of(config, data)


SESSION = LearnedFamily(
    plural="models of sessions",
    kinds=("session",),
    experiment=SessionExperiment,
    check=check_settings,
    inspect=_inspect,
    open=partial(open_retrieval, _TITLE, _read),
    evaluate=partial(evaluate_opened, _TITLE, _read),
    evaluation=Evaluation,
    show=evaluation_table,
    ask=partial(ask_vectors, _read),
    comparer=LISTS,
    explain=EXPLAINER,
    fits=check_fit,
    check_rows=check_rows,
    recount=recounted_session,
    space=retrieval_space,
)
