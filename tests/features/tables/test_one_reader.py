"""One bad row, four ways to read it, one message.

A log is read into memory, or streamed; a ranker is given rows to score, a retrieval model requests.
What a way to read has no use for is not read by it, so it cannot be refused: rows to score and
requests need no label, weight, time, order, session or part, and `where` leaves none of them out.
A request's items are its history, and what it lacks of the rest is not known. Who scores cannot
set a policy, so is not told to.
"""

import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys.core.errors import DataError
from recsys.features.clicks.log import encode_click_log
from recsys.features.dataset.split import SplitConfig
from recsys.features.encoding.encoder import FeatureEncoder
from recsys.features.requests.origin import RequestOrigin
from recsys.features.requests.rows import RowEncoder, as_rows
from recsys.features.requests.table import encode_requests
from recsys.features.schema import Schema
from recsys.features.tables import parquet_files
from recsys.features.tables.checked import read_tables
from recsys.features.tables.reading import open_table
from recsys.features.tables.sources import Policies, Sources

START, ROWS = 1_700_000_000, 12
GOOD: dict[str, list[Any]] = {
    "user": [1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6],
    "item": [10, 11, 12, 10, 11, 12, 10, 11, 12, 10, 11, 12],
    "visit": ["a", "a", "b", "b", "c", "c", "d", "d", "e", "e", "f", "f"],
    "time": [START + k for k in range(ROWS)],
    "place": list(range(ROWS)),
    "weight": [1.0, 0.5, 2.0] * 4,
    "click": [0, 1, 0, 1, 1, 0] * 2,
    "part": ["train"] * 6 + ["valid"] * 3 + ["test"] * 3,
    "shop": ["x", "y", None] * 4,
    "price": [float(k) for k in range(ROWS)],
    "tags": [["a"], ["b"], [], ["a", "b"], None, ["a"]] * 2,
    "look": [[0.0, 1.0], None, [0.5, 0.5]] * 4,
    "when": [START - k for k in range(ROWS)],
    "name": ["Red hat", "hat", None] * 4,
}
ROLES: dict[str, Any] = {
    "user": "user",
    "item": "item",
    "session": "visit",
    "time": {"column": "time", "unit": "s"},
    "weight": "weight",
    "label": {"column": "click"},
}
FEATURES: list[dict[str, Any]] = [
    {"name": "shop", "kind": "categorical"},
    {"name": "price", "kind": "numeric"},
    {"name": "tags", "kind": "multi_categorical"},
    {"name": "look", "kind": "vector", "dim": 2},
    {"name": "when", "kind": "timestamp", "unit": "s"},
    {"name": "name", "kind": "text"},
]
IDS = [
    {"name": "user", "table": "users", "kind": "categorical"},
    {"name": "item", "table": "items", "kind": "categorical"},
]
ORDER = {"time": None, "order": "place"}
DATES = {"time": {"column": "time", "unit": "datetime"}}
LOGS = ("memory", "streamed")
ROWS_ALONE = (*LOGS, "scored")
ALL = (*LOGS, "scored", "asked")


@dataclass(frozen=True)
class Bad:
    """columns: what replaces the good ones, None taking a column away; readers: who refuse it.

    untried: who has other words, for a reason of its own.
    """

    message: str
    columns: dict[str, Any] = field(default_factory=dict)
    roles: dict[str, Any] = field(default_factory=dict)
    policies: dict[str, Any] = field(default_factory=dict)
    features: list[dict[str, Any]] = field(default_factory=lambda: FEATURES)
    readers: tuple[str, ...] = ALL
    untried: tuple[str, ...] = ()


