"""The job behind `recsys evaluate`: a bundle judged again on the data it names."""

from pathlib import Path

from recsys.bundle.weights import load_retrieval
from recsys.core.errors import ConfigError
from recsys.models.two_tower import TwoTower
from recsys.training.evaluation.results import Evaluation
from recsys.training.explain.explanation import explain_rows
from recsys.training.families.ranker.evaluation import RankingEvaluation, evaluation_of
from recsys.training.families.ranker.evaluation import judge as judge_ranker
from recsys.training.families.ranker.job import report_on_ranker
from recsys.training.families.ranker.rows import RankingRows, rows_of
from recsys.training.families.retrieval.job import judge, report_on
from recsys.training.families.two_tower.task import smoothing_of
from recsys.training.jobs.opening import OpenedModel, Say, open_model


def evaluate_bundle(
    path: Path, report: Path, *, say: Say = lambda line: None
) -> Evaluation | RankingEvaluation:
    """Evaluate the bundle at `path` on its own split of the data, and write `report`.

    Raises:
        NotFoundError: no bundle, or its data are no longer where they were.
        IntegrityError: a file of the bundle is not what was written.
    """
    opened = open_model(path)
    config, encoder = opened.config, opened.encoder
    if config.data.stream:
        raise ConfigError("a streamed log is judged at the end of its training, not again")
    data = opened.data(say)
    if opened.is_ranker:
        return _ranker(opened, rows_of(config, data), report)
    layouts = encoder.retrieval_layouts(of_steps=config.of_sessions)
    weights = opened.bundle.read("weights.safetensors")
    model = load_retrieval(weights, config.retrieval, config.embedding, layouts)
    if isinstance(model, TwoTower):
        model.smoothing = smoothing_of(config, data)  # a bundle holds the vectors, not the graph
    evaluation, queries, items, _ = judge(config, data, model)
    report_on(report, config, data, evaluation, queries, items, [])
    return evaluation


def _ranker(opened: OpenedModel, rows: RankingRows, report: Path) -> RankingEvaluation:
    model = opened.ranker(rows.layout)
    own = judge_ranker(opened.config, rows, model, opened.calibrator())
    evaluation = evaluation_of(opened.config, own)
    explanation = explain_rows(opened.config, rows, model, opened.calibrator())
    report_on_ranker(report, opened.config, rows, evaluation, explanation=explanation)
    return evaluation
