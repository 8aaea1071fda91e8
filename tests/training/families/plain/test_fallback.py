"""What baselines recommend to those they know nothing of, by hand."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from recsys.data.batch import FeatureBlock, Jagged
from recsys.features.dataset.dataset import Dataset
from recsys.features.dataset.queries import Queries, build_queries
from recsys.features.dataset.split import TEST
from recsys.plain.answering import PlainModel, PopularFirst
from recsys.plain.graph import GraphFilter
from recsys.plain.interactions import Baseline
from recsys.plain.linear import Ease
from recsys.plain.markov import MarkovChain
from recsys.plain.neighbours import ItemKNN
from recsys.plain.session_knn import SessionKNN
from recsys.training.config.retrieval import RetrievalEvaluationConfig
from recsys.training.evaluation.evaluate import evaluate
from recsys.training.families.plain.choose import baseline_rankers
from recsys.training.families.plain.fallback import Answering, PlainRanker
from recsys.training.reports.evaluation_table import evaluation_table

USER, ITEM, TIME = np.array(
    [(0, 0, 1), (0, 1, 2), (1, 0, 2), (1, 1, 3), (2, 3, 9), (3, 3, 10), (3, 2, 10), (4, 1, 4)]
).T
# Users an item: 2, 3, 1, 2 and 0; of those from time 8 on: 0, 0, 1, 2 and 0.
RECENT, EVER = [3, 2, 1, 0, 4], [1, 0, 3, 2, 4]
HISTORIES: list[list[int]] = [[], [4], [0], [2, 3]]
"""Nothing; an item without a row; one taken together with 1; two taken with each other alone."""
FITTED: dict[str, Callable[[], Baseline]] = {
    "item_knn": partial(ItemKNN.fit, USER, ITEM, 5),
    "ease": partial(Ease.fit, USER, ITEM, 5),
    "gf_cf": partial(GraphFilter.fit, USER, ITEM, 5, rank=2),
    "markov": partial(MarkovChain.fit, USER, ITEM, 5),
    "v_sknn": partial(SessionKNN.fit, USER, ITEM, 5, time=TIME),
}


def popular(time: np.ndarray | None = TIME) -> PopularFirst:
    return PopularFirst.of(USER, ITEM, 5, time=time, window=2)


def asked(histories: list[list[int]]) -> Queries:
    rows = Jagged.of_lengths(
        np.array([item for one in histories for item in one], np.int64),
        np.array([len(one) for one in histories]),
    )
    block = FeatureBlock(
        torch.zeros(len(rows), 0, dtype=torch.int64), (), torch.zeros(len(rows), 0)
    )
    return Queries(np.arange(len(rows)), block, rows, rows, rows)


def ranker(
    name: str, *, filter_seen: bool, breaks_ties: bool = False, by: PopularFirst | None = None
) -> PlainRanker:
    model = PlainModel(FITTED[name](), by or popular(), breaks_ties=breaks_ties)
    return PlainRanker(model, Answering(filter_seen=filter_seen))


def test_recent_popularity_comes_before_that_of_all_time() -> None:
    assert (popular().words, popular().order.tolist()) == ("recent popularity", RECENT)
    assert (popular(None).words, popular(None).order.tolist()) == ("popularity", EVER)


def test_item_knn_ends_in_popularity_and_says_where_that_is_all() -> None:
    queries = asked(HISTORIES)
    rank = ranker("item_knn", filter_seen=True)
    assert rank.fell_back(queries).tolist() == [True, True, False, True]
    assert rank(queries, 5).tolist() == [
        [3, 2, 1, 0, 4],
        [3, 2, 1, 0, -1],
        [1, 3, 2, 4, -1],  # only 1 has takers in common with 0
        [1, 0, 4, -1, -1],  # what speaks for 2 and 3 is hidden
    ]
    assert rank.fell_back(queries).tolist() == [True, True, False, True]
    assert rank(queries, 2, among=np.array([0, 2, 4])).tolist() == [[2, 0], [2, 0], [2, 4], [0, 4]]
    kept = ranker("item_knn", filter_seen=False)
    assert kept(queries, 5).tolist() == [RECENT, RECENT, [1, 3, 2, 0, 4], RECENT]
    assert kept.fell_back(queries).tolist() == [True, True, False, False]
    timeless = ranker("item_knn", filter_seen=False, by=popular(None))
    assert timeless(queries, 5)[:3].tolist() == [EVER, EVER, [1, 0, 3, 2, 4]]


@pytest.mark.parametrize("name", ["ease", "gf_cf", "ials"])
def test_factors_and_weights_fall_back_where_no_item_was_trained(name: str) -> None:
    if name == "ials":
        pytest.importorskip("implicit")
        from recsys.plain.factorised import ImplicitAls

        fitted: Baseline = ImplicitAls.fit(USER, ITEM, 5, factors=2)
    else:
        fitted = FITTED[name]()
    queries = asked(HISTORIES)
    rank = PlainRanker(PlainModel(fitted, popular()), Answering(filter_seen=False))
    assert rank(queries, 5)[:2].tolist() == [RECENT, RECENT]
    assert rank.fell_back(queries).tolist() == [True, True, False, False]
    scores = fitted.score(queries.seen.values.numpy(), queries.seen.offsets.numpy())
    for row in (2, 3):
        ranked = sorted(range(5), key=lambda item: (-scores[row][item], RECENT.index(item)))
        assert rank(queries, 5)[row].tolist() == ranked


@pytest.mark.parametrize("name", ["markov", "v_sknn"])
def test_what_breaks_ties_itself_changes_for_those_it_knows_nothing_of_alone(name: str) -> None:
    queries = asked(HISTORIES)
    rank = ranker(name, filter_seen=False, breaks_ties=True)
    history = queries.seen
    own = FITTED[name]().score(history.values.numpy(), history.offsets.numpy())
    as_before = np.argsort(-own, axis=1, kind="stable")
    assert as_before[0].tolist() == EVER
    assert rank(queries, 5).tolist() == [RECENT, RECENT, *as_before[2:].tolist()]
    assert rank.fell_back(queries).tolist() == [True, True, False, False]


def test_it_is_asked_again_for_other_queries() -> None:
    rank = ranker("item_knn", filter_seen=True)
    rank(asked(HISTORIES), 5)
    assert rank.fell_back(asked([[0], []])).tolist() == [False, True]


def test_the_world_has_users_without_a_history_and_the_table_counts_them(
    dataset: Dataset, capsys: pytest.CaptureFixture[str]
) -> None:
    queries = build_queries(dataset, TEST, history_length=5, filter_seen=True, limit=10_000, seed=0)
    config = RetrievalEvaluationConfig(
        baselines=("popularity", "popularity_recent", "attributes", "ease"), ks=(20,)
    )
    rankers, _ = baseline_rankers(dataset, config)
    counts = {name: int(rank.fell_back(queries).sum()) for name, rank in rankers.items()}
    known = [
        any(dataset.train_counts[item] for item in one)
        for one in np.split(queries.seen.values.numpy(), queries.seen.offsets.numpy()[1:-1])
    ]
    unknown = len(known) - sum(known)
    assert unknown > 0
    assert counts == {"popularity": 0, "popularity_recent": 0, "attributes": 0, "ease": unknown}
    first = int(np.flatnonzero(~np.array(known))[0])
    alike = (rankers["popularity_recent"](queries, 3)[first], rankers["ease"](queries, 3)[first])
    assert alike[0].tolist() == alike[1].tolist()
    found = evaluate(dataset, queries, dict(rankers), config, protocol={"split": "s"}, seed=0)
    fell_back = {"ease": unknown, "item_knn": unknown, "ials": 1}
    evaluation_table(replace(found, fell_back=fell_back, fallback="recent popularity"))
    said = (
        f"used recent popularity, without a known history: ease, item_knn for {unknown}"
        f" of {len(queries)} users; ials for 1 of {len(queries)} users"
    )
    assert said in " ".join(capsys.readouterr().out.split())