@dataclass(frozen=True)
class Way:
    """One way to read: returns how many rows it has read."""

    folder: Path
    bad: Bad

    def write(self) -> str:
        """Write the rows into the folder."""
        columns = {**GOOD, **self.bad.columns}
        given = {name: values for name, values in columns.items() if values is not None}
        pq.write_table(pa.table(given), self.folder / "log.parquet")
        return str(self.folder / "log.parquet")

    @property
    def policies(self) -> Policies:
        return Policies.model_validate({"latest_time": "2025-01-01", **self.bad.policies})

    def schema(self, *, ids: bool) -> Schema:
        roles = {k: v for k, v in {**ROLES, **self.bad.roles}.items() if v is not None}
        features = [{"table": "interactions", **one} for one in self.bad.features]
        raw = {"interactions": roles, "features": [*features, *(IDS if ids else [])]}
        return Schema.model_validate_json(json.dumps(raw))

    def memory(self, path: str) -> int:
        sources = Sources(interactions=path)
        schema = self.schema(ids=True)
        return len(read_tables(schema, sources, self.policies, split_column="part").events)

    def streamed(self, path: str) -> int:
        sources, split = (
            Sources(interactions=path),
            SplitConfig(kind="column", column="part"),
        )
        folder = self.folder / "encoded"
        schema = self.schema(ids=False)
        return sum(encode_click_log(schema, sources, self.policies, split, folder).counts)

    @property
    def encoder(self) -> FeatureEncoder:
        schema, good = self.schema(ids=True), pa.table({**GOOD, "tag_weights": [[]] * ROWS})
        sides = {"users": good.select(["user"]), "items": good.select(["item"])}
        tables: Any = {"interactions": good, **sides}
        return FeatureEncoder.fit(schema, tables, reference_time=0)

    def scored(self, path: str) -> int:
        rows = pq.ParquetFile(path).read()
        return len(RowEncoder(self.encoder, self.policies).encode(rows, open_table(path, "rows")))

    def asked(self, path: str) -> int:
        rows = pq.ParquetFile(path).read().append_column("history", pa.array([[10]] * ROWS))
        items = pa.array([10, 11, 12])
        origin, policies = RequestOrigin(path), self.policies
        return len(
            encode_requests(
                self.encoder, items, rows, history_length=2, policies=policies, origin=origin
            )
        )


def spoilt(name: str, value: Any) -> dict[str, Any]:
    values = list(GOOD[name])
    values[7] = value
    return {name: values}


def every(name: str, change: Callable[[Any], Any]) -> dict[str, Any]:
    return {name: [None if value is None else change(value) for value in GOOD[name]]}


