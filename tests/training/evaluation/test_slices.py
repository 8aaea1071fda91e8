"""Slices of sessions and of cold items, and rankings of some items alone, against loops."""

import json
from collections import defaultdict
from dataclasses import replace
from itertools import pairwise
from typing import Literal

import numpy as np
import pytest
import torch

from recsys.features.dataset.dataset import Dataset, prepare
from recsys.features.dataset.queries import Queries, build_queries
from recsys.features.dataset.session_queries import build_session_queries
from recsys.features.dataset.sessions import SessionConfig, Sessions, cut_sessions
from recsys.features.dataset.split import TEST, ColdItemsConfig
from recsys.features.world.world import RetailWorld
from recsys.training.config.experiment import ExperimentConfig
from recsys.training.config.retrieval import RetrievalEvaluationConfig
from recsys.training.evaluation.evaluate import Ranker, evaluate, vector_ranker
from recsys.training.evaluation.oracle import best_reachable
from recsys.training.evaluation.slices import count_slices
from recsys.training.families.plain.choose import baseline_rankers
from recsys.training.families.session.config import SessionEvaluationConfig
from recsys.training.reports.evaluation_table import evaluation_table

SETTINGS = RetrievalEvaluationConfig(
    ks=(5, 20), bootstrap_samples=10, baselines=("popularity", "item_knn", "attributes")
)


def rows_of(jagged: object) -> list[list[int]]:
    bounds = jagged.offsets.tolist()  # type: ignore[attr-defined]
    values = jagged.values.tolist()  # type: ignore[attr-defined]
    return [values[start:end] for start, end in pairwise(bounds)]


@pytest.fixture(scope="module")
def cold_data(config: ExperimentConfig) -> Dataset:
    cold = ColdItemsConfig.model_validate_json(json.dumps({"share": 0.25, "seed": 3}))
    split = config.split.model_copy(update={"cold_items": cold})
    return prepare(config.schema_, config.data, config.policies, split)


def queries_of(data: Dataset, filter_seen: bool = True) -> Queries:
    return build_queries(
        data, TEST, history_length=5, filter_seen=filter_seen, limit=10_000, seed=0
    )


def sessions_of(data: Dataset, per: str) -> Sessions:
    """The world's sessions; for queries of users, all of a user in one, so that they go on."""
    roles = data.schema.interactions.model_copy(update={"session": None})
    schema = data.schema.model_copy(update={"interactions": roles})
    return cut_sessions(replace(data, schema=schema) if per == "user" else data, SessionConfig())


def test_items_are_counted_in_powers_of_ten() -> None:
    found = count_slices(np.array([0, 1, 9, 10, 99, 100, 999, 1000, 10**6]))
    assert {name: np.flatnonzero(members).tolist() for name, members in found.items()} == {
        "item counts: 1-9 rows": [1, 2],
        "item counts: 10-99 rows": [3, 4],
        "item counts: 100-999 rows": [5, 6],
        "item counts: 1,000+ rows": [7, 8],
    }


@pytest.mark.parametrize("per", ["user", "event"])
def test_sessions_are_told_apart_by_their_steps_so_far(
    dataset: Dataset, per: Literal["user", "event"]
) -> None:
    sessions = sessions_of(dataset, per)
    asked = build_session_queries(
        dataset, sessions, TEST, per=per, history_length=50, filter_seen=False, limit=500, seed=0
    )
    changes = {"filter_seen": False, "baselines": ("markov",), "queries": f"{per}s"}
    config = SessionEvaluationConfig(**{**dict(SETTINGS), **changes})
    rankers = baseline_rankers(dataset, config, sessions)[0]
    found = evaluate(dataset, asked, rankers, config, protocol={}, seed=0)
    result = found.results["markov"]
    bounds = {"0 steps": (0, 0), "1 step": (1, 1), "2-4 steps": (2, 4), "5-9 steps": (5, 9)}
    bounds |= {"10-19 steps": (10, 19), "20+ steps": (20, 10**9)}
    recalls = defaultdict(list)
    relevant, tops = rows_of(asked.relevant), result.top.tolist()
    for steps, wanted, top in zip(rows_of(asked.history_items), relevant, tops, strict=True):
        for words, (low, high) in bounds.items():
            if low <= len(steps) <= high:
                recalls[f"sessions: {words}"].append(len(set(top) & set(wanted)) / len(wanted))
    shown = {name: one for name, one in result.slices.items() if name.startswith("sessions: ")}
    assert set(shown) == set(recalls)
    assert "sessions: 2-4 steps" in shown
    assert len(shown) > 2
    for name, values in recalls.items():
        assert shown[name]["queries"] == len(values)
        assert shown[name]["recall_at_20"] == pytest.approx(np.mean(values))
    count = f"{len(asked):,} {per}s"
    if per == "event":
        count += f" of {len(set(asked.users.tolist())):,} users"
    assert found.protocol["queries"] == count
    assert found.asked == f"{per}s"


