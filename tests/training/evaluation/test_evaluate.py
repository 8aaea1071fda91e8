"""Evaluation against loops over users: the right rows, the right filter, the right means."""

from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from recsys.features.dataset.dataset import Dataset
from recsys.features.dataset.queries import Queries, build_queries
from recsys.features.dataset.split import TEST, TRAIN, VALIDATION
from recsys.features.world.world import RetailWorld
from recsys.metrics.representation import alignment
from recsys.training.config.experiment import ExperimentConfig
from recsys.training.config.retrieval import RetrievalEvaluationConfig
from recsys.training.evaluation.evaluate import evaluate
from recsys.training.evaluation.oracle import best_reachable
from recsys.training.evaluation.slices import item_slices
from recsys.training.families.plain.choose import BASELINES, baseline_rankers
from recsys.training.families.two_tower import reading
from recsys.training.jobs import train as job
from recsys.training.reports.showcase import examples, item_titles

SETTINGS = RetrievalEvaluationConfig(
    ks=(5, 20), bootstrap_samples=10, baselines=("popularity", "item_knn")
)


@pytest.fixture(scope="module")
def queries(dataset: Dataset) -> Queries:
    return build_queries(dataset, TEST, history_length=5, filter_seen=True, limit=10_000, seed=0)


def row(jagged: object, number: int) -> list[int]:
    return jagged.values[jagged.offsets[number] : jagged.offsets[number + 1]].tolist()  # type: ignore[attr-defined]


def test_head_torso_and_tail_hold_a_third_of_the_rows_each() -> None:
    counts = np.array([0, 4, 2, 2, 1, 3, 0])  # 12 rows; by popularity: 1, 5, 2, 3, 4
    found = {
        name: np.flatnonzero(members).tolist() for name, members in item_slices(counts).items()
    }
    expected = {"head": [1], "torso": [2, 5], "tail": [3, 4], "cold": [0, 6]}
    assert found == {f"items: {name}": rows for name, rows in expected.items()}


@pytest.mark.parametrize("filter_seen", [True, False])
def test_baselines_know_training_rows_alone_and_filter_as_asked(
    dataset: Dataset, queries: Queries, filter_seen: bool
) -> None:
    config = SETTINGS.model_copy(update={"filter_seen": filter_seen})
    top = baseline_rankers(dataset, config)[0]["popularity"](queries, 20)
    events = dataset.tables.events
    rows = np.flatnonzero(dataset.part == TRAIN)
    takers = defaultdict(set)
    for user, item in zip(events.user_row[rows], events.item_row[rows], strict=True):
        takers[int(item)].add(int(user))
    ranked = sorted(range(dataset.num_items), key=lambda item: (-len(takers[item]), item))
    for query in range(len(queries)):
        hidden = set(row(queries.seen, query)) if filter_seen else set()
        assert top[query].tolist() == [item for item in ranked if item not in hidden][:20]


def test_slices_are_means_over_the_queries_they_name(dataset: Dataset, queries: Queries) -> None:
    rankers = baseline_rankers(dataset, SETTINGS)[0]
    found = evaluate(dataset, queries, rankers, SETTINGS, protocol={}, seed=0)
    members, counts = item_slices(dataset.train_counts), dataset.train_counts
    by_count = {"1-9": (1, 9), "10-99": (10, 99), "100-999": (100, 999), "1,000+": (1000, 10**9)}
    for words, (low, high) in by_count.items():
        members[f"item counts: {words} rows"] = (counts >= low) & (counts <= high)
    result = found.results["item_knn"]
    recalls = defaultdict(list)
    for query in range(len(queries)):
        top, relevant = set(result.top[query].tolist()), row(queries.relevant, query)
        for name, inside in members.items():
            wanted = [item for item in relevant if inside[item]]
            if wanted:
                recalls[name].append(len(top.intersection(wanted)) / len(wanted))
        seen = len(row(queries.seen, query))  # all events before, not the few the model sees
        bounds = {"0": (0, 0), "1-4": (1, 4), "5-19": (5, 19), "20+": (20, 10**9)}
        for words, (low, high) in bounds.items():
            if low <= seen <= high:
                recalls[f"users: {words} events"].append(len(top & set(relevant)) / len(relevant))
    assert set(result.slices) == set(recalls)
    assert {"items: head", "items: tail", "users: 20+ events"} <= set(recalls)
    assert "item counts: 10-99 rows" in set(recalls)
    assert found.cold is None
    assert found.protocol["queries"] == f"{len(queries):,} users"
    for name, values in recalls.items():
        assert result.slices[name]["queries"] == len(values)
        assert result.slices[name]["recall_at_20"] == pytest.approx(np.mean(values))
    low, high = result.intervals["recall_at_20"]
    assert low < result.metrics["recall_at_20"] < high
    assert found.train_counts.sum() == (dataset.part == TRAIN).sum()