PLACE = r"^/\S*log\.parquet row 8, column"
FIRST = r"^/\S*log\.parquet row 1, column"
MANY = r"^/\S*log\.parquet rows 1, 2, 3, 4, 5 \(12 rows in all\), column"
WEIGHTED = [{"name": "tags", "kind": "multi_categorical", "weights": "tag_weights"}]
BAD: dict[str, Bad] = {
    "null user": Bad(rf"{PLACE} 'user': the id is null; .*bad_ids: drop", spoilt("user", None)),
    "null item": Bad(
        rf"{PLACE} 'item': the id is null; .*bad_ids: drop",
        spoilt("item", None),
        readers=ROWS_ALONE,
    ),
    "null session": Bad(
        rf"{PLACE} 'visit': the id is null; .*bad_ids: drop",
        spoilt("visit", None),
        readers=LOGS,
    ),
    "empty id": Bad(
        rf"{PLACE} 'user': the id is empty, ''",
        {**every("user", str), "user": [*"abcdefg", "", *"ijkl"]},
    ),
    "padded id": Bad(rf"{PLACE} 'user': the id is padded", {"user": [*"abcdefg", " h", *"ijkl"]}),
    "word for a null": Bad(
        rf"{PLACE} 'user': the id is the word for a null, 'nan'",
        {"user": [*"abcdefg", "nan", *"ijkl"]},
    ),
    "ids as floats": Bad(
        rf"{MANY} 'user': ids came as floats, 1\.0; .*float_ids: integer", every("user", float)
    ),
    "fraction as id": Bad(
        rf"{PLACE} 'user': the id is a fraction, 1\.5; an id is a whole number",
        {"user": [*map(float, GOOD["user"][:7]), 1.5, *map(float, GOOD["user"][8:])]},
        policies={"float_ids": "integer"},
    ),
    "float id above 2**53": Bad(
        rf"{PLACE} 'user': the id came as a float of 2\*\*53",
        {"user": [*map(float, GOOD["user"][:7]), 2.0**60, *map(float, GOOD["user"][8:])]},
        policies={"float_ids": "integer"},
    ),
    "true or false as id": Bad(rf"{FIRST} 'user': ids are true or false", every("user", bool)),
    "list as id": Bad(rf"{FIRST} 'user': ids are list<.*>, \[1\]", every("user", lambda x: [x])),
    "null weight": Bad(
        rf"{PLACE} 'weight': the weight is null or NaN; fill it",
        spoilt("weight", None),
        readers=LOGS,
    ),
    "NaN weight": Bad(
        rf"{PLACE} 'weight': the weight is null or NaN; fill it",
        spoilt("weight", math.nan),
        readers=LOGS,
    ),
    "negative weight": Bad(
        rf"{PLACE} 'weight': the weight is negative, -2\.0; a weight is zero or more",
        spoilt("weight", -2.0),
        readers=LOGS,
    ),
    "infinite weight": Bad(
        rf"{PLACE} 'weight': the number is infinite, inf; .*infinite_numbers: null",
        spoilt("weight", math.inf),
        readers=LOGS,
    ),
    "text as weight": Bad(
        rf"{FIRST} 'weight': text where a number is expected, '1\.0'",
        every("weight", str),
        readers=LOGS,
    ),
    "list as weight": Bad(
        rf"{FIRST} 'weight': a list where one number is expected, \[1\.0\]",
        every("weight", lambda x: [x]),
        readers=LOGS,
    ),
    "null label": Bad(
        rf"{PLACE} 'click': the label is null; fill it", spoilt("click", None), readers=LOGS
    ),
    "label out of range": Bad(
        rf"{PLACE} 'click': the label is neither 0 nor 1, 3; set interactions\.label\.at_least",
        spoilt("click", 3),
        readers=LOGS,
    ),
    "text as label": Bad(
        rf"{FIRST} 'click': text where a number is expected, '0'",
        every("click", str),
        readers=LOGS,
    ),
    "null under a threshold": Bad(
        rf"{PLACE} 'price': the label is null; fill it",
        spoilt("price", None),
        roles={"label": {"column": "price", "at_least": 3}},
        readers=LOGS,
    ),
    "null time": Bad(
        rf"{PLACE} 'time': the time is null; .*bad_times: drop",
        spoilt("time", None),
        readers=LOGS,
    ),
    "negative time": Bad(
        rf"{PLACE} 'time': the time is negative, -5 ", spoilt("time", -5), readers=LOGS
    ),
    "future time": Bad(
        rf"{PLACE} 'time': the time is in the future \(after 2025-01-01T00:00:00\+00:00\), "
        r"1800000000 \(2027-01-15T08:00:00\+00:00\); .*policies\.latest_time",
        spoilt("time", 1_800_000_000),
        readers=LOGS,
    ),
    "time before 1990": Bad(
        rf"{PLACE} 'time': the time is before 1990, 7 .*declare interactions\.order",
        spoilt("time", 7),
        readers=LOGS,
    ),
    "wrong unit": Bad(
        rf"{MANY} 'time': declared as s, but the times are between 1990 and now as ms, "
        r"1700000000000; set the unit to ms",
        every("time", lambda t: t * 1000),
        readers=LOGS,
    ),
    "mixed units, met late": Bad(
        r"^/\S*log\.parquet rows 6, 7, 8, 9, 10 \(7 rows in all\), column 'time': times in mixed "
        r"units: 5 rows are plausible as s \(declared\), 7 as ms, 1700000005000; bring",
        {"time": [t * 1000 if k > 4 else t for k, t in enumerate(GOOD["time"])]},
        policies={"bad_times": "drop"},
        readers=LOGS,
    ),
    "mixed units, met first": Bad(
        r"^/\S*log\.parquet rows 1, 2, 3, 4, 5, column 'time': times in mixed units: 7 rows are "
        r"plausible as s \(declared\), 5 as ms, 1700000000000; bring",
        {"time": [t * 1000 if k < 5 else t for k, t in enumerate(GOOD["time"])]},
        readers=LOGS,
    ),
    "text as time": Bad(
        rf"{FIRST} 'time': declared in s, but the column is text, 'at 1700000000'",
        every("time", lambda t: f"at {t}"),
        readers=LOGS,
    ),
    "timestamps as numbers": Bad(
        rf"{FIRST} 'time': declared in s, but the column is timestamp\[us\]",
        every("time", lambda t: datetime.fromtimestamp(t, UTC).replace(tzinfo=None)),
        readers=LOGS,
    ),
    "numbers as timestamps": Bad(
        rf"{FIRST} 'time': declared as datetime, but the column is int64, .*set the unit to s",
        roles=DATES,
        readers=LOGS,
    ),
    "no date": Bad(
        rf"{PLACE} 'time': not a date or a time, 'x'; write ISO 8601",
        {"time": ["2024-01-01"] * 7 + ["x"] + ["2024-01-02"] * 4},
        roles=DATES,
        readers=LOGS,
    ),
    "infinity as time": Bad(
        rf"{PLACE} 'time': the time is no number of a clock, inf",
        spoilt("time", math.inf),
        readers=LOGS,
    ),
    "null order": Bad(
        rf"{PLACE} 'place': the order is null; .*at_least: 0",
        spoilt("place", None),
        roles=ORDER,
        readers=LOGS,
    ),
    "negative order": Bad(
        rf"{PLACE} 'place': the order is negative, -1",
        spoilt("place", -1),
        roles=ORDER,
        readers=LOGS,
    ),
    "fraction as order": Bad(
        rf"{MANY} 'place': the order is a fraction, 0\.5",
        every("place", lambda x: x + 0.5),
        roles=ORDER,
        readers=LOGS,
    ),
    "unknown part": Bad(
        rf"{PLACE} 'part': no known part of the split, 'holdout'",
        spoilt("part", "holdout"),
        readers=LOGS,
    ),
    "null part": Bad(
        rf"{PLACE} 'part': no known part of the split, None",
        spoilt("part", None),
        readers=LOGS,
    ),
    "number as part": Bad(
        rf"{FIRST} 'part': the split is int64, 0",
        {"part": GOOD["place"]},
        readers=LOGS,
    ),
    "condition on text": Bad(
        rf"{FIRST} 'shop': text where a number is expected, 'x'",
        roles={"where": [{"column": "shop", "at_least": 1}]},
        readers=LOGS,
    ),
    "condition on a list": Bad(
        rf"{FIRST} 'tags': a condition on a list, \['a'\]",
        roles={"where": [{"column": "tags", "at_least": 1}]},
        readers=LOGS,
    ),
    "condition by words on numbers": Bad(
        rf"{FIRST} 'item': the condition one_of names '10', but the column is int64",
        roles={"where": [{"column": "item", "one_of": ["10"]}]},
        readers=LOGS,
    ),
    "condition that none meets": Bad(
        r"log\.parquet: none of 12 interactions is left \(12: 'price' not at least 99\); change",
        roles={"where": [{"column": "price", "at_least": 99}]},
        readers=LOGS,
    ),
    "missing user": Bad(
        r"log\.parquet, column 'user': the .* no such column; its columns are item, ",
        {"user": None},
    ),
    "missing session": Bad(
        r"log\.parquet, column 'visit': the interactions table has no such column; ",
        {"visit": None},
        readers=LOGS,
    ),
    "missing weight": Bad(
        r"log\.parquet, column 'weight': the interactions table has no such column; ",
        {"weight": None},
        readers=LOGS,
    ),
    "missing label": Bad(
        r"log\.parquet, column 'click': the interactions table has no such column; ",
        {"click": None},
        readers=LOGS,
    ),
    "missing time": Bad(
        r"log\.parquet, column 'time': the .* table has no such column \(did you mean 'name'\?\)",
        {"time": None},
        readers=LOGS,
    ),
    "missing part": Bad(
        r"log\.parquet, column 'part': the interactions table has no such column; ",
        {"part": None},
        readers=LOGS,
    ),
    "missing feature": Bad(
        r"log\.parquet, column 'shop': the interactions table has no such column; ",
        {"shop": None},
        readers=ROWS_ALONE,
    ),
    "missing weights of values": Bad(
        r"log\.parquet, column 'tag_weights': the .* no such column \(did you mean 'weight",
        features=WEIGHTED,
        readers=ROWS_ALONE,
        untried=("asked",),
    ),
    "infinite feature": Bad(
        rf"{PLACE} 'price': the number is infinite, inf; .*infinite_numbers: null",
        spoilt("price", math.inf),
    ),
    "text as a number": Bad(
        rf"{FIRST} 'price': text where a number is expected, '0\.0'; cast", every("price", str)
    ),
    "list as a number": Bad(
        rf"{FIRST} 'price': a list where one number is expected, \[0\.0\]",
        every("price", lambda x: [x]),
    ),
    "list as a category": Bad(
        rf"{FIRST} 'shop': a list where one value is expected, \['x'\]",
        every("shop", lambda x: [x]),
    ),
    "fraction as a category": Bad(
        rf"{PLACE} 'shop': a fraction or a float above 2\*\*53 in a categorical column, 2\.5",
        {"shop": [1.0] * 7 + [2.5] + [1.0] * 4},
    ),
    "one value as a list": Bad(
        rf"{FIRST} 'tags': one int64 where a list is expected, 1", {"tags": [1] * ROWS}
    ),
    "short vector": Bad(
        rf"{PLACE} 'look': a vector of 1 numbers where dim: 2 is declared", spoilt("look", [0.5])
    ),
    "NaN in a vector": Bad(
        rf"{PLACE} 'look': null or NaN inside a vector", spoilt("look", [0.5, math.nan])
    ),
    "infinity in a vector": Bad(
        rf"{PLACE} 'look': a vector holds an infinite number", spoilt("look", [0.5, math.inf])
    ),
    "number as text": Bad(
        rf"{FIRST} 'name': int64 where text is expected, 1", {"name": [1] * ROWS}
    ),
    "text as a feature's time": Bad(
        rf"{FIRST} 'when': declared in s, but the column is text",
        every("when", lambda t: f"at {t}"),
    ),
    "a feature's time in another unit": Bad(
        rf"{FIRST} 'when': declared in s, but the values are plausible as ms",
        every("when", lambda t: t * 1000),
    ),
    "two faults": Bad(
        rf"{PLACE} 'user': the id is null", {**spoilt("user", None), **spoilt("price", math.inf)}
    ),
}


