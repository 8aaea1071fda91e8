"""Values that no table should hold: each is refused by file, column and row, or counted.

Whatever `check` accepts, every row that was left out or changed is in its report.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import recsys

ROWS, AT = 36, 4
NAN, INF, HOUR = float("nan"), float("inf"), 3600
LOG: dict[str, list[Any]] = {
    "user": np.repeat(np.arange(1, 7), 6).tolist(),
    "item": (np.arange(ROWS) % 9 + 1).tolist(),
    "time": (1_600_000_000 + np.arange(ROWS) * HOUR).tolist(),
}
ITEMS: dict[str, list[Any]] = {"item": list(range(1, 10)), "value": [n / 2 for n in range(9)]}
Check = Callable[..., Any]
Options = dict[str, Any]
DROP_IDS: Options = {"policies": {"bad_ids": "drop"}}
DROP_TIMES: Options = {"policies": {"bad_times": "drop"}}


@pytest.fixture
def check(tmp_path: Path) -> Check:
    """Check a log with some columns replaced, and a table of items where one is given."""

    def run(
        log: dict[str, Any],
        items: dict[str, Any] | None = None,
        *,
        roles: Options | None = None,
        features: Any = (),
        split: Any = "leave_one_out",
        **more: Any,
    ) -> Any:
        tables = {"interactions": LOG | log} | ({} if items is None else {"items": ITEMS | items})
        for name, columns in tables.items():
            pq.write_table(pa.table(columns), tmp_path / f"{name}.parquet")
        time = {"column": "time", "unit": "s"}
        config = {
            "data": {name: str(tmp_path / f"{name}.parquet") for name in tables},
            "schema": {
                "interactions": {"user": "user", "item": "item", "time": time, **(roles or {})},
                "features": [{"name": "item", "table": "items", "kind": "categorical"}, *features],
            },
            "split": {"kind": split} if isinstance(split, str) else split,
            "model": {"kind": "popularity"},
            "tracking": {"enabled": False},
            **more,
        }
        if items is not None:
            config["schema"]["items"] = {"key": "item"}
        return recsys.check(config)

    return run


def put(column: str, value: Any, at: int = AT) -> list[Any]:
    """The column with one value replaced; as text where that is text."""
    values = [str(one) for one in LOG[column]] if isinstance(value, str) else [*LOG[column]]
    return [*values[:at], value, *values[at + 1 :]]


def all_of(value: Any, but: Any = ..., rows: int = ROWS) -> list[Any]:
    """One value in every row, but for the last one."""
    return [value] * rows if but is ... else [*([value] * (rows - 1)), but]


TEXT_IDS = {
    "": "the id is empty, ''",
    "  ": "the id is empty",
    " 5": "padded with white space, ' 5'; .*strip: true",
    "5\t": r"padded with white space, '5\\t'",
    "5\xa0": "padded with white space",
    "5\n6": r"control character, '5\\n6'; remove it",
    "5\0": r"control character, '5\\x00'",
    "\x1b[31m5": r"control character, '\\x1b\[31m5'",
    "\x9b31m": r"control character, '\\x9b31m'",
    "5\x7f6": "control character",
    "a\u2028b": "control character",
    "NULL": "the word for a null, 'NULL'",
    "NaN": "the word for a null",
    "N/A": "the word for a null",
    "5\u200b": r"invisible character, '5\\u200b'; .*strip: true",
    "\ufeff5": "invisible character",
    "\u202e5": "invisible character",
    "5\xad6": "invisible character",
    "a\U000e0041": "invisible character",
    "x" * 5000: "longer than 4,096 bytes",
    "1.23E+15": "scientific notation.*export it anew",
}


@pytest.mark.parametrize("side", ["user", "item"])
@pytest.mark.parametrize("text", TEXT_IDS)
def test_text_that_is_no_id(check: Check, side: str, text: str) -> None:
    place = rf"interactions\.parquet row 5, column '{side}': .*"
    with pytest.raises(recsys.DataError, match=place + TEXT_IDS[text]) as refused:
        check({side: put(side, text)})
    assert "bad_ids: drop" in str(refused.value)
    assert str(refused.value).isprintable()
    found = check({side: put(side, text)}, **DROP_IDS)
    assert [(one.rule, one.rows) for one in found.drops] == [("policies.bad_ids", 1)]
    assert found.rows["interactions"] == ROWS - 1


NO_IDS: dict[str, tuple[Any, str]] = {
    "null": (put("user", None), "row 5, .*the id is null"),
    "all null": (pa.nulls(ROWS), "rows 1, .*36 rows in all.*the id is null"),
    "nan": ([NAN, *map(float, LOG["user"][1:])], "rows 2, .*came as floats, 1.0; .*float_ids"),
    "floats": ([float(one) for one in LOG["user"]], "36 rows in all.*came as floats"),
    "fractions": ([one + 0.5 for one in LOG["user"]], "the id is a fraction, 1.5; .*right column"),
    "bool": (all_of(True), "row 1, .*ids are true or false, True; .*right column"),
    "lists": ([[one] for one in LOG["user"]], r"row 1, .*ids are list.*\[1\]; .*right column"),
    "structs": ([{"a": one} for one in LOG["user"]], "row 1, .*ids are struct.*right column"),
    "maps": (
        pa.array([[("a", one)] for one in LOG["user"]], pa.map_(pa.string(), pa.int64())),
        "row 1, .*ids are map",
    ),
    "dates": (pa.array(LOG["user"], pa.int32()).cast(pa.date32()), "row 1, .*ids are date32"),
    "bytes that are no text": (all_of(b"\xff\xfe"), "row 1, .*ids are large_binary"),
}


@pytest.mark.parametrize("name", NO_IDS)
def test_columns_that_are_no_ids(check: Check, name: str) -> None:
    values, words = NO_IDS[name]
    for side in ("user", "item"):
        with pytest.raises(recsys.DataError, match=rf"interactions\.parquet .*{words}") as refused:
            check({side: values})
        assert refused.value.column == side


@pytest.mark.parametrize(
    "ids",
    [
        pa.array([2**64 - one for one in LOG["user"]], pa.uint64()),
        [-one for one in LOG["user"]],
        put("user", -(2**63)),
        pa.array(LOG["user"]).cast(pa.decimal128(30, 0)),
        put("user", "\ue000 日本 \U0001f600"),
    ],
)
def test_odd_ids_that_are_ids(check: Check, ids: Any) -> None:
    found = check({"user": ids})
    assert (found.rows["interactions"], found.drops) == (ROWS, ())
    assert found.rows["users"] == len(set(pa.array(ids).to_pylist()))


@pytest.mark.parametrize("pair", [("AB", "ab"), ("e\u0301", "\xe9"), ("ﬁ", "fi")])
def test_ids_that_only_their_writing_tells_apart(check: Check, pair: tuple[str, str]) -> None:
    users = [f"{pair[n % 2]}{one}" for n, one in enumerate(LOG["user"])]
    found = check({"user": users})
    assert found.rows["users"] == 12
    assert any("6 ids of users differ from another in their writing" in w for w in found.warnings)


DATETIME: Options = {"roles": {"time": {"column": "time", "unit": "datetime"}}}
FORMAT: Options = {"roles": {"time": {"column": "time", "format": "%d.%m.%Y"}}}
DAY = "2020-01-01"
TIMES: dict[str, tuple[Any, Options, str]] = {
    "null": (put("time", None), {}, "row 5, .*the time is null; .*bad_times: drop"),
    "all null": (pa.nulls(ROWS), {}, "36 rows in all.*the time is null"),
    "nan": ([NAN, *map(float, LOG["time"][1:])], {}, "row 1, .*the time is null"),
    "empty": (put("time", ""), {}, "row 5, .*the time is null"),
    "negative": (put("time", -5), {}, r"row 5, .*negative, -5 \(1969-12-31T23:59:55"),
    "the least": (put("time", -(2**63)), {}, "row 5, .*the time is null"),
    "future": (put("time", 7_000_000_000), {}, r"row 5, .*in the future \(after .*latest_time"),
    "the largest": (put("time", 2**63 - 1), {}, "row 5, .*in the future"),
    "beyond 64 bits": (
        pa.array(put("time", 2**64 - 1), pa.uint64()),
        {},
        "row 5, .*no number of a clock, 18446744073709551615; write numbers since 1970",
    ),
    "infinite": (put("time", INF), {}, "row 5, .*no number of a clock, inf"),
    "1e300": (put("time", 1e300), {}, "row 5, .*no number of a clock"),
    "400 digits": (put("time", "9" * 400), {}, "row 5, .*no number of a clock"),
    "one in ms": (put("time", 1_600_000_000_000), {}, "row 5, .*mixed units: 35 .* as s .*1 as ms"),
    "half in ms": (
        [one * 1000 if n % 2 else one for n, one in enumerate(LOG["time"])],
        {},
        "18 rows in all.*mixed units: 18 .* 18 as ms",
    ),
    "all in ns": ([one * 10**9 for one in LOG["time"]], {}, "declared as s.*set the unit to ns"),
    "zero": (put("time", 0), {}, "row 5, .*before 1990"),
    "row numbers": (list(range(ROWS)), {}, "before 1990.*declare interactions.order"),
    "words": (all_of("soon"), {}, "row 1, .*the column is text, 'soon'"),
    "one word": (put("time", "soon"), {}, "row 5, .*not a number of s, 'soon'"),
    "dates as s": (all_of(DAY), {}, "row 1, .*the column is text.*unit: datetime"),
    "numbers as dates": (LOG["time"], DATETIME, "row 1, .*the column is int64.*the unit to s"),
    "mixed forms": (
        [DAY, "01/02/2020"] * (ROWS // 2),
        DATETIME,
        "18 rows in all.*not a date or a time, '01/02/2020'",
    ),
    "30 February": (all_of(DAY, "2020-02-30"), DATETIME, "row 36, .*not a date.*'2020-02-30'"),
    "hour 25": (all_of(DAY, f"{DAY} 25:00:00"), DATETIME, "row 36, .*not a date"),
    "year 9999": (all_of(DAY, "9999-12-31"), DATETIME, "row 36, .*in the future"),
    "year 1": (all_of(DAY, "0001-01-01"), DATETIME, "row 36, .*negative"),
    "year 99999": (all_of(DAY, "99999-01-01"), DATETIME, "row 36, .*not a date"),
    "another format": (all_of("01.02.2020", DAY), FORMAT, "row 36, .*not .*declared format"),
    "bool": (all_of(True), {}, "row 1, .*times are bool"),
    "lists": (all_of([1]), {}, "row 1, .*a list where one time is expected"),
    "structs": (all_of({"a": 1}), {}, "row 1, .*times are struct"),
    "time of day": (pa.array(range(ROWS)).cast(pa.time64("us")), DATETIME, "row 1, .*time64"),
    "durations": (pa.array(range(ROWS)).cast(pa.duration("us")), DATETIME, "row 1, .*duration"),
    "timestamps as s": (
        pa.array(LOG["time"]).cast(pa.timestamp("s")),
        {},
        "row 1, .*the column is timestamp.*declare unit: datetime",
    ),
    "the least of ns": (
        pa.array(all_of(10**18, -(2**63))).cast(pa.timestamp("ns")),
        DATETIME,
        "row 36, .*negative, 1677-09-21",
    ),
}


@pytest.mark.parametrize("name", TIMES)
def test_times_of_every_wrong_kind(check: Check, name: str) -> None:
    values, options, words = TIMES[name]
    with pytest.raises(recsys.DataError, match=words) as refused:
        check({"time": values}, **options)
    error = refused.value
    assert (Path(error.file).name, error.column) == ("interactions.parquet", "time")
    assert error.rows
    assert error.remedy


@pytest.mark.parametrize("name", ["null", "negative", "the least", "future", "the least of ns"])
def test_bad_times_that_are_left_out_are_counted(check: Check, name: str) -> None:
    values, options, _ = TIMES[name]
    found = check({"time": values}, **options, **DROP_TIMES)
    assert [(one.rule, one.rows) for one in found.drops] == [("policies.bad_times", 1)]
    assert found.rows["interactions"] == ROWS - 1


def test_times_that_are_less_than_they_seem_are_said(check: Check) -> None:
    found = check({"time": np.array(LOG["time"], np.float32)})
    assert [one.rows for one in found.drops] == [ROWS]
    assert "steps of 128 s" in found.drops[0].reason
    assert any("the same time" in one for one in check({"time": all_of(1.6e9)}).warnings)
    zones = all_of(f"{DAY}T00:00:00Z", f"{DAY}T00:00:01")
    assert [one.rows for one in check({"time": zones}, **DATETIME).drops] == [1]


WEIGHT: Options = {"roles": {"weight": "weight"}, "model": {"kind": "ease"}}
ORDER: Options = {"roles": {"time": None, "order": "order"}}
LABEL: Options = {"roles": {"label": {"column": "label"}}, "model": {"kind": "autoint"}}
EVENTS: Options = {"roles": {"events": {"column": "event", "weights": {"view": 1, "buy": 3}}}}
PART: Options = {"split": {"kind": "column", "column": "part"}}
HALF = [0, 1] * (ROWS // 2)
NUMBERS = "name the right column, or write it as numbers"
ROLES: list[tuple[Options, Any, str]] = [
    (WEIGHT, all_of(1.0, INF), "row 36, .*infinite, inf; .*infinite_numbers: null"),
    (WEIGHT, all_of(1.0, 1e39), r"row 36, .*larger than 3\.4e\+38.*1e\+39; .*infinite_numbers"),
    (WEIGHT, all_of(3e38), "add up to more than .*divide all of them"),
    (WEIGHT, all_of(0.0), "all weights are zero"),
    (WEIGHT, all_of(1e-50), "all weights are zero"),
    (WEIGHT, all_of(1.0, -1.0), "row 36, .*negative, -1.0"),
    (WEIGHT, all_of(1.0, NAN), "row 36, .*null or NaN; fill it"),
    (WEIGHT, all_of(1.0, None), "row 36, .*null or NaN; fill it"),
    (WEIGHT, pa.nulls(ROWS), "36 rows in all.*null or NaN"),
    (WEIGHT, all_of("1"), f"row 1, .*text where a number is expected, '1'; {NUMBERS}"),
    (WEIGHT, all_of([1.0]), f"row 1, .*a list where one number is expected.*{NUMBERS}"),
    (WEIGHT, all_of({"a": 1}), f"row 1, .*struct.* where a number is expected.*{NUMBERS}"),
    (ORDER, list(range(-3, ROWS - 3)), "rows 1, 2, 3, .*negative, -3; .*at_least: 0"),
    (ORDER, [n + 0.5 for n in range(ROWS)], "36 rows in all.*fraction, 0.5"),
    (ORDER, all_of(1, None), "row 36, .*the order is null"),
    (ORDER, all_of(1.0, INF), "row 36, .*infinite"),
    (ORDER, all_of(1.0, 1e300), "row 36, .*larger than a whole number of 64 bits.*at_most"),
    (ORDER, pa.array(all_of(1, 2**64 - 1), pa.uint64()), "row 36, .*larger than a whole number"),
    (ORDER, all_of("a"), f"row 1, .*text where a number is expected, 'a'; {NUMBERS}"),
    (LABEL, [str(one) for one in HALF], "row 1, .*text .*'0'; name the values .* with one_of"),
    (LABEL, ["no", "yes"] * (ROWS // 2), "row 1, .*text .*'no'; name the values .* with one_of"),
    (LABEL, [one + 1 for one in HALF], "18 rows in all.*neither 0 nor 1, 2; .*at_least"),
    (LABEL, [one * 2 - 1 for one in HALF], "18 rows in all.*neither 0 nor 1, -1"),
    (LABEL, all_of(0.5), "36 rows in all.*neither 0 nor 1, 0.5"),
    (LABEL, [None, *HALF[1:]], "row 1, .*the label is null"),
    (LABEL, [NAN, *HALF[1:]], "row 1, .*the label is null"),
    (LABEL, [INF, *HALF[1:]], "row 1, .*infinite"),
    (LABEL, all_of([1]), "row 1, .*a list where one number"),
    (EVENTS, all_of("view", "x\x1b"), r"row 36, .*event 'x\\x1b' is not among view, buy; name it"),
    (EVENTS, all_of("view", None), "row 36, .*the type of the event is null; .*unknown_events"),
    (PART, all_of("train", "holdout"), "row 36, .*no known part of the split, 'holdout'; .*words"),
    (PART, all_of("train", None), "row 36, .*no known part"),
    (PART, all_of(0), "row 1, .*the split is int64"),
]


@pytest.mark.parametrize(("options", "values", "words"), ROLES)
def test_numbers_and_words_of_a_row(
    check: Check, options: Options, values: Any, words: str
) -> None:
    roles = options.get("roles", {})
    named = (one for one in ("weight", "order", "label") if one in roles)
    column = next(named, "event" if roles else "part")
    with pytest.raises(recsys.DataError, match=words) as refused:
        check({column: values}, **options)
    assert Path(refused.value.file).name == "interactions.parquet"
    assert refused.value.column == column
    assert refused.value.remedy


@pytest.mark.parametrize("value", [0, 1])
def test_labels_of_one_class(check: Check, value: int) -> None:
    words = f"all 2. training rows .* the label {value} .*'label'.*choose parts"
    with pytest.raises(recsys.ConfigError, match=words):
        check({"label": all_of(value)}, split="time", **LABEL)


@pytest.mark.parametrize("value", [INF, 1e39])
def test_infinite_weights_that_are_left_out_are_counted(check: Check, value: float) -> None:
    found = check({"weight": all_of(1.0, value)}, policies={"infinite_numbers": "null"}, **WEIGHT)
    assert [(one.rule, one.rows) for one in found.drops] == [("policies.infinite_numbers", 1)]
    assert found.rows["interactions"] == ROWS - 1


def test_events_that_count_nothing(check: Check) -> None:
    roles = {"events": {"column": "event", "weights": {"view": 0, "buy": 3}}}
    with pytest.raises(recsys.DataError, match="column 'event': all weights are zero"):
        check({"event": all_of("view")}, roles=roles)


def number_of(kind: str, **more: Any) -> list[Options]:
    return [{"name": "value", "table": "items", "kind": kind, **more}]


NINE = list(range(1, 10))
KEYS: dict[str, tuple[dict[str, Any], str]] = {
    "null key": ({"item": [*NINE[:-1], None]}, "row 9, column 'item': the id is null"),
    "same key": ({"item": [*NINE[:-1], 1]}, "row 9, .*earlier row, 1; .*duplicate_keys"),
    "other type": ({"item": list(map(str, NINE))}, "holds whole numbers.*holds text.*as_text"),
    "other ids": ({"item": list(range(100, 109))}, "none of the 9 items .* is in the catalogue"),
    "one missing": ({"item": [*NINE[:-1], 99]}, "rows 9, 18, .*no such key, 9; .*unknown_items"),
    "no row": ({"item": pa.array([], pa.int64()), "value": pa.array([], pa.float64())}, "is empty"),
    "infinite": ({"value": all_of(1.0, INF, 9)}, "row 9, column 'value': .*infinite"),
    "text": ({"value": all_of("x", rows=9)}, "row 1, column 'value': text .*'x'; cast"),
    "list": ({"value": all_of([1.0], rows=9)}, "row 1, column 'value': a list"),
    "struct": ({"value": all_of({"a": 1}, rows=9)}, "row 1, column 'value': struct"),
}


@pytest.mark.parametrize("name", KEYS)
def test_tables_of_items(check: Check, name: str) -> None:
    items, words = KEYS[name]
    with pytest.raises(recsys.DataError, match=rf"\.parquet.*{words}"):
        check({}, items, features=number_of("numeric"), model={"kind": "two_tower"})


def test_repeated_rows_are_said_and_counted(check: Check) -> None:
    twice = {name: [*values, *values[:5]] for name, values in LOG.items()}
    assert any("5 rows are equal to another one" in one for one in check(twice).warnings)
    found = check(twice, policies={"duplicate_events": "drop"})
    assert [one.rows for one in found.drops] == [5]
    assert found.rows["interactions"] == ROWS


@pytest.mark.parametrize(("odd", "is_said"), [(1e38, True), (1e300, True), (9.0, False)])
def test_one_price_that_flattens_all_others(check: Check, odd: float, is_said: bool) -> None:
    prices = [float(n % 10) for n in range(ROWS - 1)]
    feature = {"name": "price", "table": "interactions", "kind": "numeric"}
    found = check(
        {"price": [*prices, odd], "label": HALF}, features=[feature], split="time", **LABEL
    )
    said = [one for one in found.warnings if "column 'price': 95% of the numbers" in one]
    assert bool(said) is is_said


@pytest.mark.parametrize("kind", ["categorical", "numeric", "text"])
def test_a_column_of_nulls_is_counted(check: Check, kind: str) -> None:
    found = check({}, {"value": pa.nulls(9)}, features=number_of(kind), model={"kind": "two_tower"})
    (fact,) = [one for one in found.columns if one.column == "value"]
    assert (fact.nulls, fact.distinct) == (9, 0)
