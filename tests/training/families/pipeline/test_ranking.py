"""A ranker of the engine as the ranker of a pipeline: trained on candidates, served, explained."""

import logging
import os
import signal
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import yaml

import recsys
from recsys.bundle.directory import Bundle
from recsys.core.errors import ConfigError
from recsys.core.signals import Terminated
from recsys.features.bundle.files import ranker_folder
from recsys.features.bundle.lists import ListModel
from recsys.features.bundle.rows import RowModel
from recsys.features.dataset.split import TEST
from recsys.features.pipeline.row_ranker import RowRanker, column_names
from recsys.features.requests.rows import RowEncoder, as_rows, read_side
from recsys.features.tables.sources import Sources
from recsys.serving.engines.batch import shards_of_log
from recsys.serving.recommend.scorer import Scorer
from recsys.training.families.family import Given
from recsys.training.families.load import load_config
from recsys.training.families.pipeline.asking import Asking
from recsys.training.families.pipeline.job import open_pipeline
from recsys.training.jobs.check import preflight
from recsys.training.jobs.runs import TrainResult
from recsys.training.jobs.train import train

NUM_USERS, SHELVES, OF_A_SHELF, DAY = 300, 4, 8, 24 * 3600
RANKER = {
    "model": {"kind": "mlp", "hidden": [16]},
    "training": {
        "epochs": 15,
        "patience": 15,
        "batch_size": 128,
        "negative_rate": 1.0,
        "learning_rate": 0.01,
        "id_dropout": 0.0,
        "precision": "float32",
    },
    "embedding": {"num_rows": 256, "dim": 8, "learning_rate": 0.02, "weight_decay": 0.0},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a log in which a column of the users, and nothing else, says what they take last."""
    folder = tmp_path_factory.mktemp("ranked")
    rng = np.random.default_rng(0)
    rows = []
    taste = rng.integers(SHELVES, size=NUM_USERS)
    for user in range(NUM_USERS):
        own = rng.permutation(OF_A_SHELF)[:4] * SHELVES + taste[user]
        own[:2] = rng.permutation(SHELVES * OF_A_SHELF)[:2]
        for step, item in enumerate(own.tolist()):
            rows.append((f"u{user:03}", f"i{item:02}", 1_700_000_000 + 100 * user + step))
    pd.DataFrame(rows, columns=["user", "item", "at"]).to_parquet(folder / "log.parquet")
    items = pd.DataFrame({"item": [f"i{row:02}" for row in range(SHELVES * OF_A_SHELF)]})
    items["shelf"] = [f"s{row % SHELVES}" for row in range(len(items))]
    items.to_parquet(folder / "items.parquet")
    users = pd.DataFrame({"user": [f"u{row:03}" for row in range(NUM_USERS)]})
    users["taste"] = [f"t{one}" for one in taste]
    users.to_parquet(folder / "users.parquet")
    (folder / "ranker.yaml").write_text(
        yaml.safe_dump({"data": {"interactions": "elsewhere.parquet"}, **RANKER})
    )
    return folder


DATA = {one: f"{one}.parquet" for one in ("items", "users")} | {"interactions": "log.parquet"}
SCHEMA: dict[str, Any] = {
    "interactions": {"user": "user", "item": "item", "time": {"column": "at", "unit": "s"}},
    "items": {"key": "item"},
    "users": {"key": "user"},
    "features": [
        {"name": "item", "table": "items", "kind": "categorical"},
        {"name": "shelf", "table": "items", "kind": "categorical"},
        {"name": "taste", "table": "users", "kind": "categorical"},
    ],
}


def config_of(folder: Path, rank: Any, **sections: Any) -> Any:
    keys = {
        "data": DATA,
        "schema": SCHEMA,
        "split": {"kind": "leave_one_out"},
        "model": {
            "kind": "pipeline",
            "sources": [{"model": {"kind": "popularity"}, "take": 40}],
            "rank": rank,
        },
        "evaluation": {"ks": [5], "baselines": [], "bootstrap_samples": 20},
        "training": {"metric": "ndcg_at_5"},
        "tracking": {"enabled": False},
        "output": str(folder / "runs"),
        **sections,
    }
    path = folder / "pipeline.yaml"
    path.write_text(yaml.safe_dump(keys))
    return load_config(path)


@pytest.fixture(scope="module")
def result(folder: Path) -> TrainResult:
    found = train(config_of(folder, "ranker.yaml"))
    assert found is not None
    return found


def test_it_finds_what_no_source_reads(result: TrainResult) -> None:
    evaluation: Any = result.evaluation
    own = {name: one.metrics["ndcg_at_5"] for name, one in evaluation.results.items()}
    assert list(own) == ["pipeline", "fused", "source: popularity"]
    assert own["pipeline"] > 2.5 * own["fused"]
    again = recsys.evaluate(result.bundle)
    assert again.to_frame().equals(evaluation.to_frame())


def test_the_same_training_gives_the_same_bundle(result: TrainResult, folder: Path) -> None:
    again = train(config_of(folder, "ranker.yaml"))
    assert again is not None
    assert again.bundle.name == result.bundle.name
    assert again.run_dir != result.run_dir


class StopWhenThereIs:
    """Sends SIGTERM to this process as soon as a folder below `runs` matches a pattern."""

    def __init__(self, runs: Path, pattern: str) -> None:
        self.runs, self.pattern, self.over = runs, pattern, threading.Event()

    def __enter__(self) -> None:
        self.thread = threading.Thread(target=self._watch)
        self.thread.start()

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.thread.join()

    def _watch(self) -> None:
        while not self.over.wait(0.002):
            if any(self.runs.glob(self.pattern)):
                os.kill(os.getpid(), signal.SIGTERM)
                return


def test_a_training_stopped_in_that_of_its_ranker_says_how_it_continues(
    result: TrainResult, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The pipeline's command alone, which ends with the same bits."""
    caplog.set_level(logging.INFO, "recsys")
    runs = result.run_dir.parent
    before = {*runs.iterdir()}
    stop = StopWhenThereIs(runs, "*/ranker/run/checkpoints/*")
    with stop, pytest.raises(Terminated):
        train(config_of(folder, "ranker.yaml"))
    (run,) = {*runs.iterdir()} - before
    said = [line for line in caplog.messages if "--resume" in line]
    assert said == [f"stopped; continue with: recsys train --resume {run}"]
    again = recsys.train(resume=said[0].split()[-1], quiet=True)
    assert again.bundle.name == result.bundle.name


def test_it_is_trained_on_candidates_of_requests_that_were_not_held_out(
    result: TrainResult,
) -> None:
    log = pq.read_table(result.run_dir / "ranker" / "candidates.parquet").to_pandas()
    part = log.groupby("user").candidate_part.nunique()
    assert (part == 1).all()
    share = log.drop_duplicates("user").candidate_part.value_counts(normalize=True)
    assert 0.1 < share["test"] < 0.3
    assert 0.1 < share["validation"] < 0.3
    # Each request has one right item at most, the last but one of its user.
    assert log.groupby("user").candidate_is_right.sum().max() == 1
    visits = pd.read_parquet(result.run_dir.parents[1] / "log.parquet")
    visits["from_end"] = visits.groupby("user").cumcount(ascending=False)
    last_but_one = visits[visits.from_end == 1].set_index("user").item
    right = log[log.candidate_is_right == 1].set_index("user").item
    assert (right == last_but_one[right.index]).all()
    seen = visits[visits.from_end > 1].merge(log, on=["user", "item"])
    assert seen.empty


def test_candidates_are_scored_as_rows_are(result: TrainResult, folder: Path) -> None:
    """As the ranker's bundle scores the same rows out of tables, one by one."""
    config = config_of(folder, "ranker.yaml")
    job = open_pipeline(config, Given())
    search: Any = Scorer.open(result.bundle).found_by
    ranker = search.joined.ranker
    assert isinstance(ranker, RowRanker)
    users = np.array([3, 0, 200])
    _, requests = Asking.before(config, job.data, TEST + 1).one_table(users, search)
    _, candidates = search.candidates(requests, exclude=requests.seen)
    inputs = search.joined.inputs(candidates, requests.history)
    found = ranker.score(candidates, inputs, requests.for_ranker)

    bundle = ranker_folder(Bundle.open(result.bundle))
    assert bundle is not None
    model = RowModel.open(bundle)
    sides = {
        side: read_side(side, model.schema, {side: str(folder / f"{side}.parquet")}, model.policies)
        for side in ("users", "items")
    }
    owner, rows = candidates.items.owners().numpy(), candidates.items.values.numpy()
    table = job.data.tables.users.select(["user"]).take(users[owner])
    table = table.append_column("item", job.data.tables.items.column("item").take(rows))
    for at, name in enumerate(column_names(search.joined.names(search.names))):
        table = table.append_column(name, [inputs[:, at]])
    block = RowEncoder(model.encoder, model.policies, sides).encode(table, as_rows(table))
    assert np.allclose(found, model.logits(block), atol=1e-6)
    assert len(found) > 60


def test_what_it_adds_is_explained(result: TrainResult) -> None:
    model = recsys.load(result.bundle)
    first = model.recommend(["u005"], k=1).item[0]
    why = model.explain(user="u005", item=first)
    assert why.rank == 1
    said = {one.item: one.title for one in why.because}
    assert said["popularity"].startswith("popularity: place")
    assert len(why.because) == 3


def test_attributes_of_requests_are_read(result: TrainResult) -> None:
    """A new user is ranked by the attributes that the request says."""
    model = recsys.load(result.bundle)
    requests = pd.DataFrame(
        {"user": ["new 0", "new 1"], "taste": ["t0", "t1"], "history": [[], []]}
    )
    lists = model.recommend(requests=requests, k=5)
    shelf = lists.item.str[1:].astype(int) % SHELVES
    assert (shelf == lists.user.str[-1].astype(int)).mean() > 0.8


def test_users_of_a_log_are_ranked_by_their_table(result: TrainResult, folder: Path) -> None:
    """As requests that hold the attributes are, and so as the evaluation asked."""
    model = recsys.load(result.bundle)
    log, users = pd.read_parquet(folder / "log.parquet"), pd.read_parquet(folder / "users.parquet")
    requests = users.merge(log.groupby("user").agg(history=("item", list)).reset_index())
    of_log, asked = model.recommend(k=5), model.recommend(requests=requests, k=5)
    pd.testing.assert_frame_equal(of_log, asked)
    scorer, sources = Scorer.open(result.bundle), Sources(interactions=str(folder / "log.parquet"))
    with pytest.raises(ConfigError, match="the model reads taste of a users table"):
        shards_of_log(scorer, sources, rows_per_part=100)


def test_ages_and_numbers_mean_what_they_did_when_the_ranker_learnt(folder: Path) -> None:
    """Ages are counted from the last row that the sources know, on the scale of then."""
    items = pd.read_parquet(folder / "items.parquet")
    items["launched"] = 1_600_000_000 + np.arange(len(items)) * 10 * DAY
    items.to_parquet(folder / "dated.parquet")
    launched = {"name": "launched", "table": "items", "kind": "timestamp", "unit": "s"}
    shared = {
        "data": {**DATA, "items": "dated.parquet"},
        "schema": {**SCHEMA, "features": [*SCHEMA["features"], launched]},
        "split": {"kind": "time", "validation": 0.4, "test": 0.1},
    }
    run = train(config_of(folder, RANKER, **shared))
    assert run is not None
    found = ListModel.open(run.bundle)
    search: Any = found.found_by
    log = pd.read_parquet(folder / "log.parquet").sort_values("at", kind="stable")
    learnt = RowModel.open(next((run.run_dir / "ranker" / "run" / "bundle").iterdir())).encoder
    assert learnt.reference_time == log["at"].iloc[int(0.5 * len(log)) - 1] * 1_000_000
    before_test = log["at"].iloc[int(0.9 * len(log)) - 1]
    assert search.sources[0].encoder.reference_time == before_test * 1_000_000

    def check(search: Any, last: int) -> None:
        ages = (last - items["launched"].to_numpy()) / DAY
        expected = learnt.scalers["launched"].apply(ages)
        layout = search.joined.ranker.model.encoder.layout("items").dense
        age = search.joined.ranker.items.dense[:, layout.index("launched.age")]
        np.testing.assert_allclose(age, expected, atol=1e-6)
        own = found.encoder.scalers["launched"].apply(ages)
        at = found.encoder.layout("items").dense.index("launched.age")
        np.testing.assert_allclose(search.joined.facts.numbers[:, at], own, atol=1e-6)

    check(search, before_test)
    more = pd.DataFrame({"user": "u000", "item": items.item, "at": log["at"].max() + 400 * DAY})
    pd.concat([log, more]).to_parquet(folder / "newer.parquet")
    newer = {**shared["data"], "interactions": "newer.parquet"}
    config = config_of(folder, RANKER, **{**shared, "data": newer})
    final = recsys.train(config, final=run.bundle)
    check(ListModel.open(final.bundle).found_by, int(more["at"].max()))


@pytest.mark.parametrize(
    ("rank", "said"),
    [
        ("gbtd", r"model.rank: 'gbtd' is no way to rank \(did you mean 'gbdt'\?\)"),
        (5, r"model.rank: a way to rank is expected, as in rank: dcn; .* \(got 5\)"),
        ({"kind": "two_tower"}, "model.rank: 'two_tower' is no way to rank"),
        ({"model": "dnc"}, r"model.rank: 'dnc' is no way to rank \(did you mean 'dcn'\?\)"),
        ({"model": {"size": 3}}, "model.rank: missing key 'model.rank.model.kind'"),
        ({"kind": "dcn", "size": 3}, "model.rank: unknown key 'model.rank.size'"),
        ({"model": {"kind": "dcn", "size": 3}}, "unknown key 'model.rank.model.size'"),
        ({"model": "dcn", "takes": 3}, "unknown key 'model.rank.takes'"),
        ({"kind": "dcn", "candidates": 0}, r"pipeline.yaml: model\.rank\.candidates: Input"),
        ({"kind": "dcn", "embedding": {"dm": 3}}, "unknown key 'model.rank.embedding.dm'"),
        ("wrong.yaml", r"^\S+wrong.yaml: unknown key 'training.epocs' \(did you mean 'epochs'"),
        ({"model": {"kind": "dcn"}, "training": {"metric": "ndcg"}}, "model.rank: .*'ndcg'"),
    ],
)
def test_what_is_no_ranker_is_refused_before_anything_is_trained(
    rank: Any, said: str, folder: Path
) -> None:
    wrong = {**RANKER, "training": {"epocs": 3}}
    (folder / "wrong.yaml").write_text(yaml.safe_dump(wrong))
    with pytest.raises(ConfigError, match=said):
        preflight(config_of(folder, rank))


def test_a_ranker_may_be_named_by_its_kind_with_settings_beside_it(folder: Path) -> None:
    beside = {"candidates": 50, "training": {"epochs": 2}}
    whole = config_of(folder, {"kind": "ranker", "model": {"kind": "dcn"}, **beside}).model.rank
    for rank in ({"model": "dcn", **beside}, {"kind": "dcn", **beside}):
        assert config_of(folder, rank).model.rank.model_dump() == whole.model_dump()
    by_name, by_kind = (config_of(folder, one).model.rank for one in ("dcn", {"kind": "dcn"}))
    assert by_name.model_dump() == by_kind.model_dump()


def test_a_ranker_that_has_too_little_to_learn_from_is_refused(folder: Path) -> None:
    for most, said in ((4, "too few validation requests have a right item"), (1, "1 validation")):
        training = {"metric": "ndcg_at_5", "max_validation_queries": most}
        with pytest.raises(ConfigError, match=said):
            train(config_of(folder, "fm", training=training))
