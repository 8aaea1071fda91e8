"""Transforms of numbers, each against its formula worked out by hand."""

import json
from math import e, log

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.core.errors import ConfigError
from recsys.core.strict import parse
from recsys.features.encoding.scaling import Scaler, Scales, Transform
from recsys.features.kinds.numeric import NumericFeature

TRANSFORMS: tuple[Transform, ...] = (
    "standardise", "log1p", "log_squared", "quantile", "piecewise", "discretise",
)  # fmt: skip
NAN = float("nan")
numbers = st.lists(
    st.one_of(st.floats(-1e6, 1e6), st.integers(-5, 40).map(float), st.just(NAN)), max_size=60
)


def fit(transform: Transform, values: list[float], bins: object = None) -> Scaler:
    return Scaler.fit(transform, np.array(values), bins)  # type: ignore[arg-type]


def outputs(scaler: Scaler, values: list[float]) -> list[list[float]]:
    given_ = np.array(values)
    if scaler.transform == "discretise":
        return [scaler.category(given_).tolist()]
    if scaler.transform == "piecewise":
        return [column.tolist() for column in scaler.piecewise(given_)]
    return [scaler.apply(given_).tolist()]


def test_log_squared_is_the_number_up_to_two_and_the_squared_logarithm_above() -> None:
    # Two standardised numbers are -1 and 1, whatever they were; the third lies on their scale.
    ends = fit("log_squared", [-3.0, e**3])  # -3 and 9
    assert ends.apply(np.array([-3.0, e**3, 2.0, e**2])) == pytest.approx([-1, 1, -1 / 6, 1 / 6])
    assert ends.apply(np.array([3.0])) == pytest.approx([(log(3) ** 2 - 3) / 6])
    # Beyond what training saw, and nothing.
    assert ends.apply(np.array([-100.0, 1e9, NAN])).tolist() == [-1, 1, 0]


def test_piecewise_says_how_much_of_each_bin_lies_below() -> None:
    scaler = fit("piecewise", [0, 1, 2, 3, 4, 5, 6, 7, 8, NAN], bins=4)  # edges 0, 2, 4, 6, 8
    assert scaler.num_bins == 4
    rows = np.stack(scaler.piecewise(np.array([0, 3, 4, 7.5, 8, -9, 99, NAN])), axis=1)
    assert rows.tolist() == [
        [0, 0, 0, 0],
        [1, 0.5, 0, 0],
        [1, 1, 0, 0],
        [1, 1, 1, 0.75],
        [1, 1, 1, 1],
        [0, 0, 0, 0],
        [1, 1, 1, 1],
        [0, 0, 0, 0],
    ]
    assert rows.dtype == np.float32


def test_a_value_of_many_rows_makes_fewer_bins() -> None:
    # Quarters of ten rows: 0, 0, 0.5 (between 0 and 1), 3.75, 12.
    scaler = fit("piecewise", [0, 0, 0, 0, 0, 1, 3, 4, 5, 12], bins=4)
    assert scaler.knots == (0, 0.5, 3.75, 12)
    assert fit("piecewise", [3, 3, 3], bins=4).num_bins == 1
    assert outputs(fit("piecewise", [3, 3, 3], bins=4), [3, 4, NAN]) == [[0, 0, 0]]
    assert outputs(fit("piecewise", [NAN], bins=4), [3, NAN]) == [[0, 0]]
    assert fit("piecewise", list(range(1000))).num_bins == 16


@given(numbers, st.integers(2, 9))
def test_piecewise_columns_add_up_to_the_number(values: list[float], bins: int) -> None:
    scaler = fit("piecewise", values, bins)
    known = np.array([value for value in values if value == value])
    edges = np.array(scaler.knots if len(scaler.knots) > 1 else (scaler.low, scaler.low + 1))
    total = edges[0] + sum(
        column * width
        for column, width in zip(scaler.piecewise(known), np.diff(edges), strict=True)
    )
    np.testing.assert_allclose(total, known, rtol=1e-5, atol=1e-5 * (1 + np.abs(edges).max()))


