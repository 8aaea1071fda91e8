"""Places, music, games, clothes and videos, each as its authors offer it."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from recsys.features.public_data.data_set import (
    AS_GIVEN,
    BY_TIME,
    LEAVE_ONE_OUT,
    DataSet,
    Protocol,
    Table,
)
from recsys.features.public_data.raw import Adjacency, Column, Delimited, Lines, Reader

_ID, _TEXT, _NUMBER, _TEXTS = pa.int64(), pa.string(), pa.float32(), pa.list_(pa.string())
_DAY, _TIME = pa.date32(), pa.timestamp("s")
_NUMBERS = re.compile(r"[0-9]+")


@dataclass(frozen=True)
class _Parsed:
    """Rows whose texts are made times by Arrow: column -> format."""

    rows: Reader
    column: str
    form: str

    def __call__(self, path: Path) -> Iterator[pa.Table]:
        for table in self.rows(path):
            at = table.column_names.index(self.column)
            times = pc.strptime(table.column(at), format=self.form, unit="s", error_is_null=True)
            yield table.set_column(at, self.column, times)


def _comma_parts(value: Any) -> list[str] | None:
    return [one.strip() for one in value.split(",")] if value else None


def _day(value: Any) -> Any:
    from datetime import date

    try:
        return date.fromisoformat(value)
    except (TypeError, ValueError):
        return None


def _price(value: Any) -> float | None:
    """Games that cost nothing have words for it."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


_TEN_CORE = Protocol(
    "10-core: users and items with ten rows or more, the latest rows are test",
    split=BY_TIME.split,
    core=10,
)
_FIVE_CORE = Protocol(
    "5-core: users and items with five rows or more; each user's last row is test, the one before "
    "validation",
    split=LEAVE_ONE_OUT.split,
    core=5,
)
_YELP = DataSet(
    "Yelp",
    "a review a row; yelp.com/dataset, the folder with yelp_academic_dataset_review.json",
    [
        Table(
            "reviews",
            {
                "yelp_academic_dataset_review.json": _Parsed(
                    Lines(
                        {
                            "user_id": Column("user_id", _TEXT),
                            "business_id": Column("business_id", _TEXT),
                            "stars": Column("stars", _NUMBER),
                            "date": Column("timestamp", _TEXT),
                        }
                    ),
                    "timestamp",
                    "%Y-%m-%d %H:%M:%S",
                )
            },
        ),
        Table(
            "businesses",
            {
                "yelp_academic_dataset_business.json": Lines(
                    {
                        "business_id": Column("business_id", _TEXT),
                        "name": Column("name", _TEXT),
                        "city": Column("city", _TEXT),
                        "state": Column("state", _TEXT),
                        "categories": Column("categories", _TEXTS, _comma_parts),
                    }
                )
            },
            needed=False,
        ),
    ],
    {"5-core-leave-one-out": _FIVE_CORE, "10-core": _TEN_CORE, "time": BY_TIME},
)
_CHECKINS = Delimited(
    {
        "user": Column("user_id", _ID),
        "time": Column("timestamp", _TEXT),
        "place": Column("location_id", _ID),
    },
    ("user", "time", "latitude", "longitude", "place"),
    "\t",
    quoted=False,
)
_PLAYS = {
    "user": Column("user_id", _TEXT),
    "artist": Column("artist_id", _TEXT),
    "name": Column("artist_name", _TEXT),
    "plays": Column("plays", _ID),
}
_GAMES = {
    "id": Column("product_id", _TEXT),
    "app_name": Column("title", _TEXT),
    "genres": Column("genres", _TEXTS),
    "tags": Column("tags", _TEXTS),
    "developer": Column("developer", _TEXT),
    "price": Column("price", _NUMBER, _price),
}
_ARTICLES = {
    name: Column(name, _TEXT)
    for name in (
        *("article_id", "prod_name", "product_type_name", "product_group_name"),
        *("graphical_appearance_name", "colour_group_name", "department_name"),
        *("index_name", "section_name", "garment_group_name"),
    )
}
_CUSTOMERS = {
    "customer_id": Column("customer_id", _TEXT),
    "club_member_status": Column("club_member_status", _TEXT),
    "fashion_news_frequency": Column("fashion_news_frequency", _TEXT),
    "age": Column("age", _NUMBER),
}
_WATCHED = {
    "user_id": Column("user_id", _ID),
    "video_id": Column("video_id", _ID),
    "timestamp": Column("timestamp", pa.float64()),
    "watch_ratio": Column("watch_ratio", _NUMBER),
}


@dataclass(frozen=True)
class _Listed:
    """Rows with a list of numbers in a text: "[27, 9]"."""

    rows: Reader
    column: str

    def __call__(self, path: Path) -> Iterator[pa.Table]:
        for table in self.rows(path):
            at = table.column_names.index(self.column)
            texts = table.column(at).to_pylist()
            lists = [None if one is None else _NUMBERS.findall(one) for one in texts]
            yield table.set_column(at, self.column, pa.array(lists, _TEXTS))