def refused(folder: Path, bad: Bad, reader: str) -> str:
    """Read and return the error, in the words of the log; "" where there is none."""
    way = Way(folder, bad)
    try:
        assert getattr(way, reader)(way.write()) == ROWS
    except DataError as error:
        # What lacks a column is told besides what needs it.
        said = re.sub("(, history)?; (the model reads|requests need) .*", "", str(error))
        return re.sub("the (rows|requests) table", "the interactions table", said)
    return ""


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_files, "_BATCH_ROWS", 3)


@pytest.mark.parametrize("reader", ALL)
def test_the_good_rows_are_read(tmp_path: Path, reader: str) -> None:
    assert refused(tmp_path, Bad(""), reader) == ""


@pytest.mark.parametrize("name", BAD)
def test_one_bad_row_has_one_message(tmp_path: Path, name: str) -> None:
    bad = BAD[name]
    said = {one: refused(tmp_path, bad, one) for one in ALL if one not in bad.untried}
    whole = said["memory"]
    assert re.search(bad.message, whole), whole
    assert "\n" not in whole
    for reader, message in said.items():
        if reader in LOGS:
            assert message == (whole if reader in bad.readers else "")
        elif message:  # requests are told what the model reads, in the same place
            assert _file_and_column(message) == _file_and_column(whole)
        else:  # what a request may hold, a number as text, means one value
            assert reader not in bad.readers or name in TAKEN, reader