@pytest.mark.parametrize("filter_seen", [True, False])
def test_a_ranking_of_some_items_is_the_whole_ranking_without_the_others(
    world: RetailWorld, cold_data: Dataset, filter_seen: bool
) -> None:
    queries = queries_of(cold_data, filter_seen)
    torch.manual_seed(0)
    items, vectors = torch.randn(cold_data.num_items, 6), torch.randn(len(queries), 6)
    config = SETTINGS.model_copy(update={"filter_seen": filter_seen})
    rankers: dict[str, Ranker] = baseline_rankers(cold_data, config)[0]
    rankers["vectors"] = vector_ranker(items, vectors, filter_seen=filter_seen)
    rankers |= best_reachable(world)(cold_data, queries, filter_seen=filter_seen)
    most_seen = np.bincount(queries.seen.values.numpy(), minlength=cold_data.num_items).argmax()
    for among in (np.flatnonzero(cold_data.cold), np.unique([0, 7, most_seen, 119])):
        for name, rank in rankers.items():
            whole = rank(queries, cold_data.num_items)
            some = rank(queries, 130, among=among)
            assert some.dtype == np.int32
            assert some.shape == (len(queries), 130)
            for all_items, own in zip(whole.tolist(), some.tolist(), strict=True):
                left = [item for item in all_items if item in set(among.tolist())]
                assert own == left + [-1] * (130 - len(left)), name


def test_cold_items_are_found_in_the_whole_catalogue_and_among_themselves(
    cold_data: Dataset,
) -> None:
    queries = queries_of(cold_data)
    rankers = baseline_rankers(cold_data, SETTINGS)[0]
    found = evaluate(cold_data, queries, rankers, SETTINGS, protocol={}, seed=0)
    cold = set(np.flatnonzero(cold_data.cold).tolist())
    wanted = [cold & set(row) for row in rows_of(queries.relevant)]
    asked = [query for query, row in enumerate(wanted) if row]
    assert 0 < len(asked) < len(queries)
    assert found.cold is not None
    assert (found.cold.items, found.cold.queries) == (len(cold), len(asked))
    assert not found.cold.trained
    for name, rank in rankers.items():
        result = found.results[name]
        lists = {"cold": result.top, "cold_alone": rank(queries, 20, among=np.array(sorted(cold)))}
        for place, tops in lists.items():
            for k in (5, 20):
                recalls = [
                    len(wanted[query] & set(tops[query, :k].tolist())) / len(wanted[query])
                    for query in asked
                ]
                metric = f"{place}_recall_at_{k}"
                assert result.metrics[metric] == pytest.approx(np.mean(recalls))
                assert np.isnan(result.per_query[metric]).sum() == len(queries) - len(asked)
                low, high = result.intervals[metric]
                assert low <= result.metrics[metric] <= high
        # What was there before stays what it was.
        assert result.metrics["recall_at_20"] == result.per_query["recall_at_20"].mean()
    alone = {name: found.results[name].metrics["cold_alone_recall_at_5"] for name in rankers}
    assert alone["attributes"] > alone["popularity"]


def test_the_table_shows_what_finds_cold_items(
    cold_data: Dataset, dataset: Dataset, capsys: pytest.CaptureFixture[str]
) -> None:
    for data, cold in ((cold_data, True), (dataset, False)):
        queries, rankers = queries_of(data), baseline_rankers(data, SETTINGS)[0]
        found = evaluate(data, queries, rankers, SETTINGS, protocol={"split": "s"}, seed=0)
        evaluation_table(found)
        shown = capsys.readouterr().out
        lines = [line for line in shown.splitlines() if "attributes" in line]
        assert len(lines) == 1 + cold
        if not cold:
            assert "cold" not in shown
            continue
        assert found.cold is not None
        count, k = int(data.cold.sum()), found.cold_k(20)
        assert k == 20 < count
        text = f"of the {count:,} cold items, which {found.cold.queries:,} users interacted with"
        assert f"recall_at_20 {text}" in " ".join(shown.split())
        metrics = found.results["attributes"].metrics
        cells = [cell.strip() for cell in lines[1].strip(" │").split("│")]
        assert [cells[0], *(cell.split()[0] for cell in cells[1:])] == [
            "attributes",
            *(f"{metrics[f'{place}_recall_at_20']:.4f}" for place in ("cold", "cold_alone")),
        ]
        few = replace(found, cold=replace(found.cold, items=20))
        assert few.cold_k(20) == 5  # the first 20 would hold all of them
        assert replace(found, cold=replace(found.cold, items=3)).cold_k(20) == 5


def test_cold_items_that_nobody_took_and_those_with_training_rows(
    dataset: Dataset,
) -> None:
    queries = queries_of(dataset)
    rankers = baseline_rankers(dataset, SETTINGS)[0]
    untaken = np.ones(dataset.num_items, bool)
    untaken[queries.relevant.values.numpy()] = False
    found = evaluate(
        replace(dataset, cold=untaken), queries, rankers, SETTINGS, protocol={}, seed=0
    )
    assert found.cold is None
    assert not [m for m in found.results["popularity"].metrics if m.startswith("cold")]
    some = np.zeros(dataset.num_items, bool)
    some[queries.relevant.values[:3].numpy()] = True
    data = replace(dataset, cold=some)
    found = evaluate(data, queries, rankers, SETTINGS, protocol={}, seed=0)
    assert found.cold is not None
    assert found.cold.trained
