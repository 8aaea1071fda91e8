"""Query vectors outside the engine: ONNX graphs of every kind of feature, and Parquet."""

import json
import re
import shutil
import subprocess
import sys
import unicodedata
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from click.testing import CliRunner

import recsys
from recsys.app.cli import main
from recsys.core.errors import ConfigError, DataError, IntegrityError
from recsys.features.kinds import text
from recsys.features.kinds.registry import column_kinds
from recsys.serving.export import query_tower
from recsys.serving.export.queries import QueryTower, words
from recsys.serving.export.query_tower import export_query_tower
from recsys.serving.export.query_vectors import vectors_and_gains
from recsys.serving.recommend.scorer import Scorer
from recsys.training.families.load import load_config
from recsys.training.jobs.train import train

USERS, ITEMS, START, MINUTE = 40, 24, 1_700_000_000, 60
TRANSFORMS = ("standardise", "log1p", "log_squared", "quantile", "piecewise", "discretise")
TABLES: dict[str, Any] = {
    "data": {"interactions": "log.parquet", "users": "users.parquet"},
    "embedding": {"num_rows": 512, "dim": 8, "backend": "torch"},
    "training": {"batch_size": 64, "epochs": 1, "precision": "float32"},
    "evaluation": {"bootstrap_samples": 10, "baselines": []},
    "index": {"kind": "exact"},
    "tracking": {"enabled": False},
}
ROLES = {"user": "user", "item": "item", "time": {"column": "at", "unit": "s"}}
FEATURES = [
    {"name": "item", "table": "items", "kind": "categorical"},
    {"name": "user", "table": "users", "kind": "categorical"},
    {"name": "city", "table": "users", "kind": "categorical", "multiplicity": 2, "min_count": 5},
    {"name": "member", "table": "users", "kind": "categorical"},
    {"name": "level", "table": "users", "kind": "categorical"},
    {"name": "tags", "table": "users", "kind": "multi_categorical", "weights": "tag_weights"},
    {"name": "codes", "table": "users", "kind": "multi_categorical", "pooling": "sqrtn"},
    {"name": "likes", "table": "users", "kind": "multi_categorical", "separator": "|"},
    {"name": "about", "table": "users", "kind": "text", "pooling": "sum"},
    {"name": "taste", "table": "users", "kind": "vector", "dim": 3},
    {"name": "joined", "table": "users", "kind": "timestamp", "unit": "datetime"},
    {"name": "born", "table": "users", "kind": "timestamp", "unit": "s"},
    *(
        {"name": f"n_{one}", "column": "spent", "table": "users", "kind": "numeric"}
        | {"transform": one}
        for one in TRANSFORMS
    ),
    {"name": "squares", "column": "spent", "table": "users", "kind": "numeric"}
    | {"transform": "discretise", "bins": "log_squared"},
    {"name": "device", "table": "interactions", "kind": "categorical"},
    {"name": "basket", "table": "interactions", "kind": "multi_categorical"},
    {"name": "price", "table": "interactions", "kind": "numeric"},
]
ABOUT = ["Likes red shoes", "wine, Cheese & BREAD", "", "ÄRGER über Öl-Preise 2", None]


def user_table() -> pa.Table:
    rng = np.random.default_rng(1)
    spent = np.round(rng.lognormal(2, 2, USERS), 2)
    spent[::5] = 7.0  # a tie among the quantiles
    when = [datetime(2020, 1, 1 + user % 28, user % 24, 3, tzinfo=UTC) for user in range(USERS)]
    return pa.table(
        {
            "user": [f"u{user:02}" for user in range(USERS)],
            "city": [["north", "south", "rare", None][min(user % 8, 3)] for user in range(USERS)],
            "member": [user % 3 == 0 for user in range(USERS)],
            "level": pa.array([user % 4 - 2 for user in range(USERS)], pa.int64()),
            "tags": [["a", "b", "c"][: user % 4] for user in range(USERS)],
            "tag_weights": [[1.0, 0.25, 0.0][: user % 4] for user in range(USERS)],
            "codes": [list(range(user % 3)) for user in range(USERS)],
            "likes": [["tea|coffee", " tea | milk", "", None][user % 4] for user in range(USERS)],
            "about": [ABOUT[user % 5] for user in range(USERS)],
            "taste": [None if user % 7 == 0 else rng.random(3).tolist() for user in range(USERS)],
            "joined": pa.array(when, pa.timestamp("us", "UTC")),
            "born": pa.array([START - user * 86_000 for user in range(USERS)], pa.int64()),
            "spent": pa.array(spent, mask=np.arange(USERS) % 9 == 4),
        }
    )


