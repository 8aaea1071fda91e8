"""Sessions from a log to recommendations: trained, evaluated, bundled, reopened, scored."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml

import recsys
from recsys.bundle.directory import Bundle
from recsys.core.errors import ConfigError, IntegrityError
from recsys.features.bundle.files import read_memory
from recsys.features.dataset.split import VALIDATION
from recsys.features.tables.sources import Sources
from recsys.models.retrieval import catalogue_vectors, query_vectors
from recsys.models.session import SessionTransformerConfig
from recsys.models.two_tower import TwoTowerConfig
from recsys.plain import limits
from recsys.retrieval.memory import MemoryConfig
from recsys.serving.engines.batch import score_to_parquet, shards_of_log
from recsys.serving.export.retrieval import export_index
from recsys.serving.recommend.following import Following
from recsys.serving.recommend.scorer import Scorer
from recsys.training.evaluation import evaluate as evaluate_module
from recsys.training.evaluation.evaluate import ranking_metrics, vector_ranker
from recsys.training.evaluation.results import Evaluation
from recsys.training.families.load import load_config
from recsys.training.families.loading import load_data
from recsys.training.families.plain.rows import counted
from recsys.training.families.retrieval import memory
from recsys.training.families.retrieval.evaluating import evaluate_model
from recsys.training.families.session.reading import SessionData
from recsys.training.jobs.evaluate import evaluate_bundle
from recsys.training.jobs.opening import open_model
from recsys.training.jobs.runs import TrainResult
from recsys.training.jobs.train import train

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


def with_weight(config: Any, weight: float | str) -> Any:
    settings = config.model.memory.model_copy(update={"weight": weight})
    changed = config.model.model_copy(update={"memory": settings})
    return config.model_copy(update={"model": changed})


def opened_config(result: TrainResult) -> Any:
    return open_model(result.bundle).config


@pytest.fixture(scope="module")
def result(folder: Path) -> TrainResult:
    return trained(folder, ("markov", "sasrec"), repeats=True, memory={"weight": 1.25})


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


def test_the_memory_adds_what_the_training_rows_say(
    result: TrainResult, folder: Path, tmp_path: Path
) -> None:
    scorer = Scorer.open(result.bundle, k=NUM_ITEMS, filter_seen=False)
    requests = pa.table({"user": ["u000", "u001"], "history": [["i03", "i04"], ["i29"]]})
    bare = replace(scorer, found_by=replace(scorer.by_vectors, memory=None))
    with_it, without = scorer.score(requests), bare.score(requests)
    reading = SessionData.of(opened_config(result), open_model(result.bundle).data())
    rows = counted(reading.data, reading.sessions)
    walks = [rows.item[rows.sequence == one] for one in np.unique(rows.sequence)]
    settings = reading.config.model.memory
    logit = float(scorer.model.temperature.detach())
    for asked, history in enumerate(([3, 4], [29])):
        wanted = np.zeros(NUM_ITEMS)
        for age, item in enumerate(reversed(history)):
            follows = np.zeros(NUM_ITEMS)
            for walk in walks:
                for place in np.flatnonzero(walk == item):
                    for lag, later in enumerate(walk[place + 1 : place + 1 + settings.steps]):
                        follows[later] += settings.lag_decay**lag
            wanted += settings.decay**age * follows / (follows.sum() + settings.shrinkage)
        gains = 1.25 * logit * np.log1p(settings.scale * wanted)
        scores = [
            dict(zip(table["items"][asked].as_py(), table["scores"][asked].as_py(), strict=True))
            for table in (with_it, without)
        ]
        for item in range(NUM_ITEMS):
            name = f"i{item:02}"
            assert scores[0][name] - scores[1][name] == pytest.approx(gains[item], abs=1e-5)


def test_a_few_queries_at_a_time_are_answered_as_all_together(
    result: TrainResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    scorer = Scorer.open(result.bundle, k=5, filter_seen=False)
    requests = pa.table({"user": ["a", "b", "c"], "history": [["i03", "i04"], [], ["i29"]]})
    whole = scorer.score(requests).column("items")
    opened = open_model(result.bundle)
    reading = SessionData.of(opened.config, opened.data())
    fitted = memory.memory_of(opened, reading, opened.retrieval_model())
    tops = []
    for chunk in (1024, 1, 7):
        monkeypatch.setattr("recsys.retrieval.recommend.MEMORY_ROWS", chunk)
        monkeypatch.setattr(evaluate_module, "MEMORY_ROWS", chunk)
        assert scorer.score(requests).column("items").equals(whole)
        found = evaluate_model(reading, opened.retrieval_model(), fitted=fitted).evaluation
        tops.append(found.results["session"].top)
    assert np.array_equal(tops[0], tops[1])
    assert np.array_equal(tops[0], tops[2])


def test_some_items_alone_are_ranked_as_among_all(result: TrainResult) -> None:
    opened = open_model(result.bundle)
    reading, model = SessionData.of(opened.config, opened.data()), opened.retrieval_model()
    fitted = memory.memory_of(opened, reading, model)
    assert fitted is not None
    queries = reading.queries(VALIDATION, 40)
    items = catalogue_vectors(model, reading.data.items)
    vectors, gain = model.without_gain(query_vectors(model, queries.block, items, queries.history))
    rank = vector_ranker(items, vectors, filter_seen=False, gain=gain, memory=fitted.memory)
    some = np.arange(1, NUM_ITEMS, 2)
    whole, alone = rank(queries, NUM_ITEMS), rank(queries, len(some), among=some)
    for every, own in zip(whole, alone, strict=True):
        assert every[np.isin(every, some)].tolist() == own.tolist()


def test_the_report_shows_the_model_without_its_memory(result: TrainResult) -> None:
    evaluation = result.evaluation
    assert isinstance(evaluation, Evaluation)
    assert list(evaluation.results)[:2] == ["session", "without_memory"]
    bare = evaluation.results["without_memory"].metrics["recall_at_5"]
    said = result.report.read_text()
    assert f"{bare:.1%} without its memory of pairs" in said
    assert "the best baseline, without" not in said
    assert "pairs of items, weight 1.25 (as configured)" in said


def test_the_weight_is_the_best_one_on_enough_validation_queries(
    result: TrainResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = open_model(result.bundle)
    reading = SessionData.of(with_weight(opened.config, "auto"), opened.data())
    model = opened.retrieval_model()
    monkeypatch.setattr(memory, "LEAST_QUERIES", 10_000)
    fitted = memory.fit_memory(reading, model)
    assert fitted is not None
    assert "weight 0.25 (by default, as there are" in fitted.words
    monkeypatch.setattr(memory, "LEAST_QUERIES", 10)
    monkeypatch.setattr(memory, "WEIGHTS", (0.0, 1.0, 400.0))
    torch.nn.init.normal_(model.position.weight, std=3.0)  # type: ignore[union-attr]
    fitted = memory.fit_memory(reading, model)
    assert fitted is not None
    found = {}
    for weight in (0.0, 1.0, 400.0):
        fixed = memory.fit_memory(reading.under(with_weight(opened.config, weight)), model)
        assert fixed is not None
        queries = reading.queries(VALIDATION, 10_000)
        items = catalogue_vectors(model, reading.data.items)
        vectors, gain = model.without_gain(
            query_vectors(model, queries.block, items, queries.history)
        )
        rank = vector_ranker(items, vectors, filter_seen=False, gain=gain, memory=fixed.memory)
        metrics = ranking_metrics(rank(queries, 5), queries.relevant, (5,))
        found[weight] = metrics["mrr_at_5"].mean()
    best = max(found, key=found.__getitem__)
    assert best > 0
    assert f"weight {best:g} (mrr_at_5 {found[best]:.4f} on the validation" in fitted.words
    assert f"{found[0.0]:.4f} without)" in fitted.words
    assert fitted.memory is not None
    logit = float(model.temperature.detach())
    assert fitted.memory.gain == pytest.approx(best * logit)


def test_an_export_says_that_it_lacks_the_memory(result: TrainResult, tmp_path: Path) -> None:
    export_index(result.bundle, "parquet", tmp_path / "out", min_recall=0)
    said = json.loads((tmp_path / "out" / "export.json").read_text())
    assert "without its memory" in said["memory"]


def test_counts_that_do_not_fit_are_left_out_and_said(
    result: TrainResult, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    opened = open_model(result.bundle)
    reading = SessionData.of(opened.config, opened.data())
    monkeypatch.setattr(limits, "free_memory_bytes", lambda: 10**8)
    fitted = memory.fit_memory(reading, opened.retrieval_model())
    assert fitted is not None
    assert fitted.memory is None
    assert fitted.words.startswith("left out: counts of item pairs may need 0.0 GB, and 0.1 GB")
    assert "memory: left out" in caplog.text


def test_a_catalogue_that_grew_keeps_the_memory_of_its_items(
    result: TrainResult, folder: Path
) -> None:
    opened = open_model(result.bundle)
    grown = pd.read_parquet(folder / "items.parquet")
    grown.loc[len(grown)] = ["a new one", "0"]
    grown.to_parquet(folder / "more.parquet")
    config = opened.config.model_copy(
        update={
            "data": opened.config.data.model_copy(update={"items": str(folder / "more.parquet")})
        }
    )
    reading = SessionData.of(config, replace(opened, config=config).data())
    found = memory.memory_of(opened, reading, opened.retrieval_model())
    kept = read_memory(opened.bundle, NUM_ITEMS)
    assert found is not None
    assert kept is not None
    moved = found.memory
    assert moved is not None
    assert found.words.endswith("pairs of items, weight 1.25 (as in the bundle)")
    assert moved.shares.shape == (NUM_ITEMS + 1, NUM_ITEMS + 1)
    assert np.array_equal(moved.shares.toarray()[1:, 1:], kept.shares.toarray())
    with pytest.raises(IntegrityError, match=f"of {NUM_ITEMS} items, the catalogue has 31"):
        read_memory(opened.bundle, 31)


def test_without_a_memory_nothing_is_written_or_shown(tmp_path: Path) -> None:
    write_log(tmp_path)
    found = trained(tmp_path, memory="none")
    assert isinstance(found.evaluation, Evaluation)
    assert "without_memory" not in found.evaluation.results
    assert read_memory(Bundle.open(found.bundle), NUM_ITEMS) is None
    assert Scorer.open(found.bundle).memory is None
    earlier = SessionTransformerConfig.of_earlier({"kind": "session"})
    assert SessionTransformerConfig.model_validate(earlier).memory.kind == "none"
    for kind in (SessionTransformerConfig, TwoTowerConfig):
        before = kind.of_earlier({"memory": {"kind": "pairs", "weight": 0.5}})
        assert kind.model_validate(before).memory.new_items == 0
        written = kind(memory=MemoryConfig()).model_dump()
        assert kind.model_validate(kind.of_earlier(written)).memory.new_items == 1


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
    config = load_config(tmp_path / "recsys.yaml")
    auto = config.model.model_copy(update={"repeats": "auto"})
    reading = SessionData.of(config, load_data(config)).under(
        config.model_copy(update={"model": auto})
    )
    assert reading.config.model.repeats is True
    assert reading.notes["repeats"].startswith("true (69.20% of 1,211 steps")
    assert reading.under(config).notes == {}
    assert found[True] > 0.6
    assert found[True] > found[False]


def test_auto_leaves_out_what_never_comes_back(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"):
        result = trained(folder)
    bundle = Bundle.open(result.bundle)
    assert bundle.json("model.json")["model"]["repeats"] == "never"
    assert opened_config(result).model.repeats == "never"
    assert "model.repeats: never (0.00% of" in caplog.text
    evaluation = result.evaluation
    assert isinstance(evaluation, Evaluation)
    assert evaluation.protocol["repeats"].startswith("never (0.00% of")
    assert evaluation.protocol["seen items"] == "kept"
    scorer = Scorer.open(result.bundle, k=NUM_ITEMS, filter_seen=False)
    request = {"user": ["a", "b"], "history": [["i03", "i04", "i03"], []], "seen": [["i09"], []]}
    some, everything = scorer.score(pa.table(request)).column("items").to_pylist()
    assert set(some) == {f"i{row:02}" for row in range(NUM_ITEMS)} - {"i03", "i04"}
    assert len(everything) == NUM_ITEMS
    following = Following.start(scorer, {"user": "a", "seen": ["i09"]})
    for item in ("i03", "i04", "i03"):
        following = following.append(item)
    assert following.recommend().column("items")[0].as_py() == some
    allowed = following.recommend(allow=["i04", "i05"]).column("items")[0].as_py()
    assert allowed == ["i05"]
    own = Following.start(scorer, {"user": "a", "allow": ["i04", "i05"]}).append("i04")
    assert own.recommend().column("items")[0].as_py() == ["i05"]
    again = evaluate_bundle(result.bundle, tmp_path / "again.html")
    assert isinstance(again, Evaluation)
    top = evaluation.results["session"].top
    np.testing.assert_array_equal(again.results["session"].top, top)
    export_index(result.bundle, "parquet", tmp_path / "out", min_recall=0)
    assert "Leave the items of its own session out" in (tmp_path / "out/export.json").read_text()


def test_an_item_is_explained_by_the_steps_and_by_the_pair_that_is_remembered(
    folder: Path,
) -> None:
    result = trained(folder, memory={"weight": 1.25})
    model = recsys.load(result.bundle)
    opened = Scorer.open(result.bundle)
    config = opened_config(result)
    reading = SessionData.of(config, open_model(result.bundle).data())
    events, users = reading.data.tables.events, reading.data.tables.users
    last = np.flatnonzero(reading.sessions.user == 7)[-1]
    span = slice(*reading.sessions.offsets[last : last + 2])
    steps = [
        opened.item_ids[int(row)].as_py() for row in events.item_row[reading.sessions.order[span]]
    ]
    user = users.column("user")[7].as_py()
    following = f"i{(int(steps[-1][1:]) + 1) % NUM_ITEMS:02}"
    why = model.explain(user=user, item=following)
    assert {one.item for one in why.because} == set(steps)
    newest = next(one for one in why.because if one.item == steps[-1])
    assert newest.adds == max(one.adds for one in why.because) > 0
    assert "(pair +" in newest.title
    request = pa.table({"user": [user], "history": [steps[:-1]], "seen": [[]]})
    without = opened.score(request, k=NUM_ITEMS)
    place = without.column("items")[0].as_py().index(following)
    if len(set(steps)) == len(steps):  # without the last step: without its times, too
        fall = why.score - without.column("scores")[0].as_py()[place]
        assert fall == pytest.approx(newest.adds, abs=0.5)
    with pytest.raises(ConfigError, match=f"item {steps[0]} is in the history of user {user}"):
        model.explain(user=user, item=steps[0])
    with pytest.raises(ConfigError, match="explained one item at a time"):
        model.explain()