TAKEN = ("text as a number", "ids as floats")


def _file_and_column(message: str) -> tuple[str, str]:
    found = re.search(r"(\S*log\.parquet)[^,]*, column '([^']*)'", message)
    return (found[1], found[2]) if found else ("", "")


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    table = pa.table(GOOD)
    twice = pa.table([*table.columns, table["shop"]], names=[*table.column_names, "shop"])
    path = str(tmp_path / "log.parquet")
    pq.write_table(twice, path)
    way = Way(tmp_path, Bad(""))
    for reader in ALL:
        with pytest.raises(DataError, match=r"log\.parquet: two columns are named 'shop'; rename"):
            getattr(way, reader)(path)
    with pytest.raises(DataError, match=r"^rows: two columns are named 'shop'; rename one"):
        as_rows(twice)


@pytest.mark.parametrize("first", ["numbers", "text"])
@pytest.mark.parametrize("column", ["shop", "item"])
def test_files_of_two_types_are_refused(tmp_path: Path, column: str, first: str) -> None:
    words = {column: [str(value) for value in GOOD[column]]}
    numbers = {column: list(range(ROWS))}
    files = [numbers, words] if first == "numbers" else [words, numbers]
    for number, changes in enumerate(files):
        pq.write_table(pa.table({**GOOD, **changes}), tmp_path / f"{number}.parquet")
    way, what = Way(tmp_path, Bad("")), "ids" if column == "item" else "values"
    message = (
        rf"0\.parquet row 1; \S*1\.parquet row 1, column '{column}': {what} are \w+ in one file "
        r"and \w+ in another; cast them to one type"
    )
    for reader in LOGS:
        with pytest.raises(DataError, match=message):
            getattr(way, reader)(str(tmp_path / "*.parquet"))