PLACES = {
    "yelp": _YELP,
    "gowalla": DataSet(
        "Gowalla",
        "a check-in a row; snap.stanford.edu (Cho et al., KDD 2011), loc-gowalla_totalCheckins.txt",
        [
            Table(
                "checkins",
                {
                    "loc-gowalla_totalCheckins.txt*": _Parsed(
                        _CHECKINS, "timestamp", "%Y-%m-%dT%H:%M:%SZ"
                    )
                },
                rows=6_442_892,
            )
        ],
        {"10-core": _TEN_CORE, "time": BY_TIME},
    ),
    "gowalla-lightgcn": DataSet(
        "Gowalla, the split of LightGCN",
        "a pair a row, without times; train.txt and test.txt (He et al., SIGIR 2020)",
        [Table("pairs", {f"{part}.txt": Adjacency(part) for part in ("train", "test")})],
        {"as-given": AS_GIVEN},
    ),
    "lastfm-360k": DataSet(
        "Last.fm 360K",
        "how often a user played an artist, without times; usersha1-artmbid-artname-plays.tsv "
        "(Celma, 2010)",
        [
            Table(
                "plays",
                {
                    "usersha1-artmbid-artname-plays.tsv": Delimited(
                        _PLAYS, tuple(_PLAYS), "\t", quoted=False
                    )
                },
                rows=17_559_530,
            )
        ],
        {"leave-one-out": LEAVE_ONE_OUT},
    ),
    "lastfm-2k": DataSet(
        "Last.fm 2K (HetRec 2011)",
        "how often a user played an artist, without times; user_artists.dat and artists.dat",
        [
            Table(
                "plays",
                {
                    "user_artists.dat": Delimited(
                        {
                            "userID": Column("user_id", _ID),
                            "artistID": Column("artist_id", _ID),
                            "weight": Column("plays", _ID),
                        },
                        delimiter="\t",
                    )
                },
                rows=92_834,
            ),
            Table(
                "artists",
                {
                    "artists.dat": Delimited(
                        {"id": Column("artist_id", _ID), "name": Column("name", _TEXT)},
                        delimiter="\t",
                        quoted=False,
                    )
                },
                needed=False,
            ),
        ],
        {"leave-one-out": LEAVE_ONE_OUT},
    ),
    "steam": DataSet(
        "Steam",
        "a review a row (Kang and McAuley, ICDM 2018); steam_reviews.json.gz, steam_games.json.gz",
        [
            Table(
                "reviews",
                {
                    "steam_reviews.json*": Lines(
                        {
                            "username": Column("user_id", _TEXT),
                            "product_id": Column("product_id", _TEXT),
                            "date": Column("timestamp", _DAY, _day),
                            "hours": Column("hours", _NUMBER),
                        },
                        literal=True,
                    )
                },
                rows=7_793_069,
            ),
            Table("games", {"steam_games.json*": Lines(_GAMES, literal=True)}, needed=False),
        ],
        {"5-core-leave-one-out": _FIVE_CORE, "time": BY_TIME},
    ),
    "hm": DataSet(
        "H&M personalised fashion",
        "an article bought a row (Kaggle, 2022); transactions_train.csv, articles.csv and "
        "customers.csv",
        [
            Table(
                "transactions",
                {
                    "transactions_train.csv": Delimited(
                        {
                            "t_dat": Column("t_dat", _DAY),
                            "customer_id": Column("customer_id", _TEXT),
                            "article_id": Column("article_id", _TEXT),
                            "price": Column("price", _NUMBER),
                            "sales_channel_id": Column("sales_channel_id", _ID),
                        }
                    )
                },
                rows=31_788_324,
            ),
            Table("articles", {"articles.csv": Delimited(_ARTICLES)}, needed=False, rows=105_542),
            Table(
                "customers", {"customers.csv": Delimited(_CUSTOMERS)}, needed=False, rows=1_371_980
            ),
        ],
        {
            "last-week": Protocol(
                "the last seven days are test (as the competition's own week was), the week before "
                "validation",
                split=("kind: time", 'validation_from: "2020-09-09"', 'test_from: "2020-09-16"'),
            ),
            "time": BY_TIME,
        },
    ),
    "kuairec": DataSet(
        "KuaiRec",
        "a video watched a row (Gao et al., CIKM 2022); the folder data, with big_matrix.csv",
        [
            Table("watched", {"big_matrix.csv": Delimited(_WATCHED)}, rows=12_530_806),
            Table(
                "videos",
                {
                    "item_categories.csv": _Listed(
                        Delimited(
                            {"video_id": Column("video_id", _ID), "feat": Column("tags", _TEXT)}
                        ),
                        "tags",
                    )
                },
                needed=False,
            ),
        ],
        {
            "time": BY_TIME,
            "watched-twice": Protocol(
                "videos watched for twice their length or more count as positive, split by time",
                split=BY_TIME.split,
                where=("- {column: watch_ratio, at_least: 2}",),
            ),
        },
    ),
}
