"""Counts of trained models taken from a newer log: the same as of a training on it."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import yaml
from click.testing import CliRunner

import recsys
from recsys.app.cli import main
from recsys.bundle.directory import Bundle
from recsys.core.errors import ConfigError, DataError, NotFoundError
from recsys.features.bundle.files import (
    read_config,
    read_items,
    read_memory,
    read_request_probe,
    read_weights,
)
from recsys.serving.recommend.scorer import Scorer
from recsys.training.families.load import load_config
from recsys.training.families.retrieval.memory import fit_memory
from recsys.training.families.session.reading import SessionData
from recsys.training.jobs.opening import open_model
from recsys.training.jobs.train import train

NUM_ITEMS, MINUTE, HOUR = 20, 60, 3600


def visits(users: int, seed: int, first: int, *, step: int = 1) -> pd.DataFrame:
    """Return visits that walk through the catalogue by `step`."""
    rng = np.random.default_rng(seed)
    rows = []
    for user in range(users):
        clock = first + user
        for _visit in range(3):
            item = int(rng.integers(NUM_ITEMS - 1))
            for _step in range(int(rng.integers(3, 6))):
                rows.append((f"u{user:02}", f"i{item:02}", clock))
                item, clock = (item + step) % (NUM_ITEMS - 1), clock + int(rng.integers(5, 60))
            clock += 5 * HOUR
    return pd.DataFrame(rows, columns=["user", "item", "at"])


@pytest.fixture(autouse=True)
def _frames_are_kept_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the log of a training, and a longer one; the items, the last of which is in neither."""
    folder = tmp_path_factory.mktemp("recount")
    old = visits(40, 0, 1_700_000_000)
    both = pd.concat([old, visits(50, 1, 1_701_000_000, step=3)])
    old.to_parquet(folder / "log.parquet")
    both.to_parquet(folder / "both.parquet")
    items = pd.DataFrame({"item": [f"i{row:02}" for row in range(NUM_ITEMS)]})
    items["shelf"] = items.item.str[1]
    items.to_parquet(folder / "items.parquet")
    return folder


def fitted(folder: Path, kind: str, *, log: str = "log.parquet", **model: Any) -> Path:
    """Train a model and return its bundle."""
    raw: dict[str, Any] = {
        "data": {"interactions": log, "items": "items.parquet"},
        "schema": {
            "interactions": {"user": "user", "item": "item", "time": {"column": "at", "unit": "s"}},
            "items": {"key": "item"},
            "features": [
                {"name": "item", "table": "items", "kind": "categorical"},
                {"name": "shelf", "table": "items", "kind": "categorical"},
            ],
        },
        "model": {"kind": kind, **model},
        "training": {"metric": "ndcg_at_5"},
        "evaluation": {"ks": [5], "baselines": ["popularity"], "bootstrap_samples": 5},
        "tracking": {"enabled": False},
        "output": str(folder / "runs"),
    }
    if kind in ("session", "two_tower"):
        raw["embedding"] = {"num_rows": 256, "dim": 4}
        raw["model"] |= {"dim": 8, "history_length": 8}
        raw["training"] |= {"epochs": 1, "precision": "float32"}
    if kind in ("session", "markov", "v_sknn"):
        raw["sessions"] = {"inactivity_minutes": 60}
    (folder / "recsys.yaml").write_text(yaml.safe_dump(raw))
    result = train(load_config(folder / "recsys.yaml"))
    assert result is not None
    return result.bundle


@pytest.fixture(scope="module")
def session(folder: Path) -> Path:
    return fitted(folder, "session", memory={"weight": 1.25})


def fitted_memory(bundle: Path, log: Path) -> Any:
    """Return the memory that a training with the weights of `bundle` would fit on `log`."""
    opened = open_model(bundle)
    data = opened.config.data.model_copy(update={"interactions": str(log)})
    opened = replace(opened, config=opened.config.model_copy(update={"data": data}))
    reading = SessionData.of(opened.config, opened.encoded(opened.tables()))
    fitted = fit_memory(reading, opened.retrieval_model())
    assert fitted is not None
    return fitted.memory, reading.data.train_counts


