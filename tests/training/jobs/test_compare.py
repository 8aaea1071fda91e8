"""Models that retrieve compared: as each is evaluated alone, on the same queries or not at all."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

import recsys
from recsys.app.cli import main
from recsys.core.errors import ConfigError, DataError, NotFoundError
from recsys.data.batch import Jagged
from recsys.features.dataset.queries import Queries
from recsys.features.dataset.split import TEST
from recsys.metrics.intervals import paired_difference
from recsys.training.config.experiment import ExperimentConfig
from recsys.training.evaluation.comparison import Comparison
from recsys.training.evaluation.evaluate import ranking_metrics
from recsys.training.evaluation.results import Evaluation
from recsys.training.families.comparing import CommonTest, NamedModel
from recsys.training.families.retrieval.comparing import (
    LISTS,
    Elsewhere,
    ask_vectors,
    compare_lists,
)
from recsys.training.families.two_tower.reading import TwoTowerData
from recsys.training.jobs.compare import compare_bundles
from recsys.training.jobs.evaluate import evaluate_bundle
from recsys.training.jobs.opening import open_model
from recsys.training.jobs.train import train
from recsys.training.reports.comparison import beaten_words


def trained_with(config: recsys.Config, output: Path, **changes: object) -> Path:
    """Train the world with other settings, by full key, and return the bundle."""
    torch.set_num_threads(1)
    quick = {"output": str(output), "tracking.enabled": False, "evaluation.bootstrap_samples": 50}
    result = train(config.with_({**quick, "training.epochs": 1, **changes}).experiment)
    assert result is not None
    return result.bundle


@pytest.fixture(scope="module")
def given_config(config: ExperimentConfig) -> recsys.Config:
    return recsys.Config.of(config)


@pytest.fixture(scope="module")
def session(given_config: recsys.Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    sessions = given_config.with_(model="session")
    small = {"model.dim": 16, "training.batch_size": 64}
    return trained_with(sessions, tmp_path_factory.mktemp("session"), **small)


@pytest.fixture(scope="module")
def compared(trained: Path, untrained: Path, session: Path) -> Comparison:
    return compare_bundles({"long": trained, "short": untrained, "session": session})


def alone(bundle: Path, tmp_path: Path) -> Evaluation:
    found = evaluate_bundle(bundle, tmp_path / "r.html", settings={"evaluation.baselines": []})
    assert isinstance(found, Evaluation)
    return found


def test_each_model_does_as_it_does_alone_and_differences_are_paired(
    compared: Comparison, trained: Path, untrained: Path, session: Path, tmp_path: Path
) -> None:
    bundles = {"long": trained, "short": untrained, "session": session}
    evaluated = {name: alone(bundle, tmp_path) for name, bundle in bundles.items()}
    own = {name: next(iter(one.results.values())) for name, one in evaluated.items()}
    by_name = {one.name: one for one in compared.models}
    assert [one.name for one in compared.trained] == list(bundles)
    for name, result in own.items():
        metrics = by_name[name].metrics
        assert {metric: one.value.value for metric, one in metrics.items()} == pytest.approx(
            dict(result.metrics)
        )
        for metric, values in result.per_query.items():
            less = metrics[metric].less
            if name == "long":
                assert less is None
                continue
            expected = paired_difference(values, own["long"].per_query[metric], 50, 0)
            assert vars(less) == pytest.approx(vars(expected))
        slices = {n: one["recall_at_20"] for n, one in result.slices.items()}
        here = {n: by_name[name].slices[n]["recall_at_20"].value.value for n in slices if n in
                by_name[name].slices}  # fmt: skip
        assert here == pytest.approx({n: slices[n] for n in here})
        assert {"items: head", "users: 20+ events"} <= set(here)


def test_plain_models_answer_the_same_queries_and_mark_who_is_not_better(
    compared: Comparison, trained: Path, tmp_path: Path
) -> None:
    again = evaluate_bundle(trained, tmp_path / "r.html")
    assert isinstance(again, Evaluation)
    plain = {one.name: one for one in compared.models if one.is_plain}
    assert {"popularity", "ease", "markov", "v_sknn"} <= set(plain)  # of both ways to read
    for name in ("popularity", "ease"):
        expected = again.results[name].metrics["ndcg_at_20"]
        assert plain[name].metrics["ndcg_at_20"].value.value == pytest.approx(expected)
    best = max(plain.values(), key=lambda one: one.metrics["ndcg_at_20"].value.value)
    for model in compared.trained:
        behind = model.metrics["ndcg_at_20"].value.value - best.metrics["ndcg_at_20"].value.value
        assert model.beaten_by == (best.name if behind < 0 else None)
    short = next(one for one in compared.trained if one.name == "short")
    assert short.behind is not None
    assert short.behind.high < 0


def test_a_plain_model_is_not_beaten_by_itself(
    given_config: recsys.Config, trained: Path, tmp_path: Path
) -> None:
    """Fitted on rows that it was not trained on the same model is another one, and no news."""
    keys = {"evaluation.baselines": ["ease", "popularity"]}
    plain = given_config.with_({"model.kind": "ease"}).with_(keys)
    quick = {"tracking.enabled": False, "output": str(tmp_path)}
    small = plain.with_({**quick, "split.cold_items": {"share": 0.5}})
    weak = plain.with_({**quick, "model.l2": 1e6})
    bundles = {}
    for name, one in {"few": small, "weak": weak}.items():
        result = train(one.experiment)
        assert result is not None
        bundles[name] = result.bundle
    found = compare_bundles({**bundles, "tower": trained}, on=plain.experiment, source="here")
    few, other, _ = found.trained
    names = [one.name for one in found.models if one.is_plain]
    assert names == ["ease", "popularity"]
    ease = next(one for one in found.models if one.name == "ease")
    metric = found.metric
    assert ease.metrics[metric].value.value > few.metrics[metric].value.value
    assert few.beaten_by != "ease"
    assert other.beaten_by == "ease"
    (said,) = [line for line in beaten_words(found) if line.startswith("weak")]
    assert "EASE with the settings that it has by default is better" in said


def test_a_gain_has_the_sign_of_what_is_better(compared: Comparison) -> None:
    found = compared.gain("short")
    worse = replace(compared, less_is_better=frozenset({"ndcg_at_20"})).gain("short")
    assert found.mean < 0
    assert (worse.mean, worse.low, worse.high) == (-found.mean, -found.high, -found.low)
    assert compared.gain("long").mean == 0
    with pytest.raises(NotFoundError, match=r"no model 'shot' .*did you mean 'short'"):
        compared.gain("shot")
    with pytest.raises(NotFoundError, match=r"no metric 'ndcg_at_21' .*did you mean 'ndcg_at_2"):
        compared.gain("short", "ndcg_at_21")


def test_figures_are_plain_and_a_frame_has_a_row_each(compared: Comparison) -> None:
    figures = json.loads(json.dumps(compared.figures(), allow_nan=False))
    frame = compared.to_frame()
    assert len(frame) == sum(len(m) for one in compared.models for m in one.slices.values())
    row = frame[(frame.model == "short") & (frame.slice == "all") & (frame.metric == "mrr_at_10")]
    plain = figures["models"][1]["metrics"]["mrr_at_10"]
    assert row.difference.item() == plain["difference"]
    assert [row.low.item(), row.high.item()] == plain["interval"]
    assert frame[(frame.model == "long")].difference.isna().all()


def test_another_length_of_list_may_decide(trained: Path, untrained: Path) -> None:
    found = compare_bundles({"a": trained, "b": untrained}, metric="ndcg_at_3")
    assert found.metric == "ndcg_at_3"
    assert found.headline[0] == "ndcg_at_3"
    assert "recall_at_3" in found.first.metrics


def test_test_rows_that_a_model_was_trained_on_are_counted(
    trained: Path, untrained: Path, compared: Comparison, config: ExperimentConfig
) -> None:
    assert not compared.warnings
    split = config.split.model_copy(update={"test": 0.3})
    on = config.model_copy(update={"split": split})
    found = compare_bundles({"a": trained, "b": untrained}, on=on, source="other.yaml")
    data = open_model(trained).data()
    rows = len(data.tables.events)
    now_tested = round(0.3 * rows)
    used = now_tested - int((data.part == TEST).sum())
    assert found.protocol["data"] == "other.yaml"
    for name, warning in zip("ab", found.warnings, strict=True):
        assert warning.startswith(f"{name}: {used:,} of {now_tested:,} test rows were training")


def test_later_data_are_clean_and_earlier_ones_are_doubted(
    trained: Path, untrained: Path, config: ExperimentConfig, tmp_path: Path
) -> None:
    """The log goes on for half its length again; then more is tested than what is new."""
    log = pq.read_table(config.data.interactions)
    late = log.slice(0, len(log) // 2)
    others = late["item_id"].combine_chunks()[::-1]
    late = late.set_column(log.schema.get_field_index("item_id"), "item_id", others)
    moved = pa.array([one + 60_000_000 for one in late["timestamp"].to_pylist()], pa.int64())
    place = log.schema.get_field_index("timestamp")
    whole = pa.concat_tables([log, late.set_column(place, "timestamp", moved).cast(log.schema)])
    pq.write_table(whole, tmp_path / "log.parquet")
    sources = config.data.model_copy(update={"interactions": str(tmp_path / "log.parquet")})
    on = config.model_copy(update={"data": sources})
    models = {"a": trained, "b": untrained}
    shared = {"on": on, "source": "later.yaml"}
    assert not compare_bundles(models, **shared).warnings  # type: ignore[arg-type]
    split = config.split.model_copy(update={"test": 0.6})
    found = compare_bundles(models, on=on.model_copy(update={"split": split}), source="later.yaml")
    test = round(0.6 * len(whole))
    data = open_model(trained).data()
    trained_on = np.sort(data.tables.events.time)[: int((data.part == 0).sum())].max()
    times = np.sort(np.array(whole["timestamp"].to_pylist(), np.int64) * 1_000_000)[-test:]
    early = int((times <= trained_on).sum())
    assert "a: it was trained on other data, up to 20" in found.warnings[0]
    assert f"and {early:,} of {test:,} test rows are not later" in found.warnings[0]


def test_what_a_model_does_not_know_is_counted(compared: Comparison, trained: Path) -> None:
    data = open_model(trained).data()
    rows, test = data.tables.events, data.part == TEST
    new_items = int((data.train_counts[rows.item_row[test]] == 0).sum())
    users = set(rows.user_row[data.part == 0].tolist())
    new_users = sum(user not in users for user in rows.user_row[test].tolist())
    words = compared.protocol["new to long"]
    assert f"{new_users:,} of users without a training row" in words
    assert (f"{new_items:,} of items" in words) == (new_items > 0)


def test_a_model_without_tables_of_attributes_ranks_the_catalogue_it_knows(
    trained: Path, given_config: recsys.Config, tmp_path: Path
) -> None:
    kept = [one for one in given_config["schema.features"] if one["name"] in ("user_id", "item_id")]
    none = dict.fromkeys(("data.items", "data.users", "schema.items", "schema.users"))
    ids = trained_with(given_config, tmp_path, **none, **{"schema.features": kept})
    bundles = {"ids": ids, "features": trained}
    for first, second in (("ids", "features"), ("features", "ids")):
        found = compare_bundles({first: bundles[first], second: bundles[second]})
        for model in found.trained:
            own = next(iter(alone(bundles[model.name], tmp_path).results.values())).metrics
            assert model.metrics["ndcg_at_20"].value.value == pytest.approx(own["ndcg_at_20"])


@given(st.integers(0, 2**32 - 1), st.integers(1, 6))
def test_a_catalogue_in_another_order_has_the_same_hits(seed: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    own, common = 7, 9
    place = rng.permutation(common)[:own]
    scores = rng.random((4, own))
    relevant = [rng.permutation(own)[: rng.integers(1, 4)] for _ in range(4)]

    def rank(queries: object, k: int, /, among: np.ndarray | None = None) -> np.ndarray:
        allowed = np.arange(own) if among is None else among
        order = allowed[np.argsort(-scores[:, allowed], axis=1)][:, :k]
        short = np.full((4, max(0, k - order.shape[1])), -1)
        return np.hstack([order, short]).astype(np.int32)

    queries: Queries = None  # type: ignore[assignment]
    lengths = [len(one) for one in relevant]
    moved = Elsewhere(rank, queries, place)
    plain = Jagged.of_lengths(np.concatenate(relevant), np.array(lengths))
    other = Jagged.of_lengths(place[np.concatenate(relevant)], np.array(lengths))
    expected = ranking_metrics(rank(None, k), plain, (k,))
    found = ranking_metrics(moved(queries, k), other, (k,))
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values)
    among = np.sort(rng.permutation(common)[:5])
    named = moved(queries, k, among=among)
    assert set(named[named >= 0].tolist()) <= set(among.tolist()) & set(place.tolist())


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        ("auc", "metric 'auc' is none of lists; there are recall_at_K"),
        ("ndgc_at_20", r"did you mean 'ndcg_at_20'\?"),
        ("ndcg_at_0", "is none of lists"),
    ],
)
def test_a_metric_that_there_is_not_is_refused(
    trained: Path, untrained: Path, metric: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        compare_bundles({"a": trained, "b": untrained}, metric=metric)


def test_models_that_are_not_asked_the_same_are_refused(
    trained: Path, untrained: Path, session: Path, config: ExperimentConfig, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="needs two models or more"):
        compare_bundles({"a": trained})
    with pytest.raises(ConfigError, match="a and b are the same model"):
        compare_bundles({"a": trained, "b": trained})
    opened = open_model(session)
    events = opened.config.evaluation.model_copy(update={"queries": "events"})
    on = opened.config.model_copy(update={"evaluation": events})
    with pytest.raises(ConfigError, match=r"b is asked for users, and e\.yaml asks for events"):
        compare_bundles({"a": session, "b": trained}, on=on, source="e.yaml")
    long_ago = config.model_copy(
        update={"evaluation": config.evaluation.model_copy(update={"filter_seen": False})}
    )
    assert compare_bundles({"a": trained, "b": untrained}, on=long_ago, source="x").first.metrics


def test_a_log_in_another_role_is_refused(
    trained: Path, given_config: recsys.Config, tmp_path: Path
) -> None:
    where = [{"column": "device", "one_of": ["desktop"]}]
    desktop = trained_with(given_config, tmp_path, **{"schema.interactions.where": where})
    message = "desktop and all are not asked the same: .*schema.interactions.where differ"
    with pytest.raises(ConfigError, match=message):
        compare_bundles({"all": trained, "desktop": desktop})


def test_queries_with_other_relevant_items_are_other_queries(
    trained: Path, config: ExperimentConfig
) -> None:
    test = LISTS.settled(CommonTest(config, "x.yaml", "ndcg_at_20"))
    asked = ask_vectors(TwoTowerData, NamedModel("a", open_model(trained)), test)
    relevant = asked.queries.relevant
    next_ones = (relevant.values + 1) % len(asked.item_ids)
    queries = replace(asked.queries, relevant=replace(relevant, values=next_ones))
    other = replace(asked, model=replace(asked.model, name="b"), queries=queries)
    with pytest.raises(ConfigError, match="b and a are not asked the same"):
        compare_lists((asked, other), test)


def test_a_test_part_without_anything_to_find_is_refused(
    trained: Path, untrained: Path, config: ExperimentConfig, tmp_path: Path
) -> None:
    log = pq.read_table(config.data.interactions)
    again = [one + 10**7 * 9 for one in log["timestamp"].to_pylist()]
    place = log.schema.get_field_index("timestamp")
    late = log.set_column(place, "timestamp", pa.array(again, pa.int64())).cast(log.schema)
    pq.write_table(pa.concat_tables([log, late]), tmp_path / "log.parquet")
    sources = config.data.model_copy(update={"interactions": str(tmp_path / "log.parquet")})
    on = config.model_copy(update={"data": sources})
    with pytest.raises(DataError, match="no user has anything but items of earlier rows"):
        compare_bundles({"a": trained, "b": untrained}, on=on, source="x.yaml")


def compare(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["compare", *map(str, arguments)])


def test_the_command_and_the_function_say_the_same(
    trained: Path, untrained: Path, world_config: Path, tmp_path: Path
) -> None:
    report = tmp_path / "comparison.html"
    run = trained.parents[1]
    shown = compare(run, untrained, "--metric", "recall_at_10", "--report", report)
    assert shown.exit_code == 0, shown.output
    for words in (run.name, "recall_at_10 *", "! ", "- popularity", "by slice", "is worse than"):
        assert words in shown.output
    text = report.read_text()
    assert "2 models compared" in text
    assert "Differences to" in text
    assert "http://" not in text.replace("http://www.w3.org", "")
    found = recsys.compare([run, untrained], metric="recall_at_10")
    plain = json.loads(compare(run, untrained, "--metric", "recall_at_10", "--json").stdout)
    assert plain.pop("report") is None
    assert plain == json.loads(json.dumps(found.figures()))
    on = json.loads(compare(run, untrained, "--on", world_config, "--json").stdout)
    assert on["protocol"]["data"] == str(world_config)
    assert [one["model_id"] for one in on["models"]][:2] == [trained.name, untrained.name]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (lambda a, b: (a,), 2, "compare needs two models or more"),
        (lambda a, b: (a, a), 2, "are the same model"),
        (lambda a, b: (a, a.parents[1]), 2, "are the same model"),
        (lambda a, b: (a, b, "--on", "nowhere.yaml"), 4, "no such configuration"),
        (lambda a, b: (a, "nowhere"), 4, "'nowhere' is no folder here"),
        (lambda a, b: (a, b, "--report", "no/where.html"), 2, "there is no folder no"),
    ],
)
def test_what_cannot_be_compared_is_refused_with_its_code(
    trained: Path,
    untrained: Path,
    arguments: Callable[[Path, Path], tuple[str | Path, ...]],
    code: int,
    message: str,
) -> None:
    result = compare(*arguments(trained, untrained))
    assert result.exit_code == code
    assert message in result.output
