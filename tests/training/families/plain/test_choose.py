"""Which baselines stand beside a model: all that can, in order, the others with their reason."""

import re
import sys
from collections import defaultdict
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from recsys.core.errors import ConfigError
from recsys.features.dataset.dataset import Dataset
from recsys.features.dataset.queries import Queries, build_queries
from recsys.features.dataset.session_queries import build_session_queries
from recsys.features.dataset.sessions import SessionConfig, Sessions, cut_sessions
from recsys.features.dataset.split import TEST, TRAIN
from recsys.plain import answering, limits
from recsys.plain.attributes import AttributePopularity
from recsys.plain.interactions import Baseline
from recsys.plain.markov import MarkovChain
from recsys.plain.neighbours import ItemKNN
from recsys.plain.session_items import SessionItems
from recsys.plain.session_knn import SessionKNN, SessionKNNConfig
from recsys.training.config.baselines import NEED_SESSIONS
from recsys.training.config.experiment import ExperimentConfig
from recsys.training.config.retrieval import RetrievalEvaluationConfig
from recsys.training.evaluation.evaluate import evaluate
from recsys.training.families.load import load_config, parse_config
from recsys.training.families.plain import choose
from recsys.training.families.plain.choose import (
    BASELINES,
    SESSION_BASELINES,
    baseline_rankers,
    check_baselines,
)
from recsys.training.families.plain.rows import item_values
from recsys.training.jobs.check import preflight
from recsys.training.jobs.train import train
from recsys.training.reports.evaluation_table import evaluation_table

DAY = 86_400_000_000


@pytest.fixture(scope="module")
def queries(dataset: Dataset) -> Queries:
    return build_queries(dataset, TEST, history_length=5, filter_seen=True, limit=100, seed=0)


def without_times(dataset: Dataset) -> Dataset:
    schema = dataset.schema
    roles = schema.interactions.model_copy(update={"time": None})
    return replace(dataset, schema=schema.model_copy(update={"interactions": roles}))


def test_all_that_can_stand_there_do_and_answer_every_query(
    dataset: Dataset, queries: Queries
) -> None:
    pytest.importorskip("implicit")
    rankers, left_out = baseline_rankers(dataset, RetrievalEvaluationConfig())
    assert tuple(rankers) == BASELINES
    assert left_out == {}
    tops = {name: rank(queries, 20) for name, rank in rankers.items()}
    for top in tops.values():
        assert top.shape == (len(queries), 20)
        for query, row in enumerate(top):
            bounds = queries.seen.offsets[query], queries.seen.offsets[query + 1]
            assert not set(row.tolist()) & set(queries.seen.values[slice(*bounds)].tolist())
    lists = {top.tobytes() for top in tops.values()}
    assert len(lists) == len(BASELINES)  # no name answers for another


def test_those_named_come_in_their_order(dataset: Dataset) -> None:
    named = RetrievalEvaluationConfig(baselines=("ease", "popularity"))
    assert list(baseline_rankers(dataset, named)[0]) == ["ease", "popularity"]
    assert baseline_rankers(dataset, RetrievalEvaluationConfig(baselines=())) == ({}, {})


def test_recent_popularity_counts_the_last_days_of_training(
    dataset: Dataset, queries: Queries
) -> None:
    config = RetrievalEvaluationConfig(
        baselines=("popularity_recent",), popularity_window_days=10, filter_seen=False
    )
    rankers, _ = baseline_rankers(dataset, config)
    events = dataset.tables.events
    rows = np.flatnonzero(dataset.part == TRAIN)
    last = events.time[rows].max()
    takers = defaultdict(set)
    for row in rows[events.time[rows] >= last - 10 * DAY]:
        takers[int(events.item_row[row])].add(int(events.user_row[row]))
    ranked = sorted(range(dataset.num_items), key=lambda item: (-len(takers[item]), item))
    assert rankers["popularity_recent"](queries, 5)[0].tolist() == ranked[:5]


def test_a_window_over_everything_or_a_log_without_times_leaves_it_out(dataset: Dataset) -> None:
    time = dataset.tables.events.time[dataset.part == TRAIN]
    days = (time.max() - time.min()) / DAY
    for window, out in ((days * 1.001, True), (days * 0.999, False)):
        config = RetrievalEvaluationConfig(
            baselines=("popularity_recent",), popularity_window_days=window
        )
        left_out = baseline_rankers(dataset, config)[1]
        assert ("popularity_recent" in left_out) == out
        if out:
            assert f"span {days:,.1f} days, all within" in left_out["popularity_recent"]
    left_out = baseline_rankers(without_times(dataset), RetrievalEvaluationConfig())[1]
    assert left_out["popularity_recent"] == "the log has no times (schema.interactions.time)"


