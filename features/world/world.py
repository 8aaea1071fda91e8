"""The built-in data: a seeded retail world whose preference function is known.

Because the world knows how its users choose, the best recall that any ranker can reach is
computable and can be shown next to a model's. Its noise twin has the same items, users and
visits, but the chosen items are uniformly random and independent of everything: there nothing can
be learnt, and whatever beats chance on it is a leak.

How an event is drawn. User u visits in week w. Every choice has, on its own, exactly
    p(i | u, w)  proportional to  exp(SHARPNESS * <taste_u, vector_i> / sqrt(D) + demand_iw)
over the items launched by week w. demand holds popularity, season, trend and novelty
(`recsys.features.world.catalogue`). Choices of one session are related but keep p as their
marginal, and some events repeat an earlier purchase (`recsys.features.world.events`).

Example:
    >>> world = RetailWorld.create(seed=7)
    >>> files = world.write(Path("retail"))
    >>> Path("retail/recsys.yaml").write_text(world.config_text(files))
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import yaml
from numpy.typing import NDArray
from pyarrow import csv
from pyarrow import parquet as pq

from recsys.core.atomic import whole_file
from recsys.core.errors import ConfigError
from recsys.features.world import names as names
from recsys.features.world.catalogue import (
    WEEKS,
    Items,
    Users,
    affinity,
    make_items,
    make_users,
)
from recsys.features.world.events import SECONDS_A_WEEK, Draws, draw_events, draw_visits

START = 1_672_617_600
"""Monday 2 January 2023, 00:00 UTC; the log lasts 52 weeks."""
END = START + WEEKS * SECONDS_A_WEEK


@dataclass(frozen=True)
class WorldFiles:
    """Where a world was written: a folder of interactions (several parts) and two tables."""

    folder: Path
    interactions: Path
    items: Path
    users: Path


@dataclass(frozen=True)
class RetailWorld:
    """Tables of a simulated shop, and the truth behind them.

    Row r of `items` is item row r everywhere (the ids ascend), and so for `users`.

    interactions: user_id, item_id, timestamp (seconds since 1970 UTC), device, session_id; in
    order of time. items: item_id, title, department, category, subcategory, brand, price,
    launched (seconds). users: user_id, age_group, region, segment. repeat (E,) bool: which rows
    of `interactions` are repeat purchases. `catalogue` and `people` hold the hidden factors.
    """

    seed: int
    noise: bool
    interactions: pa.Table
    items: pa.Table
    users: pa.Table
    repeat: NDArray[np.bool_]
    catalogue: Items
    people: Users

    @classmethod
    def create(
        cls,
        seed: int,
        users: int = 2000,
        items: int = 1000,
        events: int = 60_000,
        noise: bool = False,
    ) -> "RetailWorld":
        """Simulate a world.

        Args:
            seed: one seed gives one world; the noise twin of a seed has the same items, users
                and visits.
            users: number of users; some of them may never visit.
            items: size of the catalogue, at least 20.
            events: number of interactions, exactly.
            noise: choose items uniformly at random, whatever user, time, popularity or launch.

        Raises:
            ConfigError: a size is too small, or the seed negative.
        """
        for name, size, least in (("users", users, 1), ("items", items, 20), ("events", events, 1)):
            if size < least:
                raise ConfigError(f"a retail world needs at least {least} {name}, got {size}")
        if seed < 0:
            raise ConfigError(f"a retail world's seed is 0 or more, got {seed}")
        item_rng, user_rng, visit_rng, choice_rng, device_rng = (
            np.random.default_rng(part) for part in np.random.SeedSequence(seed).spawn(5)
        )
        catalogue, people = make_items(item_rng, items), make_users(user_rng, users)
        visits = draw_visits(visit_rng, people, events)
        draws = draw_events(choice_rng, visits, catalogue, people, noise=noise)
        order = np.argsort(draws.seconds, kind="stable")
        item_table, user_table = _item_table(catalogue), _user_table(people)
        return cls(
            seed=seed,
            noise=noise,
            interactions=_interaction_table(
                device_rng, draws, people, item_table, user_table, order
            ),
            items=item_table,
            users=user_table,
            repeat=draws.repeat[order],
            catalogue=catalogue,
            people=people,
        )

    def preference(
        self, user_rows: NDArray[np.integer[Any]], time: int | NDArray[np.integer[Any]]
    ) -> NDArray[np.float64]:
        """Return the probability of each item to be the next choice, (B, n_items), rows sum to 1.

        Exact for an event that is no repeat purchase, given the user's taste and the demand of
        the week; marginal over where in a session the event is and what came before in it.
        Constant within a week: `time` counts by the week of the session's start. Items not
        launched by then have probability 0. In the noise twin it is 1 / n_items throughout.

        Args:
            user_rows: (B,) rows of `users`.
            time: seconds since 1970 UTC, one for all or (B,).
        """
        if self.noise:
            return np.full((len(user_rows), self.items.num_rows), 1 / self.items.num_rows)
        week = np.clip((np.asarray(time) - START) // SECONDS_A_WEEK, 0, WEEKS - 1)
        weeks = np.broadcast_to(week, len(user_rows))
        return _preference(self.catalogue, self.people, np.asarray(user_rows), weeks)

    def best_reachable(
        self, user_rows: NDArray[np.integer[Any]], start: int, end: int = END - 1
    ) -> NDArray[np.float32]:
        """Return scores that order items by their probability in start..end, (B, n_items).

        The score is `preference` averaged over the weeks of the window by the time they cover:
        the expected share of each item among the user's choices there, visits being spread
        evenly over the time since the user joined. For independent choices that is the order
        of the probability of at least one interaction. Left out are three small things: choices
        of a session cluster, recall@k weighs users with few relevant items more, and a user
        who joins inside the window saw only its end. It knows taste, demand and launches
        exactly, which no model can, so a model's share of it stays below one.

        Repeat purchases are not in it, so leave seen items out when ranking by it.

        Args:
            user_rows: (B,) rows of `users`.
            start: first second of the window, 1970 UTC.
            end: last second of the window; the end of the log by default.

        Raises:
            ConfigError: the window is empty or outside the log.
        """
        if not START <= start <= end < END:
            raise ConfigError(
                f"the window {start}..{end} is not inside the log, {START}..{END - 1}"
            )
        total = np.zeros((len(user_rows), self.items.num_rows))
        first, last = (start - START) // SECONDS_A_WEEK, (end - START) // SECONDS_A_WEEK
        for week in range(first, last + 1):
            begin = START + week * SECONDS_A_WEEK
            covered = min(end + 1, begin + SECONDS_A_WEEK) - max(start, begin)
            total += covered / (end + 1 - start) * self.preference(user_rows, begin)
        return total.astype(np.float32)

    def write(
        self, folder: Path, *, kind: Literal["parquet", "csv"] = "parquet", parts: int = 4
    ) -> WorldFiles:
        """Write the three tables under `folder` and return their paths.

        Args:
            folder: made where it is missing.
            kind: format of all files.
            parts: files that the interactions are spread over, in order of time.
        """
        log = folder / "interactions"
        log.mkdir(parents=True, exist_ok=True)
        files = WorldFiles(folder, log, folder / f"items.{kind}", folder / f"users.{kind}")
        form = pq.write_table if kind == "parquet" else csv.write_csv

        def write(table: pa.Table, path: Path) -> None:
            with whole_file(path) as staging:
                form(table, staging)

        write(self.items, files.items)
        write(self.users, files.users)
        cuts = np.linspace(0, self.interactions.num_rows, parts + 1).astype(int)
        for part, (low, high) in enumerate(pairwise(cuts)):
            write(self.interactions.slice(low, high - low), log / f"part-{part:03d}.{kind}")
        return files

    def config_text(self, files: WorldFiles, *, output: str = "runs") -> str:
        """Return a `recsys.yaml` for `files`, to be saved in `files.folder`."""
        # Two rows an id in the shared table, twice the space, rounded up to a power of two.
        ids = self.items.num_rows + self.users.num_rows
        config = {
            "data": {
                "interactions": files.interactions.name,
                "items": files.items.name,
                "users": files.users.name,
            },
            "schema": _schema(),
            "split": {"kind": "time", "validation": 0.1, "test": 0.1},
            # A small log: a tower as free as the default would learn it by heart.
            "model": {"dropout": 0.3},
            "embedding": {"num_rows": min(1 << (4 * ids - 1).bit_length(), 1 << 24)},
            "evaluation": {"filter_seen": True},
            "output": output,
        }
        return yaml.safe_dump(config, sort_keys=False)


def _preference(
    items: Items, users: Users, rows: NDArray[np.int64], weeks: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return p(i | u, w) of user rows (R,) in weeks (R,), (R, n_items)."""
    log_odds = affinity(items, users, rows) + items.log_demand[weeks]
    log_odds -= log_odds.max(1, keepdims=True)
    np.exp(log_odds, out=log_odds)
    log_odds /= log_odds.sum(1, keepdims=True)
    return log_odds


