"""Which table is the log, the catalogue, the users, and which columns of the log mean what.

Names decide first (in many spellings: userId, customer, visitor_id, asin, movie_id), values
second: a catalogue has one row for each item id that the log mentions.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recsys.core.errors import ConfigError
from recsys.features.propose.profile import ColumnProfile, TableProfile
from recsys.features.tables.ledger import is_text
from recsys.features.tables.near_ids import NearMatch, near_match

Side = Literal["items", "users"]

USER_WORDS = [
    "user", "customer", "visitor", "client", "member", "person", "account", "shopper", "buyer",
    "reader", "viewer", "listener", "guest", "patient", "student", "household", "reviewer", "u",
    "uid", "cid",
]  # fmt: skip
ITEM_WORDS = [
    "item", "movie", "product", "sku", "asin", "article", "track", "book", "song", "video",
    "listing", "business", "poi", "location", "venue", "news", "recipe", "game", "course",
    "offer", "content", "show", "film", "post", "story", "restaurant", "hotel", "job",
    "document", "isbn", "ad", "i", "iid", "pid", "stock", "merchandise", "style", "anime",
    "artist",
]  # fmt: skip
SESSION_WORDS = ["session", "visit", "basket", "order", "invoice"]
_KEY_WORDS = {"id", "ids", "key", "code", "no", "nr", "number", "num", "uuid", "guid", "hash"}
TIME_WORDS = {
    "time", "timestamp", "ts", "date", "datetime", "created", "when", "day", "unix", "datum",
}  # fmt: skip
_ORDER_WORDS = {"position", "rank", "order", "seq", "sequence", "step", "index", "idx"}
_RATING_WORDS = {"rating", "stars", "star", "score", "rate", "overall", "grade", "like", "liked"}
_WEIGHT_WORDS = {
    "quantity", "qty", "weight", "count", "duration", "plays", "playcount", "seconds", "amount",
    "views", "clicks", "purchases", "watched", "hours", "minutes", "dwell",
}  # fmt: skip
_LABEL_WORDS = {
    "label", "target", "click", "clicked", "clk", "conversion", "converted", "attributed",
}  # fmt: skip
_PERHAPS_LABEL_WORDS = {
    "like", "liked", "buy", "bought", "purchase", "purchased", "ordered", "installed", "response",
    "responded", "positive", "accepted", "engaged", "subscribed", "y",
}  # fmt: skip
_ASKING_WORDS = {"is", "was", "did", "has", "if", "or", "not"}
_AFTERWARDS_WORDS = {"dwell", "watched", "duration", "playtime", "revenue", "spent"}
_SPLIT_WORDS = {"split", "fold", "subset", "partition", "part", "set"}
VALIDATION_WORDS = {"validation", "valid", "val", "dev"}
_MOST = 0.95
_PARTS = {"train", "training", "test", *VALIDATION_WORDS}


def tokens(name: str) -> list[str]:
    """Return the words of a column's name: "productID" gives product, id."""
    spaced = re.sub(r"([a-z0-9])([A-Z])|([A-Z]+)([A-Z][a-z])", r"\1\3 \2\4", name)
    words = [word for word in re.split(r"[^a-z]+", spaced.lower()) if word]
    split: list[str] = []
    for word in words:  # "userid", "movieid"
        stem = word[:-2]
        glued = word.endswith("id") and stem in {*USER_WORDS, *ITEM_WORDS, *SESSION_WORDS}
        split += [stem, "id"] if glued and len(stem) > 1 else [word]
    return split


def is_key_of(name: str, words: Sequence[str]) -> bool:
    """Whether a column is named as a key of `words` and as nothing else."""
    rest = [word for word in tokens(name) if word not in _KEY_WORDS]
    return bool(rest) and all(word in words or word.removesuffix("s") in words for word in rest)


def has_word(name: str, words: set[str]) -> bool:
    """Whether a word of the column's name is among `words`."""
    return bool(set(tokens(name)) & words)


@dataclass(frozen=True)
class Key:
    """The table that knows a side's ids and its key; `covered`: share of the log's ids in it.

    near: how ids have to be written for that; None: as they come.
    """

    table: TableProfile
    column: str
    covered: float
    near: NearMatch | None = None


@dataclass
class Roles:
    """What was found out; `sides` are further tables with one row an item or a user.

    label: the column that says what came of a row, "" where there is none. A log without user and
    item has one in any case. session: the column that says which rows are of one visit of a user.
    other_logs: what has users and items too, and fewer rows.
    """

    log: TableProfile
    user: str = ""
    item: str = ""
    label: str = ""
    session: str = ""
    items: Key | None = None
    users: Key | None = None
    sides: list[tuple[Side, Key]] = field(default_factory=list)
    unused: list[TableProfile] = field(default_factory=list)
    other_logs: list[TableProfile] = field(default_factory=list)
    unsure: list[str] = field(default_factory=list)


