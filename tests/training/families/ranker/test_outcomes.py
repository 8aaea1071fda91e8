"""Several outcomes of a row: read, trained, evaluated, kept, scored and exported, for real."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch.nn import functional as F

import recsys
from recsys.bundle.calibration import Calibrator
from recsys.bundle.directory import Bundle
from recsys.core.errors import ConfigError, DataError
from recsys.data.batch import RankingBatch
from recsys.features.bundle.files import read_calibration, read_metrics
from recsys.features.bundle.rows import RowModel
from recsys.features.dataset.split import TEST, TRAIN, VALIDATION
from recsys.metrics.classification import auc, log_loss
from recsys.serving.answering.rows import Rows
from recsys.serving.engines.rows import score_rows
from recsys.serving.export.onnx_export import export_onnx
from recsys.serving.recommend.rows import RowScorer
from recsys.serving.registry import register
from recsys.training.config.experiment import ExperimentConfig
from recsys.training.engine.checkpoint import Checkpoints
from recsys.training.engine.loop import fit
from recsys.training.engine.ranks import World
from recsys.training.families.family import Given
from recsys.training.families.load import load_config
from recsys.training.families.ranker.evaluation import RankingEvaluation
from recsys.training.families.ranker.job import open_ranking, row_facts
from recsys.training.families.ranker.rows import RankingRows, open_rows
from recsys.training.families.ranker.task import predictions, ranking_task
from recsys.training.jobs.evaluate import evaluate_bundle
from recsys.training.jobs.runs import TrainResult
from recsys.training.jobs.train import train

ROWS = 9000
CONFIG = """
data: {interactions: log.parquet}
policies: {duplicate_events: keep}
split: {kind: column, column: part}
schema:
  interactions:
    user: user
    item: item
    weight: weight
    label: {column: clicked}
    outcomes:
      - {name: purchase, column: bought}
      - {name: long_stay, column: minutes, at_least: 5, weight: 0.25}
  features:
    - {name: user, table: interactions, kind: categorical}
    - {name: item, table: interactions, kind: categorical}
    - {name: shop, table: interactions, kind: categorical}