def _schema() -> dict[str, Any]:
    def categorical(table: str, *columns: str, **more: int) -> list[dict[str, Any]]:
        return [
            {"name": column, "table": table, "kind": "categorical", **more} for column in columns
        ]

    return {
        "interactions": {
            "user": "user_id",
            "item": "item_id",
            "time": {"column": "timestamp", "unit": "s"},
            "session": "session_id",
        },
        "items": {"key": "item_id", "title": "title"},
        "users": {"key": "user_id"},
        # `launched` is left out: items of the test weeks are newer than any in training.
        "features": [
            *categorical("items", "item_id", multiplicity=2),
            {"name": "title", "table": "items", "kind": "text"},
            *categorical("items", "department", "category", "subcategory", "brand"),
            {"name": "price", "table": "items", "kind": "numeric", "transform": "log1p"},
            *categorical("users", "user_id", multiplicity=2),
            *categorical("users", "age_group", "region", "segment"),
            *categorical("interactions", "device"),
        ],
    }


def _item_table(items: Items) -> pa.Table:
    columns = {
        "department": _words(names.DEPARTMENTS, items.department),
        "category": _words(names.CATEGORIES, items.category),
        "subcategory": _words(names.SUBCATEGORIES, items.subcategory),
        "brand": _words(names.BRANDS, items.brand),
    }
    style, colour = _words(names.STYLES, items.style), _words(names.COLOURS, items.colour)
    parts = zip(style, columns["brand"], columns["subcategory"], colour, strict=True)
    title = [f"{style} {brand} {noun}, {colour}" for style, brand, noun, colour in parts]
    launched = START + items.launch_week * SECONDS_A_WEEK
    ids = _ids("i", len(title))
    return pa.table(
        {"item_id": ids, "title": title, **columns, "price": items.price, "launched": launched}
    )


