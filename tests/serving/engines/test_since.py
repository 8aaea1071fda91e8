"""Lists since an earlier job: with it they are the lists of a job of all users, and no more."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

import recsys
from recsys.app.cli import main
from recsys.core.errors import ConfigError, IntegrityError
from recsys.core.events import Event, PartDone

Score = Callable[..., dict[str, Any]]
KEYS = ["user_id", "item_id", "timestamp", "device", "session_id"]


@pytest.fixture(scope="module")
def log(world_config: Path) -> pd.DataFrame:
    return pd.read_parquet(world_config.parent / "interactions")


@pytest.fixture(scope="module")
def users(world_config: Path) -> pd.DataFrame:
    return pd.read_parquet(world_config.parent / "users.parquet")


@pytest.fixture
def score(trained: Path, users: pd.DataFrame, tmp_path: Path) -> Score:
    def run(name: str, history: pd.DataFrame, **how: Any) -> dict[str, Any]:
        how = {"users": users, "rows_per_part": 30, "k": 5, **how}
        return recsys.score(trained, tmp_path / name, history=history, **how)

    return run


def lists(folder: Path) -> dict[str, Any]:
    """Return the lists of an output by user; a user has one."""
    found = [row for file in folder.glob("part-*") for row in pq.read_table(file).to_pylist()]
    assert len({row["user_id"] for row in found}) == len(found)
    return {row["user_id"]: row for row in found}


def updated(before: dict[str, Any], delta: Path) -> dict[str, Any]:
    """Return lists after those of a job since the one that made them."""
    gone = set(pq.read_table(delta / "_users" / "gone.parquet").column("user_id").to_pylist())
    return {user: row for user, row in (before | lists(delta)).items() if user not in gone}


def assert_same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    """Compare lists; a product of matrices rounds by the users that are scored together."""
    assert found.keys() == expected.keys()
    for user, row in found.items():
        other = expected[user]
        assert row["reason"] == other["reason"]
        scores = np.array(other["scores"])
        np.testing.assert_allclose(row["scores"], scores, rtol=0, atol=1e-5)
        near = np.abs(np.subtract.outer(scores, scores)) < 1e-5
        is_tied = (near.sum(1) > 1) | (scores < scores[-1] + 1e-5)
        differ = [one != two for one, two in zip(row["items"], other["items"], strict=True)]
        assert not (np.array(differ) & ~is_tied).any()


def rows_of(log: pd.DataFrame, users: pd.DataFrame) -> dict[str, Any]:
    """Return what is known of each user, by hand."""
    known = {row["user_id"]: [row] for row in users.to_dict("records")}
    for row in log[KEYS].to_dict("records"):
        known.setdefault(row["user_id"], []).append(row)
    return known


def test_lists_updated_by_a_job_since_are_those_of_all_users(
    score: Score, log: pd.DataFrame, users: pd.DataFrame, tmp_path: Path
) -> None:
    """Three days, with new users, late rows, rows taken away, other attributes, users who go."""
    rng = np.random.default_rng(0)
    log = log.sort_values("timestamp", ignore_index=True)
    late, taken = rng.choice(3000, 20, replace=False), rng.choice(3000, 15, replace=False)
    names = users["user_id"].to_numpy()
    new, leaving = set(names[:7]), set(names[7:10])
    other = users.copy()
    other.loc[other["user_id"] == names[20], "region"] = other["region"].iloc[21]
    other.loc[other["user_id"] == names[30], "segment"] = None
    is_new, leaves = log["user_id"].isin(new), log["user_id"].isin(leaving)
    early = log.index < 3500
    first = log[early & ~log.index.isin(late) & ~is_new]
    second = log[early & ~log.index.isin(taken) & ~leaves]
    days = [
        (first, users[~users["user_id"].isin(new)]),
        (second, other[~other["user_id"].isin(leaving)]),
        (log[~log.index.isin(taken)], other),
    ]
    score("day0", days[0][0], users=days[0][1])
    so_far, previous = lists(tmp_path / "day0"), "day0"
    for number in (1, 2):
        history, known = days[number]
        # The order of rows in the files is of no importance, nor are other parts.
        shuffled = history.sample(frac=1, random_state=number)
        found = score(
            f"delta{number}", shuffled, users=known, since=tmp_path / previous, rows_per_part=41
        )
        score(f"day{number}", history, users=known)
        so_far = updated(so_far, tmp_path / f"delta{number}")
        assert_same(so_far, lists(tmp_path / f"day{number}"))
        before, now = rows_of(*days[number - 1]), rows_of(history, known)
        by_hand = {
            "new_users": sum(user not in before for user in now),
            "changed_users": sum(user in before and before[user] != now[user] for user in now),
            "unchanged_users": sum(before.get(user) == now[user] for user in now),
            "gone_users": sum(user not in now for user in before),
        }
        assert {name: found[name] for name in by_hand} == by_hand
        assert min(by_hand.values()) > 0 or number == 2
        assert found["users"] == by_hand["new_users"] + by_hand["changed_users"]
        written = json.loads((tmp_path / f"delta{number}" / "_SUCCESS").read_text())
        assert {name: written[name] for name in by_hand} == by_hand
        previous = f"delta{number}"


def test_a_job_since_continues_where_it_was_stopped(
    score: Score, log: pd.DataFrame, tmp_path: Path
) -> None:
    def killed(event: Event) -> None:
        if isinstance(event, PartDone) and event.done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        score("whole", log[:3000], listener=killed)
    score("whole", log[:3000])  # the hashes of the parts that were there, too
    with pytest.raises(KeyboardInterrupt):
        score("delta", log, since=tmp_path / "whole", listener=killed)
    with pytest.raises(ConfigError, match=r"the job that writes there is not finished \(no _SUCC"):
        score("next", log, since=tmp_path / "delta")
    found = score("delta", log, since=tmp_path / "whole")
    assert found["parts_already_there"] == 2
    score("all", log)
    assert_same(updated(lists(tmp_path / "whole"), tmp_path / "delta"), lists(tmp_path / "all"))
    nothing = score("none", log, since=tmp_path / "delta")
    assert (nothing["users"], nothing["unchanged_users"], nothing["parts"]) == (0, 200, 0)


def test_another_model_or_other_lists_need_a_job_of_all_users(
    score: Score, log: pd.DataFrame, users: pd.DataFrame, untrained: Path, tmp_path: Path
) -> None:
    score("whole", log)
    since = tmp_path / "whole"
    way_out = "so none of them stands; score all users: leave out --since"
    for words, other in (
        ("another k, ", {"k": 6}),
        ("another filter_seen, ", {"filter_seen": False}),
        ("another filters, ", {"where": "price > 1"}),
        ("another k and filters, ", {"where": "price > 1", "k": 6}),
    ):
        with pytest.raises(ConfigError, match=words + way_out):
            score("delta", log, since=since, **other)
    with pytest.raises(ConfigError, match="another model_id"):
        recsys.score(untrained, tmp_path / "d", history=log, users=users, k=5, since=since)
    with pytest.raises(ConfigError, match="nowhere: no batch job has written there; score all"):
        score("delta", log, since=tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="whole: it is the --output, too"):
        score("whole", log, since=since)
    for old in ("older", "damaged"):
        shutil.copytree(since, tmp_path / old)
    (tmp_path / "older" / "_users" / "hashes.parquet").unlink()
    with pytest.raises(ConfigError, match="it does not say what its lists were made from"):
        score("delta", log, since=tmp_path / "older")
    hashes = tmp_path / "damaged" / "_users" / "hashes.parquet"
    hashes.write_bytes(hashes.read_bytes()[:-9])
    with pytest.raises(IntegrityError, match=r"hashes\.parquet: not as it was written"):
        score("delta", log, since=tmp_path / "damaged")
    assert not (tmp_path / "delta").exists()


def test_the_command_compares_logs_alone(trained: Path, tmp_path: Path) -> None:
    asked = ["score", str(trained), "--output", str(tmp_path / "o"), "--since", "p", "--input", "r"]
    done = CliRunner().invoke(main, asked)
    assert done.exit_code == 2
    assert "--since goes with --interactions" in done.output
