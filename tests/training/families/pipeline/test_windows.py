"""A pipeline whose ranker has windows: learnt as of each request, evaluated, scored, refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from click.testing import CliRunner

import recsys
from recsys.app.cli import main
from recsys.bundle.directory import Bundle
from recsys.core.errors import ConfigError
from recsys.features.bundle.files import read_request_probe
from recsys.features.bundle.lists import ListModel
from recsys.features.dataset.split import TEST
from recsys.features.pipeline.row_ranker import NOTHING, RowRanker
from recsys.features.pipeline.searching import PipelineSearch
from recsys.features.pipeline.windows import CandidateWindows
from recsys.features.relations.asking import AskedRelations
from recsys.features.requests.ranked import RankedRequests
from recsys.serving.answering.lists import request_columns
from recsys.training.families.load import parse_config
from recsys.training.families.loading import load_data
from recsys.training.families.pipeline.asking import Asking
from recsys.training.jobs.runs import TrainResult
from recsys.training.jobs.train import train

USERS, ITEMS, START = 240, 24, 1_700_000_000
WINDOWS: list[dict[str, Any]] = [
    {"name": "ordered", "kind": "window", "of": "orders", "by": "pair", "window": "1h"},
    {"name": "orders_ever", "kind": "window", "of": "orders", "by": "user"},
    {"name": "takings", "kind": "window", "of": "interactions", "by": "item", "window": "30d"},
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a log whose every row is of an item that its user ordered in the hour before.

    And, as a trap, once more just afterwards, with two items that they do not take.
    """
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("windows")
    rng = np.random.default_rng(0)
    log, orders = [], []
    for user in range(USERS):
        for step, item in enumerate(rng.permutation(ITEMS)[:5].tolist()):
            at = START + 100_000 * step + 60 * user
            log.append((f"u{user:03}", f"i{item:02}", at))
            orders.append((f"u{user:03}", f"i{item:02}", at - 600))
            orders += [(f"u{user:03}", f"i{one:02}", at) for one in rng.integers(ITEMS, size=2)]
    names = ["user", "item", "at"]
    pd.DataFrame(log, columns=names).to_parquet(folder / "log.parquet")
    pd.DataFrame(orders, columns=names).to_parquet(folder / "orders.parquet")
    return folder


def config_of(folder: Path, rank: Any, windows: Any = WINDOWS, **sections: Any) -> Any:
    time = {"column": "at", "unit": "s"}
    features: list[Any] = [{"name": "item", "table": "items", "kind": "categorical"}]
    raw = {
        "data": {
            "interactions": str(folder / "log.parquet"),
            "others": {"orders": str(folder / "orders.parquet")},
        },
        "schema": {
            "interactions": {"user": "user", "item": "item", "time": time},
            "relations": {"orders": {"keys": {"user": "users", "item": "items"}, "time": time}},
            "features": features + windows,
        },
        "split": {"kind": "leave_one_out"},
        "model": {
            "kind": "pipeline",
            "sources": [{"model": {"kind": "popularity"}, "take": ITEMS}],
            "rank": rank,
        },
        "evaluation": {"ks": [5], "baselines": [], "bootstrap_samples": 20},
        "training": {"metric": "ndcg_at_5"},
        "tracking": {"enabled": False},
        "output": str(folder / "runs"),
        **sections,
    }
    return parse_config(raw, source="pipeline")


RANKER = {
    "kind": "ranker",
    "model": {"kind": "mlp", "hidden": [16]},
    "training": {
        "epochs": 10, "patience": 10, "batch_size": 128, "negative_rate": 1.0,
        "learning_rate": 0.01, "precision": "float32",
    },
    "embedding": {"num_rows": 256, "dim": 4, "learning_rate": 0.02},
}  # fmt: skip


@pytest.fixture(scope="module")
def result(folder: Path) -> TrainResult:
    found = train(config_of(folder, RANKER))
    assert found is not None
    return found


