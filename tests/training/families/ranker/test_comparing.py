"""Rankers compared: as each is evaluated alone, paired as a report pairs them; plain rates."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import recsys
from recsys.core.errors import ConfigError, DataError
from recsys.features.batches.rows import RankingLoader
from recsys.features.dataset.dataset import Dataset
from recsys.features.dataset.split import TEST, TRAIN
from recsys.metrics.classification import auc, log_loss
from recsys.metrics.grouped import GroupedRows, weighted_draws, weighted_interval
from recsys.training.evaluation.comparison import Comparison
from recsys.training.families.ranker.evaluation import (
    Evaluated,
    RankingEvaluation,
    evaluate_ranker,
    evaluation_of,
)
from recsys.training.families.ranker.opening import opened_ranker
from recsys.training.families.ranker.rates import STRENGTH, Rates
from recsys.training.families.ranker.rows import rows_of
from recsys.training.jobs.compare import compare_bundles
from recsys.training.jobs.evaluate import evaluate_bundle
from recsys.training.jobs.opening import open_model
from recsys.training.jobs.train import train

ROWS = 4000
KEYS = {
    "data": {"interactions": "clicks.parquet"},
    "schema": {
        "interactions": {
            "user": "user",
            "item": "item",
            "label": {"column": "clicked"},
            "time": {"column": "at", "unit": "s"},
        },
        "features": [
            {"name": "user", "table": "users", "kind": "categorical"},
            {"name": "item", "table": "items", "kind": "categorical"},
            {"name": "place", "table": "interactions", "kind": "categorical"},
        ],
    },
    "model": {"kind": "fm"},
    "embedding": {"num_rows": 512, "dim": 8, "learning_rate": 0.2, "backend": "torch"},
    "training": {"batch_size": 256, "epochs": 2, "id_dropout": 0.0},
    "evaluation": {"rankers": [], "bootstrap_samples": 40},
    "tracking": {"enabled": False},
}
METRICS = ("auc", "log_loss", "gauc", "ndcg_at_10")


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> recsys.Config:
    """A log whose click chance is the item's level plus a user group x item group term."""
    folder, rng = tmp_path_factory.mktemp("clicks"), np.random.default_rng(0)
    user, item = rng.integers(0, 60, ROWS), rng.integers(0, 40, ROWS)
    level = rng.normal(0, 1.0, 40)[item]
    logit = level + 1.5 * np.where((user % 2) == (item % 2), 1, -1)
    log = pd.DataFrame({"user": user, "item": item, "place": rng.integers(0, 3, ROWS)})
    log["clicked"] = (rng.random(ROWS) < 1 / (1 + np.exp(-logit))).astype(np.int8)
    log["at"] = 1_600_000_000 + 60 * np.arange(ROWS)
    log.to_parquet(folder / "clicks.parquet")
    return recsys.Config(KEYS, folder=folder).with_({"output": str(folder / "runs")})


def trained(config: recsys.Config, **changes: object) -> Path:
    torch.set_num_threads(1)
    result = train(config.with_(changes).experiment)
    assert result is not None
    return result.bundle


@pytest.fixture(scope="module")
def bundles(config: recsys.Config) -> dict[str, Path]:
    """A good ranker, a plainer one, and one that reads nothing of worth."""
    (place,) = (one for one in KEYS["schema"]["features"] if one["name"] == "place")  # type: ignore[index]
    return {
        "fm": trained(config),
        "logistic": trained(config, **{"model.kind": "logistic"}),
        "blind": trained(config, **{"schema.features": [place], "calibration": "none"}),
    }


@pytest.fixture(scope="module")
def compared(bundles: dict[str, Path]) -> Comparison:
    return compare_bundles(bundles)


def evaluated(name: str, bundle: Path) -> tuple[Evaluated, Dataset]:
    opened = open_model(bundle)
    data = opened.data()
    rows = rows_of(opened.config, data)
    return evaluate_ranker(opened.config, rows, *opened_ranker(opened), name), data


