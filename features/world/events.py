"""Who visits when, and what they take: sessions, chained choices, repeat purchases.

The choices of a session form a Markov chain that leaves the user's preference p unchanged. The
first choice is drawn from p. Each later one is, by a coin, drawn from p within the category of
the choice before, or from p within its complement group (Coffee with Roasts), or from p again.
The first two are Gibbs steps on a partition of the catalogue: they make the items of a session
related, and yet every choice by itself still has exactly the distribution p.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from recsys.core.distinct import distinct
from recsys.features.world import names as names
from recsys.features.world.catalogue import WEEKS, Floats, Ints, Items, Users, affinity

SECONDS_A_DAY = 86_400
SECONDS_A_WEEK = 7 * SECONDS_A_DAY
SAME_CATEGORY, SAME_GROUP = 0.35, 0.2
"""Chances that a choice stays in the category, or in the complement group, of the one before."""
REPEAT_SHARE = 0.12
_STOP = 0.42
_LONGEST = 12
_CELLS_AT_ONCE = 4_000_000
# Share of visits that begin in each hour of the day.
_HOURS = np.repeat([1.0, 4, 6, 6, 10, 13, 6], [6, 1, 10, 1, 2, 2, 2])


@dataclass(frozen=True)
class Visits:
    """Sessions in order of user, then start. user, start (seconds since the log began), length."""

    user: Ints
    start: Ints
    length: Ints


@dataclass(frozen=True)
class Draws:
    """Events in order of user, then time, then session: (E,) each.

    session counts sessions by their start; repeat marks repeat purchases; the others are named
    clearly.
    """

    user: Ints
    item: Ints
    seconds: Ints
    session: Ints
    repeat: NDArray[np.bool_]


def draw_visits(rng: np.random.Generator, users: Users, events: int) -> Visits:
    """Draw sessions that hold `events` events in all."""
    length = np.minimum(rng.geometric(_STOP, events), _LONGEST)
    count = int(np.searchsorted(length.cumsum(), events)) + 1
    length = length[:count]
    length[-1] -= int(length.sum()) - events
    user = rng.choice(len(users.activity), count, p=users.activity)
    joined = users.joined[user]
    day = (7 * WEEKS * (joined + (1 - joined) * rng.random(count))).astype(np.int64)
    hour = rng.choice(24, count, p=_HOURS / _HOURS.sum())
    start = day * SECONDS_A_DAY + hour * 3600 + rng.integers(3600, size=count)
    order = np.lexsort((start, user))
    return Visits(user[order], start[order], length[order])


def draw_events(
    rng: np.random.Generator, visits: Visits, items: Items, users: Users, *, noise: bool
) -> Draws:
    """Fill the sessions with items; `noise`: uniformly, without repeats and chains."""
    num_events = int(visits.length.sum())
    session = np.repeat(np.arange(len(visits.user)), visits.length)
    seconds = _event_seconds(rng, visits, session)
    if noise:
        item = rng.integers(len(items.subcategory), size=num_events)
        repeat = np.zeros(num_events, bool)
    else:
        item = _draw_choices(rng, visits, items, users)
    order = np.lexsort((session, seconds, visits.user[session]))
    user, item = visits.user[session][order], item[order]
    if not noise:
        item, repeat = _with_repeats(rng, user, item)
    rank = np.empty(len(visits.start), np.int64)
    rank[np.argsort(visits.start, kind="stable")] = np.arange(len(rank))
    return Draws(user, item, seconds[order], rank[session][order], repeat)


def _event_seconds(rng: np.random.Generator, visits: Visits, session: Ints) -> Ints:
    """Start of the session, plus a minute and a half on average between its events."""
    first = np.cumsum(visits.length) - visits.length
    gaps = 1 + rng.exponential(90, len(session)).astype(np.int64)
    gaps[first] = 0
    passed = gaps.cumsum()
    seconds = visits.start[session] + passed - passed[first][session]
    return np.minimum(seconds, WEEKS * SECONDS_A_WEEK - 1)


def _with_repeats(
    rng: np.random.Generator, user: Ints, item: Ints
) -> tuple[Ints, NDArray[np.bool_]]:
    """Replace a share of the events by an earlier event of the same user, uniformly chosen."""
    place = np.arange(len(user))
    first = np.searchsorted(user, user)
    repeat = (rng.random(len(user)) < REPEAT_SHARE) & (place > first)
    earlier = first + (rng.random(len(user)) * (place - first)).astype(np.int64)
    source = np.where(repeat, earlier, place)
    while repeat[source].any():  # A repeat of a repeat goes back to the choice itself.
        source = source[source]
    return item[source], repeat


def _draw_choices(rng: np.random.Generator, visits: Visits, items: Items, users: Users) -> Ints:
    """Return the item of each event, (E,), sessions one after the other.

    p(i | u, w) is proportional to exp(affinity_ui) * exp(demand_iw), so the mass of a category
    for all users and weeks is one matrix product. An event draws its category by mass, then an
    item within it: no users x items matrix of more than a chunk, and no row of p per event.
    All random numbers are drawn before the chunks, so chunks change nothing.
    """
    num_events = int(visits.length.sum())
    points = rng.random((3, num_events))
    first_event = np.cumsum(visits.length) - visits.length
    week = np.minimum(visits.start // SECONDS_A_WEEK, WEEKS - 1)
    shelf = np.argsort(items.category, kind="stable")
    edges = np.searchsorted(items.category[shelf], np.arange(len(names.CATEGORIES) + 1))
    demand = np.exp(items.log_demand - items.log_demand.max())[:, shelf]
    drawn = np.empty(num_events, np.int64)
    users_at_once = max(1, _CELLS_AT_ONCE // max(len(shelf), WEEKS * len(names.CATEGORIES)))
    for low in range(0, len(users.taste), users_at_once):
        rows = np.arange(low, min(low + users_at_once, len(users.taste)))
        first, last = np.searchsorted(visits.user, [low, low + len(rows)])
        store = _Store.stock(affinity(items, users, rows)[:, shelf], demand, edges)
        chunk = slice(first, last)
        user, length = visits.user[chunk] - low, visits.length[chunk]
        _walk(store, user, week[chunk], length, first_event[chunk], points, drawn)
    return shelf[drawn]


def _walk(
    store: "_Store",
    user: Ints,
    week: Ints,
    length: Ints,
    first_event: Ints,
    points: Floats,
    drawn: Ints,
) -> None:
    """Draw the choices of S sessions into `drawn`, one step of all of them at a time.

    Args:
        store: what the users of this chunk like.
        user: (S,) row of each session's user in `store`.
        week: (S,) its week.
        length: (S,) its number of events.
        first_event: (S,) its first event.
        points: (3, E) uniform in [0, 1): which block, which category of it, which item of that.
        drawn: (E,) filled here with places on the shelf.
    """
    category = np.full(len(user), -1)
    for step in range(int(length.max(initial=0))):
        going = np.flatnonzero(length > step)
        event = first_event[going] + step
        block, in_block, in_category = points[:, event]
        allowed = _allowed(category[going], block) if step else np.bool_(True)
        category[going] = _pick(store.mass[user[going], week[going]] * allowed, in_block)
        drawn[event] = store.take(user[going], week[going], category[going], in_category)


def _allowed(before: Ints, block: Floats) -> NDArray[np.bool_]:
    """Return the categories that a choice may come from, (N, C), given the one before, (N,)."""
    every = np.arange(len(names.CATEGORIES))
    group = np.array([names.complement_group(category) for category in range(len(every))])
    fresh = block >= SAME_CATEGORY + SAME_GROUP
    same_group = (group == group[before][:, None]) & (block >= SAME_CATEGORY)[:, None]
    return fresh[:, None] | same_group | (every == before[:, None])


@dataclass(frozen=True)
class _Store:
    """Unnormalised preferences of some users on a shelf sorted by category.

    liking (U, I) and demand (W, I), whose product is a row of p; mass (U, W, C), its sum over
    each category; edges (C + 1,), where the categories begin.
    """

    liking: Floats
    demand: Floats
    mass: Floats
    edges: Ints

    @classmethod
    def stock(cls, log_liking: Floats, demand: Floats, edges: Ints) -> "_Store":
        liking = np.exp(log_liking - log_liking.max(1, keepdims=True))
        mass = [liking[:, low:high] @ demand[:, low:high].T for low, high in pairwise(edges)]
        return cls(liking, demand, np.stack(mass, axis=2), edges)

    def take(self, user: Ints, week: Ints, category: Ints, point: Floats) -> Ints:
        """Return one place of the shelf for each event (N,), drawn within its category."""
        place = np.empty(len(user), np.int64)
        for number in distinct(category):
            chosen = np.flatnonzero(category == number)
            low, high = self.edges[number], self.edges[number + 1]
            weight = self.liking[user[chosen], low:high] * self.demand[week[chosen], low:high]
            place[chosen] = low + _pick(weight, point[chosen])
        return place


def _pick(weight: Floats, point: Floats) -> Ints:
    """Return a column of each row of `weight` (N, M), drawn in proportion to it by `point` (N,)."""
    cumulative = weight.cumsum(1)
    total = cumulative[:, -1]
    # Below the total even after rounding: a column of no weight is never returned.
    target = np.minimum(point * total, np.nextafter(total, 0))
    return np.argmax(cumulative > target[:, None], axis=1)
