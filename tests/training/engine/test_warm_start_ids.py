"""A model that goes on from an earlier one, on rows whose items come and go."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch

import recsys
from recsys.bundle.directory import Bundle
from recsys.features.bundle.files import TRAIN_COUNT, read_encoder, read_items
from recsys.features.encoding.encoder import FeatureEncoder
from recsys.features.encoding.hashing import UNKNOWN_HASH, hash_values
from recsys.training.families.load import parse_config
from recsys.training.jobs.train import train

DAY, NUM_USERS = 24 * 3600, 60
OLD, NEW = range(30), range(10, 40)
"""Items of the first days, and of the days after: ten are gone, ten are new."""
RARE = 39
"""A new item with two training rows, fewer than `min_count`."""


def visits(items: range, first_day: int, seed: int) -> pd.DataFrame:
    """Visits of four items of one shelf each, ten days long; no row is of the rare item."""
    rng = np.random.default_rng(seed)
    rows = []
    for user in range(NUM_USERS):
        for day in rng.choice(10, 3, replace=False):
            shelf = [item for item in items if item % 3 == user % 3 and item != RARE]
            clock = 1_700_000_000 + (first_day + int(day)) * DAY + user
            for step, item in enumerate(rng.choice(shelf, 4, replace=False)):
                rows.append((f"u{user}", f"i{item:02}", clock + 60 * step))
    return pd.DataFrame(rows, columns=["user", "item", "at"])


def keys_of(kind: str, folder: Path, days: str) -> dict[str, Any]:
    size = {"dim": 8, "hidden": [8], "history_length": 6}
    features = [
        {"name": "item", "table": "items", "kind": "categorical", "min_count": 3},
        {"name": "shelf", "table": "items", "kind": "categorical"},
    ]
    clock = {"column": "at", "unit": "s"}
    return {
        "data": {
            "interactions": str(folder / f"{days}.parquet"),
            "items": str(folder / f"{days}_items.parquet"),
        },
        "schema": {
            "interactions": {"user": "user", "item": "item", "time": clock},
            "items": {"key": "item"},
            "features": features,
        },
        "split": {"kind": "time", "validation": 0.1, "test": 0.1},
        "model": {"kind": kind, **size},
        **({"sessions": {"inactivity_minutes": 60}} if kind == "session" else {}),
        "embedding": {"num_rows": 4096, "dim": 8, "backend": "torch"},
        "training": {"batch_size": 64, "epochs": 2, "metric": "ndcg_at_5", "precision": "float32"},
        "evaluation": {"ks": [5], "bootstrap_samples": 10, "baselines": []},
        "tracking": {"enabled": False},
        "output": str(folder / f"{kind}-{days}"),
    }


@dataclass(frozen=True)
class Pair:
    """Bundles of a model of the first days, and of one that went on from it."""

    earlier: Path
    later: Path
    log: pd.DataFrame


@pytest.fixture(scope="module", params=["two_tower", "session"])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("ids")
    found: list[Path] = []
    for days, items, first_day in (("old", OLD, 0), ("new", NEW, 10)):
        log = visits(items, first_day, seed=first_day)
        if days == "new":
            twice = [("u0", f"i{RARE}", log["at"].min() + one) for one in (0, 60)]
            log = pd.concat([log, pd.DataFrame(twice, columns=log.columns)])
        log.to_parquet(folder / f"{days}.parquet")
        ids = pd.DataFrame({"item": [f"i{one:02}" for one in items]})
        ids.assign(shelf=[one % 3 for one in items]).to_parquet(folder / f"{days}_items.parquet")
        keys = keys_of(request.param, folder, days)
        keys |= {"warm_start": str(found[0])} if found else {}
        result = train(parse_config(keys, source="test"), report=False)
        assert result is not None
        found.append(result.bundle)
    return Pair(*found, log)


def test_lists_are_of_the_items_of_today(pair: Pair) -> None:
    model = recsys.load(pair.later)
    assert model.items == [f"i{one:02}" for one in NEW]
    lists = model.recommend(["u0", "u1"], history=pair.log, k=30, filter_seen=False)
    assert set(lists["item"]) == set(model.items)
    # A history that holds items that are gone is read without them.
    gone = pd.concat([pair.log, visits(range(15), 30, seed=5)])
    listed = model.recommend(["u0", "u1"], history=gone, k=40, filter_seen=False)["item"]
    assert {f"i{one}" for one in range(30, 40)} <= set(listed) <= set(model.items)


def test_counts_are_those_of_the_newer_rows(pair: Pair) -> None:
    counts = read_items(Bundle.open(pair.later)).select(["item", TRAIN_COUNT]).to_pydict()
    found = dict(zip(counts["item"], counts[TRAIN_COUNT], strict=True))
    cut = pair.log["at"].quantile(0.8, interpolation="lower")
    rows = pair.log[pair.log["at"] < cut].drop_duplicates(["user", "item", "at"])
    expected = rows["item"].value_counts()
    assert sum(found.values()) == pytest.approx(len(rows), abs=5)
    assert all(abs(found[item] - expected.get(item, 0)) <= 1 for item in found)


def test_an_id_is_admitted_by_its_rows_and_then_stays(pair: Pair) -> None:
    before, after = (read_encoder(Bundle.open(one)) for one in (pair.earlier, pair.later))
    ids = pa.table({"item": [f"i{one:02}" for one in range(40)], "shelf": [0] * 40})
    own = hash_values(ids["item"])

    def known(encoder: FeatureEncoder) -> set[int]:
        hashes = encoder.encode("items", ids).single[:, 0].numpy()
        assert set(hashes[hashes != own]) <= {UNKNOWN_HASH}
        return set(np.flatnonzero(hashes == own))

    assert known(before) == set(OLD)
    # Items that are gone keep their place in the table, and come back as what they were.
    assert known(after) == set(range(40)) - {RARE}


def test_rows_of_ids_that_are_gone_are_left_as_they_were(pair: Pair) -> None:
    facts = recsys.export_delta(pair.later, pair.earlier, pair.later.parent / "delta")
    changed, rows = facts["rows_that_differ"]["weights.safetensors: table.weight"]
    # 30 items, 60 users and a few more values read at most two rows each.
    assert 0 < changed < 300
    assert rows == 4096
