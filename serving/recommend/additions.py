"""Items of today that the catalogue lacks, known by their features, beside those that it has."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from recsys.features.bundle.searching import VectorSearch
from recsys.features.filters.columns import FreshItems
from recsys.features.kinds.convert import columns_of
from recsys.features.requests.rows import read_side
from recsys.features.schema import Schema
from recsys.retrieval.index.extended import extended
from recsys.serving.recommend.scorer import Scorer


def with_new_items(scorer: Scorer, path: str) -> Scorer:
    """Return a scorer that also recommends items of a table which the catalogue lacks.

    The scorer itself, where there are none, or where the table has not all that the model reads of
    an item; a model that reads the id alone, or counts, knows nothing of a new one.

    Args:
        scorer: of the catalogue.
        path: of the table of items as they are today.

    Raises:
        NotFoundError: there is no such file.
        DataError: a value is not as in training.
    """
    search = scorer.found_by
    if not isinstance(search, VectorSearch):
        return scorer
    schema, known = scorer.schema, scorer.item_ids
    fresh = FreshItems.read(path, schema, scorer.policies, known)
    if not fresh.num_new or not _knows_new_items(schema, fresh):
        return scorer
    table = read_side("items", schema, {"items": path}, scorer.policies)
    assert table is not None
    ids = table.column(schema.item_key).combine_chunks().cast(known.type)
    is_new = pc.invert(pc.is_in(ids, known))
    with torch.no_grad():
        more = scorer.model.encode_items(scorer.encoder.encode("items", table.filter(is_new)))
    count = len(known) + len(more)
    memory, vectors = search.memory, torch.cat([search.vectors, more])
    if memory is not None:
        memory = memory.onto(np.arange(len(known)), count)
        is_known = np.arange(count) < len(known)
        memory = memory.lending(is_known, vectors, search.model.config.memory)
    index = extended(search.index, search.vectors, more)
    larger = replace(search, index=index, vectors=vectors, memory=memory)
    return replace(
        scorer,
        found_by=larger,
        item_ids=pa.concat_arrays([known, ids.filter(is_new)]),
        is_new=np.append(scorer.is_new, np.ones(len(more), bool)),
    )


def _knows_new_items(schema: Schema, fresh: FreshItems) -> bool:
    """Whether the model reads more than the id of an item, and the table has all of it."""
    features = schema.features_of("items")
    read = {name for name in columns_of(features) if name != schema.item_key}
    of_table = all(one.table == "items" for one in features)
    return bool(read) and of_table and schema.items is not None and read <= set(fresh.names)
