"""The family of two-towers."""

from functools import partial

from recsys.core.imports import on_first_use
from recsys.training.families.costs import Rates
from recsys.training.families.family import LearnedFamily
from recsys.training.families.inspecting import inspect_tables
from recsys.training.families.two_tower.config import TwoTowerExperiment

with on_first_use():
    from recsys.training.evaluation.results import Evaluation
    from recsys.training.families.retrieval.comparing import LISTS, ask_vectors
    from recsys.training.families.retrieval.evaluating import evaluate_opened
    from recsys.training.families.retrieval.explaining import EXPLAINER
    from recsys.training.families.retrieval.job import open_retrieval
    from recsys.training.families.retrieval.memory import recounted_memory
    from recsys.training.families.retrieval.settings import check_settings
    from recsys.training.families.two_tower.candidates_checked import check_candidates
    from recsys.training.families.two_tower.enough import check_rows
    from recsys.training.families.two_tower.reading import TwoTowerData
    from recsys.training.families.two_tower.space import two_tower_space
    from recsys.training.families.two_tower.views_checked import check_views
    from recsys.training.reports.evaluation_table import evaluation_table

_TITLE = "Two-tower retrieval"
_RATES = Rates(
    seconds=2.5,
    row_us=14,
    epoch_row_us=31,
    asked_item_ns=73,
    alone=0.15,
    mib=700,
    row_kib=0.5,
    many_rows=1_000_000,
    more_row_kib=0.1,
    ease_bytes=7.5,
)


def _check(config: TwoTowerExperiment) -> None:
    """Refuse, before any work is done, what is not available or does not go together.

    Raises:
        ConfigError: which, and why.
    """
    check_settings(config)
    training, smoothed = config.training, config.model.smoothing.rounds > 0
    check_candidates(training, smoothed=smoothed)
    check_views(training.self_supervision, config.schema_, smoothed=smoothed)


TWO_TOWER = LearnedFamily(
    plural="two-towers",
    kinds=("two_tower",),
    experiment=TwoTowerExperiment,
    check=_check,
    inspect=partial(inspect_tables, check_rows=check_rows, rates=_RATES),
    open=partial(open_retrieval, _TITLE, TwoTowerData),
    evaluate=partial(evaluate_opened, _TITLE, TwoTowerData),
    evaluation=Evaluation,
    show=evaluation_table,
    ask=partial(ask_vectors, TwoTowerData),
    comparer=LISTS,
    explain=EXPLAINER,
    check_rows=check_rows,
    recount=recounted_memory,
    space=two_tower_space,
)
