"""A model that is trained again and meets the item index of an earlier one, trained for real.

Walks through a catalogue, each user's last item held out: what is measured can be counted by hand.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

import recsys
from recsys.app.starting import Start, planned
from recsys.bundle.compatible import CompatibleSpace
from recsys.bundle.directory import Bundle
from recsys.core.errors import ConfigError, NotFoundError
from recsys.features.bundle.model_bundle import ModelBundle
from recsys.serving.version_facts import marks_of
from recsys.training.families.load import config_of
from recsys.training.families.retrieval.meeting import _judged

NUM_ITEMS, NUM_USERS, K = 30, 120, 5
KEYS: dict[str, Any] = {
    "schema": {
        "interactions": {"user": "user", "item": "item", "order": "at"},
        "features": [
            {"name": "item", "table": "items", "kind": "categorical", "multiplicity": 2},
            {"name": "user", "table": "users", "kind": "categorical"},
        ],
    },
    "split": {"kind": "leave_one_out"},
    "embedding": {"num_rows": 512, "dim": 8, "backend": "torch", "learning_rate": 0.1},
    "evaluation": {"ks": [K], "baselines": ["popularity"], "bootstrap_samples": 5},
    "tracking": {"enabled": False},
}
TOWERS: dict[str, Any] = {
    "model": {"kind": "two_tower", "dim": 8, "hidden": [16], "history_length": 4, "dropout": 0.0},
    "training": {
        "metric": f"recall_at_{K}", "epochs": 5, "batch_size": 64, "learning_rate": 0.01,
        "uniform_negatives": 16,
    },
}  # fmt: skip
SESSIONS: dict[str, Any] = {
    "model": {
        "kind": "session", "dim": 8, "history_length": 4, "memory": "none",
        "transformer": {"num_blocks": 1, "num_heads": 1},
    },
    "training": {
        "metric": f"recall_at_{K}", "epochs": 3, "batch_size": 32, "learning_rate": 0.01,
        "uniform_negatives": 16,
    },
}  # fmt: skip
Train = Callable[..., recsys.Run]


def walks(users: int, steps: int) -> pd.DataFrame:
    rng, rows = np.random.default_rng(0), []
    for user in range(users):
        first = int(rng.integers(NUM_ITEMS))
        rows += [(f"u{user:03}", f"i{(first + at) % NUM_ITEMS:02}", at) for at in range(steps)]
    return pd.DataFrame(rows, columns=["user", "item", "at"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("meeting")
    walks(NUM_USERS, 6).to_parquet(folder / "old.parquet")
    walks(NUM_USERS, 8).to_parquet(folder / "new.parquet")
    return folder


@pytest.fixture(scope="module")
def train(folder: Path) -> Train:
    """Train on one of the logs."""

    def run(log: str, keys: dict[str, Any] = TOWERS, **more: Any) -> recsys.Run:
        whole = {**KEYS, **keys, "data": {"interactions": f"{log}.parquet"}, **more}
        path = folder / "recsys.yaml"
        path.write_text(yaml.safe_dump({**whole, "output": str(folder / "runs")}))
        return recsys.train(path, quiet=True)

    return run


@dataclass(frozen=True)
class Pair:
    """An earlier model, one that meets it, and one that is trained as that, alone."""

    old: recsys.Run
    new: recsys.Run
    alone: recsys.Run


@pytest.fixture(scope="module", params=[TOWERS, SESSIONS], ids=["two_tower", "session"])
def pair(request: pytest.FixtureRequest, train: Train) -> Pair:
    keys = request.param
    training = {**keys["training"], "seed": 7}
    old = train("old", keys)
    new = train(
        "new", keys, training=training, compatible_with=str(old.bundle), compatible_share=0.01
    )
    return Pair(old, new, train("new", keys, training=training))


def described(run: recsys.Run) -> Any:
    return ModelBundle.read(run.bundle).description


def vectors_of(frame: pd.DataFrame) -> Any:
    return np.stack(frame["vector"].to_list())


def recall_by_hand(asks: recsys.Run, holds: recsys.Run, folder: Path) -> float:
    """Count the users whose last item is among the K best of those not seen before."""
    log = pd.read_parquet(folder / "new.parquet")
    requests = log.groupby("user")["item"].agg(list).rename("history").reset_index()
    last = requests["history"].str[-1]
    requests["history"] = requests["history"].str[:-1]
    queries = vectors_of(asks.model.query_vectors(requests=requests))
    items = holds.model.item_vectors()
    scores = queries @ vectors_of(items).T
    ids, hits = np.array(items["item"]), 0
    for own, seen, item in zip(scores, requests["history"], last, strict=True):
        own[np.isin(ids, seen)] = -np.inf
        hits += item in ids[np.argsort(-own, kind="stable")[:K]]
    return hits / len(requests)


def test_what_is_measured_is_what_the_queries_find_on_the_earlier_items(
    pair: Pair, folder: Path
) -> None:
    (space,) = described(pair.new).compatible_since
    assert space.space_id == described(pair.old).space_id != described(pair.new).space_id
    assert (space.model_id, space.part) == (pair.old.bundle.name, "test")
    assert (space.metric, space.shared_items) == (f"recall_at_{K}", NUM_ITEMS)
    assert space.new_on_old == pytest.approx(recall_by_hand(pair.new, pair.old, folder))
    assert space.old_on_old == pytest.approx(recall_by_hand(pair.old, pair.old, folder))
    assert space.new_on_new == pytest.approx(recall_by_hand(pair.new, pair.new, folder))
    words = pair.new.evaluation.protocol["compatible with"]
    assert words.startswith(space.words)
    assert "compatible with" in pair.new.report.read_text()


def test_a_model_that_meets_another_finds_it_and_keeps_its_own_lists(
    pair: Pair, folder: Path
) -> None:
    old, new, alone = (
        vectors_of(one.model.item_vectors()) for one in (pair.old, pair.new, pair.alone)
    )
    assert np.abs(new - alone).max() > 0.1
    np.testing.assert_allclose(new @ new.T, alone @ alone.T, atol=1e-4)
    assert np.square(new - old).sum() < np.square(alone - old).sum()
    turned = recall_by_hand(pair.new, pair.old, folder)
    assert turned > recall_by_hand(pair.alone, pair.old, folder) + 0.2
    recall = f"recall_at_{K}"
    kept = [one.evaluation.kept().test[recall] for one in (pair.new, pair.alone)]
    assert kept[0] == pytest.approx(kept[1])


def test_an_export_says_whose_items_the_queries_find(pair: Pair, tmp_path: Path) -> None:
    (space,) = described(pair.new).compatible_since
    facts = recsys.export(pair.new, tmp_path / "new", to="exact")
    assert facts["compatible_since"] == [space.space_id]
    for name in ("index.json", "export.json"):
        found = json.loads((tmp_path / "new" / name).read_text())
        assert found["compatible_since"] == [space.space_id]
    manifest = json.loads((pair.new.bundle / "manifest.json").read_text())
    assert manifest["facts"]["compatible_since"] == [space.space_id]
    assert marks_of(Bundle.open(pair.new.bundle))["compatible_since"] == space.space_id
    recsys.export(pair.old, tmp_path / "old", to="exact")
    requests = pd.DataFrame({"user": ["u000"], "history": [["i03"]]})
    for index in ("old", "new"):
        found = pair.new.model.query_vectors(requests=requests, index=tmp_path / index)
        assert found["vector"][0].shape == (8,)
    with pytest.raises(ConfigError, match=f"claims no other.*--compatible-with {space.model_id}"):
        pair.alone.model.query_vectors(requests=requests, index=tmp_path / "old")
    recsys.export(pair.alone, tmp_path / "alone", to="parquet")
    with pytest.raises(ConfigError, match=f"and in that of model {space.model_id}: export"):
        pair.new.model.query_vectors(requests=requests, index=tmp_path / "alone")
    with pytest.raises(NotFoundError, match=r"export\.json: no such file"):
        pair.new.model.query_vectors(requests=requests, index=tmp_path)
    users = tmp_path / "users.parquet"
    requests.to_parquet(users)
    recsys.export_query_vectors(pair.new, tmp_path / "queries", queries=users)
    with pytest.raises(ConfigError, match=r"holds no item vectors .*exported --to queries"):
        pair.new.model.query_vectors(requests=requests, index=tmp_path / "queries")


SPACE = CompatibleSpace(
    space_id="s",
    model_id="m",
    metric="recall_at_20",
    part="test",
    new_on_old=0.19,
    old_on_old=0.2,
    new_on_new=0.25,
    shared_items=40,
)


def test_less_than_the_share_is_not_claimed() -> None:
    assert SPACE.share == pytest.approx(0.95)
    assert SPACE.words == (
        "recall_at_20 0.1900 on the item index of model m, 95.0% of that model's own 0.2000 (on "
        "its own items: 0.2500; 40 items in both)"
    )
    met = _judged(SPACE, SPACE.words, 0.94)
    assert (met.claimed, met.warning) == ((SPACE,), None)
    less = _judged(SPACE, SPACE.words, 0.96)
    assert less.claimed == ()
    assert less.words == f"not claimed: {SPACE.words}"
    assert less.warning is not None
    assert "less than compatible_share: 0.96. Export the items" in less.warning


@pytest.mark.parametrize("pair", [TOWERS], ids=["two_tower"], indirect=True)
def test_a_final_model_takes_over_what_was_measured(pair: Pair, train: Train, folder: Path) -> None:
    final = recsys.train(final=pair.new, quiet=True)
    (space,) = described(final).compatible_since
    assert space.measured_of == pair.new.bundle.name
    assert space.new_on_old == described(pair.new).compatible_since[0].new_on_old
    assert recall_by_hand(final, pair.old, folder) > 0.6 * space.new_on_old  # it was rotated, too


@pytest.mark.parametrize(
    ("keys", "more", "message"),
    [
        (TOWERS, {"model": {**TOWERS["model"], "dim": 4}}, r"model\.dim: 8, and model\.dim is 4"),
        (
            TOWERS,
            {"model": {**TOWERS["model"], "geometry": "ball"}},
            r"model\.geometry: sphere, and model\.geometry is ball: set it to sphere",
        ),
        (SESSIONS, {}, "is of kind two_tower, model.kind is session"),
        (TOWERS, {"split": {"kind": "none"}}, "measured on rows that are held out"),
    ],
)
def test_what_cannot_meet_is_refused(
    first: recsys.Run, train: Train, keys: dict[str, Any], more: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        train("new", keys, compatible_with=str(first.bundle), **more)


def test_a_training_is_told_which_model_to_meet(first: recsys.Run, folder: Path) -> None:
    def config(keys: dict[str, Any]) -> Any:
        data = {"interactions": str(folder / "new.parquet")}
        return config_of({**keys, "data": data}, source="keys", folder=folder)

    start = Start(compatible_with=str(first.path))
    found: Any = planned(config({**KEYS, **TOWERS}), start).config
    assert found.compatible_with == str(first.bundle.resolve())
    plain = {name: one for name, one in KEYS.items() if name != "embedding"}
    counted = {**plain, "model": {"kind": "popularity"}, "training": {"metric": f"recall_at_{K}"}}
    with pytest.raises(ConfigError, match="a model of kind popularity has no item vectors"):
        planned(config(counted), start)
    with pytest.raises(ConfigError, match="compatible_with does not go with resume"):
        planned(None, replace(start, resume=first.path))
    with pytest.raises(ConfigError, match="compatible_with does not go with the model that chose"):
        planned(None, replace(start, final=True, chosen=str(first.path)))


@pytest.fixture(scope="module")
def first(train: Train) -> recsys.Run:
    return train("old", {**TOWERS, "training": {**TOWERS["training"], "epochs": 1}})


def test_catalogues_that_share_too_little_are_refused(
    first: recsys.Run, train: Train, folder: Path
) -> None:
    log = walks(NUM_USERS, 6)
    log["item"] = log["item"].where(log["item"] < "i03", "x" + log["item"])
    log.to_parquet(folder / "other.parquet")
    with pytest.raises(ConfigError, match=r"share 3 items, and 8 \(model\.dim\) are needed"):
        train("other", compatible_with=str(first.bundle))
    log["item"] = log["item"].str[-2:].astype(int)
    log.to_parquet(folder / "numbers.parquet")
    with pytest.raises(ConfigError, match="are of type large_string, those of the catalogue int64"):
        train("numbers", compatible_with=str(first.bundle))
