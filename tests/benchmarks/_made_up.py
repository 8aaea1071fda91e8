"""Small made-up tables in the shape of the data sets on loan, for `--smoke`.

Same files, columns, types and roles; users prefer items of their own group, so that there is
something to learn. Nothing comes from the data sets themselves.
"""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

USERS, ITEMS, EVENTS_A_USER, GROUPS = 80, 100, 24, 5
SESSIONS, CLICKS = 400, 4
CRITEO_ROWS = 1000
WORDS = np.array([f"{a}{b}" for a in ("ba", "ko", "lu", "me", "ri", "ta") for b in "bdfgklmnps"])


def write_made_up(folder: Path) -> None:
    """Write all data sets into `folder`, one folder each."""
    rng = np.random.default_rng(0)
    user, item = log_of(rng)
    for name, write in (
        ("ml-1m", _ml1m),
        ("amazon-sports", _sports),
        ("amazon-beauty", _beauty),
        ("gowalla", _gowalla),
    ):
        (folder / name).mkdir(parents=True)
        write(folder / name, user, item, rng)
    for name, write_alone in (
        ("diginetica", _diginetica),
        ("criteo-sample", _criteo),
        ("frappe", _frappe),
    ):
        (folder / name).mkdir(parents=True)
        write_alone(folder / name, rng)