def test_a_memory_counted_anew_is_that_of_a_training_on_both_logs(
    session: Path, folder: Path, tmp_path: Path
) -> None:
    done = recsys.recount(session, folder / "both.parquet", tmp_path / "out")
    wanted, counts = fitted_memory(session, folder / "both.parquet")
    before, after = Bundle.open(session), Bundle.open(done.bundle)
    assert after.read("memory.safetensors") == wanted.to_bytes()
    assert after.read("memory.safetensors") != before.read("memory.safetensors")
    assert read_items(after).column("train_count").to_pylist() == counts.tolist()
    assert (done.rows, done.items, done.catalogue) == (counts.sum(), (counts > 0).sum(), NUM_ITEMS)
    assert read_weights(after) == read_weights(before)
    changed = {"memory.safetensors", "items.parquet", "probe.parquet"}
    changed |= {"config.yaml", "metrics.json"}
    for name in before.names():
        assert (after.read(name) != before.read(name)) == (name in changed), name
    assert done.parent == before.model_id == after.manifest["facts"]["parent"]
    assert after.manifest["facts"]["recounted"]["rows"] == "training"
    assert "both.parquet" in read_config(after)
    assert done.words["repeats"].startswith("0.00% of")


def test_the_same_log_gives_the_same_counts_and_lists(session: Path, tmp_path: Path) -> None:
    log = yaml.safe_load(read_config(Bundle.open(session)))["data"]["interactions"]
    done = recsys.recount(session, log, tmp_path / "out")
    before, after = Bundle.open(session), Bundle.open(done.bundle)
    for name in ("memory.safetensors", "config.yaml"):
        assert after.read(name) == before.read(name), name
    assert read_request_probe(after).equals(read_request_probe(before))
    assert read_items(after).equals(read_items(before))
    facts = after.manifest["facts"]
    assert facts["data_fingerprint"] == open_model(session).fingerprint


def test_it_answers_by_the_new_counts(session: Path, folder: Path, tmp_path: Path) -> None:
    newer = visits(60, 2, 1_702_000_000, step=5)  # a frame; every item is followed by the fifth
    done = recsys.recount(recsys.load(session), newer, str(tmp_path / "out"), rows="all")
    assert done.rows == len(newer)
    asked = pa.table({"user": ["a"], "history": [["i03"]]})
    answers = [
        Scorer.open(one).score(asked, k=1).column("scores") for one in (done.bundle, session)
    ]
    assert answers[0] != answers[1]
    memory = read_memory(Bundle.open(done.bundle), NUM_ITEMS)
    assert memory is not None
    assert memory.shares.toarray()[3].argmax() == 8
    assert memory.gain == read_memory(Bundle.open(session), NUM_ITEMS).gain  # type: ignore[union-attr]


@pytest.mark.parametrize("kind", ["popularity", "item_knn", "markov", "v_sknn", "attributes"])
def test_a_plain_model_is_that_of_a_training_on_both_logs(
    kind: str, folder: Path, tmp_path: Path
) -> None:
    before, wanted = fitted(folder, kind), fitted(folder, kind, log="both.parquet")
    done = recsys.recount(before, folder / "both.parquet", tmp_path / "out")
    assert read_weights(Bundle.open(done.bundle)) == read_weights(Bundle.open(wanted))
    again, fresh = recsys.evaluate(done.bundle), recsys.evaluate(wanted)
    assert again.to_frame().equals(fresh.to_frame())
    facts = Bundle.open(wanted).manifest["facts"]
    assert (
        Bundle.open(done.bundle).manifest["facts"]["data_fingerprint"] == facts["data_fingerprint"]
    )


