"""Requests to a served model: seen items as when evaluated, errors with their file, MLflow too."""

import json
import shutil
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from click.testing import CliRunner

import recsys
from recsys.app.cli import main
from recsys.bundle.directory import Bundle, write_bundle
from recsys.core.errors import ConfigError, DataError
from recsys.features.requests.origin import RequestOrigin
from recsys.features.tables.checked import read_tables
from recsys.features.tables.sources import Policies, Sources
from recsys.serving.answering.registry import answering_of
from recsys.serving.engines.batch import (
    score_to_parquet,
    shards_of_log,
    shards_of_requests,
)
from recsys.serving.engines.logged import rows_of
from recsys.serving.engines.parts import JOB, write_parts
from recsys.serving.recommend.filters import FilterOptions, Filters
from recsys.serving.recommend.scorer import Scorer
from recsys.serving.recommend.seen import seen_in_words
from recsys.serving.registry import register
from recsys.training.families.load import load_config
from recsys.training.jobs.train import train

Ask = Callable[..., tuple[int, str]]
SETTINGS: dict[str, Any] = {
    "data": {"interactions": "log.parquet"},
    "split": {"kind": "leave_one_out"},
    "schema": {
        "interactions": {
            "user": "user",
            "item": "item",
            "time": {"column": "at", "unit": "datetime"},
        },
        "features": [
            {"name": "item", "table": "items", "kind": "categorical"},
            {"name": "what", "table": "interactions", "kind": "categorical"},
        ],
    },
    "sessions": {"inactivity_minutes": 30},
    "embedding": {"num_rows": 256, "dim": 8},
    "model": {"kind": "session", "dim": 8, "history_length": 8, "time_gaps": True},
    "training": {"loss": "full_softmax", "batch_size": 64, "epochs": 1, "metric": "mrr_at_5"},
    "evaluation": {"queries": "events", "filter_seen": False, "ks": [5], "baselines": []},
    "tracking": {"enabled": False},
}


@pytest.fixture(scope="module")
def log() -> pd.DataFrame:
    """40 users with three visits each, hours apart."""
    rng, rows = np.random.default_rng(0), []
    for user in range(40):
        clock = 1_700_000_000 + 7 * user
        for _visit in range(3):
            for _step in range(int(rng.integers(2, 6))):
                kind = ("view", "cart")[rng.integers(2)]
                rows.append((f"u{user:02}", f"i{rng.integers(20):02}", clock, kind))
                clock += int(rng.integers(5, 600))
            clock += 5 * 3_600
    frame = pd.DataFrame(rows, columns=["user", "item", "at", "what"])
    return frame.assign(at=pd.to_datetime(frame["at"], unit="s"))


