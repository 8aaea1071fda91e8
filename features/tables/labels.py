"""Labels of a ranker's rows: 0 or 1, from a column of either or of a number with a threshold."""

import numpy as np
from numpy.typing import NDArray

from recsys.features.kinds.convert import number
from recsys.features.schema import LabelColumn
from recsys.features.tables.ledger import Cells, Mask
from recsys.features.tables.sources import Policies


def labels(
    column: Cells, role: LabelColumn, policies: Policies
) -> tuple[NDArray[np.float32], Mask]:
    """Return the labels of a batch, (N,) float32, and which rows have one, (N,) bool.

    Rows without a usable label are findings of the ledger, which no policy forgives.
    """
    values = np.asarray(number(column, policies).fill_null(np.nan))
    null = np.isnan(values)
    leave = "fill it in the source, or leave such rows out with interactions.where"
    column.note(null, "the label is null", leave, show=False)
    if role.at_least is not None:
        return (values >= role.at_least).astype(np.float32), ~null
    other = ~null & (values != 0) & (values != 1)
    column.note(
        other,
        "the label is neither 0 nor 1",
        "set interactions.label.at_least to the least value that counts as 1",
    )
    return values.astype(np.float32), ~null & ~other
