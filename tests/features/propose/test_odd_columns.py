"""Columns as files from elsewhere hold them: what `init` writes about them, `check` reads."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
import yaml

from recsys.core.errors import DataError
from recsys.core.strict import parse
from recsys.features.propose.tables import Inference, infer
from recsys.features.schema import Schema
from recsys.features.tables.checked import Tables, read_tables
from recsys.features.tables.sources import Policies, Sources

START, ROWS = 1_700_000_000, 240
LOG = {
    "user_id": np.arange(ROWS) // 8,
    "item_id": np.arange(ROWS) * 7 % 24,
    "timestamp": START + 3600 * np.arange(ROWS),
}
ITEMS = {"item_id": np.arange(24), "genre": [f"g{k % 4}" for k in range(24)]}


def write(path: Path, columns: dict[str, Any]) -> Path:
    path.parent.mkdir(exist_ok=True)
    pq.write_table(pa.table(columns), path)
    return path


def proposed(paths: Sequence[Path]) -> tuple[Inference, Tables, dict[str, str]]:
    """Return what `init` says, the tables read by its file, and the kind of each feature."""
    found = infer(paths)
    raw = yaml.safe_load(found.yaml)
    tables = read_tables(
        parse(Schema, raw["schema"], source="schema"),
        parse(Sources, raw["data"], source="data"),
        parse(Policies, raw.get("policies", {}), source="policies"),
    )
    return found, tables, {one["name"]: one["kind"] for one in raw["schema"]["features"]}


@pytest.mark.parametrize(
    ("kind", "expected"), [(pa.float16(), "numeric"), (pa.string_view(), "categorical")]
)
def test_types_that_arrow_hardly_computes_with(
    tmp_path: Path, kind: pa.DataType, expected: str
) -> None:
    values = [f"v{k % 5}" for k in range(24)] if expected == "categorical" else np.arange(24) / 8
    column = pa.array(np.asarray(values, np.float16) if expected == "numeric" else values, kind)
    log = write(tmp_path / "log.parquet", LOG)
    items = write(tmp_path / "items.parquet", {**ITEMS, "odd": column})
    _, tables, kinds = proposed([log, items])
    assert kinds["odd"] == expected
    assert tables.items["odd"].to_pylist() == list(values)


def test_text_views_are_ids_like_other_text(tmp_path: Path) -> None:
    ids = {name: [f"x{k}" for k in LOG[name]] for name in ("user_id", "item_id")}
    views = {name: pa.array(values, pa.string_view()) for name, values in ids.items()}
    _, tables, _ = proposed([write(tmp_path / "log.parquet", {**LOG, **views})])
    assert tables.users["user_id"].to_pylist() == sorted(set(ids["user_id"]))


def test_times_without_a_zone_are_those_of_utc(tmp_path: Path) -> None:
    times = pa.array(LOG["timestamp"]).cast(pa.timestamp("s"))
    for number, kind in enumerate((pa.timestamp("ms"), pa.timestamp("us", "Asia/Tokyo"))):
        half = slice(number * ROWS // 2, (number + 1) * ROWS // 2)
        columns = {name: values[half] for name, values in LOG.items()}
        write(
            tmp_path / "log" / f"{number}.parquet", {**columns, "timestamp": times[half].cast(kind)}
        )
    _, tables, _ = proposed([tmp_path / "log"])
    seconds = np.sort(tables.events.time) // 1_000_000
    assert seconds.tolist() == LOG["timestamp"].tolist()


def test_types_that_do_not_go_together_are_named_with_both_files(tmp_path: Path) -> None:
    write(tmp_path / "log" / "0.parquet", LOG)
    write(tmp_path / "log" / "1.parquet", {**LOG, "item_id": [["a"]] * ROWS})
    message = (
        r"0\.parquet row 1; \S*1\.parquet row 1, column 'item_id': values are int64 in one file "
        r"and list<\S* \S*> in another; cast them to one type"
    )
    with pytest.raises(DataError, match=message):
        infer([tmp_path / "log"])


@pytest.mark.parametrize("newer", [0, 1])
def test_a_column_that_some_files_lack_is_null_there(tmp_path: Path, newer: int) -> None:
    log = write(tmp_path / "log.parquet", LOG)
    for number in range(2):
        half = slice(12 * number, 12 * number + 12)
        columns = {name: values[half] for name, values in ITEMS.items()}
        more = {"brand": ["x", "y", "z"] * 4} if number == newer else {}
        write(tmp_path / "items" / f"{number}.parquet", {**columns, **more})
    found, tables, kinds = proposed([log, tmp_path / "items"])
    assert (tables.items.num_rows, "brand" in kinds) == (24, True)
    other = tmp_path / "items" / f"{1 - newer}.parquet"
    where = f"{tmp_path / 'items'}: column 'brand'"
    assert f"{where} is null in the rows of files without it, such as {other}" in found.unsure


def test_row_numbers_of_pandas_are_no_attribute(tmp_path: Path) -> None:
    pyarrow.csv.write_csv(pa.table({"": np.arange(ROWS), **LOG}), tmp_path / "log.csv")
    numbers = {"__index_level_0__": np.arange(24) * 3}
    items = write(tmp_path / "items.parquet", {**ITEMS, **numbers})
    found, _, kinds = proposed([tmp_path / "log.csv", items])
    assert set(kinds) == {"item_id", "user_id", "genre"}
    assert f"{items}: column '__index_level_0__' is left out: these are pandas' row numbers" in (
        found.unsure
    )
    assert any("log.csv: a column without a name is left out" in one for one in found.unsure)


def test_whole_numbers_with_an_infinity_are_numbers(tmp_path: Path) -> None:
    ratio = [np.inf if k % 9 == 0 else float(k % 3) for k in range(24)]
    log = write(tmp_path / "log.parquet", LOG)
    _, tables, kinds = proposed([log, write(tmp_path / "i.parquet", {**ITEMS, "ratio": ratio})])
    assert kinds["ratio"] == "numeric"
    assert tables.items["ratio"].null_count == 3