def test_ease_is_left_out_above_its_limit_of_items_and_of_memory(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = RetrievalEvaluationConfig(baselines=("ease",), ease_max_items=dataset.num_items)
    assert list(baseline_rankers(dataset, named)[0]) == ["ease"]
    fewer = named.model_copy(update={"ease_max_items": dataset.num_items - 1})
    rankers, left_out = baseline_rankers(dataset, fewer)
    assert rankers == {}
    assert left_out["ease"] == (
        "a matrix of 120 x 120 items needs 0.0 GB; evaluation.ease_max_items is 119"
    )
    needed = 120 * 120 * 4
    for free, out in ((int(1.1 * needed + 5e8) - 1, True), (int(1.1 * needed + 5e8) + 1, False)):
        monkeypatch.setattr(limits, "free_memory_bytes", lambda free=free: free)
        left_out = baseline_rankers(dataset, named)[1]
        assert ("0.5 GB of memory are free" in left_out.get("ease", "")) == out
    monkeypatch.setattr(limits, "free_memory_bytes", lambda: None)  # a system that does not say
    assert baseline_rankers(dataset, named)[1] == {}


def test_the_graph_filter_is_left_out_where_its_answers_take_too_long(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = RetrievalEvaluationConfig(baselines=("gf_cf",), max_queries=7)
    asked = []

    def products(*counts: int) -> int:
        asked.append(counts)
        return 10**12

    monkeypatch.setattr(limits, "graph_products", products)
    assert "some 1e+12 multiplications" in baseline_rankers(dataset, named)[1]["gf_cf"]
    assert asked == [((dataset.part == TRAIN).sum(), dataset.num_items, 7)]
    many = named.model_copy(update={"max_queries": 10**6})
    baseline_rankers(dataset, many)
    assert asked[1][2] == dataset.num_users


def test_large_catalogues_are_scored_in_smaller_blocks(
    dataset: Dataset, queries: Queries, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = RetrievalEvaluationConfig(baselines=("item_knn",))
    whole = baseline_rankers(dataset, config)[0]["item_knn"](queries, 20)
    monkeypatch.setattr(answering, "CELLS_AT_ONCE", 3 * dataset.num_items)
    sizes = []
    real = answering.topk_of_scores

    def counting(scores, *rest):  # type: ignore[no-untyped-def]
        sizes.append(len(scores))
        return real(scores, *rest)

    monkeypatch.setattr(answering, "topk_of_scores", counting)
    assert (baseline_rankers(dataset, config)[0]["item_knn"](queries, 20) == whole).all()
    assert max(sizes) == 3


def test_without_implicit_als_is_left_out_unless_it_was_named(
    dataset: Dataset, config: ExperimentConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "implicit", None)
    rankers, left_out = baseline_rankers(dataset, RetrievalEvaluationConfig())
    assert set(left_out) == {"ials"}
    assert "ials" not in rankers
    assert "pip install 'recsys-engine[implicit]'" in left_out["ials"]
    check_baselines(config)
    named = config.evaluation.model_copy(update={"baselines": ("auto", "ials")})
    with pytest.raises(ConfigError, match="ials: the package implicit is not installed"):
        baseline_rankers(dataset, named)
    for job in (check_baselines, preflight, train):
        with pytest.raises(ConfigError, match="ials: the package implicit is not installed"):
            job(config.model_copy(update={"evaluation": named, "output": str(tmp_path)}))
    assert not list(tmp_path.iterdir())  # before any work was done


def test_recent_popularity_by_name_needs_times(config: ExperimentConfig) -> None:
    named = config.evaluation.model_copy(update={"baselines": ("popularity_recent",)})
    config = config.model_copy(update={"evaluation": named})
    check_baselines(config)
    roles = config.schema_.interactions.model_copy(update={"time": None})
    schema = config.schema_.model_copy(update={"interactions": roles})
    timeless = config.model_copy(update={"schema_": schema})
    with pytest.raises(ConfigError, match="popularity_recent: the log has no times"):
        check_baselines(timeless)
    every = config.evaluation.model_copy(update={"baselines": ("auto",)})
    check_baselines(timeless.model_copy(update={"evaluation": every}))


def test_the_table_says_what_was_left_out(
    dataset: Dataset, queries: Queries, capsys: pytest.CaptureFixture[str]
) -> None:
    config = RetrievalEvaluationConfig(baselines=("popularity", "ease"), ease_max_items=5, ks=(20,))
    rankers, left_out = baseline_rankers(dataset, config)
    found = evaluate(
        dataset, queries, rankers, config, protocol={"split": "s"}, seed=0, left_out=left_out
    )
    evaluation_table(found)
    assert "left out: ease: a matrix of 120 x 120 items needs" in capsys.readouterr().out


def test_an_unknown_baseline_is_refused_with_the_known_ones(world_config: Path) -> None:
    with pytest.raises(ConfigError, match=r"evaluation.baselines.0: .*'v_sknn', 'attributes'"):
        load_config(world_config, ("evaluation.baselines=[slim]",))


@pytest.fixture(scope="module")
def sessions(dataset: Dataset) -> Sessions:
    return cut_sessions(dataset, SessionConfig())


@pytest.fixture(scope="module")
def asked(dataset: Dataset, sessions: Sessions) -> Queries:
    return build_session_queries(
        dataset, sessions, TEST, per="event", history_length=4, filter_seen=False, limit=60, seed=0
    )


def test_sessions_have_baselines_of_their_own_and_all_answer(
    dataset: Dataset, sessions: Sessions, asked: Queries
) -> None:
    unfiltered = RetrievalEvaluationConfig(filter_seen=False)
    rankers, left_out = baseline_rankers(dataset, unfiltered, sessions)
    assert tuple(rankers) == SESSION_BASELINES
    assert left_out == {}
    lists = {rank(asked, 20).tobytes() for rank in rankers.values()}
    assert len(lists) == len(SESSION_BASELINES)  # no name answers for another
    rankers, left_out = baseline_rankers(dataset, RetrievalEvaluationConfig(), sessions)
    assert tuple(rankers) == tuple(name for name in SESSION_BASELINES if name != "session_items")
    assert left_out == {
        "session_items": "it recommends what was seen, which evaluation.filter_seen leaves out"
    }
    for rank in rankers.values():
        top = rank(asked, 20)
        for query, row in enumerate(top.tolist()):
            bounds = asked.seen.offsets[query], asked.seen.offsets[query + 1]
            assert not set(row) & set(asked.seen.values[slice(*bounds)].tolist())


FEW_NEIGHBOURS = partial(SessionKNNConfig, recent=3, neighbours=2)
"""Sessions so few that it matters which ones are the latest."""


def test_they_learn_from_training_sessions_and_answer_from_the_sessions_so_far(
    dataset: Dataset, sessions: Sessions, asked: Queries, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choose, "SessionKNNConfig", FEW_NEIGHBOURS)
    events = dataset.tables.events
    lists = [
        [event for event in one if dataset.part[event] == TRAIN]
        for one in np.split(sessions.order, sessions.offsets[1:-1])
    ]
    lists = [one for one in lists if one]
    assert len(lists) > dataset.num_users  # not merely users
    sequence = np.repeat(np.arange(len(lists)), [len(one) for one in lists])
    order = np.concatenate(lists)
    given = (sequence, events.item_row[order], dataset.num_items)
    expected: dict[str, Baseline] = {
        "item_knn": ItemKNN.fit(*given),
        "session_items": SessionItems.fit(*given),
        "markov": MarkovChain.fit(*given, steps=1, power=1.0, backward=0.0),
        "markov_10": MarkovChain.fit(*given),
        "v_sknn": SessionKNN.fit(*given, time=events.time[order], recent=3, neighbours=2),
        "attributes": AttributePopularity.fit(*given, item_values(dataset)),
    }
    config = RetrievalEvaluationConfig(filter_seen=False, baselines=tuple(expected))  # type: ignore[arg-type]
    rankers = baseline_rankers(dataset, config, sessions)[0]
    history = asked.history_items
    assert (history.lengths() < asked.seen.lengths()).any()
    for name, fitted in expected.items():
        scores = fitted.score(history.values.numpy(), history.offsets.numpy())
        ties = np.arange(dataset.num_items)
        if name == "item_knn":  # alone in leaving items that nothing speaks for in no order
            ties = rankers[name].model.popular.order
        best = ties[np.argsort(-scores[:, ties], axis=1, kind="stable")[:, :10]]
        fell_back = rankers[name].fell_back(asked)
        assert not fell_back.all(), name
        best[fell_back] = rankers[name].model.popular.order[:10]
        assert rankers[name](asked, 10).tolist() == best.tolist(), name
    # What is popular is popular with users, however they cut their time.
    popular = config.model_copy(update={"baselines": ("popularity",)})
    takers = {(user, item) for user, item in zip(events.user_row[order], given[1], strict=True)}
    counts = np.bincount([item for _, item in takers], minlength=dataset.num_items)
    first = baseline_rankers(dataset, popular, sessions)[0]["popularity"](asked, 10)[0]
    assert first.tolist() == np.argsort(-counts, kind="stable")[:10].tolist()


@pytest.mark.parametrize("name", NEED_SESSIONS)
def test_what_is_about_sessions_is_refused_without_them(
    config: ExperimentConfig, dataset: Dataset, name: str
) -> None:
    raw = config.model_dump(mode="json", by_alias=True)
    raw["evaluation"]["baselines"] = [name]
    named = config.evaluation.model_copy(update={"baselines": (name,)})
    for call in (
        lambda: parse_config(raw, source="shop.yaml"),
        lambda: baseline_rankers(dataset, named),
    ):
        with pytest.raises(ConfigError, match=rf"evaluation.baselines: {name} is about the order"):
            call()


def test_attributes_by_name_join_where_a_model_is_not_of_sessions(
    dataset: Dataset, queries: Queries
) -> None:
    named = RetrievalEvaluationConfig(baselines=("attributes",), filter_seen=False)
    top = baseline_rankers(dataset, named)[0]["attributes"](queries, 10)
    events = dataset.tables.events
    rows = dataset.events_of((TRAIN,))
    fitted = AttributePopularity.fit(
        events.user_row[rows], events.item_row[rows], dataset.num_items, item_values(dataset)
    )
    scores = fitted.score(queries.seen.values.numpy(), queries.seen.offsets.numpy())
    assert top.tolist() == np.argsort(-scores, axis=1, kind="stable")[:, :10].tolist()


def test_they_are_left_out_where_they_cannot_be_had(
    dataset: Dataset, sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = RetrievalEvaluationConfig(filter_seen=False, max_queries=7)
    of_items = dataset.schema.features_of("items")
    others = tuple(
        feature
        for feature in dataset.schema.features
        if feature not in of_items or "categorical" not in feature.kind
    )
    bare = replace(dataset, schema=dataset.schema.model_copy(update={"features": others}))
    left_out = baseline_rankers(bare, config, sessions)[1]
    assert left_out == {
        "attributes": "the items have no categorical feature but their id (schema.features)"
    }
    needed = min(10 * len(dataset.events_of((TRAIN,))), dataset.num_items**2) * 24
    for free, out in ((int(1.1 * needed + 5e8) - 1, True), (int(1.1 * needed + 5e8) + 1, False)):
        monkeypatch.setattr(limits, "free_memory_bytes", lambda free=free: free)
        left_out = baseline_rankers(dataset, config, sessions)[1]
        assert set(left_out) == ({"markov_10", "attributes"} if out else set())
        for why in left_out.values():
            assert re.fullmatch(r"counts of item pairs may need .* 0.5 GB of memory are free", why)
    asked = []

    def products(sequence: np.ndarray, num_queries: int, **_settings: int) -> float:
        asked.append((len(sequence), num_queries))
        return 1e12

    monkeypatch.setattr(limits, "vote_products", products)
    assert "some 1e+12 multiplications" in baseline_rankers(dataset, config, sessions)[1]["v_sknn"]
    num_rows = int((dataset.part == TRAIN).sum())
    assert asked == [(num_rows, 7)]
    baseline_rankers(dataset, config.model_copy(update={"max_queries": 10**6}), sessions)
    assert asked[1][1] == (dataset.part == TEST).sum()


def test_a_log_without_a_clock_has_no_recent_sessions(
    dataset: Dataset, sessions: Sessions, asked: Queries, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choose, "SessionKNNConfig", FEW_NEIGHBOURS)
    timeless = without_times(dataset)
    named = RetrievalEvaluationConfig(baselines=("v_sknn",), filter_seen=False)
    rank = baseline_rankers(timeless, named, sessions)[0]["v_sknn"]
    assert rank.model.popular.words == "popularity"
    trained = sessions.only(dataset.part == TRAIN)
    sequence = np.repeat(np.arange(len(trained)), trained.lengths())
    rows = dataset.tables.events.item_row[trained.order]
    fitted = SessionKNN.fit(sequence, rows, dataset.num_items, recent=3, neighbours=2)
    history = asked.history_items
    scores = fitted.score(history.values.numpy(), history.offsets.numpy())
    best = np.argsort(-scores, axis=1, kind="stable")[:, :10]
    best[rank.fell_back(asked)] = rank.model.popular.order[:10]
    assert rank(asked, 10).tolist() == best.tolist()