def test_items_that_the_model_does_not_know_are_counted_and_said(
    session: Path, folder: Path, tmp_path: Path
) -> None:
    log = pd.read_parquet(folder / "both.parquet")
    strange = log.iloc[:7].assign(item=["x1", "x2", "x1", "x1", "x3", "x2", "x1"])
    path = tmp_path / "log.csv"
    pd.concat([strange.assign(user="u_new"), log]).to_csv(path, index=False)
    asked = ["recount", str(session), "--interactions", str(path), "--output"]
    shown = CliRunner().invoke(main, [*asked, str(tmp_path / "out")])
    assert shown.exit_code == 0, shown.output
    assert "left out: 7 rows of 3 items that the model does not know, 'x1' among" in shown.output
    assert "memory: " in shown.output
    as_json = CliRunner().invoke(main, [*asked, str(tmp_path / "more"), "--json", "--rows", "all"])
    facts = json.loads(as_json.stdout)
    assert (facts["unknown_rows"], facts["unknown_items"], facts["rows"]) == (7, 3, len(log))
    known = recsys.recount(session, folder / "both.parquet", tmp_path / "known")
    (counted,) = (tmp_path / "out" / "bundle").iterdir()
    assert read_items(Bundle.open(known.bundle)).equals(read_items(Bundle.open(counted)))
    memories = [Bundle.open(one).read("memory.safetensors") for one in (known.bundle, counted)]
    assert memories[0] == memories[1]
    assert recsys.evaluate(counted).to_frame().equals(recsys.evaluate(known.bundle).to_frame())


def test_it_is_registered_evaluated_and_compared_as_any(
    session: Path, folder: Path, tmp_path: Path
) -> None:
    store = f"sqlite:///{tmp_path}/mlflow.db"
    done = recsys.recount(session, folder / "both.parquet", tmp_path / "out")
    assert recsys.register(session, "shop", tracking_uri=store) == 1
    assert recsys.register(done.model, "shop", alias="champion", tracking_uri=store) == 2
    back = recsys.load("models:/shop@champion", tracking_uri=store)
    assert back.path.name == done.bundle.name
    assert recsys.evaluate(done.bundle).figures()["session"]["recall_at_5"] >= 0
    every = recsys.recount(session, folder / "both.parquet", tmp_path / "all", rows="all")
    compared = recsys.compare([done.bundle, every.bundle])
    assert any("its counts hold all rows of these data" in one for one in compared.warnings)
    with pytest.raises(ConfigError, match="holds a model already: name another folder"):
        recsys.recount(session, folder / "both.parquet", tmp_path / "out")


def test_what_cannot_be_counted_is_refused_and_leaves_nothing(
    session: Path, folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    bare = fitted(folder, "two_tower")
    with pytest.raises(ConfigError, match=r"this two_tower has no memory of pairs.*--warm-start"):
        recsys.recount(bare, folder / "both.parquet", out)
    with pytest.raises(NotFoundError, match=r"nowhere\.parquet"):
        recsys.recount(session, tmp_path / "nowhere.parquet", out)
    log = pd.read_parquet(folder / "both.parquet")
    with pytest.raises(DataError, match="none of its 19 items is in the catalogue"):
        recsys.recount(session, log.assign(item="x" + log["item"]), out)
    items = pd.read_parquet(folder / "items.parquet")
    for name, table in (("log", log), ("items", items)):
        table.assign(item=table["item"].str[1:].astype(int)).to_parquet(
            tmp_path / f"{name}.parquet"
        )
    of_numbers = fitted(tmp_path, "popularity")
    with pytest.raises(DataError, match="item ids are of type large_string, those of the model"):
        recsys.recount(of_numbers, log, out)
    with pytest.raises(DataError, match="at"):
        recsys.recount(session, log.drop(columns="at"), out)
    broken = log.assign(user=[None, *log["user"][1:]])
    with pytest.raises(DataError, match="user"):
        recsys.recount(session, broken, out)
    dropped = recsys.recount(session, broken, out, settings={"policies.bad_ids": "drop"})
    assert dropped.rows > 0
    with pytest.raises(ConfigError, match=r"policies\.bad_idz"):
        recsys.recount(session, broken, tmp_path / "more", settings={"policies.bad_idz": "drop"})
    assert not (tmp_path / "more").exists()


def test_items_that_come_back_in_the_new_log_are_warned_of(
    session: Path, folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log = pd.read_parquet(folder / "both.parquet")
    twice = pd.concat([log, log.assign(at=log["at"] + 2)])
    with caplog.at_level("WARNING"):
        done = recsys.recount(session, twice, tmp_path / "out")
    assert "model.repeats: never: but in this log" in caplog.text
    assert "train the model on it" in caplog.text
    assert Scorer.open(done.bundle).model.config.repeats == "never"
