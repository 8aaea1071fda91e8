"""Where relevance ends: found again where it is planted; from training to lists that are cut."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

import recsys
from recsys.app.cli import main
from recsys.bundle.directory import Bundle
from recsys.bundle.relevance import Relevance
from recsys.core.errors import ConfigError
from recsys.features.bundle.files import read_metrics, read_relevance
from recsys.features.bundle.model_bundle import ModelBundle
from recsys.features.bundle.searching import Found
from recsys.features.requests.origin import RequestOrigin
from recsys.features.requests.table import request_table
from recsys.serving.answering.lists import Lists
from recsys.serving.recommend.scorer import Scorer
from recsys.training.config.experiment import ExperimentConfig
from recsys.training.config.retrieval import RelevanceConfig
from recsys.training.evaluation.cut_lists import ScoredLists
from recsys.training.evaluation.results import Evaluation
from recsys.training.families.load import load_config, parse_config
from recsys.training.families.retrieval.relevance import find_end, fit_relevance
from recsys.training.families.retrieval.relevance_map import fit_map
from recsys.training.families.two_tower.reading import TwoTowerData
from recsys.training.jobs.opening import open_model
from recsys.training.jobs.runs import TrainResult
from recsys.training.jobs.train import train


def planted(crowd: float, queries: int = 4_000, k: int = 12, seed: int = 0) -> ScoredLists:
    """Return lists whose places are hits with a known chance."""
    rng = np.random.default_rng(seed)
    crowds, steps = rng.normal(0, 1.5, queries), rng.integers(0, 40, queries)
    scores = -np.sort(-rng.normal(0, 1, (queries, k)).astype(np.float32))
    scores[::7, k // 2 :] = -np.inf
    truth = Relevance(1.5, -2.0, 0.0, crowd=crowd, activity=0.3 * (crowd != 0), anchors=1)
    hit = rng.random(scores.shape) < expit(truth.logits(scores, crowds, steps))
    return ScoredLists(scores, hit, crowds, steps, steps, np.full(queries, k))


def test_a_planted_map_is_found_again_and_is_that_of_a_logistic_regression() -> None:
    lists = planted(crowd=-1.0)
    found = fit_map(lists, by_query=True)
    given_, expected = (found.slope, found.crowd, found.activity), (1.5, -1.0, 0.3)
    assert given_ == pytest.approx(expected, abs=0.1)
    there, broad = lists.there, np.ones(lists.scores.shape)
    of_queries = (lists.crowds, np.log1p(lists.num_steps))
    columns = [lists.scores, *(broad * one[:, None] for one in of_queries)]
    rows = np.stack([one[there] for one in columns], axis=1)
    peer = LogisticRegression(C=1e9, tol=1e-10, max_iter=500).fit(rows, lists.hit[there])
    assert [*given_, found.intercept] == pytest.approx([*peer.coef_[0], *peer.intercept_], rel=1e-3)
    chance = expit(lists.logits(found)[there])
    assert chance.sum() == pytest.approx(lists.hit.sum(), rel=1e-4)


def test_a_model_that_ranks_worse_than_chance_is_not_turned_round() -> None:
    lists = planted(crowd=0.0)
    upside_down = replace(lists, scores=np.where(lists.there, -lists.scores, -np.inf))
    assert fit_map(upside_down, by_query=True).slope == 0


@pytest.mark.parametrize("goal", [{"keep_recall": 0.8}, {"precision": 0.5}])
def test_the_query_is_read_where_it_tells_more(goal: dict[str, float]) -> None:
    def fitted(crowd: float, **more: Any) -> Relevance:
        found = find_end(planted(crowd), RelevanceConfig(**goal, **more), 0).relevance
        assert found is not None
        return found

    assert fitted(crowd=-1.0).crowd == pytest.approx(-1.0, abs=0.1)
    assert fitted(crowd=-1.0, map="score").crowd == 0
    assert fitted(crowd=0.0).crowd == 0
    assert abs(fitted(crowd=0.0, map="query").crowd) > 0
    other = planted(-1.0, seed=1)
    keep = other.logits(fitted(crowd=-1.0)) >= fitted(crowd=-1.0).threshold
    kept = (other.recall * keep).sum() / other.recall.sum()
    precision = (other.hit & keep).sum() / keep.sum()
    reached = kept if "keep_recall" in goal else precision
    assert reached == pytest.approx(*goal.values(), abs=0.02)


def test_a_precision_that_is_out_of_reach_leaves_lists_whole() -> None:
    found = find_end(planted(0.0), RelevanceConfig(precision=0.999), 0)
    assert found.relevance is None
    assert "no threshold reaches relevance.precision: 0.999" in found.words


@given(st.integers(0, 10**6), st.integers(1, 6), st.floats(-3, 3))
def test_a_list_that_is_cut_is_the_beginning_of_the_whole_one(
    seed: int, k: int, threshold: float
) -> None:
    rng = np.random.default_rng(seed)
    scores = -np.sort(-rng.normal(0, 1, (5, k)).astype(np.float32))
    rows = np.argsort(rng.random((5, 9)))[:, :k]
    scores[0, k // 2 :], rows[0, k // 2 :] = -np.inf, -1
    z = Relevance(1.0, 0.0, 0.0, crowd=1.0).logits(scores, rng.normal(0, 1, 5), np.ones(5))
    whole = Found(torch.from_numpy(scores), torch.from_numpy(rows), logits=z)
    cut = whole.until(threshold)
    assert cut.cut is not None
    for row in range(5):
        before, after = (one.rows[row][one.rows[row] >= 0].tolist() for one in (whole, cut))
        assert after == before[: len(after)]
        assert (cut.rows[row] >= 0).tolist() == (z[row] >= threshold).tolist()
        assert cut.cut[row] == (len(after) < len(before))


@pytest.fixture(scope="module")
def ended(config: ExperimentConfig, tmp_path_factory: pytest.TempPathFactory) -> TrainResult:
    """Train a two-tower whose lists of 20 are to keep 80 % of their recall."""
    torch.set_num_threads(1)
    update = {
        "output": str(tmp_path_factory.mktemp("ended")),
        "tracking": config.tracking.model_copy(update={"enabled": False}),
        "relevance": RelevanceConfig(keep_recall=0.8, k=20, map="query"),
        "evaluation": config.evaluation.model_copy(update={"baselines": ()}),
    }
    found = train(config.model_copy(update=update))
    assert found is not None
    return found


@pytest.fixture(scope="module")
def requests(ended: TrainResult) -> pa.Table:
    data = open_model(ended.bundle).data()
    users = np.arange(data.num_users)
    return request_table(data.schema, data.tables, data.histories((0, 1, 2)), users)


def lengths(lists: pa.Table) -> list[int]:
    return [len(items) for items in lists.column("items").to_pylist()]


def test_lists_end_from_training_to_scoring(
    ended: TrainResult, requests: pa.Table, tmp_path: Path
) -> None:
    scorer = Scorer.open(ended.bundle, k=20)
    cut, whole = scorer.score(requests), scorer.score(requests, cut=False)
    assert lengths(whole) == [20] * len(requests)
    assert len({*lengths(cut)}) > 2
    for few, all_ in zip(*(one.column("items").to_pylist() for one in (cut, whole)), strict=True):
        assert few == all_[: len(few)]
    reasons = cut.column("reason").to_pylist()
    assert reasons == ["relevance" if one < 20 else None for one in lengths(cut)]
    opened_whole = Scorer.open(ended.bundle, k=20, cut=False)
    assert opened_whole.score(requests).equals(whole)

    frame = requests.to_pandas()
    model = recsys.load(ended.bundle)
    assert len(model.recommend(requests=frame, k=20)) == sum(lengths(cut))
    assert len(model.recommend(requests=frame, k=20, cut=False)) == 20 * len(requests)
    server = Lists().server(ended.bundle)
    origin = RequestOrigin("requests")
    assert server.answer(requests, {"k": 20}, origin).column("items") == cut.column("items")
    served = server.answer(requests, {"k": 20, "cut": False}, origin)
    assert served.column("items") == whole.column("items")
    signature = Lists().described(Bundle.open(ended.bundle))[1]
    params = {one["name"]: one["default"] for one in signature.params.to_dict()}
    assert params["cut"] is True

    pq.write_table(requests, tmp_path / "requests.parquet")
    arguments = ["score", str(ended.bundle), "--input", str(tmp_path / "requests.parquet")]
    done = CliRunner().invoke(main, [*arguments, "--k", "20", "--output", str(tmp_path / "cut")])
    assert done.exit_code == 0, done.output
    number = sum(one < 20 for one in lengths(cut))
    assert f"lists cut: {number}\n" in done.output
    assert f"mean list length: {np.mean(lengths(cut)):.1f}\n" in done.output
    whole_to = ["--k", "20", "--whole-lists", "--output", str(tmp_path / "whole")]
    done = CliRunner().invoke(main, [*arguments, *whole_to])
    assert done.exit_code == 0, done.output
    assert "lists cut" not in done.output
    again = CliRunner().invoke(main, [*arguments, "--k", "20", "--output", str(tmp_path / "whole")])
    assert again.exit_code != 0  # another job's files


def test_the_evaluation_tells_what_is_kept(ended: TrainResult) -> None:
    evaluation = ended.evaluation
    assert isinstance(evaluation, Evaluation)
    assert evaluation.ended is not None
    found = evaluation.ended.metrics()
    assert 0.5 < found["relevance_recall_kept"] <= 1
    assert 0 < found["relevance_mean_length"] < 20
    assert "0.8 of their recall stays on the validation queries" in evaluation.protocol["relevance"]
    kept = read_metrics(Bundle.open(ended.bundle))["test"]
    assert {name: kept[name] for name in found} == found
    page = ended.report.read_text()
    assert "Where relevance ends" in page
    again = recsys.evaluate(ended.bundle, quiet=True)
    assert isinstance(again, Evaluation)
    assert again.ended is not None
    assert again.ended.metrics() == pytest.approx(found)


def test_what_is_fitted_is_taken_over_by_a_last_training(ended: TrainResult) -> None:
    opened = open_model(ended.bundle)
    data, model = opened.data(), opened.retrieval_model()
    reading = TwoTowerData(opened.config, data)
    chosen = ModelBundle.read(ended.bundle)
    found, fitted = fit_relevance(reading, model, None, chosen), fit_relevance(reading, model, None)
    assert found is not None
    assert fitted is not None
    assert found.relevance == fitted.relevance == read_relevance(chosen.bundle)
    assert found.words.endswith("of the run that chose the settings")


def test_models_without_it_say_so(trained: Path, requests: pa.Table) -> None:
    scorer = Scorer.open(trained, k=20)
    assert lengths(scorer.score(requests)) == [20] * len(requests)
    why = r"two_tower\) does not know where relevance ends in a list.*relevance: \{keep_recall"
    with pytest.raises(ConfigError, match=why):
        scorer.score(requests, cut=True)
    with pytest.raises(ConfigError, match=why):
        Scorer.open(trained, cut=True)


@pytest.mark.parametrize(
    ("keys", "why"),
    [
        ({"relevance.k": 5}, "relevance needs 'keep_recall' or 'precision', and not both"),
        ({"relevance": "{keep_recall: 0.9, precision: 0.1}"}, "needs 'keep_recall' or 'precision'"),
        ({"relevance.keep_recall": 1}, r"less than 1"),
        (
            {"relevance.keep_recall": 0.9, "split": "{kind: time, join_validation: true}"},
            "relevance is fitted on validation rows that are not trained on",
        ),
    ],
)
def test_what_cannot_be_fitted_is_refused(
    world_config: Path, keys: dict[str, Any], why: str
) -> None:
    with pytest.raises(ConfigError, match=why):
        load_config(world_config, tuple(f"{key}={value}" for key, value in keys.items()))


@pytest.mark.parametrize("kind", ["item_knn", "pipeline", "fm"])
def test_families_without_it_refuse_the_key(kind: str) -> None:
    raw = {"model": {"kind": kind}, "relevance": {"keep_recall": 0.9}}
    with pytest.raises(ConfigError, match="relevance is for two-towers and models of sessions"):
        parse_config(raw, source="a file")
