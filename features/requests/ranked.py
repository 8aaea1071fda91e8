"""Requests as a ranker of their candidates reads them."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recsys.data.batch import FeatureBlock

ASKED_AT = "asked_at"
"""Column of requests: when each is asked, in microseconds since 1970."""


@dataclass(frozen=True, eq=False)
class RankedRequests:
    """B requests: what is known of their users, encoded, and what windows are computed of.

    ids: (B,) of the users. time: (B,) microseconds; None: they do not say. given: window by user ->
    (B,) its numbers, NaN where null, where requests bring them.
    """

    block: FeatureBlock
    ids: pa.Array
    time: NDArray[np.int64] | None = None
    given: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
