"""The Python API: the same answers as the command line, and mistakes told at once."""

import ast
import doctest
import inspect
import json
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

import recsys
from recsys.app import (
    checking,
    comparing,
    configuration,
    demo,
    experiments,
    model,
    models,
    promoting,
    proposing,
)
from recsys.app.cli import main
from recsys.core.strict import parse
from recsys.features.schema import Schema
from recsys.features.tables.checked import read_tables
from recsys.features.tables.frames import path_of
from recsys.features.tables.sources import Policies, Sources
from recsys.features.world.world import RetailWorld


@pytest.fixture(scope="module")
def frames(world: RetailWorld, tmp_path_factory: pytest.TempPathFactory) -> dict[str, pd.DataFrame]:
    files = world.write(tmp_path_factory.mktemp("frames"))
    paths = {"log": files.interactions, "items": files.items, "users": files.users}
    return {name: pq.read_table(path).to_pandas() for name, path in paths.items()}


@pytest.fixture(scope="module")
def opened(trained: Path) -> recsys.Model:
    return recsys.load(trained)


def test_importing_costs_nothing() -> None:
    code = (
        "import recsys, sys; heavy = {'torch', 'pandas', 'numpy', 'pyarrow', 'pydantic', 'mlflow'};"
        "sys.exit(', '.join(sorted(heavy & set(sys.modules))) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_name_is_there_and_type_checkers_know_it() -> None:
    stub = Path(recsys.__file__).with_suffix(".pyi").read_text()
    told = {
        alias.asname
        for node in ast.parse(stub).body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert told == set(dir(recsys)) - {"__version__"}
    folders = {path.name for path in Path(recsys.__file__).parent.iterdir() if path.is_dir()}
    assert not folders & told, "a folder would take the name of a function once it is imported"
    for name in dir(recsys):
        assert getattr(recsys, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'fit'"):
        recsys.fit  # type: ignore[attr-defined]  # noqa: B018


def test_the_pages_name_what_is_there() -> None:
    """Every `recsys.name` of the pages, and every call in the table of functions."""
    root = Path(__file__).parents[3]
    page = (root / "docs" / "python.md").read_text()
    pages = [(root / "README.md").read_text(), *(p.read_text() for p in root.glob("docs/*.md"))]
    named = {name for text in pages for name in re.findall(r"recsys\.([a-zA-Z_]+)\(", text)}
    for row in re.findall(r"^\| (`[a-z].*?) \|", page, re.M):
        named |= set(re.findall(r"`([a-z_]+)\(", row))
    assert {"init", "sync", "score_new_items", "promote"} <= named <= set(dir(recsys))


def test_examples_run(
    frames: dict[str, pd.DataFrame],
    trained: Path,
    untrained: Path,
    tmp_path: Path,
    mlflow_template: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import shutil

    monkeypatch.chdir(tmp_path)
    shutil.copy(mlflow_template, tmp_path / "mlflow.db")
    config = recsys.Config.open(trained.parents[1] / "config.yaml").with_(output=str(tmp_path))
    run = recsys.Run(trained.parents[1], trained, trained.parents[1] / "report.html")
    known = {
        **frames,
        "recsys": recsys,
        "config": config,
        "run": run,
        "other": untrained,
        "model": recsys.load(run),
        "store": f"sqlite:///{tmp_path / 'mlflow.db'}",
    }
    found = 0
    for module in (
        experiments,
        checking,
        proposing,
        models,
        comparing,
        promoting,
        model,
        configuration,
        demo,
    ):
        finder = doctest.DocTestFinder(recurse=True)
        for test in finder.find(module, globs=dict(known)):
            found += len(test.examples)
            results = doctest.DocTestRunner().run(test)
            assert results.failed == 0, test.name
    assert found > 10


def test_frames_and_files_are_the_same_tables(
    frames: dict[str, pd.DataFrame], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, frame in frames.items():
        frame.to_parquet(f"{name}.parquet", index=False)
    of_files = recsys.init("log.parquet", "items.parquet", "users.parquet", out="recsys.yaml")
    reader = pa.Table.from_pandas(frames["users"], preserve_index=False).to_reader()
    of_frames = recsys.init(
        frames["log"].sample(frac=1.0, random_state=0).sort_index(),
        frames["items"].set_index("item_id"),
        reader,
    )
    of_polars = recsys.init(*map(pl.from_pandas, frames.values()))
    one, other = recsys.check(of_files), recsys.check(of_frames)
    assert recsys.check(of_polars).columns == other.columns
    assert one.rows == other.rows
    assert one.columns == other.columns
    assert of_files.to_yaml() == Path("recsys.yaml").read_text()
    with pytest.raises(recsys.ConfigError, match="give force=True"):
        recsys.init("log.parquet", out="recsys.yaml")


def test_lists_are_those_of_the_batch_job(
    opened: recsys.Model, frames: dict[str, pd.DataFrame], tmp_path: Path
) -> None:
    users = list(frames["log"]["user_id"].unique()[:5])
    found = opened.recommend(users, history=frames["log"], user_table=frames["users"], k=7)
    recsys.score(opened, tmp_path / "out", history=frames["log"], users=frames["users"], k=7)
    batch = pq.read_table(tmp_path / "out").to_pandas().set_index("user_id")
    assert sorted(found["user_id"].unique()) == sorted(users)
    for user, part in found.groupby("user_id"):
        assert list(part["item_id"]) == list(batch.loc[user, "items"])
        assert list(part["rank"]) == list(range(1, len(part) + 1))
        np.testing.assert_allclose(part["score"], batch.loc[user, "scores"], rtol=1e-6)


def test_the_training_log_is_the_default_history(
    opened: recsys.Model, frames: dict[str, pd.DataFrame]
) -> None:
    user = frames["log"]["user_id"].iloc[0]
    given = opened.recommend([user], history=frames["log"], user_table=frames["users"])
    pd.testing.assert_frame_equal(opened.recommend([user]), given)


def test_requests_are_answered_as_they_stand(opened: recsys.Model) -> None:
    asked = pd.DataFrame({"user_id": ["new", "other"], "history": [opened.items[:3], []]})
    found = opened.recommend(requests=asked, k=4)
    assert list(found["user_id"]) == ["new"] * 4 + ["other"] * 4
    assert not set(opened.items[:3]) & set(found.loc[found["user_id"] == "new", "item_id"])
    kept = opened.recommend(["other"], requests=asked, k=4)
    assert list(kept["item_id"]) == list(found.loc[found["user_id"] == "other", "item_id"])
    vectors = opened.query_vectors(requests=asked)
    items = opened.item_vectors()
    best = np.stack(items["vector"]) @ vectors["vector"][1]
    order = np.argsort(-best, kind="stable")[:4]
    assert list(items["item_id"][order]) == list(kept["item_id"])


def test_similar_items_are_the_nearest_by_cosine(opened: recsys.Model) -> None:
    vectors = np.stack(opened.item_vectors()["vector"])
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    for row in (0, 17):
        cosines = unit @ unit[row]
        cosines[row] = -np.inf
        expected = np.argsort(-cosines, kind="stable")[:5]
        found = opened.similar_items([opened.items[row]], k=5)
        assert list(found["similar_item"]) == [opened.items[one] for one in expected]
        np.testing.assert_allclose(found["score"], cosines[expected], rtol=1e-5)
    asked = ["similar", str(opened.path), "--item", opened.items[17], "--k", "5"]
    told = CliRunner().invoke(main, [*asked, "--json"])
    assert [one["similar_item"] for one in json.loads(told.output)] == list(found["similar_item"])
    assert found["similar_item"][0] in CliRunner().invoke(main, asked).output
    missing = CliRunner().invoke(main, [*asked, "--item", "none"])
    assert "item 'none' is not in the catalogue" in missing.stderr
    everything = opened.similar_items([opened.items[0]], k=10_000)
    assert len(everything) == len(opened.items) - 1


def test_other_values_are_checked_at_once(trained: Path) -> None:
    config = recsys.Config.open(trained.parents[1] / "config.yaml")
    changed = config.with_({"training.batch_size": 64}, epochs=7)
    assert (changed["training.batch_size"], changed["training.epochs"]) == (64, 7)
    assert config["training.epochs"] != 7
    for arguments, message in (
        ({"epoch": 5}, "no key 'epoch' .did you mean 'epochs'"),
        ({"epochs": "five"}, "training.epochs"),
        ({"seed": -1.5}, "training.seed"),
    ):
        with pytest.raises(recsys.ConfigError, match=message):
            config.with_(**arguments)
    with pytest.raises(recsys.ConfigError, match=r"unknown key 'training\.epoch'"):
        config.with_({"training.epoch": 5})
    with pytest.raises(recsys.ConfigError, match=r"no key 'training\.epoch'"):
        config["training.epoch"]


def test_a_saved_configuration_is_read_by_the_command_line(
    frames: dict[str, pd.DataFrame], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = recsys.init(frames["log"], frames["items"]).with_(epochs=3)
    (tmp_path / "elsewhere").mkdir()
    for place in ("recsys.yaml", "elsewhere/recsys.yaml"):
        saved = config.save(place)
        assert recsys.Config.open(saved)["training.epochs"] == 3
        assert recsys.check(saved).rows["interactions"] == len(frames["log"])
    with pytest.raises(recsys.ConfigError, match="exists"):
        config.save("recsys.yaml")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: recsys.train(3), r"recsys.train\(\): argument 'config': must be .*got 3 .int"),
        (lambda m: recsys.train("x.yaml", epoch=3), "no argument 'epoch'"),
        (
            lambda m: recsys.demo_tables("shop"),
            "its arguments by name: users, items, .*'shop'",
        ),
        (lambda m: recsys.train("x.yaml", workers="2"), "argument 'workers': must be int; got '2'"),
        (lambda m: recsys.export(m, "out"), "say what to export --to, or --tune"),
        (lambda m: recsys.export(m, "out", to="annoy"), "'faiss'"),
        (lambda m: recsys.init(), "at least one table"),
        (lambda m: recsys.init(3), r"table1: expected a path or a data frame.* got 3 \(int\)"),
        (lambda m: m.recommend("u1"), r"expected several ids, as in \['u1', 'u2'\]; got 'u1'"),
        (lambda m: m.recommend(["u1"], history=5), "history: expected a path or a data frame"),
        (lambda m: m.recommend(["nobody"]), "user 'nobody'"),
        (
            lambda m: m.recommend(requests=pd.DataFrame({"a": [1]})),
            "column 'user_id': .* no such column",
        ),
        (lambda m: m.recommend(requests=pd.DataFrame({"a": [1]}), history="x"), "leave history"),
        (lambda m: m.recommend(k=0), "argument 'k': input should be greater .* to 1; got 0"),
        (lambda m: recsys.score(m, "out", history="x", rows_per_part=-5), "'rows_per_part': .*-5"),
        (lambda m: recsys.train("x.yaml", workers=0), "argument 'workers': .* got 0"),
        (lambda m: recsys.tune("x.yaml", trials=0), "argument 'trials': .* got 0"),
        (lambda m: recsys.tune("x.yaml", minutes=float("inf")), "'minutes': .* finite .* got inf"),
        (lambda m: recsys.tune("x.yaml", trials=1, seed=-1), "argument 'seed': .* got -1"),
        (lambda m: recsys.export(m, "o", to="faiss", min_recall=95.0), "or equal to 1; got 95.0"),
        (lambda m: recsys.explain(m, row=0), "argument 'row': .* got 0"),
        (lambda m: m.similar_items(["none"]), "item 'none' is not in the catalogue"),
        (lambda m: m.similar_items(m.items[:1], k=0), "argument 'k': .* got 0"),
        (lambda m: m.predict(pd.DataFrame({"a": [1]})), r"this model \(two_tower\) ranks items"),
        (lambda m: recsys.explain(m), "explained one item at a time"),
        (lambda m: recsys.explain(m, user="u"), "give user and item"),
        (lambda m: recsys.tune("x.yaml"), "needs trials, minutes"),
        (lambda m: recsys.score(m, "out"), "one of the two"),
        (lambda m: recsys.load("models:/nothing@champion"), "no MLflow store"),
    ],
)
def test_mistakes_are_told_at_once(
    opened: recsys.Model, call: Any, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(recsys.UserError, match=message):
        call(opened)
    assert not list(tmp_path.iterdir())


def test_errors_about_frames_name_the_argument_and_no_file(
    opened: recsys.Model, frames: dict[str, pd.DataFrame], tmp_path: Path
) -> None:
    user, items, log = opened.config.schema_.user_key, frames["items"], frames["log"]
    some = [frames["users"][user].iloc[0]]
    with pytest.raises(recsys.ConfigError, match="the data frame given as items have no column"):
        opened.recommend(some, where="prise < 3", items=items)
    with pytest.raises(recsys.DataError) as told:
        opened.recommend(some, where="price < 3", items=items.assign(price="x"))
    assert str(told.value).startswith("items row 1, column 'price': text where")
    assert (told.value.file, told.value.rows[0].file) == ("items", "items")
    with pytest.raises(recsys.DataError, match=r"^block, column 'user_id'"):
        opened.recommend(some, block=items)
    with pytest.raises(recsys.DataError, match=r"^history, column 'item_id'"):
        opened.recommend(some, history=log.drop(columns="item_id"))
    for name, more in (("history", {"users": frames["users"]}), ("requests", {})):
        with pytest.raises(recsys.DataError) as told:
            recsys.score(opened, tmp_path / "out", **{name: log[["timestamp"]], **more})
        assert "/" not in str(told.value)
    path = tmp_path / "today.parquet"
    items.to_parquet(path)
    with pytest.raises(recsys.ConfigError, match=f"the items of {path} have no column"):
        opened.recommend(some, where="prise < 3", items=path)


def test_a_column_of_several_types_is_named() -> None:
    frame = pd.DataFrame({"user": [1, "a"], "item": ["x", "y"]}, dtype=object)
    with pytest.raises(recsys.DataError, match="table1, column 'user': values of several types"):
        recsys.init(frame)
    twice = pd.DataFrame([[1, 2]], columns=["user", "user"])
    with pytest.raises(recsys.DataError, match="two columns are named 'user'"):
        recsys.init(twice)


def test_columns_of_polars_are_read_by_their_types(tmp_path: Path) -> None:
    """Its text is a view, its categories are dictionaries, its lists are large."""
    frame = pl.DataFrame(
        {
            "user": ["a", "a", "b", "b", "c", "c"],
            "item": pl.Series([10, 11, 10, 12, 11, 12], dtype=pl.UInt32),
            "at": [datetime(2024, 1, day, tzinfo=UTC) for day in range(1, 7)],
            "device": pl.Series(["tv", "pc", None, "tv", "pc", "tv"], dtype=pl.Categorical),
            "tags": [["x"], [], None, ["x", "y"], ["z"], ["y"]],
            "price": pl.Series(["1.50", "2", None, "3", "4", "5"]).cast(pl.Decimal(10, 2)),
        }
    )
    path = path_of(frame, "log", tmp_path)
    features = [
        {"name": "item", "table": "items", "kind": "categorical"},
        {"name": "device", "table": "interactions", "kind": "categorical"},
        {"name": "tags", "table": "interactions", "kind": "multi_categorical"},
        {"name": "price", "table": "interactions", "kind": "numeric"},
    ]
    roles = {"user": "user", "item": "item", "time": {"column": "at", "unit": "datetime"}}
    schema = parse(Schema, {"interactions": roles, "features": features}, source="test")
    tables = read_tables(schema, Sources(interactions=path), Policies())
    context = tables.events.context
    assert tables.items["item"].to_pylist() == [10, 11, 12]
    assert context["device"].to_pylist() == frame["device"].to_list()
    assert context["tags"].to_pylist() == frame["tags"].to_list()
    assert context["price"].to_pylist() == [1.5, 2.0, None, 3.0, 4.0, 5.0]


def test_answers_are_in_the_order_of_the_users(
    opened: recsys.Model, frames: dict[str, pd.DataFrame]
) -> None:
    """A user who is asked for twice is answered twice, with the same list."""
    first, second = frames["log"]["user_id"].unique()[:2]
    asked = [second, first, second]
    log, users = frames["log"], frames["users"]
    lists = opened.recommend(asked, history=log, user_table=users, k=2)
    assert lists["user_id"].tolist() == [second] * 2 + [first] * 2 + [second] * 2
    one = opened.recommend([first], history=log, user_table=users, k=2)
    assert lists["item_id"][2:4].tolist() == one["item_id"].tolist()
    vectors = opened.query_vectors(asked, history=log, user_table=users)
    assert vectors["user_id"].tolist() == asked
    alone = opened.query_vectors([first], history=log, user_table=users)
    np.testing.assert_allclose(vectors["vector"][1], alone["vector"][0], rtol=1e-5)


def test_a_user_or_an_item_that_requests_name_in_vain_is_said(
    opened: recsys.Model, caplog: pytest.LogCaptureFixture
) -> None:
    known = opened.items[0]
    requests = pa.table({"user_id": ["a"], "history": [[known, "no-such-item"]]})
    with pytest.raises(recsys.NotFoundError, match="user 'b' is not among the requests"):
        opened.recommend(["a", "b"], requests=requests)
    numbered = requests.set_column(0, "user_id", pa.array([1]))
    with pytest.raises(recsys.DataError, match="users: ids of type int64 are expected"):
        opened.recommend(["a"], requests=numbered)
    assert len(opened.recommend(requests=requests, k=3)) == 3
    assert "1 items of histories are not in the catalogue" in caplog.text
    assert "'no-such-item'" in caplog.text


def test_parts_that_are_written_are_told(
    opened: recsys.Model, frames: dict[str, pd.DataFrame], tmp_path: Path
) -> None:
    told: list[object] = []
    tables = {"history": frames["log"], "users": frames["users"], "rows_per_part": 80}
    recsys.score(opened, tmp_path / "out", listener=told.append, **tables)
    assert told == [recsys.PartDone(done, 3) for done in (1, 2, 3)]


def test_what_is_returned_shows_as_a_table(opened: recsys.Model, trained: Path) -> None:
    signature = str(inspect.signature(recsys.train))
    assert "listener" in signature
    assert "Annotated" not in signature
    evaluation = opened.evaluate(settings={"evaluation.baselines": ["popularity"]})
    assert repr(evaluation).splitlines()[0].split() == ["model", "metric", "value", "low", "high"]
    assert evaluation._repr_html_().startswith("<table")  # type: ignore[attr-defined]
    config = recsys.Config.open(trained.parents[1] / "config.yaml")
    assert str(recsys.check(config)).startswith("4,000 interactions")
    with pytest.raises(recsys.ConfigError, match="explained one item at a time"):
        opened.explain()


def test_an_item_is_explained_at_the_place_that_its_user_is_shown_it_at(
    opened: recsys.Model, frames: dict[str, Any]
) -> None:
    user = str(frames["users"].iloc[0, 0])
    whole = opened.recommend([user], k=5)
    for filters in ({}, {"where": "price > 10", "exclude": [whole.iloc[1, 1]]}):
        filtered = opened.recommend([user], k=5, **filters)
        assert filtered.equals(whole) == (not filters)
        for row in filtered.itertuples(index=False):
            why = opened.explain(user=user, item=str(row[1]), **filters)
            assert (why.rank, why.score) == (row.rank, pytest.approx(row.score, abs=1e-5))


def test_lists_of_categories_of_polars_are_kept(tmp_path: Path) -> None:
    tags = pl.Series([["x", "y"], []], dtype=pl.List(pl.Categorical))
    path = path_of(pl.DataFrame({"user": ["a", "b"], "tags": tags}), "log", tmp_path)
    assert pq.read_table(path)["tags"].to_pylist() == [["x", "y"], []]