def test_each_ranker_does_as_it_does_alone(
    compared: Comparison, bundles: dict[str, Path], tmp_path: Path
) -> None:
    assert [one.name for one in compared.trained] == list(bundles)
    for model in compared.trained:
        alone = evaluate_bundle(bundles[model.name], tmp_path / "r.html")
        assert isinstance(alone, RankingEvaluation)
        for metric in METRICS:
            own, here = alone.own.metrics[metric], model.metrics[metric].value
            assert vars(here) == pytest.approx(vars(own), abs=1e-6), metric


def test_differences_are_those_of_a_report(compared: Comparison, bundles: dict[str, Path]) -> None:
    """A report says how much less AUC the others have, on the same draws."""
    first, *others = [evaluated(name, bundle)[0] for name, bundle in bundles.items()]
    report = evaluation_of(open_model(bundles["fm"]).config, first, others)
    for model in compared.trained[1:]:
        expected, less = report.results[model.name].less_auc, model.metrics["auc"].less
        assert expected is not None
        assert less is not None
        found = (-less.mean, -less.high, -less.low)
        assert found == pytest.approx((expected.value, expected.low, expected.high), abs=1e-6)
    logistic = compared.trained[1]
    assert compared.gain("logistic", "auc").high < 0  # half of the signal is an interaction
    loss = logistic.metrics["log_loss"].less
    assert loss is not None
    assert compared.gain("logistic", "log_loss").mean == -loss.mean < 0


def test_a_ranker_that_a_plain_one_beats_is_marked(compared: Comparison) -> None:
    by_name = {one.name: one for one in compared.models}
    assert by_name["fm"].beaten_by is None
    blind = by_name["blind"]
    assert blind.beaten_by in ("item_rate", "user_item_rates")
    assert blind.behind is not None
    assert blind.behind.high < 0


def test_slices_part_the_rows(compared: Comparison, bundles: dict[str, Path]) -> None:
    _, data = evaluated("fm", bundles["fm"])
    slices = compared.first.slices
    num_test = int((data.part == TEST).sum())
    for side in ("items: ", "users: "):
        inside = [one["auc"].queries for name, one in slices.items() if name.startswith(side)]
        assert sum(inside) == num_test
    opened = open_model(bundles["fm"])
    rows = rows_of(opened.config, data)
    loader = rows.loader
    assert isinstance(loader, RankingLoader)
    counts = np.bincount(data.tables.events.user_row[data.part == TRAIN], minlength=60)
    few = counts[loader.users(TEST)] >= 20
    model, calibrator = opened_ranker(opened)
    with torch.no_grad():
        batches = [(model(one.features).numpy(), one.label.numpy()) for one in
                   loader.ordered(TEST, 100)]  # fmt: skip
    logit, label = (np.concatenate(column) for column in zip(*batches, strict=True))
    found = slices["users: 20+ training rows"]
    assert found["auc"].value.value == pytest.approx(auc(logit[few], label[few]), abs=1e-6)
    expected = log_loss(calibrator.probability(logit[few]), label[few])
    assert found["log_loss"].value.value == pytest.approx(expected, abs=1e-6)


