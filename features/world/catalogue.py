"""Items and users of the built-in world: attributes, and the latent vectors behind them.

An item's vector is a weighted sum of one vector for each of its attributes (department,
category, subcategory, brand, style, price) and a small personal rest, so metadata predicts who
will like it and an item without interactions can still be placed. A user's taste is the
sum of vectors of segment, age group and region, and a larger personal part.

Letters: I items, U users, D latent dimensions, W weeks.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsys.features.world import names as names

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

WEEKS = 52
DIM = 8
SHARPNESS = 3.0
"""Standard deviation of a user's log odds over the catalogue, as far as taste accounts for it."""
_ITEM_SHARES = {
    "department": 0.15,
    "category": 0.3,
    "subcategory": 0.22,
    "brand": 0.16,
    "style": 0.06,
    "price": 0.06,
    "own": 0.05,
}
"""Share of each part in the variance of an item's vector."""
_USER_SHARES = {"segment": 0.44, "age_group": 0.18, "region": 0.04, "own": 0.34}
_APPEAL_SHARES = {"brand": 0.35, "subcategory": 0.25, "own": 0.4}
_POPULARITY_EXPONENT = 0.55
_LATE_SHARE, _LATE_FROM = 0.04, 0.92
"""Cold items: this share is launched after this share of the time."""
_LAUNCHED_DURING = 0.26
_JOINED_DURING, _GROWTH, _ACTIVITY_SPREAD = 0.6, 0.7, 0.45
_SEASON, _TREND, _NOVELTY, _NOVELTY_WEEKS = 0.3, 0.25, 0.6, 4.0


@dataclass(frozen=True)
class Items:
    """Codes into the word lists, (I,) each, and what drives demand.

    launch_week (I,): week of launch, negative before the log begins. vectors (I, D).
    log_demand (W, I): popularity and drift of each week, -inf before the launch.
    """

    subcategory: Ints
    brand: Ints
    style: Ints
    colour: Ints
    price: Floats
    launch_week: Ints
    vectors: Floats
    log_demand: Floats

    @property
    def category(self) -> Ints:
        """Category of each item, (I,)."""
        return self.subcategory // names.SUBCATEGORIES_PER_CATEGORY

    @property
    def department(self) -> Ints:
        """Department of each item, (I,)."""
        return self.category // names.CATEGORIES_PER_DEPARTMENT


@dataclass(frozen=True)
class Users:
    """Codes into the word lists and a favourite device, (U,) each; taste (U, D).

    joined (U,): the share of the time that had passed when the user came. activity (U,):
    expected share of the events.
    """

    segment: Ints
    age_group: Ints
    region: Ints
    device: Ints
    joined: Floats
    activity: Floats
    taste: Floats


def affinity(items: Items, users: Users, rows: Ints) -> Floats:
    """Return the log odds that taste gives each item, (R, I), for user rows (R,)."""
    return users.taste[rows] @ (items.vectors.T * (SHARPNESS / np.sqrt(DIM)))


def make_items(rng: np.random.Generator, count: int) -> Items:
    """Draw a catalogue of `count` items."""
    num_subcategories = len(names.SUBCATEGORIES)
    shelf_sizes = rng.dirichlet(np.full(num_subcategories, 3.0))
    subcategory = rng.choice(num_subcategories, count, p=shelf_sizes)
    category = subcategory // names.SUBCATEGORIES_PER_CATEGORY
    department = category // names.CATEGORIES_PER_DEPARTMENT
    # A brand is at home in a few departments only.
    brand_sizes = rng.dirichlet(np.full(len(names.BRANDS), 0.3), len(names.DEPARTMENTS))
    brand = _choose_by_row(rng, brand_sizes[department])
    style = rng.integers(len(names.STYLES), size=count)
    log_price = (
        rng.normal(3.0, 0.8, num_subcategories)[subcategory]
        + rng.normal(0, 0.4, len(names.BRANDS))[brand]
        + rng.normal(0, 0.25, count)
    )
    launch_week = _launches(rng, count)
    codes = {
        "department": department,
        "category": category,
        "subcategory": subcategory,
        "brand": brand,
        "style": style,
    }
    parts = _part_vectors(rng, codes)
    parts["price"] = np.outer((log_price - 3.0) / 0.9, rng.standard_normal(DIM))
    parts["own"] = rng.standard_normal((count, DIM))
    return Items(
        subcategory=subcategory,
        brand=brand,
        style=style,
        colour=rng.integers(len(names.COLOURS), size=count),
        price=np.maximum(np.round(np.exp(log_price), 2), 0.5),
        launch_week=launch_week,
        vectors=_weighted(parts, _ITEM_SHARES),
        log_demand=_log_demand(rng, _appeal(rng, subcategory, brand), category, launch_week),
    )


