"""The probability of taking on planted worlds: found again, true of new items, refused if empty."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from recsys.bundle.pair_calibration import PairCalibrator
from recsys.core.errors import ConfigError, DataError
from recsys.features.dataset.dataset import Dataset
from recsys.features.dataset.pair_sample import released_items, sample_pairs
from recsys.features.dataset.split import TEST, TRAIN, VALIDATION
from recsys.metrics.classification import calibration
from recsys.models.retrieval import catalogue_vectors, query_vectors
from recsys.models.two_tower import TwoTower
from recsys.training.config.experiment import ExperimentConfig
from recsys.training.engine.ranks import ALONE
from recsys.training.families.load import load_config
from recsys.training.families.two_tower.pair_calibrating import (
    _sample,
    fit_pairs,
    interaction_probability,
    pair_scores,
    period_of,
    probability_metrics,
)
from recsys.training.families.two_tower.task import build_two_tower


def planted(
    pairs: int = 200_000, slope: float = 4.0, activity: float = 0.8, intercept: float = -5.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:  # type: ignore[type-arg]
    """Return scores, events, labels drawn with a known probability, and that probability."""
    rng = np.random.default_rng(0)
    score = rng.normal(0.2, 0.3, pairs).astype(np.float32)
    events = rng.integers(1, 200, pairs)
    truth = PairCalibrator(slope, activity, intercept).probability(score, events)
    return score, events, (rng.random(pairs) < truth).astype(np.float32), truth


def test_a_planted_logistic_world_is_found_again() -> None:
    score, events, label, truth = planted()
    found = fit_pairs("logistic", score, events, label, np.ones(len(score)))
    assert found.slope == pytest.approx(4.0, rel=0.03)
    assert found.activity == pytest.approx(0.8, rel=0.03)
    assert found.intercept == pytest.approx(-5.0, rel=0.03)
    assert np.abs(found.probability(score, events) - truth).max() < 0.02


def test_sampling_weights_are_undone() -> None:
    score, events, label, truth = planted()
    kept = (label > 0) | (np.random.default_rng(1).random(len(label)) < 0.2)
    weight = np.where(label > 0, 1.0, 5.0)[kept]
    found = fit_pairs("logistic", score[kept], events[kept], label[kept], weight)
    assert np.abs(found.probability(score, events) - truth).max() < 0.03
    naive = fit_pairs("logistic", score[kept], events[kept], label[kept], np.ones(len(weight)))
    assert naive.probability(score, events).mean() > 1.4 * truth.mean()
    steps = fit_pairs("isotonic", score[kept], events[kept], label[kept], weight)
    assert steps.probability(score, events).mean() == pytest.approx(truth.mean(), rel=0.03)


def test_isotonic_mends_what_is_no_logistic_of_the_score() -> None:
    score, events, label, truth = planted(activity=0.0, intercept=-2.0)
    bent = np.exp(3 * score.astype(np.float64)).astype(np.float32)
    errors = {
        kind: calibration(
            fit_pairs(kind, bent, events, label, np.ones(len(bent))).probability(bent, events),
            truth,
        ).error
        for kind in ("logistic", "isotonic")
    }
    assert errors["isotonic"] < 0.005 < errors["logistic"]


def test_a_model_worse_than_chance_says_the_same_of_all_items() -> None:
    score, events, label, _ = planted()
    found = fit_pairs("logistic", -score, events, label, np.ones(len(score)))
    assert found.slope == 0
    assert calibration(found.probability(-score, events), label).error < 0.01


@pytest.fixture(scope="module")
def released(dataset: Dataset) -> Dataset:
    """The small world with the rows of two fifths of the items held out, and no others."""
    events, part = dataset.tables.events, np.full_like(dataset.part, TRAIN)
    part[events.item_row % 5 == 0] = VALIDATION
    part[events.item_row % 5 == 1] = TEST
    return replace(dataset, part=part)


@pytest.fixture
def asked(config: ExperimentConfig) -> ExperimentConfig:
    return config.model_copy(update={"calibration": "logistic"})


def planted_part(
    data: Dataset, model: TwoTower, part: int, slope: float, intercept: float
) -> Dataset:
    """Return the world where interactions with the items of `part` follow the model's scores."""
    events, kept = data.tables.events, np.flatnonzero(data.part != part)
    items = released_items(data, part)
    sample = sample_pairs(data, part, items, history_length=10, filter_seen=True)
    map_ = PairCalibrator(slope, 0.5, intercept)
    truth = map_.probability(pair_scores(model, data, sample), sample.num_events[sample.query])
    took = np.random.default_rng(part).random(len(truth)) < truth
    here = np.flatnonzero(data.histories(tuple(range(part))).lengths() > 0)
    user = np.concatenate([events.user_row[kept], here[sample.query[took]]]).astype(np.int32)
    item = np.concatenate([events.item_row[kept], sample.item_row[took]]).astype(np.int32)
    parts = np.concatenate([data.part[kept], np.full(int(took.sum()), part)]).astype(np.int8)
    order = np.argsort(user, kind="stable")
    moved = replace(
        events.take(np.zeros(len(user), np.int64)),
        user_row=user[order],
        item_row=item[order],
        time=np.arange(len(user)),
    )
    return replace(data, tables=replace(data.tables, events=moved), part=parts[order])


