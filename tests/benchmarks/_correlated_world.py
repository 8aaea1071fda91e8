"""A world whose items have many features that say the same few things, for self-supervision.

An item has latent factors: the centre of its cluster and something of its own. Its features are
categories, noisy readings of one factor each, so that those of one factor are strongly
correlated; a user's features read tastes alike. A user takes items by taste and popularity, which
is Zipf's and says nothing of the factors: most items have few rows. Ids say what no feature does.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

FACTORS, CLUSTERS, LEVELS = 6, 40, 10
OWN, NOISE = 0.5, 0.3
"""Deviations of an item's own part of a factor, and of a reading; those of the centres are 1."""
USER_FEATURES = 3
SHARPNESS = 2.0
"""Of taste; the logarithm of popularity has a weight of 1."""
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class World:
    """Sizes; `features` of an item, of which the first are the same in a world with more."""

    features: int = 20
    users: int = 6000
    items: int = 3000
    events: int = 20
    """Of each user."""
    seed: int = 0

    def write(self, folder: Path) -> list[Path]:
        """Write a log of positive rows in order, no pair twice; return it and the two tables."""
        taste, factors = self._people(), self._factors()
        rng = np.random.default_rng([self.seed, 2])
        taken = []
        for chosen in np.array_split(np.arange(self.users), -(-self.users // 500)):
            score = taste[chosen] @ factors.T * (SHARPNESS / FACTORS**0.5) + self._demand()
            luck = rng.gumbel(size=score.shape)  # the largest sums are a draw without repetition
            taken.append(np.argsort(-(score + luck), axis=1)[:, : self.events])
        item = rng.permuted(np.concatenate(taken), axis=1)
        log: dict[str, object] = {
            "user_id": np.repeat(np.arange(self.users), self.events),
            "item_id": item.ravel(),
            "position": np.tile(np.arange(self.events), self.users),
        }
        return [_written(folder, "interactions", log), *self._tables(folder)]

    def write_labelled(self, folder: Path) -> list[Path]:
        """Write items shown at random by popularity, no pair twice, with label and split."""
        taste, factors = self._people(), self._factors()
        rng = np.random.default_rng([self.seed, 3])
        count = self.users * self.events
        popularity = np.exp(self._demand())
        shown = rng.choice(self.items, count, p=popularity / popularity.sum())
        pairs = np.unique(rng.integers(0, self.users, count) * self.items + shown)
        user, item = np.divmod(rng.permutation(pairs), self.items)
        quality = rng.normal(size=self.items)  # known by the id alone
        logit = (taste[user] * factors[item]).sum(1) * (SHARPNESS / FACTORS**0.5) + quality[item]
        log = {
            "user_id": user,
            "item_id": item,
            "label": (rng.random(len(item)) < 1 / (1 + np.exp(1 - logit))).astype(np.int8),
            "split": rng.choice(["train", "validation", "test"], len(item), p=[0.7, 0.1, 0.2]),
        }
        return [_written(folder, "rows", log), *self._tables(folder)]

    def _demand(self) -> Floats:
        rank = np.random.default_rng([self.seed, 4]).permutation(self.items) + 1
        return -np.log(rank)

    def _factors(self) -> Floats:
        """Return what items are, (items, FACTORS)."""
        rng = np.random.default_rng([self.seed, 0])
        centres = rng.normal(size=(CLUSTERS, FACTORS))
        own = rng.normal(size=(self.items, FACTORS))
        return centres[rng.integers(0, CLUSTERS, self.items)] + OWN * own

    def _people(self) -> Floats:
        """Return what users like, (users, FACTORS)."""
        return np.random.default_rng([self.seed, 1]).normal(size=(self.users, FACTORS))

    def _tables(self, folder: Path) -> list[Path]:
        items: dict[str, object] = {"item_id": np.arange(self.items)}
        items |= _readings(self._factors(), self.features, "f", self.seed)
        users: dict[str, object] = {"user_id": np.arange(self.users)}
        users |= _readings(self._people(), USER_FEATURES, "g", self.seed)
        return [_written(folder, "items", items), _written(folder, "users", users)]


def _readings(known: Floats, count: int, name: str, seed: int) -> dict[str, list[str]]:
    """Return features: one factor each, with noise, cut at its quantiles into categories."""
    found = {}
    for number in range(count):
        rng = np.random.default_rng([seed, 5, number])
        reading = known[:, number % FACTORS] + NOISE * rng.normal(size=len(known))
        cuts = np.quantile(reading, np.arange(1, LEVELS) / LEVELS)
        code = rng.permutation(LEVELS)[np.searchsorted(cuts, reading)]
        found[f"{name}{number + 1:02}"] = [f"{name}{number + 1:02}-{one}" for one in code]
    return found


def _written(folder: Path, name: str, columns: dict[str, object]) -> Path:
    path = folder / f"{name}.parquet"
    pq.write_table(pa.table(columns), path)
    return path
