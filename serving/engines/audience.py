"""Audiences of new items: their likeliest users, with probabilities, and how many to expect.

    output/customers/part-*.parquet   one row a user: the new items, best first, with score and
                                      probability
    output/audience.parquet           one row a new item: the expected number of users,
                                      and the likeliest ones

A probability refers to `recsys.bundle.pair_calibration.InteractionProbability.period`.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from recsys.bundle.pair_calibration import PairCalibrator
from recsys.core.atomic import whole_file
from recsys.core.errors import ConfigError, DataError
from recsys.core.events import Listener, ignore
from recsys.features.requests.rows import read_side
from recsys.features.tables.parquet_files import read_columns
from recsys.features.tables.reading import fingerprint, open_table
from recsys.models.retrieval import query_vectors
from recsys.retrieval.index.exact import ExactVectors
from recsys.retrieval.interests import search
from recsys.serving.engines.parts import mark_done, write_parts
from recsys.serving.engines.shards import Shard, Shards
from recsys.serving.engines.unknown_items import UnknownItems, unknown_metadata
from recsys.serving.recommend.scorer import Scorer

CUSTOMERS, AUDIENCE = "customers", "audience.parquet"


@dataclass(frozen=True)
class NewItems:
    """M items that the model's catalogue lacks: ids and vectors (M, E); hash of their files."""

    ids: pa.Array
    vectors: torch.Tensor
    fingerprint: str


@dataclass(frozen=True)
class AudienceSummary:
    """What a job wrote. expected_audience: summed over the items."""

    output: str
    model_id: str
    probability: str
    parts: int
    parts_already_there: int
    customers: int
    new_items: int
    expected_audience: float
    unknown_history_items: int
    first_unknown_history_item: Any


def read_new_items(scorer: Scorer, paths: Mapping[str, str]) -> NewItems:
    """Read and encode rows of the items table as training read it.

    Args:
        scorer: the model.
        paths: "items", and every side table that is joined to items, -> its path.

    Raises:
        ConfigError: the model knows items by their ids alone, or a side table has no path.
        DataError: a table is not as declared, or an item is in the catalogue already.
    """
    schema = scorer.schema
    if schema.items is None:
        raise ConfigError(
            f"{scorer.bundle.path}: the model was trained without an items table, so it knows "
            "nothing of an item without interactions"
        )
    table = read_side("items", schema, paths, scorer.policies)
    assert table is not None
    ids = table.column(schema.item_key).combine_chunks()
    if _is_text(ids.type) != _is_text(scorer.item_ids.type):
        raise DataError(
            f"{ids.type} ids, the catalogue has {scorer.item_ids.type} ids",
            file=paths["items"],
            column=schema.item_key,
            remedy=f"cast them to {scorer.item_ids.type}",
        )
    known = pc.is_in(ids.cast(scorer.item_ids.type), scorer.item_ids)
    if pc.any(known).as_py():
        raise DataError(
            f"{ids.filter(known)[0].as_py()!r} ({pc.sum(known).as_py():,} items in all) is in the "
            "model's catalogue",
            file=paths["items"],
            column=schema.item_key,
            remedy="leave such rows out; without --new-items, `recsys score` ranks the catalogue",
        )
    block = scorer.encoder.encode("items", table)
    with torch.no_grad():
        vectors = scorer.model.encode_items(block)
    used = fingerprint(open_table(path, name) for name, path in sorted(paths.items()))
    return NewItems(ids, vectors, used)


def score_new_items(
    scorer: Scorer,
    new: NewItems,
    shards: Shards,
    output: Path,
    *,
    top_customers: int = 100,
    listener: Listener = ignore,
) -> AudienceSummary:
    """Write a probability for every customer and new item, and each item's expected audience.

    A job that was stopped continues where it stopped.

    Raises:
        ConfigError: the model was trained without calibration, or `output` holds another job's
            files.
    """
    if top_customers < 1:
        raise ConfigError(f"--top-customers must be at least 1, got {top_customers}")
    calibration = scorer.calibrated()
    digest = hashlib.sha256(f"{shards.fingerprint} {new.fingerprint}".encode()).hexdigest()
    policies = scorer.policies.model_dump(mode="json")
    job = {"model_id": scorer.bundle.model_id, "requests": digest, "policies": policies}
    parts = {shard.name: partial(_part, scorer, new, shard) for shard in shards.parts}
    there = write_parts(output / CUSTOMERS, job, parts, listener)
    gathered = _Audience(new.ids, top_customers)
    unknown = UnknownItems()
    for shard in shards.parts:
        table = read_columns(output / CUSTOMERS / shard.name)
        unknown.add(table)
        gathered.add(table)
    audience = gathered.table(scorer.schema.item_key, calibration.new)
    with whole_file(output / AUDIENCE) as staging:
        pq.write_table(audience, staging, write_page_checksum=True)
    summary = AudienceSummary(
        str(output),
        scorer.bundle.model_id,
        calibration.period,
        len(shards.parts),
        there,
        gathered.customers,
        len(new.ids),
        float(gathered.expected.sum()),
        unknown.count,
        unknown.first,
    )
    mark_done(output, vars(summary))
    return summary


