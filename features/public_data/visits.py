"""Logs of visits to shops.

YooChoose is of the RecSys Challenge 2015, Diginetica of the CIKM Cup 2016, RetailRocket of 2016.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from recsys.features.public_data.data_set import BY_TIME, DataSet, Protocol, Table
from recsys.features.public_data.raw import Column, Delimited, Reader

_ID, _TEXT = pa.int64(), pa.string()
_TIME = pa.timestamp("ms", "UTC")


@dataclass(frozen=True)
class _Timed:
    """Views whose time is a date and the milliseconds since their session began."""

    views: Reader

    def __call__(self, path: Path) -> Iterator[pa.Table]:
        for table in self.views(path):
            day = table.column("day").cast(pa.timestamp("ms")).cast(pa.int64())
            time = pc.add(day, table.column("elapsed")).cast(_TIME)
            yield table.drop_columns(["day", "elapsed"]).append_column("timestamp", time)


@dataclass(frozen=True)
class _Property:
    """Items with the last value of one property, of rows (time, item, property, value)."""

    properties: Reader
    name: str
    called: str

    def __call__(self, path: Path) -> Iterator[pa.Table]:
        found = [
            table.filter(pc.equal(table.column("property"), self.name)).drop_columns(["property"])
            for table in self.properties(path)
        ]
        rows = pa.concat_tables(found).sort_by("timestamp")
        last = rows.group_by("item_id", use_threads=False).aggregate([("value", "last")])
        yield pa.table({"item_id": last.column("item_id"), self.called: last.column("value_last")})


_VIEWS = Delimited(
    {
        "sessionId": Column("session_id", _ID),
        "itemId": Column("item_id", _ID),
        "timeframe": Column("elapsed", _ID),
        "eventdate": Column("day", pa.date32()),
    },
    delimiter=";",
)
_PRODUCTS = Delimited(
    {"itemId": Column("item_id", _ID), "categoryId": Column("category", _ID)}, delimiter=";"
)
_CLICKS = Delimited(
    {
        "session": Column("session_id", _ID),
        "time": Column("timestamp", _TIME),
        "item": Column("item_id", _ID),
    },
    ("session", "time", "item", "category"),
)
_PROPERTIES = Delimited(
    {
        "timestamp": Column("timestamp", _ID),
        "itemid": Column("item_id", _ID),
        "property": Column("property", _TEXT),
        "value": Column("value", _TEXT),
    }
)
_CATEGORY = _Property(_PROPERTIES, "categoryid", "category")

VISITS = {
    "yoochoose": DataSet(
        "YooChoose",
        "a click a row; the folder with yoochoose-clicks.dat",
        [Table("clicks", {"yoochoose-clicks.dat": _CLICKS}, rows=33_003_944)],
        {
            "last-day": Protocol(
                "the last day is test (GRU4Rec, ICLR 2016); items with fewer than 5 "
                "rows and sessions of one are left out",
                split=("kind: time", 'validation_from: "2014-09-29"', 'test_from: "2014-09-30"'),
                core=2,
                item_core=5,
            ),
            "time": BY_TIME,
        },
        notes=("training on the latest 1/64 of the sessions: take those of the last days",),
    ),
    "diginetica": DataSet(
        "Diginetica",
        "a view a row; the folder with train-item-views.csv and product-categories.csv",
        [
            Table("views", {"train-item-views.csv": _Timed(_VIEWS)}, rows=1_235_380),
            Table("items", {"product-categories.csv": _PRODUCTS}, needed=False),
        ],
        {
            "last-week": Protocol(
                "the last seven days are test (SR-GNN, AAAI 2019); items with fewer than 5 rows "
                "and sessions of one are left out",
                split=("kind: time", 'validation_from: "2016-05-19"', 'test_from: "2016-05-26"'),
                core=2,
                item_core=5,
            ),
            "time": BY_TIME,
        },
    ),
    "retailrocket": DataSet(
        "RetailRocket",
        "an event (view, addtocart, transaction) a row; the folder with events.csv and "
        "item_properties_part1.csv",
        [
            Table(
                "events",
                {
                    "events.csv": Delimited(
                        {
                            "timestamp": Column("timestamp", _ID),
                            "visitorid": Column("user_id", _ID),
                            "event": Column("event", _TEXT),
                            "itemid": Column("item_id", _ID),
                        }
                    )
                },
                rows=2_756_101,
            ),
            Table(
                "items",
                {"item_properties_part1.csv": _CATEGORY},
                needed=False,
            ),
        ],
        {
            "time": BY_TIME,
            "5-core": Protocol(
                "users and items with five rows or more, the latest rows are test",
                split=BY_TIME.split,
                core=5,
            ),
        },
    ),
}
