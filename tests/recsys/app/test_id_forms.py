"""Two spellings are one id in training, scoring, requests, lists of ids and explanations."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

import recsys
from recsys.app.cli import main

ITEMS, USERS = np.arange(100, 130), np.arange(1, 31)
SCHEMA: dict[str, Any] = {
    "interactions": {"user": "user", "item": "item", "time": {"column": "time", "unit": "s"}},
    "items": {"key": "item"},
    "users": {"key": "user"},
    "ids": {"items": {"pad": 6}, "users": {"case": "lower", "strip": True}},
    "features": [
        {"name": "item", "table": "items", "kind": "categorical"},
        {"name": "price", "table": "items", "kind": "numeric"},
        {"name": "user", "table": "users", "kind": "categorical"},
        {"name": "age", "table": "users", "kind": "numeric"},
    ],
}
SPELLINGS: dict[str, Any] = {
    "as written": lambda one: f"{one:06d}",
    "numbers": int,
    "floats": float,
    "plain text": str,
    "text of floats": lambda one: f"{one}.0",
}


def _log() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    users = np.repeat(USERS, 12)
    items = ITEMS[(users * 7 + rng.integers(0, 8, len(users))) % len(ITEMS)]
    return pd.DataFrame(
        {"user": users, "item": items, "time": np.arange(len(users)) + 1_600_000_000}
    )


def _config(kind: str, log: pd.DataFrame, folder: Path, **more: Any) -> dict[str, Any]:
    items = pd.DataFrame({"item": [f"{one:06d}" for one in ITEMS], "price": ITEMS / 10})
    users = pd.DataFrame({"user": [f" U{one}" for one in USERS], "age": USERS + 20.0})
    log = log.assign(user=[f"u{one}" for one in log["user"]])
    tables = {"interactions": log, "items": items, "users": users}
    for name, table in tables.items():
        table.to_parquet(folder / f"{name}.parquet")
    return {
        "data": {name: str(folder / f"{name}.parquet") for name in tables},
        "schema": SCHEMA | more,
        "split": {"kind": "leave_one_out"},
        "model": {"kind": kind},
        "training": {"epochs": 1},
        "embedding": {"num_rows": 4096},
        "output": str(folder / "runs"),
        "tracking": {"enabled": False},
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("id_forms")


@pytest.fixture(scope="module")
def model(folder: Path) -> recsys.Model:
    return recsys.train(_config("two_tower", _log(), folder), quiet=True).model


def test_the_model_shows_ids_as_they_are_written(model: recsys.Model) -> None:
    assert model.items == [f"{one:06d}" for one in ITEMS]
    answer = model.recommend([" U3", "u4 "], k=2)
    assert answer["user"].tolist() == ["u3", "u3", "u4", "u4"]
    assert set(answer["item"]) <= set(model.items)


@pytest.mark.parametrize("name", SPELLINGS)
def test_every_spelling_has_the_same_answers(model: recsys.Model, name: str) -> None:
    some = [SPELLINGS[name](one) for one in ITEMS[[3, 8, 5]]]
    asked = pd.DataFrame(
        {"user": ["U3\u00a0"], "age": [23.0], "history": [some], "seen": [some[:1]]}
    )
    written = asked.assign(
        user=["u3"], history=[[model.items[at] for at in (3, 8, 5)]], seen=[[model.items[3]]]
    )

    def answers(ids: list[Any], table: pd.DataFrame) -> list[pd.DataFrame]:
        frame, user = pd.DataFrame({"item": ids}), table["user"].tolist()
        block = pd.DataFrame({"user": user * len(ids), "item": ids})
        log = _log().assign(user=[f"u{one}" for one in _log()["user"]])
        log["item"] = [SPELLINGS[name](one) for one in log["item"]]
        users = pd.DataFrame({"user": [f"u{one}" for one in USERS], "age": USERS + 20.0})
        lists = table.assign(exclude=[ids])
        given: list[dict[str, Any]] = [
            {"requests": table},
            {"requests": table, "users": user, "exclude": ids},
            {"requests": lists},
            {"users": user, "allow": ids, "filter_seen": False},
            {"users": user, "allow": frame, "filter_seen": False},
            {"users": user, "block": block},
            {"users": user, "history": log, "user_table": users},
        ]
        found = [model.recommend(**one, k=4) for one in given]
        return [*found, model.similar_items(ids, k=3), model.query_vectors(requests=table)]

    same = answers([model.items[at] for at in (3, 8, 5)], written)
    for one, other in zip(answers(some, asked), same, strict=True):
        pd.testing.assert_frame_equal(one, other)
        assert len(one)


def test_a_file_of_ids_is_read_so(model: recsys.Model, tmp_path: Path) -> None:
    (tmp_path / "ids.txt").write_text("103\n000108\n105.0\n")
    found = model.recommend(["u1"], k=9, allow=str(tmp_path / "ids.txt"), filter_seen=False)
    assert sorted(found["item"]) == ["000103", "000105", "000108"]


def test_a_user_in_two_spellings_is_in_two_rows(model: recsys.Model, tmp_path: Path) -> None:
    asked = pd.DataFrame({"user": ["u1", " U1"], "age": [1.0, 2.0], "history": [["103"], ["104"]]})
    asked.to_parquet(tmp_path / "asked.parquet")
    command = ["score", str(model.path), "--input", str(tmp_path / "asked.parquet")]
    done = CliRunner().invoke(main, [*command, "--output", str(tmp_path / "out")])
    assert done.exit_code != 0
    assert "'u1' is in 2 rows" in done.output


def test_a_ranker_scores_every_spelling_alike(folder: Path) -> None:
    log = _log().assign(label=np.tile([0, 1, 1], 120))
    label = {**SCHEMA["interactions"], "label": {"column": "label"}}
    (folder / "ranker").mkdir()
    config = _config("autoint", log, folder / "ranker", interactions=label)
    ranker = recsys.train(config | {"split": {"kind": "time"}}, quiet=True).model
    tables = {name: config["data"][name] for name in ("users", "items")}
    wanted: np.ndarray[Any, Any] | None = None
    for spelling in SPELLINGS.values():
        rows = pd.DataFrame({"user": ["U1", " u2"], "item": [spelling(104), spelling(109)]})
        found = ranker.predict(rows, **tables)["probability"].to_numpy()
        wanted = found if wanted is None else wanted
        assert found.tolist() == wanted.tolist()
