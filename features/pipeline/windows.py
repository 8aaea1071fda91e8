"""Windows for the candidates of a pipeline: numbers of rows in other tables, as of each request.

Letters: B requests, C candidates, W windows.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recsys.features.kinds.relation_feature import RelationFeature
from recsys.features.relations.asking import AskedRelations
from recsys.features.relations.columns import relation_columns
from recsys.features.relations.facts import Asked, Key
from recsys.features.requests.ranked import ASKED_AT, RankedRequests

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class CandidateWindows:
    """W windows of the user, the item or the pair that a candidate is.

    items: (n_items,) ids of the catalogue. relations: None where they are not at hand; then windows
    by user are those that requests bring, and all others are null.
    """

    features: tuple[RelationFeature, ...]
    items: pa.Array
    relations: AskedRelations | None = None

    @property
    def need_relations(self) -> tuple[RelationFeature, ...]:
        """Those that requests cannot bring, where the relations are not at hand."""
        if self.relations is not None:
            return ()
        return tuple(one for one in self.features if not one.is_of_user)

    def of(self, owner: Integers, rows: Integers, requests: RankedRequests) -> Floats:
        """Return the windows of candidates, (C, W), NaN where null.

        Args:
            owner: (C,) the request of each.
            rows: (C,) the item of each.
            requests: B of them.
        """
        found = np.full((len(rows), len(self.features)), np.nan)
        relations, computed = self.relations, {}
        if relations is not None:
            time = requests.time
            if time is None:
                time = np.full(len(requests.ids), relations.after(0))
            ids: dict[Key, tuple[pa.Array, Integers]] = {
                "user": (requests.ids, owner),
                "item": (self.items, rows),
            }
            wanted = [one for one in self.features if one.name not in requests.given]
            computed = relation_columns(wanted, relations.facts, Asked(ids, time[owner]))
        for number, feature in enumerate(self.features):
            if feature.name in requests.given:
                found[:, number] = requests.given[feature.name][owner]
            elif feature.name in computed:
                found[:, number] = computed[feature.name].to_numpy(zero_copy_only=False)
        return found

    def given(self, requests: pa.Table) -> dict[str, Floats]:
        """Return the windows by user that requests (B) bring."""
        return {
            one.name: _floats(requests, one.name)
            for one in self.features
            if one.is_of_user and one.name in requests.column_names
        }


def asked_times(requests: pa.Table) -> Integers | None:
    """Return when requests (B) are asked, (B,) microseconds; None: they do not say."""
    if ASKED_AT not in requests.column_names:
        return None
    return np.asarray(requests.column(ASKED_AT).cast(pa.int64())).astype(np.int64)


def window_names(features: Sequence[RelationFeature]) -> list[str]:
    """Return the columns of rows that hold them."""
    return [one.source_column for one in features]


def _floats(requests: pa.Table, name: str) -> Floats:
    values = requests.column(name).cast(pa.float64())
    return np.asarray(values.to_numpy(zero_copy_only=False), np.float64)