def test_alignment_pairs_each_query_with_an_item_it_took(
    dataset: Dataset, queries: Queries
) -> None:
    torch.manual_seed(0)
    items = torch.nn.functional.normalize(torch.randn(dataset.num_items, 8), dim=1)
    asked = items[queries.relevant.values[queries.relevant.offsets[:-1]]]
    found = evaluate(
        dataset, queries, baseline_rankers(dataset, SETTINGS)[0], SETTINGS, protocol={}, seed=0,
        item_vectors=items, query_vectors=asked, temperature=0.25,
    )  # fmt: skip
    assert found.representation["alignment"] == pytest.approx(float(alignment(asked, asked)))
    assert found.representation["alignment"] == pytest.approx(0, abs=1e-6)
    assert found.representation["temperature"] == 0.25


@pytest.mark.parametrize("filter_seen", [True, False])
def test_the_best_reachable_ranking_is_of_the_test_period(
    world: RetailWorld, dataset: Dataset, queries: Queries, filter_seen: bool
) -> None:
    ranker = best_reachable(world)(dataset, queries, filter_seen=filter_seen)["best_reachable"]
    top = ranker(queries, 10)
    seconds = dataset.tables.events.time[dataset.part == TEST] // 1_000_000
    # In this world ids ascend with rows, so rows of the data set are rows of the world.
    assert dataset.num_items == world.items.num_rows
    truth = world.best_reachable(queries.users, int(seconds.min()), int(seconds.max()))
    for query in range(len(queries)):
        scores = truth[query].astype(np.float32)
        if filter_seen:
            scores[row(queries.seen, query)] = -np.inf
        assert top[query].tolist() == np.argsort(-scores, kind="stable")[:10].tolist()


NO_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=NO_GPU)])
def test_training_stops_on_validation_queries_and_is_evaluated_on_test_queries(
    config: ExperimentConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str
) -> None:
    parts = []

    def spy(data: Dataset, part: int, **rest: object) -> Queries:
        parts.append(part)
        return build_queries(data, part, **rest)  # type: ignore[arg-type]

    monkeypatch.setattr(reading, "build_queries", spy)
    off = config.tracking.model_copy(update={"enabled": False})
    quick = config.training.model_copy(update={"epochs": 1, "device": device})
    changes = {"output": str(tmp_path), "tracking": off, "training": quick}
    done = job.train(config.model_copy(update=changes))
    assert parts == [VALIDATION, TEST]
    assert not (done.run_dir / "checkpoints").exists()
    found = done.evaluation
    assert list(found.results) == ["two_tower", *(n for n in BASELINES if n not in found.left_out)]
    assert set(found.left_out) <= {"ials"}  # an optional package
    assert 0.01 < found.representation["temperature"] < 1


def test_examples_show_the_newest_events_and_mark_hits(dataset: Dataset, queries: Queries) -> None:
    rankers = {"popularity": baseline_rankers(dataset, SETTINGS)[0]["popularity"]}
    evaluation = evaluate(dataset, queries, rankers, SETTINGS, protocol={}, seed=0)
    titles = item_titles(dataset)
    asked = replace(queries, history=queries.seen)  # longer than what is shown
    ids = dataset.tables.users.column("user_id").to_pylist()
    number = {ids[user]: query for query, user in enumerate(queries.users)}
    shown = examples(dataset, asked, evaluation)
    assert max(len(row(queries.seen, number[one.user])) for one in shown) > 10
    for one in shown:
        query = number[one.user]
        assert list(one.history) == [titles[item] for item in row(queries.seen, query)[-10:]]
        relevant = set(row(queries.relevant, query))
        top = evaluation.results["popularity"].top[query][:10].tolist()
        assert [hit for _, _, hit in one.recommended] == [item in relevant for item in top]


def test_an_item_without_a_title_goes_by_its_id(dataset: Dataset) -> None:
    items = dataset.schema.items
    assert items is not None
    assert items.title is not None
    table = dataset.tables.items
    place = table.column_names.index(items.title)
    texts = table.column(items.title).to_pylist()
    nameless = table.set_column(place, items.title, pa.array([None, *texts[1:]]))
    spoilt = replace(dataset, tables=replace(dataset.tables, items=nameless))
    ids = table.column(dataset.schema.item_key).to_pylist()
    assert item_titles(spoilt)[:2] == [ids[0], texts[1]]
