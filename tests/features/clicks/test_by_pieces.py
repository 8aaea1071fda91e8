"""A log that workers encode piece by piece: the bytes that one process writes, or its refusal."""

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys.core.errors import ConfigError, DataError, NotFoundError, UserError
from recsys.features.clicks import pieces as reading_pieces
from recsys.features.clicks import survey as surveying
from recsys.features.clicks.by_pieces import ByPieces, OfPieces
from recsys.features.clicks.log import ClickLog, open_click_log
from recsys.features.clicks.pieces import (
    COUNTS,
    LOOKS,
    NUMBER,
    Counting,
    count_pieces,
)
from recsys.features.dataset.split import SplitConfig
from recsys.features.schema import Schema
from recsys.features.tables import csv_files, parquet_files
from recsys.features.tables.sources import Policies, Sources

START = 1_700_000_000
SHARES = SplitConfig(validation=0.2, test=0.2)
BY_COLUMN = SplitConfig(kind="column", column="part")
FEATURES: list[dict[str, Any]] = [
    {"name": "site", "kind": "categorical", "min_count": 3},
    {"name": "code", "kind": "categorical"},
    {"name": "tags", "kind": "multi_categorical", "separator": "|", "min_count": 2},
    {"name": "price", "kind": "numeric"},
    {"name": "clock", "kind": "timestamp", "column": "at", "unit": "s"},
]
PAIR = {"name": "pair", "kind": "cross", "of": ["site", "code"]}
FORGIVING = Policies(bad_ids="drop", bad_times="drop", infinite_numbers="null")


class Shuffled:
    """Has this process read the pieces, in another order, some of them twice."""

    def each(self, function: OfPieces, pieces: int, schema: pa.Schema) -> pa.Table:
        order = np.random.default_rng(1).permutation(pieces).tolist()
        next(function(_numbers(order[:1])))  # its answer was lost
        return pa.Table.from_batches(function(_numbers(order)), schema)

    def count(self, counting: Counting, pieces: int, least: Sequence[int]) -> pa.Table:
        order = reversed(range(pieces))
        found = pa.Table.from_batches(count_pieces(counting, _numbers(list(order))), COUNTS)
        sums = found.group_by(["feature", "value", "error"]).aggregate([("rows", "sum")])
        return sums.rename_columns({"rows_sum": "rows"})


def _numbers(numbers: Sequence[int]) -> Any:
    yield pa.record_batch({NUMBER: pa.array(numbers, pa.int64())})


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_files, "_BATCH_ROWS", 16)
    monkeypatch.setattr(csv_files, "_BLOCK_BYTES", 3000)


