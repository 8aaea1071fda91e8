"""Batches of requests in, batches of answers out: the one function of every engine.

What scores on this machine, on Spark, on Ray or on Daft hands over Arrow batches and gets Arrow
batches, row by row in the same order. Nothing here knows who calls, or where the batches lie.

    for answers in lists_of(scorer, filters, batches): ...
    for answers in probabilities_of(scorer, batches): ...
"""

from collections.abc import Callable, Iterable, Iterator

import pyarrow as pa

from recsys.features.requests.origin import RequestOrigin
from recsys.features.requests.rows import as_rows
from recsys.serving.engines.unknown_items import unknown_metadata
from recsys.serving.recommend.filters import Filters
from recsys.serving.recommend.rows import RowScorer
from recsys.serving.recommend.scorer import Scorer

Seen = Callable[[pa.Table], None]
"""Told of the answers to each batch; their metadata say what became of its requests."""


def answers_to(
    scorer: Scorer, filters: Filters, requests: pa.Table, origin: RequestOrigin
) -> pa.Table:
    """Return a list for each of B requests, as `Scorer.score`, with the facts of a batch.

    The facts are metadata: how many ids the catalogue lacks (`unknown_items`), how many lists fell
    back on popularity, and what else `Scorer.answer` says.

    Raises:
        DataError: the requests do not fit the model; `origin` is named.
    """
    encoded = scorer.encode(requests, origin)
    passing, own = filters.of_requests(requests, origin)
    answers = scorer.answer(encoded, passing=passing)
    metadata = {**(answers.schema.metadata or {}), **unknown_metadata(encoded, own)}
    return answers.replace_schema_metadata(metadata)


def lists_of(
    scorer: Scorer,
    filters: Filters,
    batches: Iterable[pa.RecordBatch],
    called: str = "requests",
    seen: Seen | None = None,
) -> Iterator[pa.RecordBatch]:
    """Yield the lists of each batch of requests (`recsys.features.requests.table`), a row each.

    Args:
        scorer: the model.
        filters: what may be in the lists.
        batches: user key, history and what else requests may have.
        called: what messages call the requests; their rows are counted over all batches.
        seen: told of the answers to each batch.

    Raises:
        DataError: a batch does not fit the model.
    """
    first = 0
    for batch in batches:
        requests = pa.Table.from_batches([batch])
        answers = answers_to(scorer, filters, requests, RequestOrigin(called, first))
        first += batch.num_rows
        if seen is not None:
            seen(answers)
        yield one_batch(answers)


def probabilities_of(
    scorer: RowScorer, batches: Iterable[pa.RecordBatch], called: str = "rows"
) -> Iterator[pa.RecordBatch]:
    """Yield keys and probability, or probabilities, of each batch of rows, a row each.

    Args:
        scorer: of a ranker.
        batches: what the model reads.
        called: what messages call the rows, which are counted over all batches.

    Raises:
        DataError: a batch does not fit the model.
    """
    first = 0
    for batch in batches:
        table = pa.Table.from_batches([batch])
        yield one_batch(scorer.score(table, as_rows(table, called), first))
        first += batch.num_rows


def one_batch(table: pa.Table) -> pa.RecordBatch:
    """Return a table, empty or not, as one batch."""
    arrays = [column.combine_chunks() for column in table.columns]
    chunks = [pa.concat_arrays(a.chunks) if isinstance(a, pa.ChunkedArray) else a for a in arrays]
    return pa.RecordBatch.from_arrays(chunks, schema=table.schema)