model: {kind: shared_bottom, hidden: [32, 16], towers: [8], dropout: 0.0}
embedding: {num_rows: 256, dim: 8, learning_rate: 0.02, backend: torch}
training: {batch_size: 128, epochs: 4, precision: float32, learning_rate: 0.005}
evaluation: {rankers: [], bootstrap_samples: 20}
tracking: {enabled: false}
"""
PROBABILITIES = ["probability", "probability_purchase", "probability_long_stay"]
NO_ID_DROPOUT = "training.id_dropout=0"


def write_log(folder: Path) -> Path:
    """Clicks depend on user and item; purchases, known of clicked rows, on the shop."""
    rng = np.random.default_rng(0)
    user, item, shop = (rng.integers(0, n, ROWS) for n in (40, 30, 20))
    taste = rng.normal(0, 1.5, 40)[user] + rng.normal(0, 1, 30)[item]
    clicked = rng.random(ROWS) < 1 / (1 + np.exp(-taste))
    bought = (rng.random(ROWS) < 1 / (1 + np.exp(1 - rng.normal(0, 2, 20)[shop]))).astype(float)
    bought[~clicked] = np.nan
    minutes = rng.exponential(5, ROWS)
    minutes[rng.random(ROWS) < 0.1] = np.nan
    columns = {
        "user": user,
        "item": item,
        "shop": shop,
        "clicked": clicked.astype(np.int8),
        "bought": pa.array(bought, from_pandas=True),
        "minutes": pa.array(minutes, from_pandas=True),
        "weight": rng.choice([0.5, 1.0, 2.0], ROWS),
        "part": rng.choice(["train", "validation", "test"], ROWS, p=[0.6, 0.2, 0.2]),
    }
    pq.write_table(pa.table(columns), folder / "log.parquet")
    path = folder / "recsys.yaml"
    path.write_text(CONFIG)
    return path


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return write_log(tmp_path_factory.mktemp("outcomes"))


def config_of(log: Path, *overrides: str) -> Any:
    return load_config(log, (f"output={log.parent / 'runs'}", *overrides))


def trained(config: ExperimentConfig) -> TrainResult:
    result = train(config)
    assert result is not None
    return result


def auc_of(result: TrainResult) -> float:
    assert isinstance(result.evaluation, RankingEvaluation)
    return result.evaluation.own.metrics["auc"].value


@pytest.fixture(scope="module")
def result(log: Path) -> TrainResult:
    return trained(config_of(log, "calibration=isotonic", "model.kind=mmoe"))


def column(log: Path, name: str) -> Any:
    return pq.read_table(log.parent / "log.parquet").column(name).to_pandas().to_numpy()


def as_read(log: Path) -> Any:
    """Return label and outcomes of each row of the file, (N, 3), NaN where unknown."""
    minutes = column(log, "minutes")
    stayed = np.where(np.isnan(minutes), np.nan, minutes >= 5)
    return np.stack([column(log, "clicked"), column(log, "bought"), stayed], axis=1)


def whole(rows: RankingRows, part: int) -> RankingBatch:
    (batch,) = rows.loader.ordered(part, ROWS)
    return batch


@pytest.mark.parametrize("stream", [False, True])
def test_every_part_has_the_outcomes_of_the_log_where_they_are_known(
    log: Path, stream: bool, tmp_path: Path
) -> None:
    rows = open_rows(config_of(log, f"data.stream={stream}", f"cache={tmp_path}"), World())
    expected, parts = as_read(log), column(log, "part")
    again = open_rows(config_of(log, f"data.stream={stream}", f"cache={tmp_path}"), World())
    for part, word in ((TRAIN, "train"), (VALIDATION, "validation"), (TEST, "test")):
        batch = whole(rows, part)
        numbers = batch.examples.numpy()
        if not stream:
            numbers = rows.loader.data.tables.events.row[numbers]  # type: ignore[attr-defined]
        assert sorted(numbers.tolist()) == np.flatnonzero(parts == word).tolist()
        np.testing.assert_array_equal(batch.targets.numpy(), expected[numbers].astype(np.float32))
        np.testing.assert_array_equal(whole(again, part).targets.numpy(), batch.targets.numpy())
        known = (~np.isnan(expected[parts == word, 1:])).sum(axis=0)
        assert list(rows.known[part]) == known.tolist()
    for batches in (rows.loader.epoch(0), *(rows.loader.epoch(0, rank=r, world=2) for r in (0, 1))):
        for batch in batches:
            numbers = batch.examples.numpy()
            if not stream:
                numbers = rows.loader.data.tables.events.row[numbers]  # type: ignore[attr-defined]
            np.testing.assert_array_equal(batch.targets.numpy(), expected[numbers].astype("f4"))
    facts = row_facts(rows)
    counts = [f"{rows.known[part][0]:,}" for part in (TRAIN, VALIDATION, TEST)]
    assert facts["outcome purchase is known of"] == (
        "{} training, {} validation and {} test rows".format(*counts)
    )


def test_a_streamed_log_trains_on_the_same_as_one_in_memory(log: Path, tmp_path: Path) -> None:
    """The same rows give the same features, loss and metrics to the same model."""
    plain, stream = (
        open_rows(config_of(log, f"data.stream={on}", NO_ID_DROPOUT, f"cache={tmp_path}"), World())
        for on in (False, True)
    )
    tasks = [ranking_task(config_of(log), rows, World()) for rows in (plain, stream)]
    tasks[1].trained.model.load_state_dict(tasks[0].trained.model.state_dict())
    for task in tasks:
        task.trained.model.eval()
    losses = [
        float(task.loss(whole(rows, TRAIN)).detach())
        for task, rows in zip(tasks, (plain, stream), strict=True)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert tasks[0].validate() == pytest.approx(tasks[1].validate(), abs=1e-6)


@pytest.mark.parametrize("positive_weight", [1.0, 3.0])
def test_the_loss_is_the_weighted_sum_of_means_over_known_rows(
    log: Path, positive_weight: float
) -> None:
    config = config_of(
        log, f"training.positive_weight={positive_weight}", "training.label_smoothing=0.2"
    )
    rows = open_rows(config, World())
    task = ranking_task(config, rows, World())
    model = task.trained.model.eval()
    batch = whole(rows, VALIDATION)
    with torch.no_grad():
        logits = model(batch.features).double()
    expected = 0.0
    for outcome, scale in enumerate((1.0, 1.0, 0.25)):
        total = loss = 0.0
        for row in range(len(batch)):
            label, weight = float(batch.targets[row, outcome]), float(batch.weight[row])
            if np.isnan(label):
                continue
            if outcome == 0:
                weight *= positive_weight if label else 1.0
                label = label * 0.8 + 0.1
            logit = logits[row, outcome]
            loss -= weight * float(label * F.logsigmoid(logit) + (1 - label) * F.logsigmoid(-logit))
            total += weight
        expected += scale * loss / total
    assert float(task.loss(batch).detach()) == pytest.approx(expected, rel=1e-5)


def test_an_unknown_outcome_moves_nothing_of_its_own(log: Path) -> None:
    config = config_of(log)
    rows = open_rows(config, World())
    task = ranking_task(config, rows, World())
    batch = whole(rows, VALIDATION)
    assert batch.outcomes is not None
    unknown = batch.outcomes.clone()
    unknown[:, 0] = torch.nan
    task.loss(replace(batch, outcomes=unknown)).backward()
    model: Any = task.trained.model
    gradients = [tower[-1].weight.grad for tower in model.towers.parts]
    assert [bool(one.abs().sum() > 0) for one in gradients] == [True, False, True]
    assert all(torch.isfinite(one).all() for one in gradients)


def test_training_starts_at_the_base_rate_of_each_outcome(log: Path) -> None:
    config = config_of(log, "training.batch_size=9000", "training.positive_weight=2")
    model: Any = ranking_task(config, open_rows(config, World()), World()).trained.model
    train = column(log, "part") == "train"
    labels, weights = as_read(log)[train], column(log, "weight")[train]
    for outcome, bias in enumerate(model.output_bias.tolist()):
        known = ~np.isnan(labels[:, outcome])
        weight = weights[known] * np.where(labels[known, outcome] > 0, 2 if not outcome else 1, 1)
        share = np.average(labels[known, outcome], weights=weight)
        assert bias == pytest.approx(np.log(share / (1 - share)), abs=0.01)


def best(log: Path, *overrides: str) -> dict[str, float]:
    config = config_of(log, *overrides)
    rows = open_rows(config, World())
    state = fit(ranking_task(config, rows, World()), config.training, Checkpoints(log.parent / "x"))
    Checkpoints(log.parent / "x").clear()
    points = [point for point in state.history if "validation/auc" in point]
    return {name: max(point[name] for point in points) for name in points[0] if "auc" in name}


def test_both_outcomes_are_learnt_about_as_well_as_each_alone(log: Path) -> None:
    alone = {
        name: best(log, "model={kind: mlp, hidden: [32, 16], dropout: 0.0}", *roles)
        for name, roles in {
            "click": ["schema.interactions.outcomes=[]"],
            "purchase": [
                "schema.interactions.outcomes=[]",
                "schema.interactions.label={column: bought}",
                "schema.interactions.where=[{column: clicked, at_least: 1}]",
            ],
        }.items()
    }
    for kind in ("shared_bottom", "mmoe"):
        found = best(log, f"model.kind={kind}")
        assert found["validation/auc"] > 0.75
        assert found["validation/auc"] > alone["click"]["validation/auc"] - 0.02
        assert found["validation/auc_purchase"] > 0.75
        assert found["validation/auc_purchase"] > alone["purchase"]["validation/auc"] - 0.02
        assert 0.4 < found["validation/auc_long_stay"] < 0.6  # there is nothing to be known


def test_each_outcome_has_test_metrics_of_the_rows_in_which_it_is_known(
    log: Path, result: TrainResult
) -> None:
    evaluation = result.evaluation
    assert isinstance(evaluation, RankingEvaluation)
    ranker = RowModel.open(result.bundle)
    rows = open_rows(config_of(log), World())
    batch = whole(rows, TEST)
    probabilities = ranker.calibrator.by_outcome(ranker.logits(batch.features))
    logits = ranker.logits(batch.features)
    for place, (name, probability) in enumerate(probabilities.items()):
        labels, ending = batch.targets[:, place].numpy(), f"_{name}" if name else ""
        known = ~np.isnan(labels)
        weight = batch.weight.numpy()[known]
        flat = evaluation.flat()
        assert flat[f"auc{ending}"] == pytest.approx(
            auc(logits[known, place], labels[known], weight), abs=1e-6
        )
        assert flat[f"log_loss{ending}"] == pytest.approx(
            log_loss(probability[known], labels[known], weight), abs=1e-6
        )
        share = np.average(labels[known], weights=weight)
        base = -share * np.log(share) - (1 - share) * np.log(1 - share)
        assert flat[f"base_rate_log_loss{ending}"] == pytest.approx(base, abs=1e-5)
        assert flat[f"calibration_error{ending}"] < flat[f"calibration_error_before{ending}"] + 0.05
    purchase = evaluation.own.outcomes["purchase"]
    assert purchase.rows == rows.known[TEST][0] < len(batch)
    assert evaluation.protocol["outcome purchase"].startswith(f"known of {purchase.rows:,} test")
    one = purchase.metrics["auc"]
    assert one.low < one.value < one.high
    frame = evaluation.to_frame().set_index("metric")
    assert frame.loc["auc_purchase", "value"] == one.value
    assert read_metrics(ranker.bundle)["test"] == pytest.approx(evaluation.flat())
    text = result.report.read_text()
    assert "Further outcomes" in text
    assert f"{one.value:.4f}" in text
    again = evaluate_bundle(result.bundle, log.parent / "again.html")
    assert isinstance(again, RankingEvaluation)
    assert again.flat() == pytest.approx(evaluation.flat(), abs=1e-6)


def test_another_outcome_may_decide_the_best_epoch(log: Path, tmp_path: Path) -> None:
    config = config_of(log, "training.metric=auc_purchase", "training.epochs=3")
    task = ranking_task(config, open_rows(config, World()), World())
    found: list[dict[str, float]] = []

    def validate() -> dict[str, float]:
        # Purchases get worse where clicks get better.
        epoch = len(found)
        found.append(task.validate() | {"auc": 0.5 + epoch / 10, "auc_purchase": 0.9 - epoch / 10})
        return found[-1]

    state = fit(replace(task, validate=validate), config.training, Checkpoints(tmp_path))
    assert (state.best_metric, state.best_step) == (0.9, task.num_steps)
    assert config.compared_with("shared_bottom").training.metric == "auc"


def test_others_compare_on_the_label(log: Path) -> None:
    config = config_of(
        log, "evaluation.rankers=[mlp, mmoe, lightgbm]", "training.epochs=1", "calibration=isotonic"
    )
    found = trained(config).evaluation
    assert isinstance(found, RankingEvaluation)
    assert set(found.results) >= {"shared_bottom", "mlp", "mmoe"}
    for name, one in found.results.items():
        assert set(one.outcomes) == (
            {"purchase", "long_stay"} if name in ("shared_bottom", "mmoe") else set()
        )


def test_an_outcome_that_is_always_the_same_has_no_auc_and_one_without_rows_nothing(
    log: Path,
) -> None:
    config = config_of(log, "calibration=isotonic")
    rows = open_rows(config, World())
    data = rows.loader.data  # type: ignore[attr-defined]
    outcomes, trained_on = data.tables.events.outcomes, data.part == TRAIN
    outcomes[~trained_on, 1] = np.nan
    outcomes[~trained_on & (outcomes[:, 0] == 0), 0] = 1
    job = replace(open_ranking(config, Given()), rows=rows)
    asked = config.training.model_copy(update={"metric": "auc_purchase"})
    purchases = ranking_task(config.model_copy(update={"training": asked}), rows, World())
    with pytest.raises(
        ConfigError, match=r"auc_purchase needs validation rows .* set training\.metr"
    ):
        purchases.validate()
    task = job.task()
    validated = task.validate()
    assert {"auc", "log_loss", "log_loss_purchase"} == set(validated)
    done = job.finish(log.parent / "odd", task.trained.model, [], None)
    evaluation = done.evaluation
    assert isinstance(evaluation, RankingEvaluation)
    assert evaluation.protocol["outcome long_stay"] == "known of no test row"
    flat = evaluation.flat()
    assert "log_loss_purchase" in flat
    assert not {"auc_purchase", "log_loss_long_stay"} & set(flat)


def test_rows_are_scored_as_training_predicts_them(
    log: Path, result: TrainResult, tmp_path: Path
) -> None:
    rows = open_rows(config_of(log), World())
    ranker = RowModel.open(result.bundle)
    found = predictions(ranker.model, rows, TEST, 512, World())
    numbers = rows.loader.data.tables.events.row[whole(rows, TEST).examples]  # type: ignore[attr-defined]
    table = pq.read_table(log.parent / "log.parquet").drop(["clicked", "bought", "minutes"])
    score_rows(RowScorer.open(result.bundle), _written(table, tmp_path), tmp_path / "out")
    scored = pq.read_table(tmp_path / "out")
    assert scored.column_names == ["user", "item", "row", *PROBABILITIES]
    wanted = ranker.calibrator.probability(found.logit)
    np.testing.assert_allclose(scored.column("probability").to_numpy()[numbers], wanted, atol=1e-6)
    known = ~np.isnan(whole(rows, TEST).targets[:, 1].numpy())
    purchase = ranker.calibrator.others["purchase"].probability(found.outcomes["purchase"].logit)
    np.testing.assert_allclose(
        scored.column("probability_purchase").to_numpy()[numbers][known], purchase, atol=1e-6
    )
    frame = recsys.load(result.bundle).predict(table.to_pandas())
    assert list(frame) == [name for name in scored.column_names if name != "row"]
    np.testing.assert_allclose(
        frame["probability_long_stay"], scored.column("probability_long_stay").to_numpy(), atol=1e-9
    )
    _, signature, _ = Rows().described(ranker.bundle)
    assert signature.outputs.input_names() == PROBABILITIES


def test_a_registered_model_answers_with_all_outcomes(
    log: Path,
    result: TrainResult,
    mlflow_template: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shutil.copy(mlflow_template, tmp_path / "mlflow.db")
    monkeypatch.chdir(tmp_path)
    store = f"sqlite:///{tmp_path / 'mlflow.db'}"
    register(Bundle.open(result.bundle), "clicks", uri=store, alias="champion")
    frame = pq.read_table(log.parent / "log.parquet").to_pandas()[["user", "item", "shop"]][:50]
    answer = mlflow.pyfunc.load_model("models:/clicks@champion").predict(frame)
    wanted = recsys.load(result.bundle).predict(frame)
    assert list(answer) == ["user", "item", *PROBABILITIES]
    np.testing.assert_allclose(answer[PROBABILITIES], wanted[PROBABILITIES], rtol=0, atol=1e-7)


def _written(table: pa.Table, folder: Path) -> str:
    pq.write_table(table, folder / "rows.parquet")
    return str(folder / "rows.parquet")


def test_the_graph_gives_all_outcomes_and_names_them(result: TrainResult, tmp_path: Path) -> None:
    found = export_onnx(result.bundle, tmp_path / "onnx")
    assert found["largest_difference"] < 1e-5
    facts = json.loads((tmp_path / "onnx" / "onnx.json").read_text())
    assert facts["columns"]["outcomes"] == ["label", "purchase", "long_stay"]


def test_a_bundle_keeps_a_calibrator_an_outcome(result: TrainResult) -> None:
    ranker = RowModel.open(result.bundle)
    kept = read_calibration(ranker.bundle, Calibrator)
    assert kept == ranker.calibrator
    assert kept is not None
    assert [one.kind for one in (kept, *kept.others.values())] == ["isotonic"] * 3
    assert Calibrator.from_json(kept.to_json()) == kept
    before = json.loads(Calibrator(offset=0.5).to_json())
    del before["others"]  # as models of the label alone were written before
    assert Calibrator.from_json(json.dumps(before)) == Calibrator(offset=0.5)


def test_a_warm_start_goes_on_and_asks_for_the_same_outcomes(
    log: Path, result: TrainResult
) -> None:
    start = (f"warm_start={result.bundle}", "model.kind=mmoe")
    feature = "schema.features=[{name: user, table: interactions, kind: categorical}]"
    fewer = config_of(log, *start, feature, "training.epochs=1")
    assert auc_of(trained(fewer)) > 0.6
    with pytest.raises(ConfigError, match="predicts purchase, long_stay, this one none"):
        trained(config_of(log, *start, "schema.interactions.outcomes=[]"))


def test_explanations_and_self_supervision_take_the_label(log: Path, result: TrainResult) -> None:
    about = recsys.explain(result.bundle, row=1)
    assert {"user", "item", "shop"} <= set(str(about.to_json()).replace("'", " ").split())
    config = config_of(
        log,
        "training.self_supervision={kind: contrastive, views: row, weight: 0.1}",
        "training.epochs=1",
        "model.kind=mmoe",
    )
    assert auc_of(trained(config)) > 0.6


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (
            ["model={kind: mlp}"],
            "outcomes: model.kind: mlp predicts the label alone; shared_bottom and mmoe predict "
            "further outcomes: set one of them, or leave",
        ),
        (
            ["training.metric=auc_sale"],
            "'auc_sale' is not computed; there is auc, auc_purchase and auc_long_stay",
        ),
        (["training.negative_rate=0.5"], "training.negative_rate: .* other outcomes"),
        (
            ["schema.interactions.label=null", "training.negatives=2"],
            "'outcomes' are further ones beside the 'label'",
        ),
        (
            ["schema.interactions.outcomes=[{name: a, column: bought}, {name: a, column: x}]"],
            "two outcomes are named 'a'",
        ),
        (["schema.interactions.outcomes=[{name: 'a b', column: bought}]"], "outcomes.0.name"),
        (["schema.interactions.outcomes=[{name: before, column: bought}]"], "choose another name"),
    ],
)
def test_what_cannot_be_predicted_is_refused(log: Path, overrides: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        config_of(log, *overrides)


def test_wrong_values_and_outcomes_without_rows_are_refused(log: Path) -> None:
    stays = "schema.interactions.outcomes=[{name: stay, column: minutes}]"
    with pytest.raises(DataError, match=r"'minutes'.*neither 0 nor 1.*at_least of the outcome 's"):
        open_rows(config_of(log, stays), World())
    nothing = "schema.interactions.where=[{column: clicked, at_most: 0}]"
    with pytest.raises(ConfigError, match="'bought' is null in all training rows"):
        open_rows(config_of(log, nothing), World())


def test_a_model_of_several_outcomes_may_have_the_label_alone(log: Path) -> None:
    found = trained(config_of(log, "schema.interactions.outcomes=[]", "training.epochs=1"))
    ranker = RowModel.open(found.bundle)
    rows = open_rows(config_of(log), World())
    batch = whole(rows, TEST)
    assert ranker.logits(batch.features).shape == (len(batch),)
    assert not ranker.calibrator.others
