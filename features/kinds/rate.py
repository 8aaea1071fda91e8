"""The share of positives among the training rows that hold the same values: the memory of pairs.

With P positive rows among N that hold the values of a row, and a base rate b of all rows, the rate
is r = (P + smoothing b) / (N + smoothing). A network reads logit(r) - logit(b), which is 0 for
what nobody has seen, log(1 + N), and whether N is 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from recsys.core.imports import on_first_use
from recsys.data.batch import FeatureBlock, FeatureLayout
from recsys.data.feature_options import Name
from recsys.embeddings.hashing import mix
from recsys.features.encoding.label_sums import Seen
from recsys.features.kinds.cross import SEED
from recsys.features.kinds.derived import Declared, LabelFeature

with on_first_use():
    import torch
    from torch import Tensor

_FOLDS = 5


class RateFeature(LabelFeature):
    """The smoothed share of positives among the training rows with the same values.

    A training row is told nothing of its own label: it sees rows of an earlier time, or of other
    folds. Validation, test and scored rows see all training rows.
    """

    kind: Literal["rate"] = "rate"
    of: Annotated[tuple[Name, ...], Field(min_length=1)]
    """Features with one value a row to look up; of a timestamp, `NAME.hour` or `NAME.weekday`."""
    smoothing: Annotated[float, Field(gt=0)] = 10.0
    """Rows of the base rate that are added to those of a value."""
    rows: Literal["earlier", "folds"] | None = None
    """Which training rows a training row sees: those of an `earlier` time, or those of the other
    `folds`, for a split that is not by time. By default earlier ones where the log has a time."""
    folds: Annotated[int, Field(ge=2, le=100)] = _FOLDS
    """Into how many parts `rows: folds` cuts the training rows, by a hash of the row's number."""

    @property
    def parts(self) -> tuple[str, ...]:
        """As declared."""
        return self.of

    def check(self, declared: Declared) -> None:
        """Refuse what has no single value a row, and a log without labels or without the time."""
        parts = declared.parts
        for name in self.of:
            declared.check_part(self.name, "is of", name)
            if parts[name]:
                raise ValueError(
                    f"feature '{self.name}' is of '{name}', which holds several values a row, and "
                    f"a rate is of one: leave it out of `of`, or cross it (kind: cross)"
                )
        if len(set(self.of)) < len(self.of):
            raise ValueError(f"feature '{self.name}' is of a feature and itself")
        if not declared.has_label:
            raise ValueError(
                f"feature '{self.name}': rate is a share of positive rows, and all rows of a log "
                "without schema.interactions.label are positive: give the label, or leave the "
                "feature out (kind: count is of rows without a label, kind: cross of pairs)"
            )
        if self.rows == "earlier" and not declared.has_time:
            raise ValueError(
                f"feature '{self.name}': rows: earlier needs clock times: give "
                "schema.interactions.time, or set rows: folds"
            )
        if self.folds != _FOLDS and not self.folds_of(has_time=declared.has_time):
            raise ValueError(
                f"feature '{self.name}': folds is for rows: folds, and training rows see those of "
                "an earlier time: leave it out, or set rows: folds"
            )

    def folds_of(self, *, has_time: bool) -> int:
        """Return `folds`, or 0 where training rows see those of an earlier time."""
        by_time = has_time if self.rows is None else self.rows == "earlier"
        return 0 if by_time else self.folds

    def layout(self, columns: FeatureLayout) -> FeatureLayout:
        """The rate, the count, and whether it is 0."""
        return FeatureLayout((), (), (self.name, f"{self.name}.count", f"{self.name}.null"))

    def values(self, block: FeatureBlock, columns: FeatureLayout) -> Tensor:
        """Return the values of its features as one, (N,): that of a cross."""
        single = {name: place for place, (name, _) in enumerate(columns.single)}
        found = torch.full((len(block),), SEED)
        for name in self.of:
            found = mix(found ^ block.single[:, single[name]])
        return found

    def numbers(self, seen: Seen) -> Tensor:
        """Return (N, 3) float32: log-odds beyond those of the base rate, log count, unseen."""
        # Two rows, one of them positive, before the first: a base rate is never 0 or 1.
        base = (seen.all_positives + 1) / (seen.all_rows + 2)
        positives = seen.positives + self.smoothing * base
        negatives = seen.rows - seen.positives + self.smoothing * (1 - base)
        log_odds = np.log(positives / negatives) - np.log(base / (1 - base))
        columns = [np.where(seen.rows > 0, log_odds, 0.0), np.log1p(seen.rows), seen.rows == 0]
        return torch.from_numpy(np.stack(columns, axis=1).astype(np.float32))

    def shown(self, numbers: Sequence[float]) -> str:
        """Return log-odds and count."""
        log_odds, count, unseen = numbers
        if unseen:
            return "no training row"
        rows = float(np.expm1(count))
        counted = f"{rows:,.0f}" if rows >= 100 else f"{rows:.3g}"
        return f"log-odds {log_odds:+z.2f} of {counted} row{'' if counted == '1' else 's'}"