def is_good(columns: dict[str, list[Any]], row: int) -> bool:
    """The rules once more, for one row."""
    one = {name: values[row] for name, values in columns.items()}
    return (
        one["user"] is not None
        and one["visit"] in GOOD["visit"]
        and one["time"] is not None
        and START <= one["time"] < START + ROWS
        and math.isfinite(one["weight"])
        and one["price"] is not None
        and 1 <= one["price"] < math.inf
    )


@pytest.mark.parametrize("seed", range(4))
def test_a_stream_reads_the_rows_that_memory_does(tmp_path: Path, seed: int) -> None:
    """Under every policy that forgives, rows are spoilt at random; values and drops agree."""
    rng = np.random.default_rng(seed)
    columns = {name: list(values) * 5 for name, values in GOOD.items()}
    bad: dict[str, list[Any]] = {
        "user": [None],
        "visit": [None, "", " a", "nan"],
        "time": [None, -1, 7, 1_800_000_000],
        "weight": [math.inf, -math.inf],
        "price": [None, math.inf, math.nan, 1.0],
    }
    for name, values in bad.items():
        for row in rng.choice(5 * ROWS, 6, replace=False).tolist():
            columns[name][row] = values[rng.integers(len(values))]
    forgiving = {"bad_ids": "drop", "bad_times": "drop", "infinite_numbers": "null"}
    where = {"where": [{"column": "price", "at_least": 1}]}
    way = Way(tmp_path, Bad("", columns, where, forgiving))
    sources, split = Sources(interactions=way.write()), SplitConfig(kind="column", column="part")
    tables = read_tables(way.schema(ids=True), sources, way.policies, split_column="part")
    log = encode_click_log(
        way.schema(ids=False), sources, way.policies, split, tmp_path / "encoded"
    )
    events, kept = tables.events, 0
    assert events.label is not None
    assert events.split is not None
    for part in range(3):
        batch = log.read(part, slice(None))
        own = np.flatnonzero(events.split == part)
        own = own[np.argsort(events.row[own])]
        assert batch.examples.tolist() == events.row[own].tolist()
        assert batch.label.tolist() == events.label[own].tolist()
        assert batch.weight.tolist() == events.weight[own].tolist()
        kept += len(own)
    assert sorted(events.row.tolist()) == [row for row in range(5 * ROWS) if is_good(columns, row)]
    assert kept == len(events)
    assert log.drops == tables.drops
    assert len({drop.column for drop in log.drops}) == 5
