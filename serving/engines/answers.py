"""What a worker makes parts of lists with."""

from typing import Any

import pyarrow as pa

from recsys.features.requests.origin import RequestOrigin
from recsys.serving.engines.batches import answers_to
from recsys.serving.engines.worker import Maker
from recsys.serving.recommend.filters import Filters
from recsys.serving.recommend.scorer import Scorer


def maker_of(scorer: Scorer, filters: Filters) -> Maker:
    """Return what a worker makes parts with."""

    def make(facts: dict[str, Any], table: pa.Table | None) -> pa.Table:
        assert table is not None
        return answers_to(scorer, filters, table, RequestOrigin(facts["name"], facts["first_row"]))

    return make
