"""A plain model end to end: configured, fitted, reported, bundled, asked, explained, searched."""

from collections.abc import Callable
from functools import cache
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
from recsys.core.errors import ConfigError, DataError, NotFoundError
from recsys.core.events import Event, PointLogged
from recsys.features.dataset.split import TEST
from recsys.plain import limits
from recsys.plain.registry import PLAIN
from recsys.serving.recommend.scorer import Scorer
from recsys.training.families.family import Given
from recsys.training.families.load import load_config
from recsys.training.families.plain.job import open_plain
from recsys.training.jobs.check import preflight
from recsys.training.jobs.runs import TrainResult
from recsys.training.jobs.train import train

NUM_ITEMS, DAY = 30, 24 * 3600
OF_SESSIONS = ("session_items", "markov", "v_sknn", "attributes")
SMALL: dict[str, dict[str, Any]] = {
    "gf_cf": {"rank": 4},
    "cheby_cf": {"rank": 4},
    "ials": {"factors": 4, "iterations": 3},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write visits that walk through the catalogue, each item followed by the next one."""
    folder = tmp_path_factory.mktemp("plain")
    rng = np.random.default_rng(0)
    rows = []
    for user in range(120):
        clock = 1_700_000_000 + user
        for _visit in range(3):
            item = int(rng.integers(NUM_ITEMS - 1))
            for _step in range(int(rng.integers(3, 7))):
                rows.append((f"u{user:03}", f"i{item:02}", clock))
                item, clock = (item + 1) % (NUM_ITEMS - 1), clock + int(rng.integers(5, 60))
            clock += DAY
    log = pd.DataFrame(rows, columns=["user", "item", "at"])
    log.to_parquet(folder / "log.parquet")
    items = pd.DataFrame({"item": [f"i{row:02}" for row in range(NUM_ITEMS)]})
    items["shelf"] = items.item.str[1]
    items["title"] = "Item " + items.item
    items.to_parquet(folder / "items.parquet")
    users = pd.DataFrame({"user": [*sorted(set(log.user)), "u_new"]})
    users["age"] = np.arange(len(users)) % 3
    users.to_parquet(folder / "users.parquet")
    return folder


SETTINGS: dict[str, Any] = {
    "data": {"interactions": "log.parquet", "items": "items.parquet", "users": "users.parquet"},
    "schema": {
        "interactions": {"user": "user", "item": "item", "time": {"column": "at", "unit": "s"}},
        "items": {"key": "item", "title": "title"},
        "users": {"key": "user"},
        "features": [
            {"name": "item", "table": "items", "kind": "categorical"},
            {"name": "shelf", "table": "items", "kind": "categorical"},
            {"name": "user", "table": "users", "kind": "categorical"},
            {"name": "age", "table": "users", "kind": "categorical"},
        ],
    },
    "training": {"metric": "ndcg_at_5"},
    "evaluation": {"ks": [1, 5], "baselines": ["auto"], "bootstrap_samples": 20},
    "tracking": {"enabled": False},
}


def written(folder: Path, kind: str, **sections: Any) -> Path:
    settings = {**SETTINGS, "model": {"kind": kind, **SMALL.get(kind, {})}, **sections}
    if kind in OF_SESSIONS and "sessions" not in sections:
        settings["sessions"] = {"inactivity_minutes": 60}
    if kind == "session_items":
        settings["evaluation"] = {**SETTINGS["evaluation"], "filter_seen": False}
    path = folder / f"{kind}.yaml"
    path.write_text(yaml.safe_dump({**settings, "output": str(folder / "runs")}))
    return path


def fitted(folder: Path, kind: str, **sections: Any) -> TrainResult:
    if kind == "ials":
        pytest.importorskip("implicit")
    result = train(load_config(written(folder, kind, **sections)))
    assert result is not None
    return result


@cache
def trained_once(folder: Path, kind: str) -> TrainResult:
    """Return a model of a kind, fitted by the first who asks."""
    return fitted(folder, kind)


@pytest.fixture(scope="module")
def ease(folder: Path) -> TrainResult:
    return fitted(folder, "ease")


def test_queries_without_a_history_are_said(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    alone = {"inactivity_minutes": 0.05}  # each event is a session
    evaluation: Any = fitted(folder, "markov", sessions=alone).evaluation
    count = len(evaluation.query_users)
    assert f"{count} of {count} users are asked at the start of a session" in caplog.text
    assert f", {count} at the start of a session" in evaluation.protocol["queries"]
    caplog.clear()
    evaluation = fitted(folder, "ease").evaluation
    assert "start of a session" not in caplog.text + evaluation.protocol["queries"]


@pytest.mark.parametrize("kind", PLAIN)
def test_what_is_served_is_what_was_evaluated(kind: str, folder: Path) -> None:
    result = fitted(folder, kind)
    config = load_config(folder / f"{kind}.yaml")
    own = next(iter(result.evaluation.results.values()))  # type: ignore[attr-defined]
    assert own.name == kind
    assert kind not in list(result.evaluation.results)[1:]  # type: ignore[attr-defined]
    job = open_plain(config, Given())  # type: ignore[arg-type]
    queries = job.reading.queries(TEST, 1000)
    scorer = Scorer.open(result.bundle)
    users = job.reading.data.tables.users.column("user").to_pylist()
    ids = scorer.item_ids.to_pylist()
    history, seen = (
        [[ids[row] for row in part.tolist()] for part in np.split(one.values.numpy(), cuts)]
        for one, cuts in (
            (queries.history_items, queries.history_items.offsets[1:-1].tolist()),
            (queries.seen, queries.seen.offsets[1:-1].tolist()),
        )
    )
    names = [users[row] for row in queries.users]
    table = pa.table({"user": names, "history": history, "seen": seen})
    answers = scorer.score(table, k=5)
    wanted = [[ids[row] for row in top if row >= 0] for top in own.top[:, :5].tolist()]
    assert answers.column("items").to_pylist() == wanted
    text = result.report.read_text()
    assert "Plain model" in text
    assert "Where items" not in text
    assert result.evaluation.protocol["split"] == "global time split"


def test_it_finds_what_it_counted(folder: Path) -> None:
    result = fitted(folder, "markov", evaluation={**SETTINGS["evaluation"], "queries": "events"})
    own = result.evaluation.own()  # type: ignore[attr-defined]
    others = result.evaluation.results  # type: ignore[attr-defined]
    assert own["recall_at_5"] > 0.9 > others["popularity"].metrics["recall_at_5"] + 0.3
    assert "markov_10" not in others  # it is the model itself
    varied = fitted(folder, "markov", evaluation={**SETTINGS["evaluation"], "filter_seen": False})
    assert varied.evaluation.protocol["seen items"] == "kept"


def test_a_user_without_a_known_history_gets_what_is_popular_and_is_counted(
    ease: TrainResult, folder: Path, tmp_path: Path
) -> None:
    model = recsys.load(ease.bundle)
    lists = model.recommend(["u_new", "u000"], k=3)
    assert lists.user.tolist() == ["u_new"] * 3 + ["u000"] * 3
    assert lists.score[:3].tolist() == [0, -1, -2]
    given = {"history": folder / "log.parquet"}
    summary = recsys.score(ease.bundle, tmp_path / "out", **given, k=3)
    assert (summary["users"], summary["lists_by_popularity"]) == (120, 0)
    users = folder / "users.parquet"
    summary = recsys.score(ease.bundle, tmp_path / "more", **given, users=users, k=3)
    assert (summary["users"], summary["lists_by_popularity"]) == (121, 1)
    assert summary["short_lists"] == 0
    again = recsys.score(ease.bundle, tmp_path / "more", **given, users=users, k=3)
    assert (again["parts_already_there"], again["lists_by_popularity"]) == (1, 1)
    of_log = ["--interactions", str(folder / "log.parquet"), "--output", str(tmp_path / "out")]
    shown = CliRunner().invoke(main, ["score", str(ease.bundle), *of_log, "--k", "3"])
    assert "lists by popularity: 0" in shown.output


def test_it_is_evaluated_again_with_the_same_figures(ease: TrainResult, folder: Path) -> None:
    again = recsys.evaluate(ease.bundle)
    assert again.to_frame().equals(ease.evaluation.to_frame())
    log = pd.read_parquet(folder / "log.parquet")
    items = pd.read_parquet(folder / "items.parquet")
    try:  # the catalogue of another day: one item new, one gone
        items.iloc[1:].assign(item=items.item[1:].replace({"i29": "a_new"})).to_parquet(
            folder / "items.parquet"
        )
        log[log.item != "i00"].to_parquet(folder / "log.parquet")
        found = recsys.evaluate(ease.bundle).figures()["ease"]
    finally:
        log.to_parquet(folder / "log.parquet")
        items.to_parquet(folder / "items.parquet")
    assert found["recall_at_5"] > 0.3


def test_an_item_is_explained_by_the_items_that_speak_for_it(ease: TrainResult) -> None:
    model = recsys.load(ease.bundle)
    (first,) = model.recommend(["u001"], k=1).itertuples()
    why = model.explain(user="u001", item=first.item)
    weights = Scorer.open(ease.bundle).found_by.model.fitted.weights  # type: ignore[union-attr]
    ids = Scorer.open(ease.bundle).item_ids.to_pylist()
    target = ids.index(first.item)
    assert why.score == pytest.approx(first.score, abs=1e-6)
    for one in model.recommend(["u001"], k=5).itertuples():
        assert model.explain(user="u001", item=one.item).rank == one.rank
    for one in why.because:  # a linear model: what an item adds is its weight
        assert one.adds == pytest.approx(weights[ids.index(one.item), target], abs=1e-5)
        assert one.title == f"Item {one.item}"
    assert [one.adds for one in why.because] == sorted((o.adds for o in why.because), reverse=True)
    assert why.title == f"Item {first.item}"
    shown = CliRunner().invoke(
        main, ["explain", str(ease.bundle), "--user", "u001", "--item", first.item]
    )
    assert f"{first.item} (Item {first.item}) for u001: rank" in shown.output
    new = model.explain(user="u_new", item=first.item)
    assert (new.because, new.by_popularity) == ((), True)
    assert "by popularity" in repr(new)
    with pytest.raises(ConfigError, match="give a user and an item"):
        model.explain()
    with pytest.raises(NotFoundError, match="the data have no item nothing"):
        model.explain(user="u001", item="nothing")


def test_what_needs_vectors_is_refused_and_says_what_has_them(
    ease: TrainResult, tmp_path: Path
) -> None:
    model = recsys.load(ease.bundle)
    for ask in (
        lambda: recsys.export(ease.bundle, tmp_path / "x", to="faiss"),
        lambda: model.query_vectors(["u001"]),
        model.item_vectors,
    ):
        with pytest.raises(ConfigError, match="of kind ease scores items by what it counted"):
            ask()
    assert not (tmp_path / "x").exists()
    with pytest.raises(ConfigError, match=r"train model\.kind: session"):
        model.follow({"user": "u001"})
    similar = model.similar_items(["i03"], k=2)
    assert set(similar.similar_item) & {"i02", "i04"}


def test_settings_are_searched_on_the_validation_rows(folder: Path, tmp_path: Path) -> None:
    config = recsys.Config.open(written(folder, "item_knn"))
    found = recsys.tune(config, trials=3, storage=tmp_path / "t.db", quiet=True)
    points: list[float] = []

    def listen(event: Event) -> None:
        if isinstance(event, PointLogged):
            points.append(event.values["validation/ndcg_at_5"])

    run = recsys.train(found.config, quiet=True, listener=listen)
    assert points == [pytest.approx(max(one.value for one in found.found.trials))]
    assert set(found.found.space) == {"model.neighbours", "model.shrinkage"}
    assert run.evaluation is not None


def test_a_file_for_another_kind_loses_the_keys_of_that_kind_and_says_so(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = folder / "towers.yaml"
    more = {"embedding": {"num_rows": 64}, "training": {"epochs": 2, "metric": "ndcg_at_5"}}
    path.write_text(yaml.safe_dump({**SETTINGS, **more, "model": {"dim": 8}}))
    config = load_config(path, ("model.kind=ease", "model.l2=7"))
    assert (config.model.kind, config.model.l2) == ("ease", 7)  # type: ignore[attr-defined]
    said = "model.kind: ease has no use for embedding.num_rows, model.dim and training.epochs"
    assert said in caplog.text
    with pytest.raises(ConfigError, match=r"training\.epochs is for two-towers"):
        load_config(path, ("model.kind=ease", "training.epochs=3"))


@pytest.mark.parametrize("job", [preflight, train])
@pytest.mark.parametrize(
    ("kind", "sections", "message"),
    [
        ("ease", {"model": {"kind": "ease", "max_items": 5}}, "max_items is 5: set a larger one"),
        (
            "attributes",
            {"schema": {**SETTINGS["schema"], "features": SETTINGS["schema"]["features"][:1]}},
            "the items have no categorical feature but their id",
        ),
        ("ease", {"training": {"metric": "auc"}}, "training.metric: 'auc' is not computed"),
    ],
)
def test_what_cannot_be_fitted_is_refused(
    kind: str, sections: dict[str, Any], message: str, folder: Path, job: Callable[[Any], Any]
) -> None:
    config = load_config(written(folder, kind, **sections))
    with pytest.raises(ConfigError, match=message):
        job(config)


def test_no_validation_item_is_refused(folder: Path) -> None:
    with pytest.raises((ConfigError, DataError), match="no user has a validation item"):
        fitted(folder, "ease", split={"validation": 0.0001})


def test_counts_of_pairs_that_do_not_fit_in_memory_are_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "free_memory_bytes", lambda: 1000)
    for job in (preflight, train):
        with pytest.raises(ConfigError, match=r"markov: counts of item pairs may need .* are free"):
            job(load_config(written(folder, "markov")))


@pytest.mark.parametrize("kind", ["ease", "markov", "item_knn"])
@pytest.mark.parametrize(
    ("times", "message"),
    [
        ([1_700_000_000], "1 values, but the history has 2 items"),
        ([1_700_000_009, 1_700_000_000], "the times go back"),
        (["a", "b"], "history_times"),
        (1_700_000_000, "a list is expected"),
    ],
)
def test_times_of_a_history_are_checked_whether_they_are_read_or_not(
    kind: str, times: Any, message: str, folder: Path
) -> None:
    result = trained_once(folder, kind)
    requests = pd.DataFrame({"user": ["a"], "history": [["i01", "i02"]], "history_times": [times]})
    with pytest.raises(DataError, match=message) as told:
        recsys.load(result.bundle).recommend(requests=requests)
    assert told.value.column == "history_times"
    known = requests.assign(history_times=[[1_700_000_000, 1_700_000_009]])
    assert len(recsys.load(result.bundle).recommend(requests=known, k=3)) == 3


def test_what_is_fitted_passes_the_check(folder: Path) -> None:
    for kind in sorted(PLAIN.keys() - {"ials"}):
        assert preflight(load_config(written(folder, kind))).lines()


def test_a_window_needs_times_and_ranks_are_refused(folder: Path, tmp_path: Path) -> None:
    config: Any = load_config(written(folder, "popularity"))
    roles = config.schema_.interactions.model_copy(update={"time": None})
    schema = config.schema_.model_copy(update={"interactions": roles})
    windowed = config.model.model_copy(update={"window_days": 1.0})
    timeless = config.model_copy(update={"schema_": schema, "model": windowed})
    for job in (preflight, train):
        with pytest.raises(ConfigError, match="popularity: the log has no times"):
            job(timeless)
    with pytest.raises(ConfigError, match="is fitted in one process: leave --workers out"):
        recsys.train(written(folder, "ease"), workers=2)
    with pytest.raises(ConfigError, match="has nothing to start from"):
        recsys.train(written(folder, "ease"), warm_start=tmp_path)


def test_validation_rows_can_be_counted_too(folder: Path) -> None:
    result = fitted(folder, "ease", split={"join_validation": True})
    facts = result.evaluation.protocol["split"]
    assert facts.endswith("validation rows trained on, too")


def test_parts_say_how_many_lists_are_by_popularity(ease: TrainResult, tmp_path: Path) -> None:
    frame = pd.DataFrame({"user": ["a", "b"], "history": [[], ["i01"]]})
    recsys.score(ease.bundle, tmp_path / "out", requests=frame)
    (part,) = (tmp_path / "out").glob("part-*.parquet")
    assert pq.read_schema(part).metadata[b"lists_by_popularity"] == b"1"


@pytest.mark.parametrize("kind", ["ease", "markov", "popularity"])
def test_an_explained_item_has_the_place_of_a_filtered_list(kind: str, folder: Path) -> None:
    model = recsys.load(trained_once(folder, kind).bundle)
    filters: dict[str, Any] = {"where": "shelf != '1'", "exclude": ["i00", "i01"]}
    for user in ("u001", "u007", "u_new"):
        table = folder / "users.parquet"
        filtered = model.recommend([user], k=6, user_table=table, **filters)
        for row in filtered.itertuples():
            why = model.explain(user=user, item=row.item, **filters)
            assert (why.rank, row.item) == (row.rank, why.item)
    with pytest.raises(ConfigError, match="item i10 does not pass the filters"):
        model.explain(user="u001", item="i10", where="shelf != '1'")
