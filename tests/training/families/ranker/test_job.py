"""A ranker as a job: evaluation, baselines, calibration and report of labelled rows, for real."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from recsys.bundle.calibration import Calibrator
from recsys.bundle.directory import Bundle
from recsys.core.errors import ConfigError
from recsys.features.bundle.files import read_calibration, read_metrics
from recsys.features.dataset.split import TRAIN
from recsys.metrics.grouped import GroupedRows, gauc
from recsys.training.config.experiment import ExperimentConfig
from recsys.training.engine.ranks import World
from recsys.training.families.family import Given
from recsys.training.families.load import load_config
from recsys.training.families.ranker.evaluation import (
    RankingEvaluation,
    calibrator_of,
    evaluate_ranker,
)
from recsys.training.families.ranker.job import open_ranking
from recsys.training.families.ranker.rows import open_rows
from recsys.training.families.ranker.task import predictions, ranking_task
from recsys.training.jobs.evaluate import evaluate_bundle
from recsys.training.jobs.runs import TrainResult
from recsys.training.jobs.train import train

ROWS = 6000
CONFIG = """
data: {interactions: clicks.parquet}
policies: {duplicate_events: keep}
schema:
  interactions: {user: user, item: item, label: {column: clicked}, time: {column: at, unit: s}}
  features:
    - {name: user, table: users, kind: categorical}
    - {name: item, table: items, kind: categorical}
    - {name: place, table: interactions, kind: categorical}
model: {kind: fm}
embedding: {num_rows: 512, dim: 8, learning_rate: 0.2, backend: torch}
training: {batch_size: 256, epochs: 2, id_dropout: 0.0}
evaluation: {rankers: [logistic, fm, mlp, lightgbm], bootstrap_samples: 40}
tracking: {enabled: false}
"""


def clicks(folder: Path, *, positive_only: bool = False, rare: bool = False) -> Path:
    """Write a log whose click chance is the user's level plus a user group x item group term."""
    rng = np.random.default_rng(0)
    user, item = rng.integers(0, 60, ROWS), rng.integers(0, 40, ROWS)
    level = rng.normal(0, 1.5, 60)[user] - (3.0 if rare else 0.0)
    logit = level + 1.5 * np.where((user % 2) == (item % 2), 1, -1)
    clicked = (rng.random(ROWS) < 1 / (1 + np.exp(-logit))).astype(np.int8)
    table = pa.table(
        {
            "user": user,
            "item": item,
            "clicked": clicked,
            "at": 1_600_000_000 + 60 * np.arange(ROWS),
            "place": rng.integers(0, 3, ROWS),
        }
    )
    if positive_only:
        table = table.filter(pa.array(clicked == 1)).drop_columns(["clicked"])
    pq.write_table(table, folder / "clicks.parquet")
    path = folder / "recsys.yaml"
    text = CONFIG.replace("label: {column: clicked}, ", "") if positive_only else CONFIG
    path.write_text(text)
    return path


def config_of(path: Path, *overrides: str) -> ExperimentConfig:
    return load_config(path, (f"output={path.parent / 'runs'}", *overrides))


def trained(config: ExperimentConfig) -> TrainResult:
    result = train(config)
    assert result is not None
    return result


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return clicks(tmp_path_factory.mktemp("clicks"))


@pytest.fixture(scope="module")
def result(log: Path) -> TrainResult:
    return trained(config_of(log, "calibration=isotonic"))


def test_the_report_holds_the_baselines(result: TrainResult) -> None:
    evaluation = result.evaluation
    assert isinstance(evaluation, RankingEvaluation)
    assert list(evaluation.results) == ["fm", "logistic", "mlp", "lightgbm"]
    aucs = {name: one.metrics["auc"].value for name, one in evaluation.results.items()}
    assert aucs["fm"] > aucs["logistic"] + 0.02  # half of the signal is an interaction
    less = evaluation.results["logistic"].less_auc
    assert less is not None
    assert less.value == pytest.approx(aucs["fm"] - aucs["logistic"])
    assert 0 < less.low < less.value < less.high
    assert aucs["lightgbm"] > aucs["logistic"] + 0.02
    assert not {"other rankers", "lightgbm"} & set(evaluation.protocol)
    text = result.report.read_text()
    assert "By AUC fm is better than logistic" in text
    assert "before calibration" in text
    assert not (result.run_dir / "baselines").exists()
    tracked = evaluation.tracked()
    assert tracked["test/auc"] == aucs["fm"]
    assert tracked["test/mlp/auc"] == aucs["mlp"]


