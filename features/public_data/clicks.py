"""Click logs with labels.

Criteo and Avazu are of competitions of 2014; Frappe is of Baltrunas et al. (2015), in the split of
Xiao et al., "Attentional Factorization Machines", IJCAI 2017.
"""

import pyarrow as pa

from recsys.features.public_data.data_set import AS_GIVEN, DataSet, Protocol, Table
from recsys.features.public_data.raw import Column, Delimited, Indexed

_ID, _TEXT, _NUMBER = pa.int64(), pa.string(), pa.float32()
_CRITEO = {
    "label": Column("label", pa.int8()),
    **{f"I{n}": Column(f"I{n}", _NUMBER) for n in range(1, 14)},
    **{f"C{n}": Column(f"C{n}", _TEXT) for n in range(1, 27)},
}
_AVAZU = {
    "click": Column("click", pa.int8()),
    "hour": Column("hour", _TEXT),
    **{
        name: Column(name, _TEXT)
        for name in (
            *("C1", "banner_pos", "site_id", "site_domain", "site_category", "app_id"),
            *("app_domain", "app_category", "device_id", "device_ip", "device_model"),
            *("device_type", "device_conn_type", *(f"C{n}" for n in range(14, 22))),
        )
    },
}
_FRAPPE = (
    *("user", "item", "daytime", "weekday", "isweekend", "homework"),
    *("cost", "weather", "country", "city"),
)
_IN_ORDER = Protocol(
    "the last tenth of the rows is test, the tenth before validation, in the order of the file",
    split=("kind: time", "validation: 0.1", "test: 0.1"),
)

CLICKS = {
    "criteo": DataSet(
        "Criteo display ads",
        "an impression a row; the folder with train.txt, which has no names of columns",
        [
            Table(
                "impressions",
                {"train.txt*": Delimited(_CRITEO, tuple(_CRITEO), "\t", quoted=False)},
                rows=45_840_617,
            )
        ],
        {"in-order": _IN_ORDER},
    ),
    "avazu": DataSet(
        "Avazu mobile ads",
        "an impression a row, in the order of time; the folder with train.csv or train.gz",
        [
            Table(
                "impressions",
                {"train.csv": Delimited(_AVAZU), "train.gz": Delimited(_AVAZU)},
                rows=40_428_967,
            )
        ],
        {"in-order": _IN_ORDER},
    ),
    "frappe": DataSet(
        "Frappe",
        "a pair of user and app in a context a row; the folder with frappe.train.libfm, "
        "frappe.validation.libfm and frappe.test.libfm",
        [
            Table(
                "rows",
                {
                    f"frappe.{part}.libfm": Indexed(_FRAPPE, part)
                    for part in ("train", "validation", "test")
                },
                rows=288_609,
            )
        ],
        {"as-given": AS_GIVEN},
    ),
}
