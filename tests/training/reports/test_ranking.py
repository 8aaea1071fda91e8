"""The sentences of a ranker's report: no better than the numbers, and no worse."""

import pytest

from recsys.metrics.classification import Interval
from recsys.training.reports.evaluation_table import loss_compared
from recsys.training.reports.ranking import _verdict

GOOD = Interval(0.75, 0.7, 0.8)


@pytest.mark.parametrize(
    ("loss", "said"),
    [
        (Interval(0.4, 0.39, 0.41), "Its log loss is 20.0% better (lower) than the base rate's."),
        (
            Interval(0.504, 0.501, 0.507),
            "Its log loss is 0.8% worse (higher) than the base rate's: its probabilities are not "
            "calibrated.",
        ),
        (
            Interval(0.504, 0.49, 0.52),
            "Its log loss is 0.8% worse (higher) than the base rate's: the difference is within "
            "the error of measurement.",
        ),
        (
            Interval(0.496, 0.49, 0.52),
            "Its log loss is 0.8% better (lower) than the base rate's: the difference is within "
            "the error of measurement.",
        ),
        (
            Interval(0.5, 0.49, 0.52),
            "Its log loss is the same as the base rate's: the difference is within the error of "
            "measurement.",
        ),
    ],
)
def test_the_log_loss_is_better_or_worse_in_words(loss: Interval, said: str) -> None:
    text = _verdict(GOOD, loss, 0.5)
    first = "Of a positive and a negative row, the ranker puts the positive first 75.0% of the time"
    assert text == f"{first}. {said}"
    assert "-" not in text


def test_a_ranker_no_better_than_chance_has_no_other_sentence() -> None:
    text = _verdict(Interval(0.51, 0.49, 0.53), Interval(0.4, 0.39, 0.41), 0.5)
    assert text.endswith("better than chance does.")
    assert "log loss" not in text


def test_a_difference_that_rounds_to_nothing_is_none() -> None:
    assert loss_compared(0.49999, 0.5) == loss_compared(0.50001, 0.5) == "the same as"
    assert loss_compared(0.3, 0.5) == "40.0% better (lower) than"
    assert loss_compared(0.6, 0.5) == "20.0% worse (higher) than"


def test_figures_of_validation_rows_are_called_so() -> None:
    loss = Interval(0.4, 0.39, 0.41)
    assert "no test part" not in _verdict(GOOD, loss, 0.5)
    text = _verdict(GOOD, loss, 0.5, "validation")
    assert text.startswith(_verdict(GOOD, loss, 0.5))
    assert text.endswith("by which the model was chosen, and its figures are too good.")
    chance = _verdict(Interval(0.51, 0.49, 0.53), loss, 0.5, "validation")
    assert chance.startswith("On the validation rows the ranker does not separate")
