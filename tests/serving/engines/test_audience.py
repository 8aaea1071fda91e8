"""A calibrated model in the ball, from its bundle: lists with probabilities, audiences of items."""

import json
import math
import warnings
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from click.testing import CliRunner

from recsys.app.cli import main
from recsys.bundle.pair_calibration import InteractionProbability, PairCalibrator
from recsys.core.errors import ConfigError, DataError
from recsys.features.dataset.dataset import Dataset
from recsys.features.requests.table import request_table
from recsys.features.tables.sources import Sources
from recsys.layers.geometry import points_of
from recsys.models.retrieval import query_vectors
from recsys.serving.engines.audience import NewItems, read_new_items, score_new_items
from recsys.serving.engines.batch import score_to_parquet, shards_of_log
from recsys.serving.export.retrieval import export_index
from recsys.serving.recommend.scorer import Scorer
from recsys.training.config.experiment import ExperimentConfig
from recsys.training.families.load import load_config
from recsys.training.jobs.evaluate import evaluate_bundle
from recsys.training.jobs.train import train


@pytest.fixture(scope="module")
def ball(world_config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of a two-tower in the ball, trained by metric learning and calibrated."""
    torch.set_num_threads(1)
    keys = {
        "model.geometry": "ball",
        "model.dim": 16,
        "model.history_length": 10,
        "training.loss": "metric",
        "training.batch_size": 256,
        "training.uniform_negatives": 32,
        "training.epochs": 2,
        "embedding.num_rows": 2048,
        "evaluation.bootstrap_samples": 20,
        "evaluation.baselines": "[]",
        "calibration": "logistic",
        "tracking.enabled": "false",
        "output": tmp_path_factory.mktemp("runs"),
    }
    config = load_config(world_config, tuple(f"{key}={value}" for key, value in keys.items()))
    result = train(config)
    assert result is not None
    return result.bundle


@pytest.fixture(scope="module")
def scorer(ball: Path) -> Scorer:
    return Scorer.open(ball, k=7, probability=True)


@pytest.fixture(scope="module")
def requests(dataset: Dataset) -> pa.Table:
    users = np.arange(dataset.num_users)
    return request_table(dataset.schema, dataset.tables, dataset.histories((0, 1, 2)), users)


@pytest.fixture
def new_items(config: ExperimentConfig, tmp_path: Path) -> str:
    """Nine films of the catalogue under other ids, as somebody would plan them."""
    assert config.data.items is not None
    rows = pq.read_table(config.data.items).slice(0, 9)
    ids = pa.array([f"new-{number}" for number in range(9)])
    pq.write_table(rows.set_column(0, "item_id", ids), tmp_path / "new.parquet")
    return str(tmp_path / "new.parquet")


def sources(config: ExperimentConfig) -> Sources:
    return Sources(interactions=config.data.interactions, users=config.data.users)


def test_lists_rank_by_distance_and_say_so(scorer: Scorer, requests: pa.Table) -> None:
    answer = scorer.score(requests)
    encoded = scorer.encode(requests)
    queries = query_vectors(scorer.model, encoded.block, scorer.vectors, encoded.history)
    assert scorer.vectors.shape[1] == 18
    distance = torch.cdist(points_of(queries, "ball"), points_of(scorer.vectors, "ball"))
    ids = scorer.item_ids.to_pylist()
    for row in (0, 17, 101):
        seen = set(requests.column("history")[row].as_py())
        near = [ids[item] for item in distance[row].argsort(stable=True) if ids[item] not in seen]
        assert answer.column("items")[row].as_py() == near[:7]
        scores = torch.tensor(answer.column("scores")[row].as_py())
        by_hand = -distance[row].square() / 2
        own = torch.stack([by_hand[ids.index(item)] for item in near[:7]])
        torch.testing.assert_close(scores, own, atol=1e-5, rtol=0)


def test_probabilities_stand_beside_the_scores_and_fall_with_them(
    scorer: Scorer, requests: pa.Table
) -> None:
    answer = scorer.score(requests)
    assert answer.column_names == ["user_id", "items", "scores", "probabilities", "reason"]
    plain = scorer.score(requests, probability=False)
    assert plain.column_names == ["user_id", "items", "scores", "reason"]
    assert plain.column("items") == answer.column("items")
    known = scorer.calibrated().known
    new = {
        item for item, cold in zip(scorer.item_ids.to_pylist(), scorer.is_new, strict=True) if cold
    }
    for row in answer.to_pylist():
        assert len(row["probabilities"]) == len(row["items"])
        pairs = zip(row["items"], row["probabilities"], strict=True)
        warm = [p for item, p in pairs if item not in new]
        assert warm == sorted(warm, reverse=True)
    events = np.array([len(history) for history in requests.column("history")])
    longest = int(events.argmax())
    # All events count, not the last alone, which the model sees.
    assert events[longest] > scorer.model.config.history_length
    first = answer.slice(longest, 1).to_pylist()[0]
    by_hand = known.probability(np.array(first["scores"]), events[longest])
    for item, expected, found in zip(first["items"], by_hand, first["probabilities"], strict=True):
        assert item in new or found == pytest.approx(expected)


def test_a_bundle_says_its_geometry_and_evaluates_again(
    ball: Path, scorer: Scorer, tmp_path: Path
) -> None:
    index = scorer.bundle.json("index/index.json")
    assert (index["geometry"], index["normalised"], index["dim"]) == ("ball", False, 18)
    stored = json.loads(scorer.bundle.text("metrics.json"))["test"]
    assert {"probability_known_error", "probability_known_auc", "rankme"} <= set(stored)
    assert stored["probability_known_error"] < 0.05
    again = evaluate_bundle(ball, tmp_path / "again.html")
    metrics = again.results["two_tower"].metrics  # type: ignore[union-attr]
    assert metrics["ndcg_at_20"] == pytest.approx(stored["ndcg_at_20"])
    assert again.representation["uniformity"] == pytest.approx(stored["uniformity"])  # type: ignore[union-attr]
    facts = export_index(ball, "faiss", tmp_path / "ann", min_recall=0.9)
    wanted = {"geometry": "ball", "graph_metric": "l2", "graph_dim": 16, "normalised": False}
    assert {name: facts[name] for name in wanted} == wanted
    assert facts["recall_at_10"] >= 0.9
    assert export_index(ball, "parquet", tmp_path / "plain", min_recall=0)["geometry"] == "ball"


def test_audiences_of_new_items_are_sums_over_the_customers(
    scorer: Scorer, config: ExperimentConfig, new_items: str, tmp_path: Path
) -> None:
    map_ = PairCalibrator(2.0, 0.1, -1.0, audience_low=0.5, audience_high=3.0)
    scorer = replace(scorer, calibration=InteractionProbability(PairCalibrator(), map_, "a week"))
    new = read_new_items(scorer, {"items": new_items})
    shards = shards_of_log(scorer, sources(config), rows_per_part=64)
    out = tmp_path / "audience"
    summary = score_new_items(scorer, new, shards, out, top_customers=5)
    assert (summary.customers, summary.new_items, summary.parts) == (200, 9, 4)
    customers = pq.read_table(out / "customers").to_pylist()
    assert len({row["user_id"] for row in customers}) == 200
    chance: dict[str, dict[str, float]] = {}
    for row in customers:
        assert row["scores"] == sorted(row["scores"], reverse=True)
        pairs = zip(row["probabilities"], row["scores"], strict=True)
        z = [math.log(p / (1 - p)) - 2 * s for p, s in pairs]
        assert z == pytest.approx([z[0]] * 9)  # one user: one activity
        for item, p in zip(row["items"], row["probabilities"], strict=True):
            chance.setdefault(item, {})[row["user_id"]] = p
    audience = pq.read_table(out / "audience.parquet").to_pylist()
    assert [row["item_id"] for row in audience] == sorted(
        chance, key=lambda item: -sum(chance[item].values())
    )
    for row in audience:
        own = chance[row["item_id"]]
        assert row["expected_audience"] == pytest.approx(sum(own.values()))
        assert row["expected_share"] == pytest.approx(sum(own.values()) / 200)
        assert row["audience_low"] == pytest.approx(sum(own.values()) / 2)
        assert row["audience_high"] == pytest.approx(sum(own.values()) * 3)
        assert row["top_probabilities"] == sorted(own.values(), reverse=True)[:5]
        assert [own[user] for user in row["top_customers"]] == row["top_probabilities"]
    assert summary.expected_audience == pytest.approx(
        sum(row["expected_audience"] for row in audience)
    )
    assert (out / "_SUCCESS").is_file()


def test_a_new_item_is_what_its_features_say(
    scorer: Scorer, config: ExperimentConfig, new_items: str, requests: pa.Table, tmp_path: Path
) -> None:
    """One like a catalogue item without training rows has its very vector, in whatever company."""
    whole = read_new_items(scorer, {"items": new_items})
    assert whole.vectors.shape == (9, 18)
    one = tmp_path / "one.parquet"
    pq.write_table(pq.read_table(new_items).slice(3, 1), one)
    torch.testing.assert_close(
        read_new_items(scorer, {"items": str(one)}).vectors[0], whole.vectors[3]
    )
    request = requests.slice(0, 3)
    encoded = scorer.encode(request)
    queries = query_vectors(scorer.model, encoded.block, scorer.vectors, encoded.history)
    shards = shards_of_log(
        scorer,
        sources(config),
        rows_per_part=2,
        users=request.column("user_id").combine_chunks(),
    )
    score_new_items(scorer, whole, shards, tmp_path / "out")
    rows = {row["user_id"]: row for row in pq.read_table(tmp_path / "out/customers").to_pylist()}
    for place, user in enumerate(request.column("user_id").to_pylist()):
        found = dict(zip(rows[user]["items"], rows[user]["scores"], strict=True))
        for number in range(9):
            expected = float(queries[place] @ whole.vectors[number])
            assert found[f"new-{number}"] == pytest.approx(expected, abs=1e-5)


def test_a_job_goes_on_where_it_stood_and_another_may_not_join(
    scorer: Scorer, config: ExperimentConfig, new_items: str, tmp_path: Path
) -> None:
    new = read_new_items(scorer, {"items": new_items})
    shards = shards_of_log(scorer, sources(config), rows_per_part=64)
    score_new_items(scorer, new, shards, tmp_path / "out", top_customers=3)
    before = (tmp_path / "out" / "audience.parquet").read_bytes()
    (tmp_path / "out/customers" / shards.parts[2].name).unlink()
    again = score_new_items(scorer, new, shards, tmp_path / "out", top_customers=3)
    assert again.parts_already_there == 3
    assert (tmp_path / "out" / "audience.parquet").read_bytes() == before
    other = NewItems(new.ids, new.vectors, "another file")
    with pytest.raises(ConfigError, match="holds the scores of another job"):
        score_new_items(scorer, other, shards, tmp_path / "out")
    with pytest.raises(ConfigError, match="--top-customers must be at least 1, got 0"):
        score_new_items(scorer, new, shards, tmp_path / "else", top_customers=0)


def test_new_items_that_do_not_fit_are_refused(
    scorer: Scorer, config: ExperimentConfig, new_items: str, tmp_path: Path
) -> None:
    assert config.data.items is not None
    with pytest.raises(DataError, match=r"'i00000' \(120 items in all\) is in the model's catalo"):
        read_new_items(scorer, {"items": config.data.items})
    table = pq.read_table(new_items)
    bad = tmp_path / "bad.parquet"
    pq.write_table(table.drop_columns(["brand"]), bad)
    with pytest.raises(
        DataError, match=r"bad\.parquet, column 'brand': the items table has no such column"
    ):
        read_new_items(scorer, {"items": str(bad)})
    pq.write_table(table.set_column(0, "item_id", pa.array(range(9))), bad)
    with pytest.raises(DataError, match=r"column 'item_id': int64 ids, the catalogue has"):
        read_new_items(scorer, {"items": str(bad)})


def test_a_model_without_calibration_gives_no_probabilities(
    trained: Path, config: ExperimentConfig, requests: pa.Table
) -> None:
    with pytest.raises(ConfigError, match="gives no probabilities: a two-tower does"):
        Scorer.open(trained, probability=True)
    plain = Scorer.open(trained)
    assert plain.calibration is None
    with pytest.raises(ConfigError, match="gives no probabilities"):
        plain.score(requests, probability=True)


def test_the_command_line(
    ball: Path, scorer: Scorer, config: ExperimentConfig, new_items: str, tmp_path: Path
) -> None:
    log = ("--interactions", config.data.interactions, "--users", str(config.data.users))

    def run(*arguments: str) -> str:
        found = CliRunner().invoke(main, ["score", str(ball), *log, *arguments])
        return f"{found.exit_code}: {found.output}"

    summary = run("--new-items", new_items, "--output", str(tmp_path / "a"), "--top-customers", "2")
    assert summary.startswith("0: ")
    assert "new items: 9" in summary
    assert "the length of the validation part" in summary
    assert len(pq.read_table(tmp_path / "a/audience.parquet")["top_customers"][0].as_py()) == 2
    assert run("--output", str(tmp_path / "b"), "--probability", "--k", "7").startswith("0: ")
    listed = pq.read_table(tmp_path / "b").sort_by("user_id")
    shards = shards_of_log(scorer, sources(config), rows_per_part=64)
    score_to_parquet(scorer, shards, tmp_path / "c")
    assert listed == pq.read_table(tmp_path / "c").sort_by("user_id")
    out = ("--output", str(tmp_path / "d"))
    assert "2: " in run(*out, "--top-customers", "2")
    assert "leave out --k" in run(*out, "--new-items", new_items, "--k", "3")


def test_the_mlflow_model_gives_probabilities_where_asked(
    ball: Path, scorer: Scorer, requests: pa.Table
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # MLflow, of the class itself
        from recsys.serving.pyfunc import BundleModel

    model = BundleModel()
    model.load_context(SimpleNamespace(artifacts={"bundle": str(ball)}))
    frame = requests.slice(0, 4).to_pandas()
    found = model.predict(None, frame, {"k": 7, "probability": True})
    expected = scorer.score(requests.slice(0, 4)).column("probabilities").to_pylist()
    assert found["probabilities"].tolist() == expected
    assert "probabilities" not in model.predict(None, frame).columns
