"""What came before a row: the earlier items of its user, how many, and how long ago.

All of it is as of the row's instant: rows count that are strictly earlier, whatever part they
are in, as they would for a served model. A validation or a test row sees the training rows
before it, a training row of one user may see earlier rows of another that are for validation (in
`of: item`). Rows of one instant do not see each other, nor themselves, so a row's features are the
same whether or not anything at or after its time exists; labels count only of earlier rows.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from recsys.data.batch import FeatureBlock, FeatureLayout
from recsys.features.encoding.past import Integers, LoggedEvents, Pasts
from recsys.features.encoding.scaling import Scaler
from recsys.features.kinds.derived import DerivedFeature, PastFeature


def of_past(features: Sequence[DerivedFeature]) -> list[PastFeature]:
    """Return those about the rows before, in their order."""
    return [feature for feature in features if isinstance(feature, PastFeature)]


def past_layout(features: Sequence[DerivedFeature], columns: FeatureLayout) -> FeatureLayout:
    """Return what `PastFeatures.beside` adds to `columns`: users, context and items."""
    layouts = (feature.layout(columns) for feature in of_past(features))
    return sum(layouts, start=FeatureLayout((), (), ()))


def past_scalers(
    features: Sequence[DerivedFeature], events: LoggedEvents, numbers: Integers
) -> dict[str, Scaler]:
    """Return the scale of each count and elapsed time, fitted on the events `numbers` (N,)."""
    pasts = Pasts(events)
    items = events.item_row[numbers].astype(np.int64)
    fitted = {one.name: one.fit(pasts, numbers, items) for one in of_past(features)}
    return {name: scaler for name, scaler in fitted.items() if scaler is not None}


class PastFeatures:
    """The histories, counts and elapsed times of the rows of a log."""

    def __init__(
        self,
        features: Sequence[DerivedFeature],
        events: LoggedEvents,
        items: FeatureBlock,
        layout: FeatureLayout,
        scalers: Mapping[str, Scaler],
    ) -> None:
        """Sort what the features need.

        Args:
            features: those of rows alone are passed over.
            events: all rows, of every part.
            items: the encoded catalogue, `layout` its layout.
            layout: of the items.
            scalers: as `past_scalers` fits them.
        """
        self._pasts = Pasts(events)
        self._readers = [one.reader(items, layout, scalers) for one in of_past(features)]

    def beside(self, block: FeatureBlock, numbers: Integers, item_rows: Integers) -> FeatureBlock:
        """Return the rows of `block` with their past behind them.

        Args:
            block: N rows.
            numbers: (N,) the events that they are: their users and their times.
            item_rows: (N,) their items, which may be others than those of the events.
        """
        past = [read(self._pasts, numbers, item_rows) for read in self._readers]
        return block.beside(*past)