@pytest.mark.parametrize("kind", ["logistic", "isotonic"])
def test_new_items_get_a_map_of_their_own_that_holds_on_others(
    asked: ExperimentConfig, released: Dataset, kind: str
) -> None:
    """Held-out items are taken as planted: expected audiences of the test items come true."""
    asked = asked.model_copy(update={"calibration": kind})
    model = build_two_tower(asked, released, ALONE)
    data = released
    for part in (VALIDATION, TEST):
        data = planted_part(data, model, part, slope=1.0, intercept=-2.5)
    with pytest.raises(DataError, match=r"calibration: .* needs 50 interactions with 20 items"):
        interaction_probability(asked, replace(data, part=np.minimum(data.part, TRAIN)), model)
    found = interaction_probability(asked, data, model)
    assert found is not None
    assert "whose first rows are in the validation part" in found.new.fitted_on
    assert "all items" in found.known.fitted_on  # of the others nothing is held out
    assert found.new.audience_low < 1 < found.new.audience_high
    metrics = probability_metrics(asked, data, model, found)
    # 4,000 pairs in 20 bins are off by 0.02 when all is right.
    assert metrics["probability_new_error"] < 0.045
    assert 0.05 < metrics["probability_new_share"] < 0.6
    sample = sample_pairs(
        data, TEST, released_items(data, TEST), history_length=10, filter_seen=True
    )
    score = pair_scores(model, data, sample)
    expected = found.new.probability(score, sample.num_events[sample.query])
    assert expected.sum() == pytest.approx(sample.label.sum(), rel=0.1)
    assert "probability_known_error" not in metrics


def test_scores_of_pairs_are_those_of_the_towers(
    asked: ExperimentConfig, released: Dataset
) -> None:
    ball = asked.model_copy(update={"model": asked.model.model_copy(update={"geometry": "ball"})})
    for config in (asked, ball):
        model = build_two_tower(config, released, ALONE).eval()
        items = released_items(released, VALIDATION)
        sample = sample_pairs(released, VALIDATION, items, history_length=10, filter_seen=True)
        found = pair_scores(model, released, sample)
        vectors = catalogue_vectors(model, released.items)
        queries = query_vectors(model, sample.block, vectors, sample.history)
        for pair in (0, 11, len(found) - 1):
            by_hand = queries[sample.query[pair]] @ vectors[sample.item_row[pair]]
            assert found[pair] == pytest.approx(float(by_hand), abs=1e-5)


def test_the_period_is_said_in_words(asked: ExperimentConfig, dataset: Dataset) -> None:
    times = dataset.tables.events.time[dataset.part == VALIDATION]
    days = (times.max() - times.min()) / 86_400e6
    assert period_of(asked, dataset) == (
        f"within {days:.3g} days, the length of the validation part"
    )
    last = asked.split.model_copy(update={"kind": "leave_one_out"})
    assert period_of(asked.model_copy(update={"split": last}), dataset) == (
        "as the next item of the user"
    )
    items = np.ones(dataset.num_items, bool)
    active = dataset.histories((VALIDATION,)).lengths() > 0
    before = dataset.histories((TRAIN,)).lengths() > 0
    for kind, users in (("time", before), ("leave_one_out", before & active)):
        chosen = asked.split.model_copy(update={"kind": kind})
        sample = _sample(asked.model_copy(update={"split": chosen}), dataset, VALIDATION, items)
        assert len(sample.num_events) == int(users.sum())
    assert (
        interaction_probability(
            asked.model_copy(update={"calibration": "none"}),
            dataset,
            None,  # type: ignore[arg-type]
        )
        is None
    )


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["calibration=temperature"], "temperature is for rankers"),
        (
            ["model.geometry=ball", "training.loss=cosine_contrastive"],
            "cosine_contrastive is about cosines, and model.geometry: ball",
        ),
        (["model.geometry=cube"], "geometry"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(
    world_config: Path, overrides: list[str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(world_config, tuple(overrides))