@pytest.fixture(scope="module")
def bundle(log: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A session model, evaluated with seen items in the lists."""
    folder = tmp_path_factory.mktemp("served")
    log.to_parquet(folder / "log.parquet")
    text = yaml.safe_dump({**SETTINGS, "output": str(folder / "runs")})
    (folder / "recsys.yaml").write_text(text)
    result = train(load_config(folder / "recsys.yaml"))
    assert result is not None
    return result.bundle


@pytest.fixture(scope="module")
def whole(log: pd.DataFrame) -> pd.DataFrame:
    """Each user's whole log as a request."""
    lists = log.groupby("user").agg(
        history=("item", list), history_times=("at", list), history_what=("what", list)
    )
    return lists.reset_index()


@pytest.fixture(scope="module")
def model(
    bundle: Path, mlflow_template: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Any]:
    """The bundle as MLflow loads it from a registry."""
    folder = tmp_path_factory.mktemp("registry")
    shutil.copy(mlflow_template, folder / "mlflow.db")
    store = f"sqlite:///{folder / 'mlflow.db'}"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        register(Bundle.open(bundle), "shop", uri=store)
        patch.setenv("MLFLOW_TRACKING_URI", store)
        import mlflow

        yield mlflow.pyfunc.load_model("models:/shop/1")


@pytest.fixture
def ask(bundle: Path, tmp_path: Path) -> Ask:
    """Run `recsys score` on a table of requests in the file asked.parquet."""

    def score(frame: pd.DataFrame, *options: str, out: str = "out") -> tuple[int, str]:
        path = tmp_path / "asked.parquet"
        frame.to_parquet(path)
        arguments = ["score", str(bundle), "--input", str(path), "--output", str(tmp_path / out)]
        result = CliRunner().invoke(main, [*arguments, *options])
        return result.exit_code, result.output

    return score


def forged(trained: Path, parent: Path, change: Callable[[Path], None]) -> Path:
    """Return the bundle with some files changed, under a manifest that is right."""

    def write(folder: Path) -> None:
        shutil.copytree(trained, folder, dirs_exist_ok=True)
        (folder / "manifest.json").unlink()
        change(folder)

    return write_bundle(parent, write, facts=Bundle.open(trained).manifest["facts"])


def test_lists_hold_seen_items_where_those_of_the_evaluation_did(
    bundle: Path, whole: pd.DataFrame, ask: Ask, tmp_path: Path
) -> None:
    found = {}
    for out, options in {"plain": (), "keep": ("--keep-seen",), "hide": ("--hide-seen",)}.items():
        code, said = ask(whole, "--k", "20", *options, out=out)
        assert code == 0, said
        expected = "left out, as asked; " if out == "hide" else "kept, as when the model was eval"
        assert f"seen items: {expected}" in said
        assert json.loads((tmp_path / out / JOB).read_text())["filter_seen"] is (out == "hide")
        found[out] = pq.read_table(tmp_path / out).column("items").to_pylist()
    assert found["plain"] == found["keep"]
    histories = whole.history.tolist()
    pairs = list(zip(found["plain"], found["hide"], histories, strict=True))
    assert all(set(kept) & set(history) for kept, _, history in pairs)
    assert not any(set(hidden) & set(history) for _, hidden, history in pairs)
    code, said = ask(whole, "--k", "20", "--hide-seen", out="plain")
    assert (code, "holds the scores of another job" in said) == (2, True)


def test_a_model_evaluated_without_seen_items_is_served_without_them(
    trained: Path, tmp_path: Path
) -> None:
    assert Scorer.open(trained).filter_seen

    def keep(folder: Path) -> None:
        raw = json.loads((folder / "model.json").read_text())
        raw["evaluation"]["filter_seen"] = False
        (folder / "model.json").write_text(json.dumps(raw))

    kept = forged(trained, tmp_path / "kept", keep)
    assert not Scorer.open(kept).filter_seen

    def older(folder: Path, *, bare: bool) -> None:
        """As engines wrote it whose description did not say how the model was evaluated."""
        described = json.loads((folder / "model.json").read_text())
        del described["answers"], described["evaluation"]
        (folder / "model.json").write_text(json.dumps(described))
        raw = yaml.safe_load((folder / "config.yaml").read_text())
        raw["evaluation"]["filter_seen"] = False
        (folder / "config.yaml").write_text(yaml.safe_dump(raw))
        if bare:
            (folder / "config.yaml").unlink()

    assert Scorer.open(forged(trained, tmp_path / "bare", partial(older, bare=True))).filter_seen
    old = forged(trained, tmp_path / "old", partial(older, bare=False))
    assert not Scorer.open(old).filter_seen
    assert Scorer.open(kept, filter_seen=True).seen_items.startswith("left out, as asked")
    assert "as asked; the model was evaluated with them left out" in seen_in_words(False, True)
    assert "filter_seen: true" in seen_in_words(True, True)


def test_mlflow_asks_as_the_model_was_evaluated(
    bundle: Path, whole: pd.DataFrame, model: Any
) -> None:
    defaults = {one["name"]: one["default"] for one in model.metadata.signature.params.to_dict()}
    assert defaults == {
        "k": 20,
        "filter_seen": False,
        "probability": False,
        "where": None,
        "exclude": [],
        "cut": False,
        "vectors": False,
    }
    kept = Scorer.open(bundle, k=20).score(pa.Table.from_pandas(whole)).column("items").to_pylist()
    assert model.predict(whole)["items"].tolist() == kept
    assert model.unwrap_python_model().predict(None, whole)["items"].tolist() == kept
    hidden = model.predict(whole, params={"filter_seen": True})["items"].tolist()
    assert not any(set(a) & set(b) for a, b in zip(hidden, whole.history, strict=True))
    wrong = whole.head(2).assign(history_what=[["view"], None])
    with pytest.raises(DataError, match=r"the model input row 1, column 'history_what': 1 values"):
        model.predict(wrong)


def test_mlflow_filters_by_parameters_and_by_columns(
    bundle: Path, whole: pd.DataFrame, model: Any
) -> None:
    scorer = Scorer.open(bundle)
    asked = {"where": "item < 'i12'", "exclude": ["i03", "i04"]}
    filters = Filters.of(scorer, FilterOptions(**asked))
    wanted = scorer.score(pa.Table.from_pandas(whole), filters=filters).column("items").to_pylist()
    found = model.predict(whole, params=asked)
    assert found["items"].tolist() == wanted
    assert set(found["reason"]) == {"filtered"}
    some = whole.head(4).assign(
        where=["item = 'i01'", None, "item in ('i02', 'i03')", "item < 'i05'"],
        exclude=[None, ["i01"], ["i02"], []],
        allow=[None, None, ["i02", "i03"], []],
    )
    lists = model.predict(some)["items"].tolist()
    assert lists[0] == ["i01"]
    assert set(lists[1]) == {f"i{item:02}" for item in range(20)} - {"i01"}
    assert lists[2:] == [["i03"], []]
    with pytest.raises(DataError, match=r"the model input row 2, column 'where': expected a value"):
        model.predict(some.assign(where=[None, "item <", None, None]))
    with pytest.raises(ConfigError, match="no column 'price'; their columns are item; other"):
        model.predict(some, params={"where": "price < 3"})
    plain = model.unwrap_python_model()
    with pytest.raises(ConfigError, match=r"no parameter 'exlude' \(did you mean 'exclude'\?\)"):
        plain.predict(None, whole, {"exlude": ["i03"]})
    # MLflow itself leaves out, with a warning, what the signature lacks.
    assert len(model.predict(whole, params={"exlude": ["i03"]})) == len(whole)


def test_mlflow_reads_times_of_any_precision_and_text(whole: pd.DataFrame, model: Any) -> None:
    expected = model.predict(whole)["scores"].tolist()
    for kind in ("datetime64[s]", "datetime64[ns]", str):
        times = [np.asarray(one, "datetime64[s]").astype(kind) for one in whole.history_times]
        assert model.predict(whole.assign(history_times=times))["scores"].tolist() == expected
    whole = whole.assign(history_times=[["noon"] * len(one) for one in whole.history])
    with pytest.raises(DataError, match=r"model input rows 1, .* 'history_times': not a date"):
        model.predict(whole)


def test_a_whole_log_as_a_request_is_answered_like_the_log(
    bundle: Path, log: pd.DataFrame, whole: pd.DataFrame, tmp_path: Path
) -> None:
    scorer = Scorer.open(bundle, k=20)
    log.to_parquet(tmp_path / "log.parquet")
    sources = Sources(interactions=str(tmp_path / "log.parquet"))
    shards = shards_of_log(scorer, sources, rows_per_part=100)
    score_to_parquet(scorer, shards, tmp_path / "log")
    wanted = pq.read_table(tmp_path / "log").sort_by("user")
    asked = pa.Table.from_pandas(whole, preserve_index=False)
    assert scorer.score(asked).column("scores").to_pylist() == wanted.column("scores").to_pylist()
    untimed = scorer.score(asked.drop_columns(["history_times"]))
    assert untimed.column("scores").to_pylist() != wanted.column("scores").to_pylist()


def test_a_job_that_failed_leaves_its_folder_to_the_corrected_one(
    whole: pd.DataFrame, ask: Ask, tmp_path: Path
) -> None:
    times = whole.history_times.tolist()
    bad = whole.assign(history_times=[times[0], times[1][:-1], *times[2:]])
    code, said = ask(bad)
    assert (code, "asked.parquet row 2, column 'history_times': " in said) == (3, True)
    assert [file.name for file in (tmp_path / "out").iterdir()] == [JOB]
    (tmp_path / "out" / ".part-00000-00000.parquet.4711").write_text("PAR1")  # and one was killed
    assert ask(whole)[0] == 0
    assert pq.read_table(tmp_path / "out" / "part-00000-00000.parquet").num_rows == len(whole)
    code, said = ask(whole.head(5))
    assert (code, "holds the scores of another job" in said) == (2, True)


def test_a_folder_taken_over_is_left_alone(tmp_path: Path) -> None:
    """Of two jobs in one folder without a part, the one that came first adds none to the other."""
    table = pa.table({"x": [1]})

    def other_takes_it() -> pa.Table:
        write_parts(tmp_path, {"k": 2}, {"part-0.parquet": lambda: table})
        return table

    with pytest.raises(ConfigError, match="another job claimed this folder"):
        write_parts(tmp_path, {"k": 1}, {"part-1.parquet": other_takes_it})
    assert sorted(one.name for one in tmp_path.iterdir()) == [JOB, "part-0.parquet"]
    assert json.loads((tmp_path / JOB).read_text())["k"] == 2


def test_a_finished_job_without_parts_keeps_its_folder(tmp_path: Path) -> None:
    write_parts(tmp_path, {"k": 1}, {})
    (tmp_path / "_SUCCESS").write_text("{}")
    with pytest.raises(ConfigError, match="holds the scores of another job"):
        write_parts(tmp_path, {"k": 2}, {})


def test_a_misspelt_column_of_steps_is_refused_and_others_pass(
    whole: pd.DataFrame, ask: Ask
) -> None:
    code, said = ask(whole.rename(columns={"history_what": "history_whta"}))
    assert (code, "'history_whta'" in said, "(did you mean 'history_what'?)" in said) == (
        3,
        True,
        True,
    )
    assert ask(whole.assign(note="hello"))[0] == 0


def test_unknown_items_are_counted_and_the_first_is_named(
    bundle: Path, whole: pd.DataFrame, ask: Ask, tmp_path: Path
) -> None:
    pieces = [["i01"], ["gone", "i02", "lost"], [None, "i03"]]
    frame = whole.head(3)[["user"]].assign(history=pieces)
    assert "unknown history items: 3, the first 'gone'" in ask(frame)[1]
    assert "unknown history items: 1, the first null" in ask(frame.tail(1), out="null")[1]
    summary = json.loads(ask(frame, "--json")[1])
    assert summary["first_unknown_history_item"] == "gone"
    assert "unknown history items: 0\n" in ask(frame.head(1), out="none")[1]
    path = tmp_path / "groups.parquet"
    pq.write_table(pa.Table.from_pandas(frame), path, row_group_size=1)
    shards = shards_of_requests(Scorer.open(bundle), str(path))
    assert [shard.origin for shard in shards.parts] == [
        RequestOrigin(str(path), row) for row in range(3)
    ]


def test_users_of_another_type_than_the_ids_are_refused(tmp_path: Path) -> None:
    """Ids that cannot be whole numbers are named, and what they would have to be."""
    log = {"user": [1, 1, 2, 2] * 5, "item": [*range(10)] * 2}
    pq.write_table(pa.table(log), tmp_path / "log.parquet")
    keys = {
        "data": {"interactions": str(tmp_path / "log.parquet")},
        "split": {"kind": "leave_one_out"},
        "schema": {
            "interactions": {"user": "user", "item": "item"},
            "features": [{"name": "item", "table": "items", "kind": "categorical"}],
        },
    }
    schema = recsys.Config(keys).experiment.schema_
    tables = read_tables(schema, Sources(interactions=str(tmp_path / "log.parquet")), Policies())
    assert rows_of(tables, schema, pa.array([2])).tolist() == [1]
    with pytest.raises(
        DataError, match=r"column 'user': users are not of type int64 .*'abc'.*give"
    ):
        rows_of(tables, schema, pa.array(["abc"]))


def test_mlflow_gives_vectors_where_they_are_asked_for(
    model: Any, bundle: Path, whole: pd.DataFrame
) -> None:
    assert "vectors" in {one.name for one in model.metadata.signature.params.params}
    found = model.predict(whole, params={"vectors": True})
    wanted = recsys.load(bundle).query_vectors(requests=whole)
    assert found["user"].tolist() == wanted["user"].tolist() == whole["user"].tolist()
    np.testing.assert_allclose(np.stack(found["vector"]), np.stack(wanted["vector"]), atol=1e-6)
    assert "items" in model.predict(whole)
    for more in ({"probability": True}, {"where": "item = 'i01'"}, {"k": 3}, {"exclude": ["i01"]}):
        (name,) = more
        with pytest.raises(ConfigError, match=f"'{name}' is about lists, and with 'vectors'"):
            model.predict(whole, params={"vectors": True, **more})
    server = answering_of(Bundle.open(bundle)).server(bundle)
    with pytest.raises(ConfigError, match=r"no parameter .vector. \(did you mean .vectors.\?\)"):
        server.answer(pa.Table.from_pandas(whole), {"vector": True}, RequestOrigin())


@pytest.fixture
def served(model: Any, free_port: Callable[[], int]) -> Iterator[Callable[..., tuple[int, Any]]]:
    """Ask MLflow's own server over HTTP; returns status and what it says."""
    import uvicorn
    from mlflow.pyfunc import scoring_server

    port = free_port()
    app = scoring_server.init(model)
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)

    def ask(**body: Any) -> tuple[int, Any]:
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/invocations",
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request) as answer:
                return answer.status, json.load(answer)["predictions"]
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)

    yield ask
    server.should_exit = True
    thread.join()


