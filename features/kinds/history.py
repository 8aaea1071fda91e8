"""What an item feature was over the last items of the user before the row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field

from recsys.core.imports import on_first_use
from recsys.core.strict import nearest
from recsys.data.batch import FeatureBlock, FeatureLayout, Jagged
from recsys.data.feature_options import HistoryPooling, Name
from recsys.features.encoding.hashing import NULL_HASH
from recsys.features.encoding.past import CountedRows, Integers, Pasts
from recsys.features.encoding.scaling import Scaler
from recsys.features.kinds.derived import Declared, PastFeature, PastReader

with on_first_use():
    import torch


class HistoryFeature(PastFeature):
    """The values of an item feature over the last items of the user before the row.

    They read the rows of `of` itself: history and candidate share their embedding (Zhou et al.,
    "Deep Interest Network", KDD 2018, https://arxiv.org/abs/1706.06978, section 4).
    """

    kind: Literal["history"] = "history"
    of: Name
    """A feature of the items that is looked up: their id, their genres."""
    last: Annotated[int, Field(ge=1, le=10_000)] = 20
    """At most so many items, the latest ones."""
    pooling: HistoryPooling = "mean"
    """`attention`: each value weighs as much as it is like the row's own value of `of`;
    `activation`: as a small perceptron says of both, as in DIN."""
    rows: CountedRows = "positives"
    """Which rows count: those with label 1, or all."""

    def check(self, declared: Declared) -> None:
        """Refuse a log without an order, and what is no feature of the items."""
        super().check(declared)
        if self.of not in declared.of_items:
            raise ValueError(
                f"feature '{self.name}' is a history of '{self.of}', which is none of the "
                f"features of the items that are looked up: {', '.join(declared.of_items)}"
                f"{nearest(self.of, list(declared.of_items))}"
            )

    def layout(self, columns: FeatureLayout) -> FeatureLayout:
        """One multi-valued feature that reads the rows of `of`."""
        pair = (self.name, dict(columns.features)[self.of])
        return FeatureLayout((), (pair,), (), (self.pooling,), ((self.name, self.of),))

    def reader(
        self, items: FeatureBlock, layout: FeatureLayout, scalers: Mapping[str, Scaler]
    ) -> PastReader:
        """Return what finds the values of the last items."""
        values = _Values(items, layout, self.of)

        def read(pasts: Pasts, numbers: Integers, _: Integers) -> FeatureBlock:
            past, users = pasts.of("user", self.rows), pasts.owners["user"]
            starts, ends = past.before(users[numbers], pasts.instant[numbers])
            found = values.of(past.items(starts.clip(min=ends - self.last), ends))
            empty = torch.zeros(len(numbers), 0)
            return FeatureBlock(empty.long(), (found,), empty)

        return read


class _Values:
    """The encoded values of one feature of the items, and null for the item -1."""

    def __init__(self, items: FeatureBlock, layout: FeatureLayout, feature: str) -> None:
        null = torch.tensor([int(NULL_HASH)])
        single = [name for name, _ in layout.single]
        self._single: torch.Tensor | None = None
        if feature in single:
            self._single = torch.cat([items.single[:, single.index(feature)], null])
            return
        lists = items.multi[[name for name, _ in layout.multi].index(feature)]
        weights = None if lists.weights is None else torch.cat([lists.weights, torch.ones(1)])
        offsets = torch.cat([lists.offsets, lists.offsets[-1:] + 1])
        self._lists = Jagged(torch.cat([lists.values, null]), offsets, weights)

    def of(self, items: Jagged) -> Jagged:
        """Return the values of each row's items, in their order."""
        if self._single is not None:
            return Jagged(self._single[items.values], items.offsets)
        found = self._lists.take(items.values % len(self._lists))
        return Jagged(found.values, found.offsets[items.offsets], found.weights)
