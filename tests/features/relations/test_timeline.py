"""Windows before instants, against loops over all rows."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from recsys.features.relations.spans import microseconds_of
from recsys.features.relations.timeline import Timeline, Windows

SECOND = 1_000_000


def whole(size: int, low: int, high: int) -> st.SearchStrategy[np.ndarray]:
    return arrays(np.int64, size, elements=st.integers(low, high))


@st.composite
def tables(draw: st.DrawFn) -> tuple[np.ndarray, ...]:
    """Few owners, times and values, so that nearly everything is a tie of something."""
    rows, asked = draw(st.integers(0, 25)), draw(st.integers(1, 8))
    return (
        draw(whole(rows, -1, 3)),
        draw(whole(rows, 0, 9)) * SECOND,
        draw(whole(rows, -2, 2)).astype(np.float64) / 10,
        draw(whole(asked, -1, 4)),
        draw(whole(asked, -1, 10)) * SECOND,
    )


spans = st.sampled_from([None, SECOND, 3 * SECOND])


def before(table: tuple[np.ndarray, ...], n: int, span: int | None) -> list[tuple[int, float]]:
    """Return the (time, value) of the rows in window `n`, sorted."""
    owner, time, value, of, at = table
    lowest = -np.inf if span is None else at[n] - span
    return sorted(
        (int(t), float(v))
        for o, t, v in zip(owner, time, value, strict=True)
        if of[n] >= 0 and o == of[n] and lowest <= t < at[n]
    )


@settings(max_examples=150, deadline=None)
@given(table=tables(), span=spans)
def test_every_number_is_that_of_a_loop_over_all_rows(
    table: tuple[np.ndarray, ...], span: int | None
) -> None:
    timeline = Timeline(*table[:3])
    windows = timeline.windows(*table[3:], span)
    rows = [before(table, n, span) for n in range(len(table[3]))]
    assert windows.sizes.tolist() == [len(one) for one in rows]
    sums = timeline.sums(windows)
    np.testing.assert_allclose(sums, [sum(v for _, v in one) for one in rows], atol=1e-12)
    last = [one[-1][1] if one else np.nan for one in rows]
    np.testing.assert_array_equal(timeline.last(windows), last)
    at = table[4]
    since = [(at[n] - one[-1][0]) / SECOND if one else np.nan for n, one in enumerate(rows)]
    np.testing.assert_array_equal(timeline.since(windows, at), since)
    assert timeline.distinct(windows).tolist() == [len({v for _, v in one}) for one in rows]


def numbers(timeline: Timeline, windows: Windows, at: np.ndarray) -> np.ndarray:
    """Return every number of the windows, a row a window."""
    columns = [windows.sizes, timeline.sums(windows), timeline.last(windows)]
    return np.stack([*columns, timeline.since(windows, at), timeline.distinct(windows)], axis=1)


@settings(max_examples=150, deadline=None)
@given(table=tables(), span=spans, data=st.data())
def test_rows_from_an_instant_on_change_no_bit_before_it(
    table: tuple[np.ndarray, ...], span: int | None, data: st.DataObject
) -> None:
    owner, time, value, of, at = table
    instant = data.draw(st.integers(0, 10)) * SECOND
    early, asked = time < instant, at <= instant
    cut = Timeline(owner[early], time[early], value[early])
    other = np.where(early, value, value + data.draw(st.sampled_from([0.5, -7.0])))
    order = data.draw(st.permutations(range(len(time))))
    changed = Timeline(owner[order], time[order], other[order])
    whole = Timeline(owner, time, value)
    wanted = (of[asked], at[asked])
    found = [numbers(one, one.windows(*wanted, span), wanted[1]) for one in (whole, cut, changed)]
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])


def test_a_row_sees_neither_itself_nor_what_happens_with_it() -> None:
    timeline = Timeline(np.zeros(3, np.int64), np.array([1, 2, 2]), np.array([1.0, 2.0, 4.0]))
    windows = timeline.windows(np.zeros(4, np.int64), np.array([1, 2, 3, 4]), 2)
    assert timeline.sums(windows).tolist() == [0.0, 1.0, 7.0, 6.0]


@pytest.mark.parametrize(("text", "seconds"), [("45s", 45), ("30m", 1800), ("12h", 43_200),
                                               ("7d", 604_800), ("2w", 1_209_600)])  # fmt: skip
def test_spans(text: str, seconds: int) -> None:
    assert microseconds_of(text) == seconds * SECOND


@pytest.mark.parametrize("text", ["", "7", "d", "0d", "7 d", "1.5h", "7D", "-7d"])
def test_what_is_no_span_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no span of time: write a whole number and s, m, h"):
        microseconds_of(text)
