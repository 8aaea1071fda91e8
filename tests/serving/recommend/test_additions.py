"""Items of today that the catalogue lacks are recommended by what is known of them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

import recsys
from recsys.core.errors import DataError
from recsys.features.dataset.dataset import Dataset
from recsys.features.requests.table import request_table
from recsys.retrieval.index.exact import ExactVectors
from recsys.retrieval.index.faiss_hnsw import Faiss
from recsys.retrieval.index.graph import GraphBackend
from recsys.retrieval.memory import MemoryConfig, PairMemory
from recsys.serving.engines.audience import read_new_items
from recsys.serving.recommend.additions import with_new_items
from recsys.serving.recommend.filters import FilterOptions, Filters
from recsys.serving.recommend.scorer import Scorer
from recsys.training.config.experiment import ExperimentConfig


@pytest.fixture(scope="module")
def scorer(trained: Path) -> Scorer:
    return Scorer.open(trained, k=10)


@pytest.fixture(scope="module")
def requests(dataset: Dataset) -> pa.Table:
    """60 users of the small world with the whole log as history."""
    users = np.arange(60)
    return request_table(dataset.schema, dataset.tables, dataset.histories((0, 1, 2)), users)


@pytest.fixture(scope="module")
def items(config: ExperimentConfig) -> pd.DataFrame:
    """The items of the world and, in the middle, copies of four of them under new ids."""
    assert config.data.items is not None
    frame = pd.read_parquet(config.data.items)
    more = frame.iloc[[3, 40, 80, 100]].assign(item_id=["a-new", "i99999", "z-new", "zz"])
    return pd.concat([frame.iloc[:50], more, frame.iloc[50:]]).assign(in_stock=True)


def test_lists_are_those_of_a_catalogue_with_the_new_items(
    scorer: Scorer, requests: pa.Table, items: pd.DataFrame, tmp_path: Path
) -> None:
    path = tmp_path / "today.parquet"
    items.to_parquet(path)
    whole = with_new_items(scorer, str(path))
    assert whole.item_ids.to_pylist()[-4:] == ["a-new", "i99999", "z-new", "zz"]
    assert whole.is_new[-4:].all()
    alone = items[~items.item_id.isin(scorer.item_ids.to_pylist())]
    alone.to_parquet(tmp_path / "new.parquet")
    vectors = read_new_items(scorer, {"items": str(tmp_path / "new.parquet")}).vectors
    torch.testing.assert_close(whole.vectors, torch.cat([scorer.vectors, vectors]))
    encoded = whole.encode(requests)
    with torch.no_grad():
        queries = whole.model.encode_queries(encoded.block, whole.vectors, encoded.history)
    scores = queries @ torch.cat([scorer.vectors, vectors]).T
    scores[encoded.seen.owners(), encoded.seen.values] = -torch.inf
    ids = whole.item_ids.to_pylist()
    best = scores.sort(descending=True, stable=True, dim=1).indices[:, :10]
    wanted = [[ids[row] for row in line] for line in best.tolist()]
    found = whole.score(requests).column("items").to_pylist()
    assert found == wanted
    assert {item for line in found for item in line} & {"a-new", "i99999", "z-new", "zz"}


def test_without_the_new_items_lists_are_what_they_were(
    scorer: Scorer, requests: pa.Table, items: pd.DataFrame, tmp_path: Path
) -> None:
    """Of a model with a memory of pairs, over a graph."""
    path, count = tmp_path / "today.parquet", len(scorer.item_ids)
    items.to_parquet(path)
    rows = np.arange(600) % count
    memory = PairMemory.of(np.arange(600) // 6, rows, count, MemoryConfig(), gain=0.5)
    graph = GraphBackend(Faiss()).index_of(scorer.vectors, "sphere")
    search = replace(scorer.by_vectors, memory=memory, index=graph)
    remembers = replace(scorer, found_by=search)
    plain = remembers.score(requests)
    assert plain.column("items") != scorer.score(requests).column("items")
    whole = with_new_items(remembers, str(path))
    new = whole.item_ids.to_pylist()[count:]
    found = whole.score(requests, filters=Filters.of(whole, FilterOptions(exclude=new)))
    assert found.column("items") == plain.column("items")
    lent = whole.memory
    assert lent is not None
    assert np.array_equal(lent.shares.toarray()[:count, :count], memory.shares.toarray())
    assert (lent.shares.toarray()[:, count:].sum(0) > 0).all()


def test_a_job_and_a_call_recommend_new_items(
    trained: Path,
    config: ExperimentConfig,
    items: pd.DataFrame,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    tables = {"history": config.data.interactions, "users": config.data.users}
    how = {"items": items, "where": "in_stock", "allow": ["a-new", "z-new", "i00001"], "k": 3}
    facts = recsys.score(trained, tmp_path / "out", **tables, **how, filter_seen=False)
    assert (facts["new_items"], facts["new_items_left_out"], facts["passing_items"]) == (4, 0, 3)
    lists = pq.read_table(tmp_path / "out").column("items").to_pylist()
    assert all(sorted(one) == ["a-new", "i00001", "z-new"] for one in lists)
    frame = recsys.load(trained).recommend(["u000001"], **how, filter_seen=False)
    assert sorted(frame["item_id"]) == ["a-new", "i00001", "z-new"]
    assert (
        "4 items of the table of items are not in the catalogue and are recommended" in caplog.text
    )
    few = items[["item_id", "in_stock"]]
    facts = recsys.score(trained, tmp_path / "few", **tables, **{**how, "items": few})
    assert (facts["new_items"], facts["new_items_left_out"]) == (0, 4)
    assert facts["first_new_item_left_out"] == "a-new"


def test_a_wrong_feature_of_an_item_is_refused(
    scorer: Scorer, items: pd.DataFrame, tmp_path: Path
) -> None:
    path = tmp_path / "today.parquet"
    items.assign(price="dear").to_parquet(path)
    with pytest.raises(DataError, match="column 'price': text where a number is expected"):
        with_new_items(scorer, str(path))


def test_without_new_items_the_scorer_is_the_same(
    scorer: Scorer, items: pd.DataFrame, tmp_path: Path
) -> None:
    path = tmp_path / "today.parquet"
    items[items.item_id.isin(scorer.item_ids.to_pylist())].to_parquet(path)
    assert with_new_items(scorer, str(path)) is scorer
    assert isinstance(scorer.index, ExactVectors)
