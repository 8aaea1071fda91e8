"""Which baselines stand beside a model: all that can, in order, the others with their reason."""

import sys
from collections import defaultdict
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from features.dataset import Dataset
from features.queries import Queries, build_queries
from features.split import TEST, TRAIN
from recsys.errors import ConfigError
from serving.index.build import build_index
from training import evaluate as judging
from training.baselines import choose
from training.baselines.choose import BASELINES, baseline_rankers, check_baselines
from training.config import EvaluationConfig, ExperimentConfig, load_config
from training.preflight import preflight
from training.progress import evaluation_table
from training.train import train

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
    rankers, left_out = baseline_rankers(dataset, EvaluationConfig())
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
    named = EvaluationConfig(baselines=("ease", "popularity"))
    assert list(baseline_rankers(dataset, named)[0]) == ["ease", "popularity"]
    assert baseline_rankers(dataset, EvaluationConfig(baselines=())) == ({}, {})


def test_recent_popularity_counts_the_last_days_of_training(
    dataset: Dataset, queries: Queries
) -> None:
    config = EvaluationConfig(
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
        config = EvaluationConfig(baselines=("popularity_recent",), popularity_window_days=window)
        left_out = baseline_rankers(dataset, config)[1]
        assert ("popularity_recent" in left_out) == out
        if out:
            assert f"span {days:,.1f} days, all within" in left_out["popularity_recent"]
    left_out = baseline_rankers(without_times(dataset), EvaluationConfig())[1]
    assert left_out["popularity_recent"] == "the log has no times (schema.interactions.time)"


def test_ease_is_left_out_above_its_limit_of_items_and_of_memory(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = EvaluationConfig(baselines=("ease",), ease_max_items=dataset.num_items)
    assert list(baseline_rankers(dataset, named)[0]) == ["ease"]
    fewer = named.model_copy(update={"ease_max_items": dataset.num_items - 1})
    rankers, left_out = baseline_rankers(dataset, fewer)
    assert rankers == {}
    assert left_out["ease"] == (
        "a matrix of 120 x 120 items needs 0.0 GB; evaluation.ease_max_items is 119"
    )
    needed = 120 * 120 * 4
    for free, out in ((int(1.1 * needed + 5e8) - 1, True), (int(1.1 * needed + 5e8) + 1, False)):
        monkeypatch.setattr(choose, "free_memory_bytes", lambda free=free: free)
        left_out = baseline_rankers(dataset, named)[1]
        assert ("0.5 GB of memory are free" in left_out.get("ease", "")) == out
    monkeypatch.setattr(choose, "free_memory_bytes", lambda: None)  # a system that does not say
    assert baseline_rankers(dataset, named)[1] == {}


def test_the_graph_filter_is_left_out_where_its_answers_take_too_long(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = EvaluationConfig(baselines=("gf_cf",), max_queries=7)
    asked = []

    def products(*counts: int) -> int:
        asked.append(counts)
        return 10**12

    monkeypatch.setattr(choose, "graph_products", products)
    assert "some 1e+12 multiplications" in baseline_rankers(dataset, named)[1]["gf_cf"]
    assert asked == [((dataset.part == TRAIN).sum(), dataset.num_items, 7)]
    many = named.model_copy(update={"max_queries": 10**6})
    baseline_rankers(dataset, many)
    assert asked[1][2] == dataset.num_users


def test_large_catalogues_are_scored_in_smaller_blocks(
    dataset: Dataset, queries: Queries, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = EvaluationConfig(baselines=("item_knn",))
    whole = baseline_rankers(dataset, config)[0]["item_knn"](queries, 20)
    monkeypatch.setattr(choose, "CELLS_AT_ONCE", 3 * dataset.num_items)
    sizes = []
    real = judging.topk_of_scores

    def counting(scores, *rest):  # type: ignore[no-untyped-def]
        sizes.append(len(scores))
        return real(scores, *rest)

    monkeypatch.setattr(judging, "topk_of_scores", counting)
    assert (baseline_rankers(dataset, config)[0]["item_knn"](queries, 20) == whole).all()
    assert max(sizes) == 3


def test_without_implicit_als_is_left_out_unless_it_was_named(
    dataset: Dataset, config: ExperimentConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "implicit", None)
    rankers, left_out = baseline_rankers(dataset, EvaluationConfig())
    assert set(left_out) == {"ials"}
    assert "ials" not in rankers
    assert "pip install 'recsys-engine[implicit]'" in left_out["ials"]
    check_baselines(config)
    named = config.evaluation.model_copy(update={"baselines": ("auto", "ials")})
    with pytest.raises(ConfigError, match="ials: the package implicit is not installed"):
        baseline_rankers(dataset, named)
    for job in (check_baselines, preflight, partial(train, build_index=build_index)):
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
    config = EvaluationConfig(baselines=("popularity", "ease"), ease_max_items=5, ks=(20,))
    rankers, left_out = baseline_rankers(dataset, config)
    found = judging.evaluate(
        dataset, queries, rankers, config, protocol={"split": "s"}, seed=0, left_out=left_out
    )
    evaluation_table(found)
    assert "left out: ease: a matrix of 120 x 120 items needs" in capsys.readouterr().out


def test_an_unknown_baseline_is_refused_with_the_known_ones(world_config: Path) -> None:
    with pytest.raises(ConfigError, match=r"evaluation.baselines.0: .*'gf_cf' or 'ials'"):
        load_config(world_config, ("evaluation.baselines=[slim]",))