def _part(scorer: Scorer, new: NewItems, shard: Shard) -> pa.Table:
    """Return the users of a shard with all new items, best first."""
    requests = scorer.encode(shard.read(), shard.origin)
    queries = query_vectors(scorer.model, requests.block, scorer.vectors, requests.history)
    scores, rows = search(ExactVectors(new.vectors), queries, len(new.ids), None)
    events = requests.num_events.unsqueeze(1).numpy()
    probability = scorer.calibrated().new.probability(scores.numpy(), events)
    bounds = pa.array(np.arange(len(queries) + 1) * len(new.ids))
    lists = {
        "items": new.ids.take(pa.array(rows.flatten().numpy())),
        "scores": pa.array(scores.flatten().numpy()),
        "probabilities": pa.array(probability.ravel()),
    }
    columns = {n: pa.LargeListArray.from_arrays(bounds, values) for n, values in lists.items()}
    table = pa.table({scorer.schema.user_key: requests.user_ids, **columns})
    return table.replace_schema_metadata(unknown_metadata(requests))


class _Audience:
    """Sums parts up: the expected users of each of M items, and the K users most likely to."""

    def __init__(self, ids: pa.Array, top: int) -> None:
        self.ids, self.top, self.customers = ids, top, 0
        self.expected = np.zeros(len(ids))
        self._users: list[pa.Array] = []
        # Probability and score of the best so far, and their users' numbers over all parts.
        self._best = np.zeros((2, len(ids), 0))
        self._number = np.zeros((len(ids), 0), np.int64)

    def add(self, part: pa.Table) -> None:
        """Take one part, as `_part` made it."""
        count, size = part.num_rows, len(self.ids)
        place = np.asarray(pc.index_in(part.column("items").combine_chunks().flatten(), self.ids))
        found = np.empty((2, size, count))
        user = np.repeat(np.arange(count), size)
        for row, name in enumerate(("probabilities", "scores")):
            found[row, place, user] = np.asarray(part.column(name).combine_chunks().flatten())
        self.expected += found[0].sum(1)
        number = np.broadcast_to(np.arange(count) + self.customers, (size, count))
        best = np.concatenate([self._best, found], axis=2)
        numbers = np.concatenate([self._number, number], axis=1)
        order = np.lexsort((-best[1], -best[0]), axis=1)[:, : self.top]
        self._best = np.take_along_axis(best, order[None], axis=2)
        self._number = np.take_along_axis(numbers, order, axis=1)
        self._users.append(part.column(0).combine_chunks())
        self.customers += count

    def table(self, item_key: str, calibrator: PairCalibrator) -> pa.Table:
        """Return one row an item, the largest expected audience first."""
        users = pa.concat_arrays(self._users)
        bounds = pa.array(np.arange(len(self.ids) + 1) * self._number.shape[1])

        def lists(values: pa.Array) -> pa.Array:
            return pa.LargeListArray.from_arrays(bounds, values)

        table = pa.table(
            {
                item_key: self.ids,
                "customers": pa.array(np.full(len(self.ids), self.customers)),
                "expected_audience": self.expected,
                "audience_low": self.expected * calibrator.audience_low,
                "audience_high": self.expected * calibrator.audience_high,
                "expected_share": self.expected / max(self.customers, 1),
                "top_customers": lists(users.take(pa.array(self._number.ravel()))),
                "top_probabilities": lists(pa.array(self._best[0].ravel())),
            }
        )
        order: NDArray[np.int64] = np.argsort(-self.expected, kind="stable")
        return table.take(pa.array(order))


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))
