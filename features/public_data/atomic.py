"""RecBole's atomic files (Zhao et al., CIKM 2021): tabs, and a type beside each name."""

import csv
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from recsys.core.errors import DataError
from recsys.features.public_data.data_set import BY_TIME, LEAVE_ONE_OUT, DataSet, Table
from recsys.features.public_data.raw import Column, Delimited

_TYPES = {
    "token": pa.string(),
    "float": pa.float64(),
    "token_seq": pa.string(),
    "float_seq": pa.string(),
}


def read_atomic(path: Path) -> Iterator[pa.Table]:
    """Yield the rows of an atomic file; sequences become lists.

    Raises:
        DataError: the first line does not say types.
    """
    with path.open(encoding="utf-8", newline="") as file:
        head = next(csv.reader(file, delimiter="\t"), [])
    columns: dict[str, Column] = {}
    kinds: dict[str, str] = {}
    for raw in head:
        name, _, kind = raw.rpartition(":")
        if kind not in _TYPES:
            raise DataError(
                f"'{raw}' in the first line is not name:type, with a type of {', '.join(_TYPES)}",
                file=path,
                remedy="name a folder of RecBole's atomic files",
            )
        columns[raw], kinds[name] = Column(name, _TYPES[kind]), kind
    for table in Delimited(columns, delimiter="\t", quoted=False)(path):
        for number, name in enumerate(table.column_names):
            if kinds[name].endswith("_seq"):
                parts = pc.split_pattern(table.column(number), " ")
                if kinds[name] == "float_seq":
                    parts = parts.cast(pa.list_(pa.float32()))
                table = table.set_column(number, name, parts)
        yield table


ATOMIC = {
    "recbole": DataSet(
        "RecBole's atomic files",
        "a folder with NAME.inter and, where there are some, NAME.item and NAME.user",
        [
            Table("interactions", {"*.inter": read_atomic}),
            Table("items", {"*.item": read_atomic}, needed=False),
            Table("users", {"*.user": read_atomic}, needed=False),
        ],
        {"leave-one-out": LEAVE_ONE_OUT, "time": BY_TIME},
    )
}
