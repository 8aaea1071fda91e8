"""Calibration: sampling undone exactly, over-confidence mended, monotone maps kept monotone."""

import numpy as np
import pytest
from sklearn.isotonic import IsotonicRegression

from recsys.bundle.calibration import Calibrator
from recsys.metrics.classification import auc, calibration, log_loss
from recsys.training.families.ranker.calibrating import fit_calibrator


def drawn(rows: int = 60_000) -> tuple[np.ndarray, np.ndarray]:  # type: ignore[type-arg]
    """Return true logits, and labels that they are right about."""
    rng = np.random.default_rng(0)
    logit = rng.normal(-1, 1.5, rows)
    return logit, (rng.random(rows) < 1 / (1 + np.exp(-logit))).astype(np.float32)


def test_probabilities_by_hand() -> None:
    logits = np.array([-800.0, -np.log(3), 0.0, np.log(3), 800.0], np.float32)
    assert Calibrator().probability(logits) == pytest.approx([0, 1 / 4, 1 / 2, 3 / 4, 1])
    half = Calibrator(offset=np.log(3)).probability(logits)
    assert half[1:4] == pytest.approx([1 / 2, 3 / 4, 9 / 10])
    cooled = Calibrator("temperature", np.log(3), 2.0).probability(np.array([np.log(27)]))
    assert cooled == pytest.approx([9 / 10])
    # q = 3/4 of the shifted logit: a = 2, b = 3 and c = log 2 give odds 2 (3/4)^2 / (1/4)^3 = 72.
    bent = Calibrator("beta", np.log(9), slopes=(2.0, 3.0), shift=np.log(2))
    assert bent.probability(np.array([-np.log(3)])) == pytest.approx([72 / 73])
    steps = Calibrator("isotonic", 1.0, logits=(0.0, 2.0), probabilities=(0.2, 0.6))
    assert steps.probability(np.array([-9.0, 0.0, 9.0])) == pytest.approx([0.2, 0.4, 0.6])


@pytest.mark.parametrize("factor", [0.4, 1.0, 3.0])
def test_the_temperature_of_logits_that_are_too_large_or_small_is_found(factor: float) -> None:
    logit, label = drawn()
    found = fit_calibrator("temperature", logit * factor, label, np.ones(len(label)))
    assert found.temperature == pytest.approx(factor, rel=0.05)


@pytest.mark.parametrize("powers", [(0.5, 2.0, -1.0), (3.0, 0.3, 0.5)])
def test_the_powers_of_a_beta_distribution_are_found(powers: tuple[float, float, float]) -> None:
    logit, label = drawn(200_000)
    # What gives back the true logit after a log q - b log(1 - q) + c, found between grid points.
    above, below, shift = powers
    grid = np.linspace(-30, 30, 100_001)
    bent = below * np.logaddexp(0, grid) - above * np.logaddexp(0, -grid) + shift
    found = fit_calibrator("beta", np.interp(logit, bent, grid), label, np.ones(len(label)))
    assert (*found.slopes, found.shift) == pytest.approx(powers, abs=0.05)


def test_few_rows_bend_little_and_one_label_is_no_proof() -> None:
    logit = np.array([-1.0, 0.0, 1.0])
    found = fit_calibrator("beta", logit, np.ones(3), np.ones(3))
    assert 0.7 < found.probability(np.zeros(1))[0] < 0.9
    none = fit_calibrator("beta", logit[:0], np.ones(0), np.ones(0))
    assert none.probability(logit) == pytest.approx(Calibrator().probability(logit))


def test_isotonic_mends_what_no_temperature_can() -> None:
    logit, label = drawn()
    bent = np.sign(logit) * logit**2  # monotone
    weight = np.ones(len(label))
    errors = {}
    for kind in ("none", "temperature", "isotonic"):
        found = fit_calibrator(kind, bent[::2], label[::2], weight[::2])  # type: ignore[arg-type]
        probability = found.probability(bent[1::2])
        errors[kind] = calibration(probability, label[1::2]).error
        assert auc(probability, label[1::2]) == pytest.approx(
            auc(bent[1::2], label[1::2]), abs=2e-3
        )
    assert errors["isotonic"] < 0.01 < 0.05 < min(errors["temperature"], errors["none"])


def test_isotonic_is_scikit_learns_between_its_knots_and_beyond() -> None:
    logit, label = drawn(300)
    weight = np.random.default_rng(1).random(300)
    found = fit_calibrator("isotonic", logit, label, weight, offset=0.5)
    grid = np.linspace(-9, 9, 99)
    plain = IsotonicRegression(out_of_bounds="clip").fit(logit + 0.5, label, weight)
    assert found.probability(grid - 0.5) == pytest.approx(plain.predict(grid), abs=0.5 / 300)
    assert found.probability(np.array([-99.0]))[0] > 0
    assert np.isfinite(log_loss(found.probability(grid), np.ones(99)))


@pytest.mark.parametrize("kind", ["none", "temperature", "beta", "isotonic"])
def test_saved_and_read_it_says_the_same(kind: str) -> None:
    logit, label = drawn(500)
    found = fit_calibrator(kind, logit, label, np.ones(500), offset=-1.5)  # type: ignore[arg-type]
    read = Calibrator.from_json(found.to_json())
    assert read == found
    assert np.array_equal(read.probability(logit), found.probability(logit))


def test_rows_count_by_their_weight() -> None:
    logit, label = drawn(2000)
    twice = np.concatenate([logit, logit[:500]]), np.concatenate([label, label[:500]])
    weight = np.where(np.arange(2000) < 500, 2.0, 1.0)
    by_weight = fit_calibrator("temperature", logit * 2, label, weight)
    by_rows = fit_calibrator("temperature", twice[0] * 2, twice[1], np.ones(2500))
    assert by_weight.temperature == pytest.approx(by_rows.temperature, rel=1e-3)
    by_weight = fit_calibrator("beta", logit * 2, label, weight)
    by_rows = fit_calibrator("beta", twice[0] * 2, twice[1], np.ones(2500))
    assert by_weight.slopes == pytest.approx(by_rows.slopes, rel=1e-3)
