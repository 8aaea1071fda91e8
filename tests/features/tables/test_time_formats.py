"""Texts in a declared form against `datetime.strptime`, and forms that are wrong."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest

from recsys.features.tables.known_formats import formats_of
from recsys.features.tables.time_formats import parse_times, time_format
from recsys.features.tables.times import TimeForm, check_form

START = datetime(2023, 12, 28, 22, 58, 59, tzinfo=UTC)
FORMATS = [
    "%d.%m.%Y %H:%M", "%d/%m/%Y", "%m/%d/%Y %I:%M %p", "%Y/%m/%d %H:%M:%S", "%Y%m%d",
    "%Y%m%d%H%M%S", "%d %b %Y", "%b %d, %Y %I:%M:%S %p", "%d %B %Y", "%G-W%V-%u",
    "%a, %d %b %Y %H:%M:%S %z",
    "%d.%m.%y",
    "%d/%b/%Y:%H:%M:%S %z", "%a %b %d %H:%M:%S %z %Y", "%Y-%j", "%Y-%m-%d %H:%M:%S.%f",
]  # fmt: skip


@pytest.mark.parametrize("text", FORMATS)
def test_texts_mean_what_strptime_says(text: str) -> None:
    """Every seventh hour of a year and more, over new years, leap days and weeks."""
    given = [(START + timedelta(hours=7 * k, microseconds=k)).strftime(text) for k in range(1500)]
    expected = []
    for one in given:
        found = datetime.strptime(one, text)
        expected.append(found if found.tzinfo else found.replace(tzinfo=UTC))
    micros, good = parse_times(pa.array([*given, None]), time_format(text))
    assert good.tolist() == [True] * len(given) + [False]
    assert micros[:-1].tolist() == [round(one.timestamp() * 1e6) for one in expected]


def test_every_day_that_is_tried_is_recognised_in_its_form() -> None:
    """ISO needs no format; the same day in the other forms is found."""
    assert formats_of("2024-12-31 10:00:00") == []
    for text in ("%d.%m.%Y %H:%M", "%Y%m%d", "%b %d, %Y %I:%M %p", "%d/%b/%Y:%H:%M:%S %z"):
        assert text in formats_of(datetime(2024, 12, 31, 23, 59, tzinfo=UTC).strftime(text))
    assert formats_of("01/02/2024") == ["%d/%m/%Y", "%m/%d/%Y"]
    assert formats_of("milk") == []


def test_days_that_no_calendar_has() -> None:
    """No time; the others of the batch are."""
    given = ["29.02.2023", "29.02.2024", "31.04.2024", "00.01.2024", "01.13.2024", "x", ""]
    _, good = parse_times(pa.array(given), time_format("%d.%m.%Y"))
    assert np.flatnonzero(good).tolist() == [1]


@pytest.mark.parametrize(
    ("form", "message"),
    [
        (TimeForm("datetime", "%d.%m"), "makes no date"),
        (TimeForm("datetime", "%Y-%m-%d %q"), "'%q' in the format"),
        (TimeForm("datetime", "%Y-%m-%d %I:%M"), "%I goes with %p"),
        (TimeForm("datetime", "%Y-%m-%d %Y"), "comes twice"),
        (TimeForm("datetime", None, "Berlin"), "is no time zone"),
        (TimeForm("datetime", "%Y-%m-%d%z", "UTC"), "says its zone"),
        (TimeForm("s", "%Y-%m-%d"), "format is of text and dates"),
    ],
)
def test_declarations_that_are_wrong(form: TimeForm, message: str) -> None:
    """Each is refused, saying why."""
    with pytest.raises(ValueError, match=message):
        check_form(form)
