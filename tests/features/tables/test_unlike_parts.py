"""Files of one table with other columns, or the same ones in other types."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys.core.errors import DataError
from recsys.features.kinds.registry import KINDS
from recsys.features.propose.profile import profile_table
from recsys.features.table_roles import TimeColumn
from recsys.features.tables.attributes import Attributes, read_attributes
from recsys.features.tables.ledger import Ledger
from recsys.features.tables.reading import open_table
from recsys.features.tables.rows import RowReader, RowRoles
from recsys.features.tables.sources import Policies

FEATURES: list[Any] = [
    KINDS["categorical"](name="brand", table="items", kind="categorical"),
    KINDS["numeric"](name="price", table="items", kind="numeric"),
]


def read(folder: Path, *parts: dict[str, list[Any]], csv: bool = False) -> Attributes:
    for number, part in enumerate(parts):
        frame = pd.DataFrame(part)
        if csv:
            frame.to_csv(folder / f"{number}.csv", index=False)
        else:
            frame.to_parquet(folder / f"{number}.parquet", index=False)
    return read_attributes(open_table(folder, "items"), "item_id", FEATURES, Policies())


@pytest.mark.parametrize("csv", [False, True])
@pytest.mark.parametrize("late", [False, True])
def test_a_column_that_a_part_lacks_is_null_there_and_counted(
    tmp_path: Path, csv: bool, late: bool
) -> None:
    whole = {"item_id": [1, 2], "brand": ["x", "y"], "price": [1.5, 2.0]}
    lacks = {"price": [3.0], "item_id": [3]}
    parts = (lacks, whole) if late else (whole, lacks)
    found = read(tmp_path, *parts, csv=csv)
    wanted = [None, "x", "y"] if late else ["x", "y", None]
    assert found.columns["brand"].to_pylist() == wanted
    assert sorted(found.columns["price"].to_pylist()) == [1.5, 2.0, 3.0]
    (drop,) = found.ledger.settle()
    assert (drop.column, drop.rows, drop.policy) == ("brand", 1, "missing column")
    assert drop.examples[0].number == 1
    assert "has no such column" in str(drop)


def test_a_part_without_the_key_is_named(tmp_path: Path) -> None:
    part = {"item_id": [1], "brand": ["x"], "price": [1.0]}
    with pytest.raises(DataError, match=r"1\.parquet, column 'item_id': .*has no such column"):
        read(tmp_path, part, {"brand": ["x"], "price": [1.0]})


def test_other_letters_are_no_missing_column(tmp_path: Path) -> None:
    part = {"item_id": [1], "brand": ["x"], "price": [1.0]}
    other = {"item_id": [2], "Brand": ["x"], "price": [1.0]}
    with pytest.raises(DataError, match=r"column 'brand'.*did you mean 'Brand'"):
        read(tmp_path, part, other)


def test_init_says_where_a_column_is_null(tmp_path: Path) -> None:
    read(
        tmp_path, {"item_id": [1], "brand": ["x"], "price": [1.0]}, {"item_id": [2], "price": [1.0]}
    )
    profile = profile_table(open_table(tmp_path, "items"), "items")
    assert profile.columns["brand"].nulls == 1
    (why,) = profile.left_out
    assert "column 'brand' is null in the rows of files without it" in why
    assert "1.parquet" in why


def test_times_without_a_zone_beside_zoned_ones_are_counted(tmp_path: Path) -> None:
    plain = pa.array([1_700_000_000, 1_700_000_001]).cast(pa.timestamp("s"))
    zoned = plain.cast(pa.timestamp("us")).cast(pa.int64()).cast(pa.timestamp("us", "UTC"))
    for number, times in enumerate((plain, zoned)):
        pq.write_table(pa.table({"t": times}), tmp_path / f"{number}.parquet")
    files = open_table(tmp_path, "log")
    ledger, roles = Ledger(files), RowRoles(time=TimeColumn(column="t", unit="datetime"))
    first, second = RowReader(files, roles, Policies(), ledger, latest=2e9).batches()
    np.testing.assert_array_equal(first.clock, second.clock)
    (drop,) = ledger.settle()
    assert (drop.rows, drop.policy, drop.examples[0].number) == (2, "times", 1)
