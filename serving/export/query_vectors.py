"""Query vectors as a table: what an index or a vector store is asked, for many users at once.

    queries.parquet    user key, `vector` (width numbers), of several interests `interest` (a row
                       each, 0 to I - 1), of models that say so `repeat_gain`
    export.json        whose vectors they are, how they are asked with, how many

Vectors are written part by part as they are made.

Shape letters: B requests, W width of a vector, I interests.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from recsys.core.atomic import publish, staged_folder
from recsys.core.errors import ConfigError, DataError
from recsys.core.events import Listener, PartDone, ignore
from recsys.core.folders import check_folder
from recsys.features.bundle.files import index_files
from recsys.features.requests.origin import RequestOrigin
from recsys.features.requests.table import HISTORY, Requests
from recsys.features.tables.reading import open_table
from recsys.features.tables.sources import Source, Sources
from recsys.models.retrieval import query_vectors
from recsys.retrieval.index.build import read_facts
from recsys.retrieval.muvera import FixedDimensionalEncoding
from recsys.serving.engines.batch import shards_of_log, shards_of_requests
from recsys.serving.engines.shards import Shard, Shards
from recsys.serving.engines.unknown_items import UnknownItems, unknown_metadata
from recsys.serving.export.manifest import EXPORT_FILE, write_manifest
from recsys.serving.export.query_encoding import (
    EncodingSize,
    encoding_of,
    how_to_ask,
)
from recsys.serving.recommend.scorer import Scorer

QUERIES_FILE = "queries.parquet"
VECTOR, INTEREST, GAIN = "vector", "interest", "repeat_gain"
NO_MEMORY = (
    "the model adds what followed the last items before to its scores; neither a query vector nor "
    "an item vector holds that: what is found is the model's list without its memory"
)


@dataclass(frozen=True)
class QuerySources:
    """Whose vectors are wanted.

    Attributes:
        queries: Parquet files of requests (with `history`) or of users (without), or a log.
        users: the users' attributes, with a log.
        others: side tables by name, with a log.
        rows_at_once: users whose vectors are made together.
    """

    queries: str
    users: str | None = None
    others: Mapping[str, str] | None = None
    rows_at_once: int = 10_000


def export_queries(
    scorer: Scorer,
    sources: QuerySources,
    out: Path,
    *,
    encoded: EncodingSize | None = None,
    listener: Listener = ignore,
) -> dict[str, Any]:
    """Write the query vectors of a table or a log to the new folder `out`; return what was written.

    With `encoded` each query is the one vector that an export of encodings of that size is asked.

    Raises:
        ConfigError: `out` exists or is named as a file, the model has no vectors, or a log comes
            without the users that the model reads.
        DataError: the requests do not fit the model.
    """
    check_folder(out, f"{QUERIES_FILE} and {EXPORT_FILE}")
    if out.exists():
        raise ConfigError(f"{out} exists; choose another --out, an export is never overwritten")
    config = scorer.model.config
    encoding = None if encoded is None else encoding_of(scorer, encoded)
    asked = _shards(scorer, sources)
    count, unknown = 0, UnknownItems()
    with staged_folder(out.resolve().parent, out.name) as staging:
        writer: pq.ParquetWriter | None = None
        path = staging / QUERIES_FILE
        try:
            for number, shard in enumerate(asked.parts):
                for table, first in _pieces(shard, scorer, sources.rows_at_once):
                    origin = RequestOrigin(shard.origin.name, shard.origin.first_row + first)
                    part, facts = query_table(scorer, table, origin, encoding)
                    writer = writer or pq.ParquetWriter(path, part.schema, write_page_checksum=True)
                    writer.write_table(part)
                    count += table.num_rows
                    unknown.add(part.replace_schema_metadata(facts))
                listener(PartDone(number + 1, len(asked.parts)))
        finally:
            if writer is not None:
                writer.close()
        if writer is None:
            raise DataError("holds no user to make a vector of", file=sources.queries)
        stored = read_facts(index_files(scorer.bundle))
        facts_of = {
            "model_id": scorer.bundle.model_id,
            "space_id": stored["space_id"],
            "users": count,
            "interests": config.interests,
            "dim": scorer.vectors.shape[1] if encoding is None else encoding.width,
            "metric": stored["metric"],
            "geometry": stored["geometry"],
            "unknown_history_items": unknown.count,
            "first_unknown_history_item": unknown.first,
        }
        how = {"queries": how_to_ask(scorer, encoding), **facts_of}
        how |= {} if scorer.memory is None else {"memory": NO_MEMORY}
        write_manifest(staging, "queries", how)
        publish(staging, out.resolve(), EXPORT_FILE)
    return {"out": str(out), **facts_of}


@torch.no_grad()
def vectors_and_gains(scorer: Scorer, requests: Requests) -> tuple[Tensor, Tensor | None]:
    """Return vectors (B, W) or (B, I, W), and what the items of each session gain, (B,).

    None: the model does not say; it scores them as all others, or leaves them out of its lists.
    """
    model = scorer.model
    found = query_vectors(model, requests.block, scorer.vectors, requests.history)
    vectors, gain_B = model.without_gain(found)
    return vectors, gain_B if model.config.repeats is True else None


def query_table(
    scorer: Scorer,
    requests: pa.Table,
    origin: RequestOrigin,
    encoding: FixedDimensionalEncoding | None = None,
) -> tuple[pa.Table, dict[bytes, bytes]]:
    """Return the vectors of B requests, a row each or one an interest, and what is not known."""
    found = scorer.encode(requests, origin)
    vectors_BIW, gain_B = vectors_and_gains(scorer, found)
    if encoding is not None:
        vectors_BIW = encoding.queries(vectors_BIW)
    several = vectors_BIW.shape[1] if vectors_BIW.ndim == 3 else 1
    columns = {scorer.schema.user_key: found.user_ids}
    if vectors_BIW.ndim == 3:
        owner = np.repeat(np.arange(len(found)), several)
        columns = {scorer.schema.user_key: found.user_ids.take(pa.array(owner))}
        columns[INTEREST] = pa.array(np.tile(np.arange(several, dtype=np.int16), len(found)))
    columns[VECTOR] = _lists(vectors_BIW.flatten(0, -2))
    if gain_B is not None:
        columns[GAIN] = pa.array(gain_B.numpy())
    return pa.table(columns), unknown_metadata(found)


def vectors_of_requests(scorer: Scorer, requests: pa.Table, origin: RequestOrigin) -> pa.Table:
    """Return a row a request: user key, `vector` (of several interests a list of them), gain."""
    found = scorer.encode(requests, origin)
    vectors, gain_B = vectors_and_gains(scorer, found)
    lists = _lists(vectors.flatten(0, -2))
    if vectors.ndim == 3:
        lists = pa.FixedSizeListArray.from_arrays(lists, vectors.shape[1])
    columns = {scorer.schema.user_key: found.user_ids, VECTOR: lists}
    if gain_B is not None:
        columns[GAIN] = pa.array(gain_B.numpy())
    return pa.table(columns)


def _lists(vectors_NW: Tensor) -> pa.Array:
    flat = pa.array(vectors_NW.reshape(-1).contiguous().numpy())
    return pa.FixedSizeListArray.from_arrays(flat, vectors_NW.shape[1])


def _shards(scorer: Scorer, sources: QuerySources) -> Shards:
    """Return the requests of what `sources` names, by the columns that it has."""
    schema, given = scorer.schema, sources.queries
    files = open_table(given, "queries")
    if HISTORY in files.columns:
        _refuse_tables(sources)
        return shards_of_requests(scorer, given)
    if schema.interactions.item in files.columns:
        others: dict[str, Source] = {**(sources.others or {})}
        log = Sources(interactions=given, users=sources.users, others=others)
        return shards_of_log(scorer, log, rows_per_part=sources.rows_at_once)
    _refuse_tables(sources)
    needs = (
        f"give requests ('{schema.user_key}' and '{HISTORY}', lists of item ids), a log with "
        f"'{schema.interactions.item}', or users by '{schema.user_key}' alone"
    )
    files.require((schema.user_key,), {schema.user_key: needs})
    if files.format != "parquet":
        raise DataError(
            "users are read as Parquet, whose columns have types", file=given, remedy="convert it"
        )
    return shards_of_requests(scorer, given, with_history=False)


def _refuse_tables(sources: QuerySources) -> None:
    if sources.users is not None or sources.others:
        raise ConfigError(
            "--users and --other go with an interaction log: requests and users hold their "
            "attributes themselves"
        )


def _pieces(shard: Shard, scorer: Scorer, rows_at_once: int) -> Iterator[tuple[pa.Table, int]]:
    """Yield the requests of a shard, some at once, and how many came before."""
    table = shard.read()
    if HISTORY not in table.column_names:  # users alone
        kind = pa.large_list(scorer.item_ids.type)
        table = table.append_column(HISTORY, pa.array([[]] * table.num_rows, kind))
    for first in range(0, table.num_rows, rows_at_once):
        yield table.slice(first, rows_at_once), first