def test_a_pair_is_found_that_no_source_knows(result: TrainResult) -> None:
    evaluation: Any = result.evaluation
    own = {name: one.metrics["ndcg_at_5"] for name, one in evaluation.results.items()}
    assert own["fused"] < 0.4
    assert own["pipeline"] > 0.9
    assert recsys.evaluate(result.bundle).to_frame().equals(evaluation.to_frame())


def test_candidates_do_not_see_what_comes_after_their_request(folder: Path) -> None:
    config = config_of(folder, RANKER)
    data = load_data(config)
    asking = Asking.before(config, data, TEST)
    users = pd.Series(asking.time, data.tables.users.column("user").to_pylist())
    events = pd.read_parquet(folder / "log.parquet")
    last = events.groupby("user")["at"].max() * 1_000_000
    assert (users == last.loc[users.index]).all()
    orders = pd.read_parquet(folder / "orders.parquet")
    whole = windows_of(config, data, asking)
    assert (whole["ordered"] == 1).sum() == USERS  # the item itself, and no trap
    for name, rows in (("orders", orders), ("log", events)):
        kept = rows[rows["at"] * 1_000_000 < rows["user"].map(users)]
        assert len(kept) < len(rows)
        (folder / "cut").mkdir(exist_ok=True)
        kept.to_parquet(folder / "cut" / f"{name}.parquet")
    alone = config.data.model_copy(
        update={"others": {"orders": str(folder / "cut/orders.parquet")}}
    )
    pd.testing.assert_frame_equal(
        windows_of(config.model_copy(update={"data": alone}), data, asking), whole
    )


def windows_of(config: Any, data: Any, asking: Asking) -> pd.DataFrame:
    """Return the windows of all pairs of a user and an item at the users' test requests."""
    relations = AskedRelations.read(config.schema_, config.data, config.policies)
    ids = {side: getattr(data.tables, f"{side}s").column(side) for side in ("item", "user")}
    features = config.schema_.relation_features
    windows = CandidateWindows(features, ids["item"].combine_chunks(), relations)
    owner = np.repeat(np.arange(data.num_users), data.num_items)
    rows = np.tile(np.arange(data.num_items), data.num_users)
    asked = RankedRequests(NOTHING, ids["user"].combine_chunks(), asking.time)
    found = windows.of(owner, rows, asked)
    return pd.DataFrame(found, columns=[one.name for one in features])


def test_users_of_a_log_are_scored_with_the_relations_of_today(
    result: TrainResult, folder: Path, tmp_path: Path
) -> None:
    """After an order in the last hour the item is the first of the list."""
    log = pd.read_parquet(folder / "log.parquet")
    log = log[log["at"] < START + 400_000]  # without the last rows
    newest = int(log["at"].max())
    wanted = {f"u{user:03}": f"i{user % ITEMS:02}" for user in range(0, USERS, 10)}
    orders = [(user, item, newest - 5) for user, item in wanted.items()]
    pd.DataFrame(orders, columns=["user", "item", "at"]).to_parquet(tmp_path / "now.parquet")
    log.to_parquet(tmp_path / "log.parquet")
    command = ["score", str(result.bundle), "--interactions", str(tmp_path / "log.parquet")]
    command += ["--output", str(tmp_path / "out"), "--k", "5", "--keep-seen"]
    done = CliRunner().invoke(main, command)
    assert done.exit_code
    assert "reads ordered, orders_ever of it, and 'orders' is not given" in done.output
    done = CliRunner().invoke(main, [*command, "--other", f"orders={tmp_path / 'now.parquet'}"])
    assert done.exit_code == 0, done.output
    found = {row["user"]: row["items"] for row in pq.read_table(tmp_path / "out").to_pylist()}
    assert [found[user][0] for user in wanted] == list(wanted.values())
    model = recsys.load(result.bundle)
    listed = model.recommend(history=log, k=5, filter_seen=False)
    assert set(listed["user"]) == set(found)  # with the orders of the training