def log() -> pa.Table:
    rng, rows = np.random.default_rng(0), 700
    return pa.table(
        {
            "user": [f"u{user:02}" for user in np.sort(rng.integers(0, USERS, rows))],
            "item": [f"i{item:02}" for item in rng.permutation(np.arange(rows) % ITEMS)],
            "at": START + np.cumsum(rng.integers(10, 2_000, rows)),
            "device": rng.choice(["phone", "desk"], rows),
            "basket": [["x", "y", "z"][: row % 4] for row in range(rows)],
            "price": np.round(rng.random(rows) * 9, 2),
        }
    )


Trained = Callable[..., Path]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("towers")
    pq.write_table(log(), folder / "log.parquet")
    pq.write_table(user_table(), folder / "users.parquet")

    def of(name: str, **settings: Any) -> Path:
        schema = {"interactions": ROLES, "users": {"key": "user"}, "features": FEATURES}
        output = {"output": str(folder / name)}
        whole = {**TABLES, "schema": schema, **settings, **output}
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(whole))
        result = train(load_config(folder / f"{name}.yaml"))
        assert result is not None
        return result.bundle

    return of


@pytest.fixture(scope="module")
def two_tower(trained: Trained) -> Path:
    model = {"kind": "two_tower", "dim": 8, "history_length": 4, "interests": 2}
    return trained("two_tower", model={**model, "geometry": "ball"})


@pytest.fixture(scope="module")
def session(trained: Trained) -> Path:
    model = {"kind": "session", "dim": 8, "history_length": 4, "time_gaps": True}
    model |= {"repeats": True, "readout": "items", "memory": "none", "geometry": "biased_sphere"}
    return trained("session", model=model, sessions={"inactivity_minutes": 60})


def histories() -> list[dict[str, Any]]:
    """No item, unknown ones, more than are seen, times that pause, repeat or are not known."""
    long = [f"i{number % ITEMS:02}" for number in range(9)]
    pause = [START, START + 30, START + 31 + 61 * MINUTE, START + 40 + 61 * MINUTE]
    return [
        {"history": []},
        {"history": ["i03"], "history_times": [START]},
        {"history": ["nowhere"], "history_times": [START]},
        {"history": long, "history_times": [START + 40 * n for n in range(9)]},
        {"history": [*long[:3], None, "nowhere", "i07"]},
        {"history": ["i01", "nowhere", "i05", "i01"], "history_times": pause},
        {"history": ["i01", "i02", "i05"], "history_times": [START, None, START + 999_999]},
        {"history": ["i09", "i02"], "history_times": [None, START]},
        {"history": ["i09", "nowhere", "i02"], "history_times": [START, START + 1, START + 4000]},
    ]


