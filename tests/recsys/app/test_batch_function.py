"""A model as a function of batches: the lists of the batch job, wherever it is called."""

import pickle
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

import recsys
from recsys.app import batch_function as module
from recsys.core.errors import ArgumentError, ConfigError, DataError, IntegrityError
from recsys.features.tables.sources import Sources
from recsys.serving.engines.logged import logged_users
from recsys.serving.engines.pieces import requests_of
from recsys.serving.engines.tally import Tally
from recsys.serving.recommend.scorer import Scorer


@pytest.fixture(scope="module")
def asked(messy: Path) -> pa.Table:
    """The requests of the messy log."""
    data = messy.parents[3]
    sources = Sources(interactions=str(data / "log"), users=str(data / "users.parquet"))
    found = logged_users(Scorer.open(messy), sources)
    return found.requests(np.arange(found.tables.users.num_rows))


def test_batches_are_answered_as_by_the_job(messy: Path, asked: pa.Table, tmp_path: Path) -> None:
    """Sent to another process and called there, with the tables that it was given."""
    block = pd.DataFrame({"user": ["U1", "u2"], "item": ["i01", "i02"]})
    items = pd.DataFrame({"item": [f"i{n:02}" for n in range(13)], "left": range(13)})
    how: dict[str, Any] = {"k": 9, "exclude": ["i03"], "block": block, "filter_seen": True}
    how |= {"where": "left > 1"}
    pq.write_table(asked, tmp_path / "asked.parquet")
    summary = recsys.score(
        messy, tmp_path / "out", requests=tmp_path / "asked.parquet", items=items, **how
    )
    expected = pq.read_table(tmp_path / "out")
    function = recsys.batch_function(messy, tables={"items": items}, **how)
    sent = pickle.loads(pickle.dumps(function))
    module._OPENED.clear()
    batches = list(sent(asked.to_batches(max_chunksize=16)))
    found = pa.Table.from_batches(batches)
    assert [len(one) for one in batches] == [16, 16, 16, 16, 6]
    assert found.drop_columns(["scores"]).equals(expected.drop_columns(["scores"]))
    assert found.schema.equals(function.schema(asked.schema))
    assert summary["short_lists"] > 0
    assert list(function([])) == []


def test_a_pipeline_needs_no_more_than_its_columns(messy: Path, tmp_path: Path) -> None:
    """The lists and counts of the job over a log, from pieces of it and the columns alone."""
    settings = yaml.safe_load((messy.parents[3] / "recsys.yaml").read_text())
    for name in ("sessions", "embedding"):
        del settings[name]
    sources = [{"model": {"kind": kind}, "take": 8} for kind in ("item_knn", "popularity")]
    settings |= {"model": {"kind": "pipeline", "sources": sources}, "output": str(tmp_path / "r")}
    settings["training"] = {"metric": "mrr_at_5"}
    settings["evaluation"] = {"ks": [5], "baselines": [], "bootstrap_samples": 5}
    bundle = recsys.train(settings).bundle
    log = messy.parents[3] / "log"
    summary = recsys.score(bundle, tmp_path / "out", history=log, k=6)
    function, tally = recsys.batch_function(bundle, k=6), Tally()
    tables = {"interactions": pq.read_table(log)}
    scorer = function.opened().scorer
    assert isinstance(scorer, Scorer)
    asked = requests_of(scorer, tables)
    asked = asked.select([name for name in function.columns() if name in asked.column_names])
    found = pa.Table.from_batches(function.answers(asked.to_batches(7), seen=tally.add))
    expected = pq.read_table(tmp_path / "out")
    for name in ("user", "items", "reason"):
        assert found.column(name).to_pylist() == expected.column(name).to_pylist()
    assert dict(tally.of_sources) == summary["sources_by_popularity"]
    assert tally.users == summary["users"] == expected.num_rows > 50


def test_a_process_opens_a_model_once(messy: Path, asked: pa.Table) -> None:
    first, again = (recsys.batch_function(messy, k=3) for _ in range(2))
    other = recsys.batch_function(messy, k=4)
    assert first.opened() is again.opened()
    assert first.opened() is not other.opened()
    table = pd.DataFrame({"item": ["i01"]})
    more = [recsys.batch_function(messy, exclude=table[:n]).key for n in (0, 1)]
    assert len({first.key, other.key, *more}) == 4
    assert len(module._OPENED) <= module._KEPT


def test_another_model_in_the_folder_is_refused(
    messy: Path, trained: Path, asked: pa.Table, tmp_path: Path
) -> None:
    function = recsys.batch_function(messy)
    module._OPENED.clear()
    with pytest.raises(IntegrityError, match="holds another model than"):
        next(function.at(trained)(asked.to_batches()))
    shutil.copytree(messy, tmp_path / messy.name)
    assert next(function.at(tmp_path / messy.name)(asked.to_batches())).num_rows == 70


def test_threads_are_set_where_the_model_is_opened(messy: Path, asked: pa.Table) -> None:
    import torch

    function = replace(recsys.batch_function(messy, threads=1), threads=2, key="two")
    try:
        next(function(asked.to_batches()))
        assert torch.get_num_threads() == 2
    finally:
        module._compute_with(1)


def test_what_does_not_fit_is_refused(messy: Path, asked: pa.Table) -> None:
    for change, error, words in (
        ({"k": 0}, ArgumentError, "'k'"),
        ({"probability": True}, ConfigError, "gives no probabilities"),
        ({"tables": {"users": "u.parquet"}}, ConfigError, "'users' is no table of a model of l"),
        ({"settings": {"policies.unknown_items": "drop"}}, ConfigError, "whatever the policy"),
    ):
        with pytest.raises(error, match=words):
            recsys.batch_function(messy, **change)
    function = recsys.batch_function(messy)
    lost = asked.set_column(0, "user", pa.array([None, *asked.column(0).to_pylist()[1:]]))
    with pytest.raises(DataError, match=r"the batches row 11.*column 'user'"):
        list(function([*asked.to_batches(max_chunksize=10)[:1], *lost.to_batches()]))
    with pytest.raises(DataError, match="column 'history'"):
        function.schema(asked.drop_columns(["history"]).schema)