def test_a_final_pipeline_keeps_them(result: TrainResult, folder: Path) -> None:
    """Its probe brings windows by user, and its lists begin with what was ordered last."""
    final = recsys.train(final=result.bundle, quiet=True)
    probe = read_request_probe(Bundle.open(final.bundle))
    orders = pd.read_parquet(folder / "orders.parquet")
    counts = orders["user"].value_counts()
    asked = dict(zip(*(probe.column(n).to_pylist() for n in ("user", "orders_ever")), strict=True))
    assert asked == {user: counts[user] for user in asked}
    newest = orders["at"].max()
    late = orders[orders["at"] > newest - 1800]
    lists = recsys.load(final.bundle).recommend(k=8, filter_seen=False)
    listed = set(zip(lists["user"], lists["item"], strict=True))
    assert all(pair in listed for pair in zip(late["user"], late["item"], strict=True))


def test_what_requests_cannot_bring_is_refused(result: TrainResult) -> None:
    model = recsys.load(result.bundle)
    requests = pa.table({"user": ["u000"], "history": [["i01"]], "orders_ever": [3.0]})
    with pytest.raises(ConfigError, match=r"reads 'ordered' of 'orders' for each candidate, which"):
        model.recommend(requests=requests)


def test_windows_of_users_come_with_requests(result: TrainResult, folder: Path) -> None:
    """Their numbers count where they are given; those of candidates are computed all the same."""
    columns = request_columns(Bundle.open(result.bundle)).names
    assert "orders_ever" in columns
    assert not {"ordered", "takings", "asked_at"} & set(columns)
    search = ListModel.open(result.bundle).found_by
    assert isinstance(search, PipelineSearch)
    ranker = search.joined.ranker
    assert isinstance(ranker, RowRanker)
    now = START * 1_000_000
    requests = pa.table(
        {"user": ["u000", "u001"], "orders_ever": [3.0, None], "asked_at": [now] * 2}
    )
    users, rows, owner = ranker.users(requests), np.array([0, 1]), np.array([0, 1])
    alone = ranker.windows.of(owner, rows, users)
    np.testing.assert_array_equal(alone, [[np.nan, 3, np.nan], [np.nan, np.nan, np.nan]])
    config = config_of(folder, RANKER)
    relations = AskedRelations.read(config.schema_, config.data, config.policies)
    with_them = ranker.with_relations(relations).windows.of(owner, rows, users)
    orders = pd.read_parquet(folder / "orders.parquet")
    early = orders[orders["at"] < START]
    mine = [((early["user"] == f"u00{n}") & (early["item"] == f"i0{n}")).sum() for n in (0, 1)]
    assert with_them[:, 0].tolist() == mine
    np.testing.assert_array_equal(with_them[:, 1], [3, np.nan])


def test_an_explanation_says_what_they_add(result: TrainResult, folder: Path) -> None:
    """Just after the newest row the last order of its user is one of the hour before."""
    log = pd.read_parquet(folder / "log.parquet")
    user = str(log["user"].iloc[log["at"].argmax()])
    orders = pd.read_parquet(folder / "orders.parquet")
    mine = orders[orders["user"] == user].sort_values("at")["item"].tolist()
    new = [f"i{item:02}" for item in range(ITEMS)]
    new = [one for one in new if one not in set(log.loc[log["user"] == user, "item"])]
    recent = [one for one in mine[-2:] if one in new]
    never = next(one for one in new if one not in mine)
    words = "the rows of other tables before the request"
    model = recsys.load(result.bundle)
    adds = {}
    for item in (*recent, never):
        found = model.explain(user=user, item=item)
        (adds[item],) = [one.adds for one in found.because if one.title == words]
    assert recent
    assert all(adds[item] > adds[never] for item in recent)


@pytest.mark.parametrize("rank", ["none", "gbdt"])
def test_a_window_that_nothing_reads_is_refused(folder: Path, rank: str) -> None:
    with pytest.raises(ConfigError, match="'ordered': kind: window is read by a ranker of the"):
        config_of(folder, rank)