def test_a_server_takes_every_form_of_json_and_refuses_with_one_line(
    served: Callable[..., tuple[int, Any]],
) -> None:
    records = [
        {"user": "u01", "history": ["i01", "i02"], "history_times": ["2024-01-01", "2024-01-02"]},
        {"user": "u02", "history": ["i03"], "history_times": None},
    ]
    names = list(records[0])
    columns = {name: [one[name] for one in records] for name in names}
    rows = [[one[name] for name in names] for one in records]
    params = {"k": 3}
    status, wanted = served(dataframe_records=records, params=params)
    assert status == 200
    assert [len(one["items"]) for one in wanted] == [3, 3]
    assert served(dataframe_split={"columns": names, "data": rows}, params=params)[1] == wanted
    assert served(inputs=records, params=params)[1] == wanted
    (first,) = served(instances=records[:1], params=params)[1]
    assert first["items"] == wanted[0]["items"]
    whole = {**columns, "history_times": [["2024-01-01", "2024-01-02"], [None]]}
    assert served(inputs=whole, params=params) == (200, wanted)
    for body, said in (
        ({"dataframe_records": [{"history": ["i01"]}]}, "column 'user': the requests table has no"),
        (
            {"dataframe_records": [*records, {"user": "u03", "history": [1]}]},
            "the model input row 3, column 'history'",
        ),
        ({"dataframe_records": records, "params": {"k": 0}}, "k must be at least 1, got 0"),
        ({"dataframe_records": records, "params": {"where": "colour = 1"}}, "no column 'colour'"),
    ):
        status, answer = served(**body)
        assert status == 400
        assert said in answer["message"]
        assert "\n" not in answer["message"]
        assert "Traceback" not in str(answer)