def _user_table(users: Users) -> pa.Table:
    return pa.table(
        {
            "user_id": _ids("u", len(users.segment)),
            "age_group": _words(names.AGE_GROUPS, users.age_group),
            "region": _words(names.REGIONS, users.region),
            "segment": _words(names.SEGMENTS, users.segment),
        }
    )


def _interaction_table(
    rng: np.random.Generator,
    draws: Draws,
    people: Users,
    items: pa.Table,
    users: pa.Table,
    order: NDArray[np.int64],
) -> pa.Table:
    """Join ids; a session is on the user's usual device four times in five."""
    num_sessions = int(draws.session.max()) + 1
    other = rng.integers(len(names.DEVICES), size=num_sessions)
    usual = rng.random(num_sessions) < 0.8
    user, session = draws.user[order], draws.session[order]
    device = np.where(usual[session], people.device[user], other[session])
    return pa.table(
        {
            "user_id": users["user_id"].take(pa.array(user)),
            "item_id": items["item_id"].take(pa.array(draws.item[order])),
            "timestamp": START + draws.seconds[order],
            "device": _words(names.DEVICES, device),
            "session_id": _ids("s", num_sessions).take(pa.array(session)),
        }
    )


def _words(words: Sequence[str], codes: NDArray[np.int64]) -> pa.Array:
    return pa.array(list(words)).take(pa.array(codes))


def _ids(letter: str, count: int) -> pa.Array:
    """Ids that ascend with the row, `u000000` on."""
    digits = max(6 if letter != "i" else 5, len(str(count - 1)))
    return pa.array([f"{letter}{row:0{digits}d}" for row in range(count)])
