"""Tables of today in the order of a catalogue: ids and columns as in training."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from recsys.core.errors import DataError
from recsys.features.filters.columns import CatalogueColumns, FreshItems, typed
from recsys.features.schema import Schema
from recsys.features.tables.sources import Policies

SCHEMA = Schema.model_validate(
    {
        "interactions": {"user": "user", "item": "item"},
        "items": {"key": "sku", "title": "name"},
        "features": (
            {"name": "sku", "table": "items", "kind": "categorical"},
            {"name": "price", "table": "items", "kind": "numeric"},
            {"name": "tags", "table": "items", "kind": "multi_categorical", "separator": "|"},
        ),
    }
)
CATALOGUE = pa.array(["007", "1", "b", "c"])


def fresh(table: pa.Table, path: Path, ids: pa.Array = CATALOGUE, **policies: Any) -> FreshItems:
    (pa.csv.write_csv if path.suffix == ".csv" else pq.write_table)(table, path)
    return FreshItems.read(str(path), SCHEMA, Policies(**policies), ids)


@pytest.fixture
def today() -> pa.Table:
    return pa.table(
        {
            "sku": ["c", "new", "007", "b"],
            "price": [3.0, 9.0, 0.5, None],
            "tags": ["x|y", "x", "", "y"],
            "stock": [0, 9, 7, 2],
            "sold": [True, False, None, False],
        }
    )


@pytest.mark.parametrize("name", ["today.parquet", "today.csv"])
def test_columns_are_in_the_order_of_the_catalogue(
    today: pa.Table, tmp_path: Path, name: str
) -> None:
    items = fresh(today, tmp_path / name)
    assert items.present.tolist() == [True, False, True, True]
    assert (items.num_new, items.first_new) == (1, "new")
    assert items.column("stock").to_pylist() == [7, None, 2, 0]
    assert items.column("sold").to_pylist() == [None, None, False, True]
    assert items.column("price").to_pylist() == [0.5, None, None, 3.0]
    assert items.column("sku").to_pylist() == ["007", None, "b", "c"]
    # As in training: text with a separator is a list.
    assert items.column("tags").to_pylist() in (
        [[], None, ["y"], ["x", "y"]],
        [None, None, ["y"], ["x", "y"]],  # CSV has no empty text
    )
    assert list(items.names) == ["sku", "price", "tags", "stock", "sold"]


def test_ids_are_those_of_the_training(today: pa.Table, tmp_path: Path) -> None:
    numbers = pa.array([1, 7, 9])
    items = fresh(pa.table({"sku": ["9", "7"]}), tmp_path / "text.csv", numbers)
    assert items.present.tolist() == [False, True, True]
    with pytest.raises(DataError, match=r"large_string ids, the model has int64 ids, 'a'; cast"):
        fresh(pa.table({"sku": ["a", "7"]}), tmp_path / "odd.csv", numbers)
    with pytest.raises(DataError, match="int64 ids, the model has string ids, 7; cast"):
        fresh(pa.table({"sku": [7]}), tmp_path / "numbers.parquet")
    # Text of a CSV file that looks like numbers is text where the catalogue's ids are.
    items = fresh(pa.table({"sku": ["1", "2"]}), tmp_path / "whole.csv")
    assert items.present.tolist() == [False, True, False, False]
    with pytest.raises(DataError, match="ids came as floats"):
        fresh(pa.table({"sku": [1.0, 9.0]}), tmp_path / "floats.parquet", numbers)
    items = fresh(
        pa.table({"sku": [1.0, 9.0]}), tmp_path / "floats.parquet", numbers, float_ids="integer"
    )
    assert items.present.tolist() == [True, False, True]


def test_rows_that_break_a_rule_are_as_the_policy_says(tmp_path: Path) -> None:
    twice = pa.table({"sku": ["b", None, "b", "c"], "stock": [1, 2, 3, 4], "price": [1, 2, 3, 4]})
    path = tmp_path / "twice.parquet"
    with pytest.raises(DataError, match="the id is null"):
        fresh(twice, path)
    with pytest.raises(DataError, match="the key has an earlier row"):
        fresh(twice, path, bad_ids="drop")
    items = fresh(twice, path, bad_ids="drop", duplicate_keys="last")
    assert items.column("stock").to_pylist() == [None, None, 3, 4]
    assert items.column("price").to_pylist() == [None, None, 3.0, 4.0]


def test_a_wrong_value_is_refused_when_its_column_is_read(tmp_path: Path) -> None:
    path = tmp_path / "today.csv"
    table = pa.table({"sku": ["b", "c"], "price": ["1", "cheap"], "stock": [1, 2]})
    items = fresh(table, path)
    assert items.column("stock").to_pylist() == [None, None, 1, 2]
    with pytest.raises(DataError, match=r"today\.csv row 2, column 'price': text where a number"):
        items.column("price")


def test_the_key_must_be_there_and_files_of_one_type(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"column 'sku': .* no such column \(did you mean 'sk'"):
        fresh(pa.table({"sk": ["b"]}), tmp_path / "today.parquet")
    folder = tmp_path / "parts"
    folder.mkdir()
    pq.write_table(pa.table({"sku": ["b"], "stock": [1]}), folder / "0.parquet")
    pq.write_table(pa.table({"sku": ["c"], "stock": [2.5]}), folder / "1.parquet")
    items = FreshItems.read(str(folder), SCHEMA, Policies(), CATALOGUE)
    assert items.column("stock").to_pylist() == [None, None, 1, 2.5]
    pq.write_table(pa.table({"sku": ["c"], "stock": ["many"]}), folder / "1.parquet")
    items = FreshItems.read(str(folder), SCHEMA, Policies(), CATALOGUE)
    with pytest.raises(DataError, match="column 'stock': values of several types"):
        items.column("stock")


@pytest.mark.parametrize(
    ("words", "values"),
    [
        (["1", "-2", "", "NA"], [1, -2, None, None]),
        (["1", "2.5"], [1.0, 2.5]),
        (["007", "1"], [7.0, 1.0]),
        (["true", "False"], [True, False]),
        (["yes", "no"], ["yes", "no"]),
        (["2026-01-01", ""], ["2026-01-01", ""]),
        (["", "null"], [None, None]),
        ([], []),
    ],
)
def test_text_of_a_file_has_the_type_of_all_its_values(words: list[str], values: list[Any]) -> None:
    assert typed(pa.array(words, pa.string())).to_pylist() == values


def test_the_catalogue_is_read_when_a_column_is_needed() -> None:
    reads = []

    def read() -> pa.Table:
        reads.append(1)
        tags = {"tags": ["x| y", None]}
        return pa.table({"sku": ["a", "b"], "train_count": [1, 0], "price": [1.0, 2.0], **tags})

    columns = CatalogueColumns(SCHEMA, read)
    assert not reads
    assert list(columns.names) == ["sku", "price", "tags"]
    assert columns.column("tags").to_pylist() == [["x", "y"], None]
    assert columns.column("price").to_pylist() == [1.0, 2.0]
    assert len(reads) == 1


def test_the_hash_is_of_the_content(today: pa.Table, tmp_path: Path) -> None:
    one = fresh(today, tmp_path / "a.parquet").fingerprint
    assert fresh(today, tmp_path / "b.parquet").fingerprint == one
    other = today.set_column(3, "stock", pa.array(np.arange(4)))
    assert fresh(other, tmp_path / "a.parquet").fingerprint != one
