"""Which windows of pairs `init` proposes: those that make a small model better."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from recsys.features.propose.tables import Inference, infer
from recsys.training.families.load import load_config
from recsys.training.jobs.check import preflight

START, DAY, USERS, ITEMS = 1_700_000_000, 86_400, 200, 20
ROWS = USERS * ITEMS
USUAL = [f"orders_{by}_{what}" for by in ("user", "item") for what in ("7d", "30d", "since")]


def proposal(folder: Path, *, told: bool, after: bool = False) -> Inference:
    """Write a log of all pairs, each once, half of which the user ordered in the 25 days before.

    told: that decides whether a row is positive, else chance does. after: the orders come in the 25
    days after it.
    """
    rng = np.random.default_rng(0)
    user, item = np.divmod(rng.permutation(ROWS), ITEMS)
    time = START + 40 * DAY + np.sort(rng.choice(60 * DAY, ROWS, replace=False))
    ordered = rng.random(ROWS) < 0.5
    away = rng.integers(1, 25, ROWS) * DAY
    at = time + away if after else time - away
    chance = np.where(ordered, 0.75, 0.25) if told else np.full(ROWS, 0.5)
    log = {"user_id": user, "item_id": item, "timestamp": time}
    log |= {"clicked": (rng.random(ROWS) < chance).astype(int)}
    orders = {"user_id": user[ordered], "item_id": item[ordered], "ordered_at": at[ordered]}
    pq.write_table(pa.table(log), folder / "log.parquet")
    pq.write_table(pa.table(orders), folder / "orders.parquet")
    found = infer([folder / "log.parquet", folder / "orders.parquet"], relative_to=folder)
    (folder / "recsys.yaml").write_text(found.yaml)
    return found


def windows(found: Inference) -> list[str]:
    features = yaml.safe_load(found.yaml)["schema"]["features"]
    return [one["name"] for one in features if one["kind"] == "window"]


def test_a_window_that_tells_is_proposed_and_accepted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = proposal(tmp_path, told=True)
    pairs = ["orders_pair_30d", "orders_pair_ever", "orders_pair_since"]
    assert windows(found)[0] in pairs
    assert windows(found)[1:] == USUAL
    assert "# rates of both has less log loss with each of these, on rows held out" in found.yaml
    monkeypatch.chdir(tmp_path)
    assert "note: relation 'orders'" in str(preflight(load_config(tmp_path / "recsys.yaml")))


@pytest.mark.parametrize(("told", "after"), [(False, False), (True, True)])
def test_one_that_tells_nothing_is_not(told: bool, after: bool, tmp_path: Path) -> None:
    """Nor one that would tell only from what comes after a row."""
    found = proposal(tmp_path, told=told, after=after)
    assert windows(found) == USUAL