def messy_log(rows: int, seed: int = 3) -> dict[str, list[Any]]:
    """Rows with nulls, ties in time, rare values and values of validation and test alone."""
    rng = np.random.default_rng(seed)
    late = [f"new{row}" if row > 0.7 * rows and row % 3 == 0 else None for row in range(rows)]
    site = rng.choice(["x", "y", "zz", "rare", None], rows, p=[0.4, 0.3, 0.17, 0.03, 0.1])
    return {
        "click": rng.integers(0, 2, rows).tolist(),
        "visitor": rng.integers(0, 30, rows).tolist(),
        "item": rng.integers(0, 9, rows).tolist(),
        "importance": rng.choice([0.5, 1.0, 2.0], rows).tolist(),
        "at": [START + 60 * (row // 4) for row in range(rows)],
        "site": [new or old for new, old in zip(late, site.tolist(), strict=True)],
        "code": rng.integers(-5, 2**58, rows).tolist(),
        "tags": rng.choice(["a", "b", "a|b", "c|a|b", "q", "", None], rows).tolist(),
        "price": [None if x > 1.5 else x for x in rng.normal(size=rows).tolist()],
        "part": rng.choice(["train", "valid", "test"], rows).tolist(),
        "bot": rng.integers(0, 5, rows).tolist(),
    }


def schema_of(roles: dict[str, Any] | None = None, *more: dict[str, Any]) -> Schema:
    interactions = {
        "label": {"column": "click"},
        "weight": "importance",
        "where": [{"column": "bot", "at_most": 3}],
        **(roles or {}),
    }
    features = [{"table": "interactions", **one} for one in FEATURES]
    raw = {"interactions": interactions, "features": [*features, PAIR, *more]}
    return Schema.model_validate_json(json.dumps(raw))


def without_clock(schema: Schema) -> Schema:
    features = tuple(one for one in schema.features if one.name != "clock")
    return schema.model_copy(update={"features": features})


TIMED = {"time": {"column": "at", "unit": "s"}}
RATE = {"name": "site_rate", "kind": "rate", "of": ["site"], "rows": "folds"}


def parquet_log(folder: Path, columns: dict[str, list[Any]], cuts: Sequence[int]) -> Sources:
    """Write files cut at `cuts`, row groups of 7 rows, and a file without rows."""
    folder.mkdir(parents=True)
    table = pa.table(columns)
    for number, (start, stop) in enumerate(zip([0, *cuts], [*cuts, len(table)], strict=True)):
        part = table.slice(start, stop - start)
        pq.write_table(part, folder / f"part-{number}.parquet", row_group_size=7)
    return Sources(interactions=str(folder / "*.parquet"))


def csv_log(folder: Path, columns: dict[str, list[Any]], cuts: Sequence[int]) -> Sources:
    folder.mkdir(parents=True)
    table = pa.table(columns).to_pandas()
    for number, (start, stop) in enumerate(zip([0, *cuts], [*cuts, len(table)], strict=True)):
        table.iloc[start:stop].to_csv(folder / f"part-{number}.csv", index=False)
    return Sources(interactions=str(folder / "*.csv"))


def bytes_of(log: ClickLog) -> dict[str, bytes]:
    files = (path for path in log.folder.rglob("*") if path.is_file())
    return {str(path.relative_to(log.folder)): path.read_bytes() for path in files}


def both(
    schema: Schema, sources: Sources, policies: Policies, split: SplitConfig, folder: Path
) -> tuple[ClickLog, ClickLog]:
    """Encode in one process and by pieces of 20 rows."""
    given = (schema, sources, policies, split)
    one = open_click_log(*given, folder / "one")
    engine = ByPieces(Shuffled(), piece_rows=20)
    return one, open_click_log(*given, folder / "many", engine=engine)


@pytest.mark.parametrize("write", [parquet_log, csv_log])
@pytest.mark.parametrize("split", [SHARES, BY_COLUMN, SplitConfig(kind="none")], ids=str)
def test_pieces_make_the_bytes_of_one_process(
    write: Any, split: SplitConfig, tmp_path: Path
) -> None:
    columns = messy_log(200)
    columns["visitor"][150] = None
    columns["at"][31] = columns["at"][170] = None
    columns["importance"][77] = columns["price"][12] = columns["price"][110] = float("inf")
    sources = write(tmp_path / "data", columns, (60, 60, 155))
    roles = {"user": "visitor", "item": "item"} | ({} if split.kind == "column" else TIMED)
    schema = schema_of(roles, {**RATE, "folds": 3})
    one, many = both(schema, sources, FORGIVING, split, tmp_path)
    assert sum(one.counts) > 100
    assert {drop.rule for drop in one.drops} >= {"policies.bad_ids", "policies.infinite_numbers"}
    assert bytes_of(many) == bytes_of(one)
    assert many.drops == one.drops
    assert not list(many.folder.rglob("*pieces*"))


class Counted(Shuffled):
    """Notes how often the pieces are looked at."""

    def __init__(self) -> None:
        self.looks = 0

    def each(self, function: OfPieces, pieces: int, schema: pa.Schema) -> pa.Table:
        self.looks += schema == LOOKS
        return super().each(function, pieces, schema)


@pytest.mark.parametrize(
    ("split", "bots", "again"), [(SHARES, 5, False), (SHARES, 80, True), (BY_COLUMN, 5, True)]
)
def test_the_encoder_is_fitted_on_the_sample_of_one_process(
    split: SplitConfig, bots: int, again: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where few rows of the log are usable, workers are asked for more of them."""
    monkeypatch.setattr(surveying, "SAMPLE_ROWS", 15)
    columns = messy_log(240)
    columns["bot"] = np.random.default_rng(0).integers(0, bots, 240).tolist()
    given = (schema_of(TIMED if split.kind == "time" else {}), Policies(), split)
    sources = parquet_log(tmp_path / "data", columns, (60, 155))
    one = open_click_log(given[0], sources, *given[1:], tmp_path / "one")
    workers = Counted()
    engine = ByPieces(workers, piece_rows=20)
    many = open_click_log(given[0], sources, *given[1:], tmp_path / "many", engine=engine)
    assert bytes_of(many) == bytes_of(one)
    assert (workers.looks > 1) == again


def test_files_that_differ_are_read_as_by_one_process(tmp_path: Path) -> None:
    """Times with and without a zone, a column that a file lacks, one that folders name."""
    columns = messy_log(120)
    table = pa.table(columns)
    for number, day in enumerate((11, 12, 13)):
        own = table.slice(40 * number, 40)
        times = own.column("at").cast(pa.timestamp("s", "UTC" if number else None))
        own = own.set_column(own.column_names.index("at"), "at", times)
        folder = tmp_path / "data" / f"day={day}"
        folder.mkdir(parents=True)
        part = own.drop_columns(["tags"]) if number == 1 else own
        pq.write_table(part, folder / "part.parquet", row_group_size=9)
    roles = {"time": {"column": "at", "unit": "datetime"}}
    day_feature = {"name": "day", "table": "interactions", "kind": "categorical"}
    schema = without_clock(schema_of(roles, day_feature))
    sources = Sources(interactions=str(tmp_path / "data"))
    one, many = both(schema, sources, Policies(), SHARES, tmp_path)
    assert {drop.column for drop in one.drops} == {"at", "tags", "bot"}
    assert "day" in one.encoder.families
    assert one.encoder.families["day"] == "integer"
    assert bytes_of(many) == bytes_of(one)


def test_times_in_another_unit_are_told_by_the_whole_column(tmp_path: Path) -> None:
    columns = messy_log(120)
    columns["at"] = [1000 * one if row > 60 else one for row, one in enumerate(columns["at"])]
    sources = parquet_log(tmp_path / "data", columns, (50,))
    given = (without_clock(schema_of(TIMED)), sources, Policies(), SHARES)
    one = refusal((*given, tmp_path / "one"), None)
    many = refusal((*given, tmp_path / "many"), ByPieces(Shuffled(), piece_rows=20))
    assert "times in mixed units" in str(one)
    assert str(many) == str(one)


def test_ids_of_two_types_are_refused_as_by_one_process(tmp_path: Path) -> None:
    sources = parquet_log(tmp_path / "data", messy_log(60), (30,))
    second = tmp_path / "data" / "part-1.parquet"
    table = pq.read_table(second)
    ids = pa.array([f"u{one}" for one in range(30)])
    place = table.column_names.index("visitor")
    pq.write_table(table.set_column(place, "visitor", ids), second, row_group_size=7)
    given = (schema_of({"user": "visitor", "item": "item"}), sources, Policies(), SHARES)
    one = refusal((*given, tmp_path / "one"), None)
    many = refusal((*given, tmp_path / "many"), ByPieces(Shuffled(), piece_rows=20))
    assert "ids are" in str(one)
    assert str(many) == str(one)


def test_a_log_without_usable_rows_is_refused_as_by_one_process(tmp_path: Path) -> None:
    columns = messy_log(60)
    given = (schema_of(), parquet_log(tmp_path / "none", columns, (60,)), Policies(), SHARES)
    columns["bot"] = [9] * 60
    left = (schema_of(), parquet_log(tmp_path / "left", columns, (30,)), Policies(), SHARES)
    empty = {name: values[:0] for name, values in columns.items()}
    rows = (schema_of(), parquet_log(tmp_path / "rows", empty, ()), Policies(), SHARES)
    open_click_log(*given, tmp_path / "fine", engine=ByPieces(Shuffled(), piece_rows=20))
    for number, case in enumerate((left, rows)):
        one = refusal((*case, tmp_path / f"one{number}"), None)
        many = refusal((*case, tmp_path / f"many{number}"), ByPieces(Shuffled(), piece_rows=20))
        assert (type(many), str(many)) == (type(one), str(one))


def test_a_log_encoded_by_pieces_is_found_by_one_process(tmp_path: Path) -> None:
    sources = parquet_log(tmp_path / "data", messy_log(100), (40,))
    given = (schema_of(TIMED), sources, Policies(), SHARES, tmp_path / "cache")
    many = open_click_log(*given, engine=ByPieces(Shuffled()))
    again = open_click_log(*given)
    assert (again.folder, again.was_there, many.was_there) == (many.folder, True, False)


def refusal(given: tuple[Any, ...], engine: ByPieces | None) -> UserError:
    with pytest.raises(UserError) as refused:
        open_click_log(*given, engine=engine)
    return refused.value


@pytest.mark.parametrize(
    ("column", "row", "value"),
    [("visitor", 63, None), ("at", 150, START), ("price", 64, float("inf")), ("click", 65, 7)],
)
def test_what_one_process_refuses_pieces_refuse(
    column: str, row: int, value: Any, tmp_path: Path
) -> None:
    """In the same words."""
    columns = messy_log(200)
    columns[column][row] = value
    sources = parquet_log(tmp_path / "data", columns, (60, 155))
    schema = schema_of({"user": "visitor", "item": "item", **TIMED})
    given = (schema, sources, Policies(), SHARES, tmp_path / "cache")
    one = refusal(given, None)
    many = refusal(given, ByPieces(Shuffled(), piece_rows=20))
    assert (type(many), str(many)) == (type(one), str(one))
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_a_column_of_two_types_is_refused(tmp_path: Path) -> None:
    sources = parquet_log(tmp_path / "data", messy_log(60), (30,))
    second = tmp_path / "data" / "part-1.parquet"
    table = pq.read_table(second)
    at = table.column_names.index("site")
    pq.write_table(table.set_column(at, "site", pa.array(range(30))), second)
    given = (schema_of(TIMED), sources, Policies(), SHARES, tmp_path / "cache")
    found: Any = refusal(given, ByPieces(Shuffled(), piece_rows=20))
    assert (type(found), found.column, found.file) == (DataError, "site", str(second))
    assert "holds integer values" in str(found)


def test_features_of_the_rows_before_are_refused_with_a_way_out(tmp_path: Path) -> None:
    schema = schema_of(TIMED, {**RATE, "rows": "earlier"})
    sources = parquet_log(tmp_path / "data", messy_log(60), (30,))
    with pytest.raises(ConfigError, match=r"'site_rate' is of the rows before each.*rows: folds"):
        open_click_log(
            schema, sources, Policies(), SHARES, tmp_path / "c", engine=ByPieces(Shuffled())
        )


def test_windows_are_refused_with_a_way_out() -> None:
    window = {"name": "visits", "kind": "window", "of": "interactions", "by": "user"}
    schema = schema_of({"user": "visitor", "item": "item", **TIMED}, {**window, "window": "7d"})
    nothing: Any = None
    with pytest.raises(ConfigError, match="'visits' is of all rows before each"):
        ByPieces(Shuffled()).survey(nothing, schema, SHARES, None)


class Elsewhere(Shuffled):
    """Workers that do not see the folder of the first process."""

    def each(self, function: Any, pieces: int, schema: pa.Schema) -> pa.Table:
        task = function.args[0]
        if hasattr(task, "folder"):
            function = partial(function.func, replace(task, folder=Path("/nowhere/x")))
        return super().each(function, pieces, schema)


def test_a_worker_that_does_not_see_the_folder_says_what_machines_have_to_share(
    tmp_path: Path,
) -> None:
    sources = parquet_log(tmp_path / "data", messy_log(60), (30,))
    with pytest.raises(NotFoundError, match="/nowhere/x: a worker does not see it"):
        open_click_log(
            schema_of(), sources, Policies(), SHARES, tmp_path / "c", engine=ByPieces(Elsewhere())
        )


def test_a_worker_with_other_code_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = parquet_log(tmp_path / "data", messy_log(60), (30,))
    monkeypatch.setattr(reading_pieces, "code_digest", lambda: "another")
    with pytest.raises(ConfigError, match="another version of the engine"):
        open_click_log(
            schema_of(), sources, Policies(), SHARES, tmp_path / "c", engine=ByPieces(Shuffled())
        )


def test_pieces_are_of_whole_row_groups_in_order(tmp_path: Path) -> None:
    from recsys.features.tables.reading import open_table

    sources = parquet_log(tmp_path / "data", messy_log(30), (10, 10))
    files = open_table(sources.interactions, "interactions")
    found = [(one.file, one.groups, one.first) for one in files.pieces(8)]
    # groups of 7 and 3 rows; of 0; of 7, 7 and 6
    assert found == [(0, (0, 1), 0), (1, (0,), 10), (2, (0, 1), 10), (2, (2,), 24)]
    rows = [
        batch.rows.tolist() for one in files.pieces(8) for batch in files.cut(one).batches(["at"])
    ]
    assert [number for some in rows for number in some] == list(range(30))


def test_a_bad_row_in_several_pieces_is_counted_in_all(tmp_path: Path) -> None:
    """An error says how many rows are concerned, as far as they were read."""
    columns = messy_log(60)
    columns["click"][5] = columns["click"][50] = 7
    sources = parquet_log(tmp_path / "data", columns, (30,))
    given = (schema_of(TIMED), sources, Policies(), SHARES)
    one = refusal((*given, tmp_path / "one"), None)
    many = refusal((*given, tmp_path / "many"), ByPieces(Shuffled(), piece_rows=20))
    assert isinstance(many, DataError)
    assert str(many) == str(one)
