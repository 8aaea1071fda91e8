"""One part of a batch job of lists: requests in, lists out, in this process or in a worker."""

from typing import Any

import pyarrow as pa

from recsys.features.requests.origin import RequestOrigin
from recsys.serving.engines.unknown_items import unknown_metadata
from recsys.serving.engines.worker import Maker
from recsys.serving.recommend.filters import Filters
from recsys.serving.recommend.scorer import Scorer


def answers_to(
    scorer: Scorer, filters: Filters, table: pa.Table, origin: RequestOrigin
) -> pa.Table:
    """Return one part, with the number of ids that the catalogue lacks."""
    requests = scorer.encode(table, origin)
    passing, own = filters.of_requests(table, origin)
    answers = scorer.answer(requests, passing=passing)
    metadata = {**(answers.schema.metadata or {}), **unknown_metadata(requests, own)}
    return answers.replace_schema_metadata(metadata)


def maker_of(scorer: Scorer, filters: Filters) -> Maker:
    """Return what a worker makes parts with."""

    def make(facts: dict[str, Any], table: pa.Table | None) -> pa.Table:
        assert table is not None
        return answers_to(scorer, filters, table, RequestOrigin(facts["name"], facts["first_row"]))

    return make