def test_discretise_gives_each_bin_as_many_rows() -> None:
    scaler = fit("discretise", [float(k) for k in range(100)], bins=4)
    assert np.bincount(scaler.category(np.arange(100.0))).tolist() == [25, 25, 25, 25]
    assert scaler.category(np.array([-50.0, 24.0, 25.0, 1e9])).tolist() == [0, 0, 1, 3]


def test_discretise_parts_zeros_from_ones_where_both_fill_a_bin() -> None:
    both = fit("discretise", [0] * 30 + [1] * 70, bins=4)
    assert len(set(both.category(np.array([0.0, 1.0])).tolist())) == 2
    few = fit("discretise", [0] * 99 + [1], bins=4)
    assert len(set(few.category(np.array([0.0, 1.0])).tolist())) == 1


def test_discretise_by_squared_logarithms() -> None:
    scaler = fit("discretise", [-3.0, 1000.0], bins="log_squared")
    # floor(log(x)^2): 3 -> 1.2, 5 -> 2.6, 20 -> 8.97, 21 -> 9.3; 1000 -> 47.7
    assert scaler.category(np.array([3.0, 5.0, 20.0, 21.0])).tolist() == [4, 5, 11, 12]
    assert scaler.category(np.array([2.5, 2.0, 1.0, 0.0, -3.0])).tolist() == [3, 2, 1, 0, -3]
    assert scaler.category(np.array([1e9, -99.0])).tolist() == [3 + 47, -3]


@pytest.mark.parametrize("transform", TRANSFORMS)
@given(values=numbers, others=numbers)
def test_a_saved_scaler_gives_the_same_bits(
    transform: Transform, values: list[float], others: list[float]
) -> None:
    scaler = fit(transform, values)
    again = Scaler.from_json(json.loads(json.dumps(scaler.to_json())))
    assert again == scaler
    assert outputs(again, values + others) == outputs(scaler, values + others)
    assert np.isfinite(outputs(scaler, values + others)).all()


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_what_training_never_saw_counts_as_the_nearest_that_it_saw(transform: Transform) -> None:
    scaler = fit(transform, [1.0, 2.0, 5.0, 9.0, 17.0, 40.0])
    inside, outside = outputs(scaler, [1.0, 40.0]), outputs(scaler, [-1e9, 1e9])
    assert outside == inside
    assert inside[0][0] != inside[0][1]


def test_scalers_that_standardise_are_applied_to_rows_at_once() -> None:
    scalers = [
        fit("standardise", [1.0, 5.0, 9.0]),
        fit("standardise", [NAN]),
        fit("standardise", [2.0]),
    ]
    rows = np.array([[1.5, 2.0, NAN], [-9.0, NAN, 2.0], [1e9, 3.0, 7.0]])
    found = Scales.of(scalers).apply(rows)
    expected = np.column_stack([one.apply(rows[:, at]) for at, one in enumerate(scalers)])
    assert found.dtype == np.float32
    assert found.tolist() == expected.tolist()
    with pytest.raises(ValueError, match="only scalers that standardise"):
        Scales.of([fit("log1p", [1.0])])


def test_scalers_saved_before_there_were_bins_are_read() -> None:
    old = {
        "transform": "log1p",
        "mean": 1.0,
        "deviation": 2.0,
        "low": 0.0,
        "high": 9.0,
        "knots": [],
    }
    assert Scaler.from_json(old).apply(np.array([0.0])).tolist() == [-0.5]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"bins": 8}, "feature 'x': bins are for transform: piecewise or discretise, not for stan"),
        ({"transform": "piecewise", "bins": "log_squared"}, "log_squared is for transform: discr"),
        ({"transform": "piecewise", "bins": 1}, "greater than or equal to 2"),
        ({"transform": "piecwise"}, "'piecewise'"),
    ],
)
def test_bins_that_mean_nothing_are_refused(keys: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse(NumericFeature, {"name": "x", "table": "items", **keys}, source="recsys.yaml")