def make_users(rng: np.random.Generator, count: int) -> Users:
    """Draw `count` users; more than half of them come while the log runs."""
    segment = rng.choice(
        len(names.SEGMENTS), count, p=rng.dirichlet(np.full(len(names.SEGMENTS), 8.0))
    )
    age_group = rng.integers(len(names.AGE_GROUPS), size=count)
    region = rng.integers(len(names.REGIONS), size=count)
    codes = {"segment": segment, "age_group": age_group, "region": region}
    parts = _part_vectors(rng, codes)
    parts["own"] = rng.standard_normal((count, DIM))
    came_during = rng.random(count) < _JOINED_DURING
    joined = np.where(came_during, 0.98 * rng.random(count) ** _GROWTH, 0.0)
    activity = rng.lognormal(0, _ACTIVITY_SPREAD, count) * (1 - joined)
    return Users(
        segment=segment,
        age_group=age_group,
        region=region,
        device=rng.choice(len(names.DEVICES), count, p=[0.6, 0.3, 0.1]),
        joined=joined,
        activity=activity / activity.sum(),
        taste=_weighted(parts, _USER_SHARES),
    )


def _part_vectors(rng: np.random.Generator, codes: dict[str, Ints]) -> dict[str, Floats]:
    """Give each code of each part a random vector; name -> (N, D), the vectors of N rows."""
    return {
        part: rng.standard_normal((int(code.max()) + 1, DIM))[code] for part, code in codes.items()
    }


def _weighted(parts: dict[str, Floats], shares: dict[str, float]) -> Floats:
    return np.sum([np.sqrt(shares[part]) * vectors for part, vectors in parts.items()], axis=0)


def _choose_by_row(rng: np.random.Generator, probabilities: Floats) -> Ints:
    below = probabilities.cumsum(1) < rng.random((len(probabilities), 1))
    return np.minimum(below.sum(1), probabilities.shape[1] - 1)


def _launches(rng: np.random.Generator, count: int) -> Ints:
    """Most items were there before the log begins, some come during it, a few near its end."""
    during = int(_LAUNCHED_DURING * count)
    late = min(max(1, round(_LATE_SHARE * count)), count - 1)
    late_week = int(np.ceil(_LATE_FROM * WEEKS))
    weeks = rng.integers(-150, 1, count)
    weeks[:during] = rng.integers(1, late_week, during)
    weeks[-late:] = rng.integers(late_week, WEEKS, late)
    return rng.permutation(weeks)


def _appeal(rng: np.random.Generator, subcategory: Ints, brand: Ints) -> Floats:
    """What makes some items popular with everybody, (I,): brand, kind of article, chance."""
    parts = {
        "brand": rng.standard_normal(len(names.BRANDS))[brand],
        "subcategory": rng.standard_normal(len(names.SUBCATEGORIES))[subcategory],
        "own": rng.standard_normal(len(brand)),
    }
    return _weighted(parts, _APPEAL_SHARES)


def _log_demand(
    rng: np.random.Generator, appeal: Floats, category: Ints, launch_week: Ints
) -> Floats:
    """Zipf-like base, seasons of categories, trends of items, novelty after the launch: (W, I)."""
    week = np.arange(WEEKS)[:, None]
    rank = np.argsort(np.argsort(-appeal)) + 1
    base = -_POPULARITY_EXPONENT * np.log(rank)
    phase = rng.random(len(names.CATEGORIES))[category]
    season = _SEASON * np.cos(2 * np.pi * (week / WEEKS - phase))
    trend = rng.normal(0, _TREND, len(rank)) * (2 * week / WEEKS - 1)
    age = week - launch_week
    novelty = _NOVELTY * np.exp(-np.maximum(age, 0) / _NOVELTY_WEEKS)
    return np.where(age >= 0, base + season + trend + novelty, -np.inf)