def test_plain_rates_are_counted_from_the_log(config: recsys.Config, compared: Comparison) -> None:
    experiment = config.experiment
    log = pd.read_parquet(experiment.data.interactions)
    cut = int(0.8 * ROWS)  # the last tenth is test, the one before validation
    train_rows, test = log[:cut], log[-ROWS // 10 :]
    mean = train_rows.clicked.mean()

    def logits(column: str) -> pd.Series:
        counted = train_rows.groupby(column).clicked.agg(["sum", "count"])
        rate = (counted["sum"] + STRENGTH * mean) / (counted["count"] + STRENGTH)
        return np.log(rate / (1 - rate))

    base = np.log(mean / (1 - mean))
    of_item = test.item.map(logits("item")).to_numpy()
    both = of_item + test.user.map(logits("user")).to_numpy() - base
    plain = {one.name: one.metrics["auc"].value.value for one in compared.models if one.is_plain}
    label = test.clicked.to_numpy()
    assert plain["item_rate"] == pytest.approx(auc(of_item, label))
    assert plain["user_item_rates"] == pytest.approx(auc(both, label))


def test_without_labels_the_rate_of_an_item_is_its_share_of_the_events(
    config: recsys.Config,
) -> None:
    keys = {"training.negatives": 2, "schema.interactions.label": None}
    positives = config.with_({**keys, "calibration": "none"})
    bundles = {kind: trained(positives, **{"model.kind": kind}) for kind in ("fm", "logistic")}
    found = compare_bundles(bundles)
    _, data = evaluated("fm", bundles["fm"])
    loader = rows_of(open_model(bundles["fm"]).config, data).loader
    assert isinstance(loader, RankingLoader)
    rates = Rates.fit(loader)
    counts, share = data.train_counts, 1 / data.num_items
    expected = (counts + STRENGTH * share) / (counts.sum() + STRENGTH)
    np.testing.assert_allclose(1 / (1 + np.exp(-rates.items)), expected)
    assert {one.name for one in found.models} == {"fm", "logistic", "item_rate", "user_item_rates"}
    assert "ndcg_at_10" not in found.first.metrics  # a sample of negatives is no list
    with pytest.raises(ConfigError, match="labelled was trained on a log with a label; that of"):
        compare_bundles({"fm": bundles["fm"], "labelled": trained(config)})


def test_draws_of_users_are_those_of_their_interval() -> None:
    rng = np.random.default_rng(0)
    grouped = GroupedRows.of(rng.random(300), rng.integers(0, 20, 300))
    values = grouped.auc((rng.random(300) < 0.3).astype(float))
    values[3] = np.nan
    drawn = weighted_draws(values, grouped.sizes, samples=50, seed=1)
    interval = weighted_interval(values, grouped.sizes, samples=50, seed=1)
    assert (interval.low, interval.high) == tuple(np.quantile(drawn, (0.025, 0.975)))
    assert np.allclose(weighted_draws(values + 1, grouped.sizes, samples=50, seed=1), drawn + 1)


def test_other_rows_and_other_metrics_are_refused(
    config: recsys.Config, bundles: dict[str, Path]
) -> None:
    pair = {name: bundles[name] for name in ("fm", "logistic")}
    with pytest.raises(ConfigError, match=r"'acu' is none of rankers \(did you mean 'auc'\?\)"):
        compare_bundles(pair, metric="acu")
    label = {"schema.interactions.label": {"column": "place", "at_least": 1}}
    features = [one for one in KEYS["schema"]["features"] if one["name"] != "place"]  # type: ignore[index]
    other = trained(config, **label, **{"schema.features": features})
    message = "placed and fm are not asked the same: .*: schema.interactions.label differ"
    with pytest.raises(ConfigError, match=message):
        compare_bundles({"fm": bundles["fm"], "placed": other})


def test_a_streamed_log_is_not_scored_again(
    config: recsys.Config, bundles: dict[str, Path], tmp_path: Path
) -> None:
    pair = {name: bundles[name] for name in ("fm", "logistic")}
    sources = config.experiment.data.model_copy(update={"stream": True})
    on = config.experiment.model_copy(update={"data": sources})
    with pytest.raises(ConfigError, match=r"s\.yaml: a streamed log is evaluated at the end"):
        compare_bundles(pair, on=on, source="s.yaml")


def test_a_log_that_breaks_a_rule_names_the_policy_that_can_be_set(
    config: recsys.Config, bundles: dict[str, Path], tmp_path: Path
) -> None:
    """Of a configuration that is given; those of a trained model nobody can set."""
    log = pd.read_parquet(config.experiment.data.interactions)
    log["user"] = log["user"].astype("Int64")
    log.loc[0, "user"] = None
    log.to_parquet(tmp_path / "clicks.parquet")
    on = config.with_({"data.interactions": str(tmp_path / "clicks.parquet")}).experiment
    pair = {name: bundles[name] for name in ("fm", "logistic")}
    with pytest.raises(DataError, match=r"column 'user'.*set policies\.bad_ids: drop"):
        compare_bundles(pair, on=on, source="s.yaml")
    drop = on.model_copy(update={"policies": on.policies.model_copy(update={"bad_ids": "drop"})})
    assert compare_bundles(pair, on=drop, source="s.yaml").first.metrics
