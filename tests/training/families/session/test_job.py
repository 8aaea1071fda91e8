"""Sessions from a log to recommendations: trained, evaluated, bundled, reopened, scored."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from recsys.features.tables.sources import Sources
from recsys.serving.engines.batch import score_to_parquet, shards_of_log
from recsys.serving.recommend.scorer import Scorer
from recsys.training.evaluation.results import Evaluation
from recsys.training.families.load import load_config
from recsys.training.jobs.evaluate import evaluate_bundle
from recsys.training.jobs.train import TrainResult, train

NUM_ITEMS, MINUTE = 30, 60
KINDS = np.array(["view", "cart"])


def write_log(folder: Path) -> pd.DataFrame:
    """Write sessions that walk through the catalogue, each item followed by the next one.

    Every user has three visits, hours apart, which start anywhere.
    """
    rng = np.random.default_rng(0)
    rows = []
    for user in range(150):
        clock = 1_700_000_000 + user
        for _visit in range(3):
            item = int(rng.integers(NUM_ITEMS))
            for _step in range(int(rng.integers(3, 7))):
                rows.append((f"u{user:03}", f"i{item:02}", clock, str(rng.choice(KINDS))))
                item, clock = (item + 1) % NUM_ITEMS, clock + int(rng.integers(5, 60))
            clock += 5 * 60 * MINUTE
    log = pd.DataFrame(rows, columns=["user", "item", "at", "what"])
    log.to_parquet(folder / "log.parquet")
    items = pd.DataFrame({"item": [f"i{row:02}" for row in range(NUM_ITEMS)]})
    items["shelf"] = items.item.str[1]
    items.to_parquet(folder / "items.parquet")
    users = pd.DataFrame({"user": sorted(set(log.user))})
    users["age"] = np.arange(len(users)) % 3
    users.to_parquet(folder / "users.parquet")
    return log


SETTINGS: dict[str, Any] = {
    "data": {"interactions": "log.parquet", "items": "items.parquet", "users": "users.parquet"},
    "schema": {
        "interactions": {"user": "user", "item": "item", "time": {"column": "at", "unit": "s"}},
        "items": {"key": "item"},
        "users": {"key": "user"},
        "features": [
            {"name": "item", "table": "items", "kind": "categorical", "multiplicity": 2},
            {"name": "shelf", "table": "items", "kind": "categorical"},
            {"name": "age", "table": "users", "kind": "categorical"},
            {"name": "what", "table": "interactions", "kind": "categorical"},
        ],
    },
    "sessions": {"inactivity_minutes": 60},
    "embedding": {"num_rows": 1024, "dim": 8, "optimizer": "row_wise_adam", "learning_rate": 0.02},
    "model": {"kind": "session", "dim": 16, "history_length": 8, "time_gaps": True},
    "training": {
        "loss": "full_softmax",
        "batch_size": 64,
        "epochs": 8,
        "learning_rate": 0.01,
        "metric": "mrr_at_5",
        "precision": "float32",
        "session": {"attributes": [{"feature": "shelf"}]},
    },
    "evaluation": {
        "queries": "events",
        "filter_seen": False,
        "ks": [1, 5],
        "baselines": ["markov"],
    },
    "tracking": {"enabled": False},
}


def trained(folder: Path, baselines: tuple[str, ...] = ("markov",), **model: Any) -> TrainResult:
    evaluation = {**SETTINGS["evaluation"], "baselines": list(baselines)}
    settings = {**SETTINGS, "model": {**SETTINGS["model"], **model}, "evaluation": evaluation}
    (folder / "recsys.yaml").write_text(
        yaml.safe_dump({**settings, "output": str(folder / "runs")})
    )
    result = train(load_config(folder / "recsys.yaml"))
    assert result is not None
    return result


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sessions")
    write_log(folder)
    return folder


@pytest.fixture(scope="module")
def result(folder: Path) -> TrainResult:
    return trained(folder, ("markov", "sasrec"), repeats=True)


def test_it_learns_what_follows_what(result: TrainResult) -> None:
    evaluation = result.evaluation
    assert isinstance(evaluation, Evaluation)
    assert evaluation.results["session"].metrics["hit_rate_at_1"] > 0.9
    assert evaluation.results["markov"].metrics["hit_rate_at_1"] > 0.9
    assert evaluation.results["sasrec"].metrics["hit_rate_at_1"] > 0.9
    assert not np.array_equal(
        evaluation.results["sasrec"].top, evaluation.results["session"].top
    ), "ids alone are another model"
    assert "Session transformer" in result.report.read_text()


def test_a_bundle_evaluated_again_says_the_same(result: TrainResult, tmp_path: Path) -> None:
    again = evaluate_bundle(result.bundle, tmp_path / "report.html")
    assert isinstance(again, Evaluation)
    assert isinstance(result.evaluation, Evaluation)
    np.testing.assert_array_equal(
        again.results["session"].top, result.evaluation.results["session"].top
    )


def test_requests_go_on_from_a_session(result: TrainResult) -> None:
    scorer = Scorer.open(result.bundle, k=3, filter_seen=True)  # replays the probe
    requests = pa.table(
        {
            "user": ["u000", "stranger", "u001"],
            "history": [["i03", "i04"], [], ["i28", "not in the catalogue", "i29"]],
            "history_at": [[10, 40], [], [5, 6, 7]],
            "history_what": [["view", "cart"], [], ["view", "view", "never seen"]],
        }
    ).rename_columns(["user", "history", "history_times", "history_what"])
    answer = scorer.score(requests)
    first, new, last = answer.column("items").to_pylist()
    assert first[0] == "i05"
    assert last[0] == "i00"
    assert len(new) == 3
    assert not {"i03", "i04"} & set(first)
    assert scorer.score(requests, filter_seen=False).column("items").to_pylist()[0][0] == "i05"


def test_a_log_is_scored_from_each_users_last_session(
    result: TrainResult, folder: Path, tmp_path: Path
) -> None:
    scorer = Scorer.open(result.bundle, k=5, filter_seen=False)
    sources = Sources(interactions=str(folder / "log.parquet"), users=str(folder / "users.parquet"))
    shards = shards_of_log(scorer, sources, rows_per_part=60)
    score_to_parquet(scorer, shards, tmp_path / "out")
    answers = pq.read_table(tmp_path / "out", columns=["user", "items"]).to_pylist()
    log = pd.read_parquet(folder / "log.parquet")
    last = log.sort_values("at").groupby("user").item.last()
    assert len(answers) == len(last)
    follows = [
        answer["items"][0] == f"i{(int(last[answer['user']][1:]) + 1) % NUM_ITEMS:02}"
        for answer in answers
    ]
    assert np.mean(follows) > 0.9


def test_a_session_that_comes_back_learns_to_repeat(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    log = write_log(tmp_path)
    # Two items in turn, over and over: what comes next is always in the session, never the last.
    for _user, rows in log.groupby("user"):
        pair = rng.choice(NUM_ITEMS, 2, replace=False)
        log.loc[rows.index, "item"] = [f"i{pair[step % 2]:02}" for step in range(len(rows))]
    log.to_parquet(tmp_path / "log.parquet")
    found = {}
    for repeats in (True, False):
        evaluation = trained(tmp_path, repeats=repeats).evaluation
        assert isinstance(evaluation, Evaluation)
        assert (np.diff(evaluation.relevant_offsets) == 1).all()
        found[repeats] = evaluation.results["session"].metrics["hit_rate_at_5"]
    assert found[True] > 0.6
    assert found[True] > found[False]