def find_roles(tables: Sequence[TableProfile]) -> Roles:
    """Return which table plays which role.

    Raises:
        ConfigError: no table has a user and an item, and none has a label.
    """
    roles = _find_log(tables) or _find_click_log(tables)
    rest = [table for table in tables if table is not roles.log]
    if not roles.user:
        roles.unused = rest
        return roles
    sides: tuple[Side, ...] = ("items", "users")
    candidates = [
        (score, side, key)
        for table in rest
        for side in sides
        for score, key in [_key_of_side(table, roles, side)]
        if key is not None
    ]
    assigned: set[str] = set()
    for _, side, key in sorted(candidates, key=lambda one: -one[0]):
        if key.table.name in assigned:
            continue
        assigned.add(key.table.name)
        if getattr(roles, side) is None:
            setattr(roles, side, key)
        else:
            roles.sides.append((side, key))
    roles.unused = [table for table in rest if table.name not in assigned]
    return roles


def order_column(table: TableProfile, session: str) -> str | None:
    """Return a column of whole numbers that is named as an order; the session's at the last."""
    for name, column in sorted(table.columns.items(), key=lambda one: one[0] == session):
        if has_word(name, _ORDER_WORDS) and column.is_whole and column.distinct > 1:
            return name
    return None


def session_column(table: TableProfile, user: str) -> str | None:
    """Return a column that names the visit a row is of, each visit one of a single user."""
    users = table.columns[user].values
    for name in _keys(table, SESSION_WORDS):
        column = table.columns[name]
        if name == user or not comes_in_visits(column):
            continue
        visits = pa.table({"visit": column.values, "user": users}).drop_null().group_by("visit")
        owners = np.asarray(visits.aggregate([("user", "count_distinct")])["user_count_distinct"])
        if (owners == 1).mean() >= _MOST:
            return name
    return None


def comes_in_visits(column: ColumnProfile) -> bool:
    """Whether the ids of a column part the rows into several visits, half of them not alone."""
    counts = np.asarray(pc.value_counts(column.known).field("counts"))
    rows = len(column.values)
    together = counts[counts > 1].sum()
    return bool(len(counts) > 1 and together >= 0.5 * rows and len(column.known) >= _MOST * rows)


def names_a_rating(name: str) -> bool:
    """Whether a column is named as a rating."""
    return has_word(name, _RATING_WORDS)


def rating_column(table: TableProfile) -> tuple[str, float] | None:
    """Return a column of ratings and the lowest one that is plainly positive."""
    for name, column in table.columns.items():
        if not names_a_rating(name) or column.type not in ("integer", "float", "boolean"):
            continue
        best = float(column.numbers.max()) if len(column.numbers) else 0.0
        if 2 <= column.distinct <= 101 and best > 0:
            return name, float(np.ceil(0.8 * best)) if best > 1 else best
    return None


def weight_columns(table: TableProfile) -> list[str]:
    """Return columns of numbers, none negative, whose names have a word for an amount."""
    return [
        name
        for name, column in table.columns.items()
        if has_word(name, _WEIGHT_WORDS)
        and column.type in ("integer", "float")
        and len(column.numbers)
        and column.numbers.min() >= 0
    ]


def label_columns(table: TableProfile, *, perhaps: bool = False) -> list[str]:
    """Return columns of 0 and 1 that are named as labels (or `perhaps` are), in their order."""
    words = _LABEL_WORDS | _PERHAPS_LABEL_WORDS if perhaps else _LABEL_WORDS
    return [name for name in _zero_one_columns(table) if _asks_for(name, words)]


def is_known_afterwards(name: str) -> bool:
    """Whether a column's name is that of a result known afterwards: another label, a rating."""
    labels = _LABEL_WORDS | _PERHAPS_LABEL_WORDS
    return _asks_for(name, labels) or names_a_rating(name) or has_word(name, _AFTERWARDS_WORDS)


def split_column(table: TableProfile) -> str | None:
    """Return a column of the words train, validation and test."""
    for name, column in table.columns.items():
        if column.type != "string" or not has_word(name, _SPLIT_WORDS) or column.distinct > 9:
            continue
        words = {str(word).strip().lower() for word in column.words.to_pylist()}
        if words <= _PARTS and words & {"train", "training"} and "test" in words:
            return name
    return None


def _asks_for(name: str, words: set[str]) -> bool:
    """Whether a name is one of `words`, as in "clicked", "is_click", "isclick"."""
    rest = [word.removeprefix("is") or word for word in tokens(name) if word not in _ASKING_WORDS]
    return bool(rest) and all(word in words for word in rest)


def _zero_one_columns(table: TableProfile) -> list[str]:
    return [
        name
        for name, column in table.columns.items()
        if column.type == "boolean" or (column.type in ("integer", "float") and column.is_whole)
        if column.distinct == 2 and {0.0, 1.0} == set(column.numbers)
    ]