def test_metrics_are_those_of_the_predictions(log: Path, result: TrainResult) -> None:
    """Evaluated again from the bundle, and AUC within users worked out from the log itself."""
    again = evaluate_bundle(result.bundle, log.parent / "again.html")
    assert isinstance(again, RankingEvaluation)
    assert isinstance(result.evaluation, RankingEvaluation)
    first, second = result.evaluation.own, again.own
    assert {n: i.value for n, i in first.metrics.items()} == pytest.approx(
        {n: i.value for n, i in second.metrics.items()}, abs=1e-6
    )
    assert first.calibration_before is not None
    base, loss = again.base_rate, second.metrics["log_loss"].value
    gain = second.metrics["relative_information_gain"]
    assert gain.value == pytest.approx(1 - loss / base)
    assert gain.low < gain.value < gain.high


def test_a_ranker_is_evaluated_with_other_bootstrap_samples_alone(
    log: Path, result: TrainResult
) -> None:
    with pytest.raises(ConfigError, match=r"fm is trained; .* is evaluation.bootstrap_samples$"):
        evaluate_bundle(result.bundle, log.parent / "r.html", settings={"evaluation.ks": [5]})
    assert not (log.parent / "r.html").exists()


def test_within_users_is_by_the_logs_own_users(log: Path) -> None:
    config = config_of(log)
    rows = open_rows(config, World())
    model = ranking_task(config, rows, World()).trained.model
    found = evaluate_ranker(config, rows, model, Calibrator()).result.metrics
    said = predictions(model, rows, 2, 256, World())
    batches = list(rows.loader.ordered(2, 256))
    numbers = np.concatenate([batch.examples.numpy() for batch in batches])
    users = pq.read_table(log.parent / "clicks.parquet").column("user").to_numpy()
    row_in_file = rows.loader.data.tables.events.row[numbers]  # type: ignore[attr-defined]
    group = users[row_in_file]
    assert found["gauc"].value == pytest.approx(gauc(said.logit, said.label, group))
    ndcg = GroupedRows.of(said.logit, group).ndcg(said.label, 10)
    assert found["ndcg_at_10"].value == pytest.approx(np.nanmean(ndcg))


def test_the_bundle_keeps_the_calibrator(log: Path, result: TrainResult) -> None:
    bundle = Bundle.open(result.bundle)
    calibrator = read_calibration(bundle, Calibrator)
    assert calibrator is not None
    assert calibrator.kind == "isotonic"
    metrics = read_metrics(bundle)["test"]
    assert metrics["calibration_error_before"] != metrics["calibration_error"]


@pytest.mark.parametrize("change", ["training.negative_rate=0.2", "training.positive_weight=5"])
def test_probabilities_undo_the_sampling(tmp_path: Path, change: str) -> None:
    """Trained on a fifth of the negatives, the model still predicts the log's own rate."""
    config = config_of(
        clicks(tmp_path, rare=True),
        change,
        "model={kind: logistic}",
        "training.epochs=6",
        "evaluation.rankers=[]",
    )
    rows = open_rows(config, World())
    assert rows.logit_offset == pytest.approx(np.log(0.2), abs=1e-3)
    evaluation = trained(config).evaluation
    assert isinstance(evaluation, RankingEvaluation)
    found = evaluation.own.calibration
    mean = np.average(found.predicted, weights=found.rows)
    observed = np.average(found.observed, weights=found.rows)
    assert mean == pytest.approx(observed, rel=0.4)  # sampled odds would be five times as high
    assert observed < 0.2


def test_probabilities_before_and_after_calibration_undo_it_too(tmp_path: Path) -> None:
    config = config_of(
        clicks(tmp_path, rare=True), "training.negative_rate=0.2", "calibration=temperature"
    )
    rows = open_rows(config, World())
    model = ranking_task(config, rows, World()).trained.model
    said = predictions(model, rows, 2, 256, World())
    assert said.probability == pytest.approx(1 / (1 + np.exp(-(said.logit + rows.logit_offset))))
    assert calibrator_of(config, rows, model).offset == rows.logit_offset < -1


def test_the_loss_is_of_softened_labels_and_weighted_positives(log: Path) -> None:
    changes = ("label_smoothing=0.2", "positive_weight=3", "precision=float32")
    config = config_of(log, *(f"training.{change}" for change in changes))
    task = ranking_task(config, open_rows(config, World()), World())
    batch = next(iter(task.batches(0, 0)))
    model = task.trained.model.eval()
    p = 1 / (1 + np.exp(-model(batch.features).detach().double().numpy()))
    label = batch.label.numpy()
    soft, weight = np.where(label > 0, 0.9, 0.1), np.where(label > 0, 3, 1)
    losses = -(soft * np.log(p) + (1 - soft) * np.log(1 - p))
    assert float(task.loss(batch).detach()) == pytest.approx(
        np.average(losses, weights=weight), rel=1e-5
    )


