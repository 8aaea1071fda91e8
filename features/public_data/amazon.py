"""Amazon's reviews, as they were collected three times.

2014: McAuley et al., SIGIR 2015. 2018: Ni et al., EMNLP 2019. 2023: Hou et al., "Bridging Language
and Items for Retrieval and Recommendation", 2024.
"""

import re
from typing import Any

import pyarrow as pa

from recsys.features.public_data.data_set import (
    BY_TIME,
    LEAVE_ONE_OUT,
    DataSet,
    Protocol,
    Table,
)
from recsys.features.public_data.raw import Column, Delimited, Lines

_TEXT, _NUMBER, _TEXTS = pa.string(), pa.float32(), pa.list_(pa.string())
_TIME = pa.int64()
_PRICE = re.compile(r"[0-9][0-9,]*(\.[0-9]+)?")
_FIVE_CORE = Protocol(
    "5-core: users and items with five rows or more; each user's last row is test, the one before "
    "validation (S3-Rec, CIKM 2020)",
    split=LEAVE_ONE_OUT.split,
    core=5,
)
_PROTOCOLS = {
    "5-core-leave-one-out": _FIVE_CORE,
    "leave-one-out": LEAVE_ONE_OUT,
    "time": BY_TIME,
}


def _leaves(value: Any) -> list[str] | None:
    """Categories of 2014 are lists of paths, later ones a path."""
    if not value:
        return None
    flat = [one for path in value for one in path] if isinstance(value[0], list) else value
    return [str(one) for one in dict.fromkeys(flat)]


def _price(value: Any) -> float | None:
    """As a number, or the first of a text such as "$12.99 - $20"."""
    found = _PRICE.search(str(value)) if value not in (None, "") else None
    return float(found[0].replace(",", "")) if found else None


def _text(value: Any) -> str | None:
    return str(value) if value else None


_REVIEW = {
    "reviewerID": Column("user_id", _TEXT),
    "asin": Column("item_id", _TEXT),
    "overall": Column("rating", _NUMBER),
    "unixReviewTime": Column("timestamp", _TIME),
}
_ITEM_2014 = {
    "asin": Column("item_id", _TEXT),
    "title": Column("title", _TEXT, _text),
    "brand": Column("brand", _TEXT, _text),
    "price": Column("price", _NUMBER, _price),
    "categories": Column("categories", _TEXTS, _leaves),
}
_ITEM_2018 = {
    "asin": Column("item_id", _TEXT),
    "title": Column("title", _TEXT, _text),
    "brand": Column("brand", _TEXT, _text),
    "price": Column("price", _NUMBER, _price),
    "category": Column("categories", _TEXTS, _leaves),
}
_REVIEW_2023 = {
    "user_id": Column("user_id", _TEXT),
    "parent_asin": Column("item_id", _TEXT),
    "rating": Column("rating", _NUMBER),
    "timestamp": Column("timestamp", _TIME),
}
_ITEM_2023 = {
    "parent_asin": Column("item_id", _TEXT),
    "title": Column("title", _TEXT, _text),
    "store": Column("brand", _TEXT, _text),
    "main_category": Column("main_category", _TEXT, _text),
    "price": Column("price", _NUMBER, _price),
    "categories": Column("categories", _TEXTS, _leaves),
}
_RATING = {
    "user": Column("user_id", _TEXT),
    "item": Column("item_id", _TEXT),
    "rating": Column("rating", _NUMBER),
    "time": Column("timestamp", _TIME),
}
_USER_FIRST, _ITEM_FIRST = tuple(_RATING), ("item", "user", "rating", "time")

AMAZON = {
    "amazon-2014": DataSet(
        "Amazon reviews 2014",
        "a review a row; one category's files: reviews_X_5.json.gz or reviews_X.json.gz, and "
        "meta_X.json.gz",
        [
            Table("reviews", {"reviews_*.json*": Lines(_REVIEW)}),
            Table("items", {"meta_*.json*": Lines(_ITEM_2014, literal=True)}, needed=False),
        ],
        _PROTOCOLS,
    ),
    "amazon-2014-ratings": DataSet(
        "Amazon ratings 2014",
        "a rating a row; one category's ratings_X.csv",
        [Table("ratings", {"ratings_*.csv*": Delimited(_RATING, _USER_FIRST)})],
        _PROTOCOLS,
    ),
    "amazon-2018": DataSet(
        "Amazon reviews 2018",
        "a review a row; one category's files: X_5.json.gz or X.json.gz, and meta_X.json.gz",
        [
            Table("items", {"meta_*.json*": Lines(_ITEM_2018)}, needed=False),
            Table("reviews", {"[!m]*.json*": Lines(_REVIEW)}),
        ],
        _PROTOCOLS,
    ),
    "amazon-2018-ratings": DataSet(
        "Amazon ratings 2018",
        "a rating a row; one category's X.csv, whose first column is the item",
        [Table("ratings", {"*.csv*": Delimited(_RATING, _ITEM_FIRST)})],
        _PROTOCOLS,
    ),
    "amazon-2023": DataSet(
        "Amazon reviews 2023",
        "a review a row; one category's files: X.jsonl.gz and meta_X.jsonl.gz",
        [
            Table("items", {"meta_*.jsonl*": Lines(_ITEM_2023)}, needed=False),
            Table("reviews", {"[!m]*.jsonl*": Lines(_REVIEW_2023)}),
        ],
        _PROTOCOLS,
    ),
    "amazon-2023-ratings": DataSet(
        "Amazon ratings 2023",
        "a rating a row; one category's X.csv of the folder 0core or 5core, rating_only",
        [Table("ratings", {"*.csv*": Delimited(_REVIEW_2023)})],
        _PROTOCOLS,
    ),
}
