"""Lists of ids in files, frames and memory; block lists of users."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from recsys.core.errors import DataError, NotFoundError
from recsys.features.filters.lists import Blocks, read_ids
from recsys.features.schema import Schema
from recsys.features.tables.sources import Policies

SCHEMA = Schema.model_validate(
    {
        "interactions": {"user": "user", "item": "item"},
        "items": {"key": "sku"},
        "users": {"key": "id"},
        "features": ({"name": "sku", "table": "items", "kind": "categorical"},),
    }
)
TEXTS, NUMBERS = pa.array(["007", "1", "b", "c"]), pa.array([1, 7, 9])


def rows(given: Any, ids: pa.Array = TEXTS) -> tuple[list[int], int, Any]:
    found = read_ids(given, "exclude", SCHEMA, Policies(), ids)
    return found.rows.tolist(), found.unknown, found.first_unknown


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        (["c", "b", "c"], ([2, 3], 0, None)),
        (["zz", "b", "a", "zz"], ([2], 2, "zz")),
        ([], ([], 0, None)),
    ],
)
def test_one_list_in_every_form(ids: list[str], expected: Any, tmp_path: Path) -> None:
    frame = pd.DataFrame({"sku": pd.Series(ids, dtype=object), "other": 1})
    assert rows(ids) == expected
    assert rows(np.array(ids, dtype=object)) == expected
    (tmp_path / "ids.txt").write_text("\n".join(["", *ids, "  "]))
    assert rows(tmp_path / "ids.txt") == expected
    (tmp_path / "ids").write_text("\r\n".join(ids))
    assert rows(str(tmp_path / "ids")) == expected
    if ids:
        assert rows(frame) == expected
        frame.to_parquet(tmp_path / "ids.parquet")
        frame.to_csv(tmp_path / "ids.csv", index=False)
        assert rows(tmp_path / "ids.parquet") == expected
        assert rows(tmp_path / "ids.csv") == expected


def test_whole_numbers_are_read_of_lines(tmp_path: Path) -> None:
    path = tmp_path / "ids.txt"
    path.write_text("9\n1\n-4\n")
    assert rows(path, NUMBERS) == ([0, 2], 1, -4)
    assert rows([9, 1], NUMBERS) == ([0, 2], 0, None)
    path.write_text("9\n\n1.0\nx\n")
    with pytest.raises(DataError, match=r"ids\.txt rows 3, 4: no whole number, .*, '1\.0'; write"):
        rows(path, NUMBERS)
    path.write_text("007\n1\n")
    assert rows(path) == ([0, 1], 0, None)


def test_ids_of_another_kind_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"exclude: item ids of type string are expected .* 1; give"
    ):
        rows([1, 2])
    with pytest.raises(DataError, match="item ids of type int64 are expected"):
        rows(["a"], NUMBERS)
    with pytest.raises(DataError, match="item ids of type string are expected"):
        rows(["a", 2])
    with pytest.raises(DataError, match="exclude, column 'sku': the frame has no such column"):
        rows(pd.DataFrame({"item": ["b"]}))
    with pytest.raises(NotFoundError, match="this path of the exclude table does not exist"):
        rows(tmp_path / "none.txt")
    (tmp_path / "latin.txt").write_bytes("b\xe4\n".encode("latin-1"))
    with pytest.raises(DataError, match="not a text in UTF-8; write one id a line"):
        rows(tmp_path / "latin.txt")


def test_the_hash_is_of_the_ids_whatever_their_order() -> None:
    def hashed(ids: list[str]) -> str:
        return read_ids(ids, "allow", SCHEMA, Policies(), TEXTS).fingerprint

    assert hashed(["b", "c"]) == hashed(["c", "b"])
    assert hashed(["b", "c"]) != hashed(["b"])
    assert hashed(["b", "zz"]) != hashed(["b"])


@pytest.mark.parametrize("name", ["block.parquet", "block.csv"])
@pytest.mark.parametrize("keys", [("user", "item"), ("id", "sku")])
def test_users_have_the_items_of_their_rows(
    name: str, keys: tuple[str, str], tmp_path: Path
) -> None:
    frame = pd.DataFrame({keys[0]: [5, 7, 5, 9], keys[1]: ["c", "zz", "007", "b"]})
    path = tmp_path / name
    frame.to_csv(path, index=False) if path.suffix == ".csv" else frame.to_parquet(path)
    blocks = Blocks.read(str(path), SCHEMA, Policies(), TEXTS)
    assert (blocks.unknown, blocks.first_unknown) == (1, "zz")
    found = blocks.of(pa.array([9, 1, 5, 7, 5]))
    assert found.lengths().tolist() == [1, 0, 2, 0, 2]
    assert found.values.tolist() == [2, 0, 3, 0, 3]
    if path.suffix == ".csv":  # whose text may be what the requests hold
        assert blocks.of(pa.array(["5", "05"])).values.tolist() == [0, 3]
    else:
        with pytest.raises(DataError, match="int64 ids, the requests have string ids, 5; cast"):
            blocks.of(pa.array(["5"]))


def test_a_block_list_needs_both_keys(tmp_path: Path) -> None:
    path = tmp_path / "block.csv"
    path.write_text("user,sku2\n1,b\n")
    with pytest.raises(DataError, match=r"column 'sku': the block table has no such column"):
        Blocks.read(str(path), SCHEMA, Policies(), TEXTS)
    path.write_text("user,sku\n,b\n")
    with pytest.raises(DataError, match=r"block\.csv row 1, column 'user': the id is null"):
        Blocks.read(str(path), SCHEMA, Policies(), TEXTS)
