"""Errors carry fields; their messages are made of them."""

import json

import pytest

from recsys.core.errors import ConfigError, DataError, Problem, Row, UserError


def test_the_message_names_place_reason_value_and_remedy() -> None:
    """Rows of several files are named file by file; further ones are counted."""
    rows = [Row("a.csv", 3), Row("a.csv", 7), Row("b.csv", 1)]
    error = DataError(
        "the id is empty",
        column="item",
        rows=rows,
        num_rows=12,
        value="''",
        remedy="correct the source",
        rule="policies.bad_ids",
    )
    assert str(error) == (
        "a.csv rows 3, 7; b.csv row 1 (12 rows in all), column 'item': the id is empty, ''; "
        "correct the source"
    )
    assert (error.file, error.num_rows) == ("a.csv", 12)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "bad"),
        ({"file": "a.csv"}, "a.csv: bad"),
        ({"column": "c"}, "column 'c': bad"),
        ({"file": "a.csv", "column": "c", "remedy": "mend it"}, "a.csv, column 'c': bad; mend it"),
        ({"rows": [Row("", 4)], "column": "c"}, "row 4, column 'c': bad"),
    ],
)
def test_what_is_not_known_is_left_out(fields: dict[str, object], message: str) -> None:
    """A message has no empty places."""
    assert str(DataError("bad", **fields)) == message  # type: ignore[arg-type]


def test_an_error_of_rows_looked_at_by_themselves_is_placed_in_their_file() -> None:
    """The second of the rows 10, 20, 30 is row 20; what else is known stays."""
    error = DataError("bad", column="inside", rows=[Row("", 2)], value="7", remedy="mend it")
    placed = error.within("a.parquet", "outside", [10, 20, 30])
    assert placed.rows == (Row("a.parquet", 20),)
    assert str(placed) == "a.parquet row 20, column 'outside': bad, 7; mend it"
    assert str(error.within("a.parquet")) == "a.parquet, column 'inside': bad, 7; mend it"


def test_fields_are_plain_data() -> None:
    """They go through JSON as they are, and name the class."""
    error = DataError("bad", column="c", rows=[Row("a.csv", 3)])
    assert json.loads(json.dumps(error.fields())) == {
        "error": "DataError",
        "message": "a.csv row 3, column 'c': bad",
        "reason": "bad",
        "file": "a.csv",
        "column": "c",
        "rows": [["a.csv", 3]],
        "num_rows": 1,
    }
    assert UserError("no").fields() == {"error": "UserError", "message": "no"}


def test_a_configuration_error_lists_its_problems() -> None:
    """One line each, with the key beside it as a field."""
    error = ConfigError(
        problems=[Problem("r.yaml", "a.b", "a.b: no"), Problem("r.yaml", "c", "unknown key 'c'")]
    )
    assert str(error) == "r.yaml: a.b: no\nr.yaml: unknown key 'c'"
    assert [one["key"] for one in error.fields()["problems"]] == ["a.b", "c"]