def test_a_row_of_weight_2_is_trained_on_as_two_rows(log: Path) -> None:
    """In the loss and in the statistics that it is normalised by."""
    config = config_of(log, "model={kind: mlp, dropout: 0}", "training.precision=float32")
    task = ranking_task(config, open_rows(config, World()), World())  # type: ignore[arg-type]
    batch = next(iter(task.batches(0, 0)))
    weight = torch.where(torch.arange(len(batch)) % 3 == 0, 2.0, 1.0)
    twice = torch.repeat_interleave(torch.arange(len(batch)), weight.long())
    copies = replace(
        batch,
        features=batch.features.take(twice),
        label=batch.label[twice],
        weight=torch.ones(len(twice)),
        examples=batch.examples[twice],
    )
    task.trained.model.train()
    losses = [float(task.loss(one).detach()) for one in (replace(batch, weight=weight), copies)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


@pytest.mark.parametrize(
    "changes",
    [(), ("training.positive_weight=5",), ("training.negative_rate=0.5",)],
    ids=["as it is", "heavy positives", "few negatives"],
)
def test_an_untrained_ranker_predicts_about_the_base_rate(
    tmp_path: Path, changes: tuple[str, ...]
) -> None:
    config = config_of(clicks(tmp_path, rare=True), "model={kind: logistic}", *changes)
    rows = open_rows(config, World())  # type: ignore[arg-type]
    task = ranking_task(config, rows, World())  # type: ignore[arg-type]
    found = predictions(task.trained.model, rows, TRAIN, 512, World())
    share = float(found.label.mean())
    assert share < 0.25
    assert float(found.probability.mean()) == pytest.approx(share, abs=0.01)


def test_a_log_of_positive_rows(tmp_path: Path) -> None:
    """What a user takes next: chances over the catalogue add up to about one."""
    config = config_of(
        clicks(tmp_path, positive_only=True),
        "training.negatives=4",
        "training.epochs=8",
        "evaluation.rankers=[]",
        "embedding.optimizer=row_wise_adagrad",
        "embedding.weight_decay=0",
    )
    result = trained(config)
    assert isinstance(result.evaluation, RankingEvaluation)
    own = result.evaluation.own
    assert own.metrics["auc"].low > 0.53
    assert "ndcg_at_10" not in own.metrics  # the list was drawn: no catalogue was ranked
    calibrator = read_calibration(Bundle.open(result.bundle), Calibrator)
    assert calibrator is not None
    assert calibrator.offset == pytest.approx(np.log(4 / 39))
    found = own.calibration
    assert np.average(found.predicted) == pytest.approx(1 / 40, rel=0.2)
    assert "drawn at random" in result.report.read_text()


@pytest.mark.parametrize(
    ("positive_only", "change", "said"),
    [
        (True, "model.kind=fm", "give schema.interactions.label; where all rows"),
        (False, "training.negatives=3", "training.negatives draws negative rows for a log without"),
    ],
)
def test_labels_and_drawn_negatives_exclude_each_other(
    tmp_path: Path, positive_only: bool, change: str, said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        config_of(clicks(tmp_path, positive_only=positive_only), change)


def test_a_streamed_log_keeps_its_negatives(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="a streamed log is read as it is"):
        config_of(clicks(tmp_path), "data.stream=true", "training.negative_rate=0.5")


def test_users_of_a_streamed_log(tmp_path: Path) -> None:
    path = clicks(tmp_path)
    text = path.read_text().replace("table: users", "table: interactions")
    path.write_text(text.replace("table: items", "table: interactions"))
    config = config_of(path, "data.stream=true")
    rows = open_rows(config, World())
    users = rows.loader.users(2)
    assert users is not None
    source = pq.read_table(path.parent / "clicks.parquet").column("user").to_numpy()
    examples = np.concatenate([b.examples.numpy() for b in rows.loader.ordered(2, 100)])
    pairs = set(zip(source[examples].tolist(), users.tolist(), strict=True))
    assert len(pairs) == len(set(users.tolist())) == len(np.unique(source[examples]))


def test_several_processes_train_no_baselines_and_the_report_says_so(
    log: Path, tmp_path: Path
) -> None:
    config = config_of(log)
    job = open_ranking(config, Given())
    model = job.task().trained.model
    done = replace(job, given=Given(World(size=2))).finish(tmp_path, model, [], None)
    assert isinstance(done.evaluation, RankingEvaluation)
    assert list(done.evaluation.results) == ["fm"]
    assert "left out, as several processes trained the model" in done.report.read_text()