def log_of(rng: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return users and items, (USERS * EVENTS_A_USER,) from 1 on; no pair comes twice."""
    popularity = 1 / np.arange(1, ITEMS + 1)
    items = []
    for user in range(USERS):
        weight = popularity * np.where(np.arange(ITEMS) % GROUPS == user % GROUPS, 10, 1)
        chosen = rng.choice(ITEMS, EVENTS_A_USER, replace=False, p=weight / weight.sum())
        items.append(rng.permutation(chosen))
    return np.repeat(np.arange(USERS), EVENTS_A_USER) + 1, np.concatenate(items) + 1


def _write(folder: Path, name: str, **columns: object) -> None:
    pq.write_table(pa.table(columns), folder / f"{name}.parquet")


def _lists(rng: np.random.Generator, words: list[str], rows: int) -> list[list[str]]:
    return [sorted({f"group {row % GROUPS}", *rng.choice(words, 2)}) for row in range(rows)]


def _ml1m(
    folder: Path, user: NDArray[np.int64], item: NDArray[np.int64], rng: np.random.Generator
) -> None:
    position = np.tile(np.arange(EVENTS_A_USER), USERS).astype(np.int16)
    rating = rng.choice([2, 3, 4, 5], len(user), p=[0.1, 0.2, 0.4, 0.3]).astype(np.int8)
    user, item = user.astype(np.int32), item.astype(np.int32)
    _write(folder, "ratings", user_id=user, movie_id=item, rating=rating, position=position)
    number = np.arange(1, ITEMS + 1)
    year = 1950 + number % 50
    words = [" ".join(rng.choice(WORDS, 3)) for _ in number]
    genres = ["|".join(one) for one in _lists(rng, ["comedy", "drama", "war"], ITEMS)]
    _write(
        folder,
        "movies",
        movie_id=number.astype(np.int32),
        title=[f"{word} ({of})" for word, of in zip(words, year, strict=True)],
        genres=genres,
        year=year.astype(np.int16),
    )
    person = np.arange(1, USERS + 1)
    _write(
        folder,
        "users",
        user_id=person.astype(np.int32),
        gender=np.where(person % 2, "F", "M"),
        age=(18 + person % 7).astype(np.int8),
        occupation=(person % 4).astype(np.int8),
        zip_code=[f"{one % 9:05}" for one in person],
    )
    labelled = rating != 3
    split = rng.choice(["train", "valid", "test"], len(user), p=[0.8, 0.1, 0.1])
    _write(
        folder,
        "autoint_split",
        user_id=user[labelled],
        movie_id=item[labelled],
        label=(rating > 3)[labelled].astype(np.int8),
        split=split[labelled],
    )


def _sports(
    folder: Path, user: NDArray[np.int64], item: NDArray[np.int64], rng: np.random.Generator
) -> None:
    position = np.tile(np.arange(EVENTS_A_USER), USERS)
    _write(
        folder,
        "interactions",
        user_id=user.astype(np.int32),
        item_id=item.astype(np.int32),
        position=position.astype(np.int16),
        timestamp=1_400_000_000 + 86_400 * (position * 3 + user % 3),
    )
    number = np.arange(1, ITEMS + 1)
    _write(
        folder,
        "items",
        item_id=number.astype(np.int32),
        brand=[f"brand {one % 7}" for one in number],
        categories=_lists(rng, ["balls", "boats", "boots"], ITEMS),
    )


def _beauty(
    folder: Path, user: NDArray[np.int64], item: NDArray[np.int64], rng: np.random.Generator
) -> None:
    _write(
        folder,
        "interactions",
        user_id=user.astype(np.int32),
        item_id=item.astype(np.int32),
        position=np.tile(np.arange(EVENTS_A_USER, dtype=np.int16), USERS),
    )
    number = np.arange(1, ITEMS + 1)
    attributes = [sorted({one % GROUPS, *rng.integers(10, 40, 2).tolist()}) for one in number]
    _write(folder, "items", item_id=number.astype(np.int32), attributes=attributes)


def _gowalla(
    folder: Path, user: NDArray[np.int64], item: NDArray[np.int64], rng: np.random.Generator
) -> None:
    split = np.where(rng.random(len(user)) < 0.8, "train", "test")
    _write(
        folder,
        "interactions",
        user_id=user.astype(np.int32),
        item_id=item.astype(np.int32),
        split=split,
    )


def _diginetica(folder: Path, rng: np.random.Generator) -> None:
    """Sessions of items next to each other; test sessions as all their beginnings."""
    start = rng.integers(0, ITEMS, (SESSIONS, 1))
    items = (start + rng.integers(0, 4, (SESSIONS, CLICKS)).cumsum(1)) % ITEMS + 1
    items = items.astype(np.int32)
    train, test = np.split(items, [SESSIONS * 9 // 10])
    _write(
        folder,
        "train_clicks",
        session_id=np.repeat(np.arange(len(train), dtype=np.int32), CLICKS),
        position=np.tile(np.arange(CLICKS, dtype=np.int16), len(train)),
        item_id=train.ravel(),
    )
    beginnings = [(one[:end], one[end]) for one in test for end in range(CLICKS - 1, 0, -1)]
    _write(
        folder,
        "test",
        prefix=[prefix.tolist() for prefix, _ in beginnings],
        label=np.array([label for _, label in beginnings], np.int32),
    )
    number = np.arange(1, ITEMS + 1, dtype=np.int32)
    _write(folder, "items", item_id=number, category=number // 10)


def _criteo(folder: Path, rng: np.random.Generator) -> None:
    columns: dict[str, object] = {"label": rng.integers(0, 2, CRITEO_ROWS).astype(np.int32)}
    for one in range(1, 14):
        count = rng.geometric(0.1, CRITEO_ROWS).astype(np.int32)
        columns[f"I{one}"] = pa.array(count, mask=rng.random(CRITEO_ROWS) < 0.1)
    for one in range(1, 27):
        values = rng.integers(0, 4 * one**2, CRITEO_ROWS)
        columns[f"C{one}"] = pa.array([f"{value:08x}" for value in values], pa.large_string())
    _write(folder, "criteo_10k", **columns)


def _frappe(folder: Path, rng: np.random.Generator) -> None:
    """A user opens apps of a group of its own, and others by chance of the hour."""
    user, item = (rng.integers(0, n, 2400) for n in (60, 90))
    daytime = rng.integers(0, 7, 2400)
    liked = (user % GROUPS == item % GROUPS).astype(float) + 0.2 * (daytime == item % 7)
    _write(
        folder,
        "frappe",
        user_id=user.astype(np.int32),
        item_id=(item + 60).astype(np.int32),
        daytime=(daytime + 200).astype(np.int32),
        weekday=rng.integers(210, 217, 2400).astype(np.int32),
        label=(rng.random(2400) < 0.1 + 0.7 * np.minimum(liked, 1)).astype(np.int8),
        split=rng.choice(["train", "validation", "test"], 2400, p=[0.7, 0.15, 0.15]),
    )
