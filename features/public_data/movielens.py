"""MovieLens (Harper and Konstan, "The MovieLens Datasets", TiiS 2015)."""

import pyarrow as pa

from recsys.features.public_data.data_set import BY_TIME, LEAVE_ONE_OUT, DataSet, Protocol, Table
from recsys.features.public_data.raw import Column, Delimited

_ID, _TEXT, _NUMBER = pa.int64(), pa.string(), pa.float32()
_RATING = {
    "user": Column("user_id", _ID),
    "item": Column("movie_id", _ID),
    "rating": Column("rating", _NUMBER),
    "time": Column("timestamp", _ID),
}
_RATING_NAMES = tuple(_RATING)
_CSV_RATING = {
    "userId": Column("user_id", _ID),
    "movieId": Column("movie_id", _ID),
    "rating": Column("rating", _NUMBER),
    "timestamp": Column("timestamp", _ID),
}
_MOVIE = {
    "item": Column("movie_id", _ID),
    "title": Column("title", _TEXT),
    "genres": Column("genres", _TEXT),
}
_CSV_MOVIE = {
    "movieId": Column("movie_id", _ID),
    "title": Column("title", _TEXT),
    "genres": Column("genres", _TEXT),
}
_GENRES = (
    *("unknown", "action", "adventure", "animation", "childrens", "comedy", "crime"),
    *("documentary", "drama", "fantasy", "film_noir", "horror", "musical", "mystery"),
    *("romance", "sci_fi", "thriller", "war", "western"),
)
_PROTOCOLS = {
    "leave-one-out": LEAVE_ONE_OUT,
    "time": BY_TIME,
    "liked": Protocol(
        "ratings of 4 and more count as positive, split by time",
        split=BY_TIME.split,
        where=("- {column: rating, at_least: 4}",),
    ),
}


def _old(title: str, rows: int, encoding: str, *, has_users: bool) -> DataSet:
    """One whose fields are parted by two colons."""
    users = {
        "user": Column("user_id", _ID),
        "gender": Column("gender", _TEXT),
        "age": Column("age", _ID),
        "occupation": Column("occupation", _ID),
        "zip": Column("zip_code", _TEXT),
    }
    ratings = Delimited(_RATING, _RATING_NAMES, "::", quoted=False)
    movies = Delimited(_MOVIE, tuple(_MOVIE), "::", encoding, quoted=False)
    tables = [
        Table("ratings", {"ratings.dat": ratings}, rows=rows),
        Table("movies", {"movies.dat": movies}),
    ]
    if has_users:
        reader = Delimited(users, tuple(users), "::", quoted=False)
        tables.append(Table("users", {"users.dat": reader}))
    return DataSet(title, "a rating a row; grouplens.org/datasets", tables, _PROTOCOLS)


def _new(title: str, rows: int) -> DataSet:
    return DataSet(
        title,
        "a rating a row; grouplens.org/datasets",
        [
            Table("ratings", {"ratings.csv": Delimited(_CSV_RATING)}, rows=rows),
            Table("movies", {"movies.csv": Delimited(_CSV_MOVIE)}),
        ],
        _PROTOCOLS,
    )


def _first() -> DataSet:
    item_names = ("item", "title", "released", "video", "url", *_GENRES)
    items = {
        "item": Column("movie_id", _ID),
        "title": Column("title", _TEXT),
        "released": Column("released", _TEXT),
        **{genre: Column(genre, pa.bool_()) for genre in _GENRES},
    }
    users = {
        "user": Column("user_id", _ID),
        "age": Column("age", _ID),
        "gender": Column("gender", _TEXT),
        "occupation": Column("occupation", _TEXT),
        "zip": Column("zip_code", _TEXT),
    }
    return DataSet(
        "MovieLens 100K",
        "a rating a row; grouplens.org/datasets",
        [
            Table("ratings", {"u.data": Delimited(_RATING, _RATING_NAMES, "\t")}, rows=100_000),
            Table(
                "movies",
                {"u.item": Delimited(items, item_names, "|", "latin1", quoted=False)},
                rows=1_682,
            ),
            Table("users", {"u.user": Delimited(users, tuple(users), "|")}, rows=943),
        ],
        _PROTOCOLS,
    )


MOVIELENS = {
    "movielens-100k": _first(),
    "movielens-1m": _old("MovieLens 1M", 1_000_209, "latin1", has_users=True),
    "movielens-10m": _old("MovieLens 10M", 10_000_054, "utf8", has_users=False),
    "movielens-20m": _new("MovieLens 20M", 20_000_263),
    "movielens-25m": _new("MovieLens 25M", 25_000_095),
    "movielens-32m": _new("MovieLens 32M", 32_000_204),
}
