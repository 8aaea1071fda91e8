"""The job behind `recsys evaluate`: a bundle judged again on the data it names."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from recsys.bundle.weights import load_retrieval
from recsys.core.errors import ConfigError
from recsys.core.strict import parse
from recsys.models.two_tower import TwoTower
from recsys.training.config.experiment import ExperimentConfig
from recsys.training.config.sections import EvaluationConfig
from recsys.training.evaluation.results import Evaluation
from recsys.training.explain.explanation import explain_rows
from recsys.training.families.plain.choose import check_baselines
from recsys.training.families.ranker.evaluation import RankingEvaluation, evaluation_of
from recsys.training.families.ranker.evaluation import judge as judge_ranker
from recsys.training.families.ranker.job import report_on_ranker
from recsys.training.families.ranker.rows import RankingRows, rows_of
from recsys.training.families.retrieval.job import judge, report_on
from recsys.training.families.two_tower.task import smoothing_of
from recsys.training.jobs.opening import OpenedModel, Say, open_model

_OF_RANKERS = ("evaluation.bootstrap_samples",)
_OF_RETRIEVAL = tuple(
    f"evaluation.{name}" for name in EvaluationConfig.model_fields if name != "rankers"
)


def evaluate_bundle(
    path: Path,
    report: Path,
    *,
    settings: Mapping[str, Any] | None = None,
    say: Say = lambda line: None,
) -> Evaluation | RankingEvaluation:
    """Evaluate the bundle at `path` on its own split of the data, and write `report`.

    Args:
        path: the bundle's folder.
        report: HTML file to write.
        settings: keys of the configuration with other values than in training:
            {"evaluation.ks": [5]}.
        say: takes a line of progress at a time.

    Raises:
        ConfigError: a key of `settings` is not about evaluation, or its value is wrong.
        NotFoundError: no bundle, or its data are no longer where they were.
        IntegrityError: a file of the bundle is not what was written.
    """
    opened = open_model(path)
    opened = replace(opened, config=_with(opened, settings or {}))
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


def _with(opened: OpenedModel, settings: Mapping[str, Any]) -> ExperimentConfig:
    """Return the model's configuration with other values of its section `evaluation`."""
    allowed = _OF_RANKERS if opened.is_ranker else _OF_RETRIEVAL
    for key in settings:
        if key not in allowed:
            raise ConfigError(
                f"{key}: this {opened.config.model.kind} is trained; what can be set of its "
                f"evaluation is {', '.join(allowed)}"
            )
    raw = opened.config.model_dump(mode="json", by_alias=True)
    raw["evaluation"] |= {key.partition(".")[2]: value for key, value in settings.items()}
    config = parse(ExperimentConfig, raw, source="evaluate")
    check_baselines(config)
    return config


def _ranker(opened: OpenedModel, rows: RankingRows, report: Path) -> RankingEvaluation:
    model = opened.ranker(rows.layout)
    own = judge_ranker(opened.config, rows, model, opened.calibrator())
    evaluation = evaluation_of(opened.config, own)
    explanation = explain_rows(opened.config, rows, model, opened.calibrator())
    report_on_ranker(report, opened.config, rows, evaluation, explanation=explanation)
    return evaluation