def requests() -> list[dict[str, Any]]:
    """Users whom training knew, those who are new, values that it never saw, values unknown."""
    known = user_table().to_pylist()
    odd = {"user": "new", "city": "nowhere", "level": 2**62, "spent": -1e9, "member": None}
    odd |= {"tags": ["a", None, "q"], "tag_weights": [0.5, 2.0, 1.0], "codes": [-(2**63), 1]}
    odd |= {"likes": "|tea||", "about": "ΟΔΟΣ İstanbul ½ x²", "taste": [1e3, -1.0, 0.0]}
    odd |= {"joined": datetime(1960, 5, 5, 23, 59, tzinfo=UTC), "born": -5}
    nothing = dict.fromkeys(known[0]) | {"user": "nobody"}
    people = [*known[:5], odd, nothing, known[6], known[11]]
    steps = [{"device": "phone", "price": 3.5, "basket": ["x", "never"]}, {"device": None}]
    found = []
    for number, (person, history) in enumerate(zip(people, histories(), strict=True)):
        step = {"device": None, "price": None, "basket": None, **steps[number % 2]}
        found.append({"history_times": None, **person, **step, **history, "user": f"{number}"})
        found[-1]["user"] = person["user"]
    return found


def with_steps(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of a model of sessions what is known is known of each step."""
    found = []
    for number, row in enumerate(rows):
        kept = {k: v for k, v in row.items() if k not in ("device", "price", "basket")}
        count = len(row["history"])
        kept["history_device"] = (["phone", None, "never", "desk"] * 3)[:count]
        kept["history_price"] = [0.5 * place for place in range(count)] if number % 2 else None
        kept["history_basket"] = ([["x"], None, ["y", "z", "x"], []] * 3)[:count]
        found.append(kept)
    return found


def table_of(rows: list[dict[str, Any]]) -> pa.Table:
    types = {"spent": pa.float64(), "born": pa.int64(), "codes": pa.list_(pa.int64())}
    types |= {"joined": pa.timestamp("us", "UTC"), "history_times": pa.list_(pa.int64())}
    return pa.table(
        {name: pa.array([row[name] for row in rows], types.get(name)) for name in rows[0]}
    )


@pytest.fixture(scope="module")
def folder(session: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tower of the model of sessions, and its item vectors next to it."""
    folder = tmp_path_factory.mktemp("exported")
    recsys.export(session, folder / "session", to="onnx")
    recsys.export(session, folder / "vectors", to="parquet")
    return folder


@pytest.mark.parametrize("kind", ["two_tower", "session"])
def test_a_tower_answers_raw_requests_as_the_engine_does(
    kind: str, request: pytest.FixtureRequest, folder: Path
) -> None:
    bundle = request.getfixturevalue(kind)
    if kind == "two_tower":
        export_query_tower(bundle, folder / kind)
    facts = json.loads((folder / kind / "export.json").read_text())
    assert facts["largest_difference"] < 1e-5
    rows = requests() if kind == "two_tower" else with_steps(requests())
    scorer, tower = Scorer.open(bundle), QueryTower(folder / kind)
    vectors, gains = vectors_and_gains(scorer, scorer.encode(table_of(rows)))
    found = tower(rows)
    np.testing.assert_allclose(found["vector"], vectors.numpy(), atol=2e-5)
    for number, row in enumerate(rows):  # alone as among others
        np.testing.assert_allclose(tower([row])["vector"][0], found["vector"][number], atol=1e-5)
    if gains is None:
        assert list(found) == ["vector"]
        assert found["vector"].shape[1:] == (2, 10)
    else:
        np.testing.assert_allclose(found["repeat_gain"], gains.numpy(), atol=2e-5)
    assert len({one.tobytes() for one in found["vector"]}) == len(rows)


ALONE = """
import sys
class Refused:
    def find_spec(self, name, *rest):
        if name.split(".")[0] in ("torch", "recsys"):
            raise ImportError(f"{name} is not to be here")
sys.meta_path.insert(0, Refused())
sys.path.insert(0, ".")
"""


def test_the_page_of_an_export_runs_without_the_engine(session: Path, folder: Path) -> None:
    page = (folder / "session" / "README.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(blocks) == 2
    program = ALONE + "\n".join(blocks)
    found = subprocess.run(
        [sys.executable, "-I", "-c", program],
        cwd=folder / "session",
        capture_output=True,
        text=True,
        check=True,
    )
    asked: dict[str, Any] = {}
    exec(re.sub(r"answer = .*|print.*|.*QueryTower.*", "", blocks[0]), asked)
    row = {**dict.fromkeys(with_steps(requests())[0]), **asked["request"]}
    row["joined"] = datetime.fromisoformat(row["joined"])
    lists = recsys.load(session).recommend(requests=table_of([row]), k=10, filter_seen=False)
    assert found.stdout.splitlines()[-1] == str(list(lists["item"]))


def test_what_is_said_of_an_export(folder: Path, two_tower: Path) -> None:
    about = json.loads((folder / "session" / "export.json").read_text())
    assert about["outputs"] == ["vector", "repeat_gain"]
    assert "Leave" not in about["queries"]
    assert "gain" in about["queries"]
    assert {one["column"] for one in about["columns"]} >= {"user", "history", "history_times"}
    with pytest.raises(ConfigError, match="exists; choose another --out"):
        export_query_tower(two_tower, folder / "session")
    with pytest.raises(ConfigError, match="--encoding fde is about item vectors and indexes"):
        recsys.export(two_tower, folder / "encoded", to="onnx", encoding="fde")


def test_arrays_are_taken_without_what_has_a_default(folder: Path) -> None:
    tower = QueryTower(folder / "session")
    row = {**with_steps(requests())[3], "history_times": None}
    inputs = {n: one for n, one in tower.inputs([row]).items() if not n.endswith("history.length")}
    found = tower.session.run(None, inputs)[0]
    np.testing.assert_allclose(found, tower([row])["vector"], atol=1e-6)


def test_wrong_values_are_named(folder: Path) -> None:
    tower, row = QueryTower(folder / "session"), with_steps(requests())[1]
    for change, message in (
        ({"history": None}, "request 1 has no 'history'"),
        ({"city": 7}, "column 'city' holds string values, got 7"),
        ({"level": "7"}, "column 'level' holds integer values, got '7'"),
        ({"level": True}, "column 'level' holds integer values, got True"),
        ({"taste": [1.0]}, "column 'taste'"),
        ({"spent": "much"}, "column 'spent'"),
        ({"likes": ["tea"]}, "column 'likes' is text"),
        ({"tag_weights": []}, "'tag_weights' has 0 weights for 1 values of 'tags'"),
        ({"history_device": ["phone"] * 3}, "'history_device' has 3 values, the history 1 items"),
        ({"history_times": [datetime(2024, 1, 1)]}, "a time is a whole number of s since 1970"),
    ):
        with pytest.raises(ValueError, match=message):
            tower([{**row, **change}])


def test_a_graph_that_computes_something_else_is_refused(
    session: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def other(path: Path, scorer: Scorer) -> list[dict[str, Any]]:
        shutil.copy(folder / "session" / "query_tower.onnx", path)
        return []

    monkeypatch.setattr(query_tower, "write_query_tower", other)
    real = query_tower.vectors_and_gains

    def shifted(*given: Any) -> Any:
        vectors, gains = real(*given)
        return vectors + 0.01, gains

    monkeypatch.setattr(query_tower, "vectors_and_gains", shifted)
    with pytest.raises(IntegrityError, match=r"the request of user 'u\d+' a vector that"):
        export_query_tower(session, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_every_kind_of_column_is_expressed() -> None:
    for kind in column_kinds():
        assert "express" in vars(kind), f"{kind.__name__} is refused by exports of query towers"


def test_words_are_those_of_the_engine() -> None:
    every = [chr(code) for code in range(0x30000) if not 0xD800 <= code < 0xE000]
    # Characters that one of the two sides knows by an older Unicode are left out.
    every = [one for one in every if unicodedata.category(one) != "Cn"]
    texts = ["ΟΔΟΣ İstanbul ½ x²", "a-b_c", " ", *("".join(every[i::97]) for i in range(97))]
    mine = [words(one) for one in texts]
    theirs = text._words(pa.chunked_array([texts])).to_pylist()
    wrong = [
        (a, b)
        for one, other in zip(mine, theirs, strict=True)
        for a, b in zip(one, other or [], strict=False)
        if a != b
    ]
    assert len(wrong) == 0, wrong[:5]


def exported(bundle: Path, folder: Path, *options: object) -> tuple[pa.Table, dict[str, Any]]:
    """What `recsys export --queries` writes."""
    arguments = ["export", str(bundle), "--out", str(folder), "--json", *map(str, options)]
    found = CliRunner().invoke(main, arguments)
    assert found.exit_code == 0, found.output
    return pq.read_table(folder / "queries.parquet"), json.loads(found.stdout)


def test_vectors_of_requests_of_a_log_and_of_users(
    two_tower: Path, session: Path, trained: Trained, tmp_path: Path
) -> None:
    model, rows = recsys.load(two_tower), with_steps(requests())
    data = two_tower.parents[3]
    people = table_of(requests())
    pq.write_table(people, tmp_path / "asked.parquet", row_group_size=4)
    found, facts = exported(two_tower, tmp_path / "a", "--queries", tmp_path / "asked.parquet")
    wanted = model.query_vectors(requests=people)
    assert (facts["users"], facts["interests"], facts["unknown_history_items"]) == (9, 2, 5)
    assert found["user"].to_pylist() == [one for one in wanted["user"] for _ in range(2)]
    assert found["interest"].to_pylist() == [0, 1] * 9
    vectors = np.stack(found["vector"].to_numpy()).reshape(9, 2, -1)
    np.testing.assert_allclose(vectors, np.stack(wanted["vector"]), atol=1e-6)

    log, users = data / "log.parquet", data / "users.parquet"
    found, facts = exported(session, tmp_path / "b", "--queries", log, "--users", users)
    wanted = recsys.load(session).query_vectors(history=log, user_table=users)
    assert found["user"].to_pylist() == wanted["user"].to_list()
    np.testing.assert_allclose(
        np.stack(found["vector"].to_numpy()), np.stack(wanted["vector"]), atol=1e-6
    )
    np.testing.assert_allclose(found["repeat_gain"].to_numpy(), wanted["repeat_gain"], atol=1e-6)

    found, facts = exported(two_tower, tmp_path / "c", "--queries", users)
    alone = pq.read_table(users)
    alone = alone.append_column("history", pa.array([[]] * USERS, pa.list_(pa.string())))
    wanted = model.query_vectors(requests=alone)
    vectors = np.stack(found["vector"].to_numpy()).reshape(USERS, 2, -1)
    np.testing.assert_allclose(vectors, np.stack(wanted["vector"]), atol=1e-6)

    whole = recsys.export_query_vectors(model, tmp_path / "d", queries=people, encoding="fde")
    one = pq.read_table(tmp_path / "d" / "queries.parquet")
    assert one.schema.field("vector").type.list_size == whole["dim"]
    assert one.num_rows == len(rows)
    with pytest.raises(ConfigError, match="exists; choose another --out"):
        recsys.export_query_vectors(model, tmp_path / "d", queries=people)
    with pytest.raises(ConfigError, match="--users and --other go with an interaction log"):
        recsys.export_query_vectors(model, tmp_path / "e", queries=people, users=alone)
    with pytest.raises(DataError, match=r"no such column.*give requests \('user' and 'history'"):
        recsys.export_query_vectors(model, tmp_path / "e", queries=alone.select(["city"]))
    assert not (tmp_path / "e").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "give --to, or --tune, which chooses an index, or --queries"),
        (("--to", "exact", "--queries", "log"), "--to is about the items, and --queries writes"),
        (("--tune", "--queries", "log"), "--tune is about the items, and --queries writes"),
        (("--to", "exact", "--users", "u"), "--users and --other go with --queries"),
    ],
)
def test_what_is_exported_is_one_of_the_two(
    two_tower: Path, tmp_path: Path, options: tuple[str, ...], message: str
) -> None:
    arguments = ["export", str(two_tower), "--out", str(tmp_path / "out"), *options]
    found = CliRunner().invoke(main, arguments)
    assert found.exit_code == 2
    assert message in found.output