def _find_click_log(tables: Sequence[TableProfile]) -> Roles:
    """Return the largest table with a label: rows that were shown, and what came of them."""
    found: list[tuple[bool, int, Roles]] = []
    for table in tables:
        candidates = _zero_one_columns(table)
        named = label_columns(table) or label_columns(table, perhaps=True)
        chosen = named or [name for name in candidates[:1] if name == next(iter(table.columns))]
        if not chosen and len(candidates) == 1:
            chosen = candidates
        if chosen:
            roles = Roles(table, label=chosen[0])
            if not named:
                roles.unsure.append(
                    f"no column is named as a label: '{chosen[0]}', which holds 0 and 1, is used"
                )
            found.append((bool(named), table.rows, roles))
    if not found:
        seen = "; ".join(f"{table.given}: {', '.join(table.columns)}" for table in tables)
        raise ConfigError(
            f"no table holds both a user and an item ({seen}); name the columns of the log such "
            "as user_id and item_id, or write the configuration by hand. For a ranker, name the "
            "column of 0 and 1 that it learns to predict 'label'"
        )
    return max(found, key=lambda one: one[:2])[2]


def _find_log(tables: Sequence[TableProfile]) -> Roles | None:
    """Return the largest table with a user and an item; None where there is none."""
    found: list[tuple[int, Roles]] = []
    for table in tables:
        users = _keys(table, USER_WORDS) or _keys(table, SESSION_WORDS)
        items = [name for name in _keys(table, ITEM_WORDS) if name not in users]
        if users and items:
            found.append((table.rows, Roles(table, users[0], items[0])))
    if not found:
        return None
    found.sort(key=lambda one: -one[0])
    roles = found[0][1]
    roles.other_logs = [one.log for _, one in found[1:]]
    if not is_key_of(roles.user, USER_WORDS):
        roles.unsure.append(
            f"no column names a user: '{roles.user}' is used as the user, each value one visit"
        )
    for what, words, chosen in (
        ("user", USER_WORDS, roles.user),
        ("item", ITEM_WORDS, roles.item),
    ):
        more = [name for name in _keys(roles.log, words) if name != chosen]
        if more:
            roles.unsure.append(f"'{chosen}' is used as the {what}; other candidates: {more}")
    roles.label = next(iter(label_columns(roles.log)), "")
    if not roles.label:
        roles.session = session_column(roles.log, roles.user) or ""
    return roles


def _keys(table: TableProfile, words: Sequence[str]) -> list[str]:
    """Columns named as keys of `words`, those that say "id" first."""
    named = [
        name
        for name, column in table.columns.items()
        if is_key_of(name, words) and (column.type in ("integer", "string") or column.is_whole)
    ]
    return sorted(named, key=lambda name: not set(tokens(name)) & _KEY_WORDS)


def _key_of_side(table: TableProfile, roles: Roles, side: Side) -> tuple[float, Key | None]:
    """Return how well `table` fits as `side`, and its key."""
    role, words = (roles.item, ITEM_WORDS) if side == "items" else (roles.user, USER_WORDS)
    best: tuple[float, Key | None] = (0.0, None)
    for name, column in table.columns.items():
        if column.type not in ("integer", "float", "string") or column.distinct < 0.9 * table.rows:
            continue
        covered = _share_covered(roles.log.columns[role], column)
        named, near = name == role or is_key_of(name, words), None
        if named and covered < _MOST:
            near = near_match(roles.log.columns[role].words, column.words)
            covered = covered if near is None else near.matched / near.of
        if covered < 0.5 and not (named and covered > 0):
            continue
        is_named = any(word.removesuffix("s") in words for word in tokens(table.name))
        score = covered + named + 0.5 * is_named + 0.25 * column.is_unique
        if score > best[0]:
            best = (score, Key(table, name, covered, near))
    return best


def joining_keys(table: TableProfile, roles: Roles) -> dict[str, str]:
    """Return the columns of a further table that hold ids of the log -> `users` or `items`."""
    found = {}
    for side, role, words in (
        ("users", roles.user, USER_WORDS),
        ("items", roles.item, ITEM_WORDS),
    ):
        named = [role] if role in table.columns else _keys(table, words)
        for name in named:
            if name not in found and _share_covered(table.columns[name], roles.log.columns[role]):
                found[name] = side
                break
    return found


def _share_covered(of: ColumnProfile, by: ColumnProfile) -> float:
    """Share of the distinct ids of one column that another has."""
    left, right = of.words, by.words
    if is_text(left.type) != is_text(right.type) or not len(left):
        return 0.0
    kind = pa.large_string() if is_text(left.type) else pa.float64()
    found = pc.is_in(left.cast(kind, safe=False), right.cast(kind, safe=False))
    return float(np.asarray(found).mean())
