"""Exports for ANN serving: the item vectors or an index, checked against the bundle's ids."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from torch import Tensor

from recsys.core.atomic import publish, staged_folder
from recsys.core.errors import ConfigError
from recsys.core.folders import check_folder
from recsys.features.bundle.files import index_files, read_request_probe
from recsys.layers.geometry import Geometry
from recsys.retrieval.index.build import build_index, read_facts, write_facts
from recsys.retrieval.index.protocol import IndexRequest
from recsys.retrieval.index.reduced import ReductionSize
from recsys.retrieval.index.registry import kinds_by_export
from recsys.retrieval.muvera import FixedDimensionalEncoding
from recsys.serving.export.query_encoding import (
    EXPORT_FILE,
    EncodingSize,
    encoding_of,
    how_to_ask,
    more_like,
    query_vectors_of_requests,
    write_encoding,
)
from recsys.serving.export.short_vectors import build_short, check_short, how_to_shorten
from recsys.serving.recommend.scorer import Scorer

_NO_MEMORY = (
    "the model adds what followed the last items before to its scores; that is not in the index, "
    "whose lists are those of the model without its memory"
)
_OF_VECTORS = ("space_id", "n", "dim", "metric", "geometry", "normalised")
VECTORS = "parquet"
"""What `recsys export --to` calls vectors without an index."""


def export_index(
    bundle: Path,
    target: str,
    out: Path,
    *,
    min_recall: float,
    encoded: EncodingSize | None = None,
    reduced: ReductionSize | None = None,
) -> dict[str, Any]:
    """Write the vectors of a bundle (`parquet`), or an index over them, to `out`.

    `target` is `parquet` or what a backend of `recsys.retrieval.index.registry` is called.

    `out` gets `ids.parquet` (row, item id) next to the index, or for `parquet` one table of item
    id and vector; `export.json` says how to ask. With `encoded`, items are written as encodings
    that one vector of a query with several interests searches
    (`recsys.serving.export.query_encoding`). With `reduced`, the index is over shorter vectors, and
    the whole ones lie beside it (`recsys.serving.export.short_vectors`). A memory of pairs is not
    exported. Returns what was written and, for an index, its measured recall.

    Raises:
        ConfigError: `out` exists or is named as a file, `min_recall` is no share, encodings are
            wanted of a model with one interest, or shorter vectors of what has no index.
        IntegrityError: the bundle is not what was written.
        UserError: the index does not reach `min_recall`.
    """
    check_folder(out, "item vectors or an index, and export.json")
    if out.exists():
        raise ConfigError(f"{out} exists; choose another --out, an export is never overwritten")
    if reduced is not None:
        check_short(target != VECTORS, encoded)
    scorer = Scorer.open(bundle)
    queries, stored = _probe(scorer), read_facts(index_files(scorer.bundle))
    encoding = None if encoded is None else encoding_of(scorer, encoded)
    vectors, geometry, asked = _searched(scorer, encoding, queries)
    with staged_folder(out.resolve().parent, out.name) as staging:
        if target == VECTORS:
            facts = {k: stored[k] for k in _OF_VECTORS if k in stored}
            _write_vectors(staging / "vectors.parquet", scorer.item_ids, vectors)
        else:
            request = IndexRequest(
                vectors=vectors,
                geometry=geometry,
                queries=asked,
                space_id=stored["space_id"],
                item_ids_sha256=stored["item_ids_sha256"],
                kind=kinds_by_export()[target],
                min_recall=min_recall,
            )
            facts = _write_index(staging, request, reduced, queries)
            _write_ids(staging / "ids.parquet", scorer.item_ids)
        facts["interests"] = scorer.model.config.interests
        if encoding is not None and encoded is not None:
            facts |= {"dim": encoding.width, "normalised": False, "geometry": stored["geometry"]}
            facts |= write_encoding(staging, scorer, encoding, encoded, queries)
        write_facts(staging, facts)
        how = _how(scorer, encoding, facts)
        (staging / EXPORT_FILE).write_text(json.dumps(how, indent=1))
        publish(staging, out.resolve())
    return {"out": str(out), "model_id": scorer.bundle.model_id, **facts}


def _searched(
    scorer: Scorer, encoding: FixedDimensionalEncoding | None, queries: Tensor
) -> tuple[Tensor, Geometry, Tensor]:
    """Return the vectors of items, where they live, and what an index over them is asked."""
    geometry = scorer.model.config.geometry
    if encoding is None:
        return scorer.vectors, geometry, queries.flatten(0, -2)  # every interest by itself
    # Products of encodings, like those of the biased sphere, represent no distance.
    asked = encoding.queries(more_like(queries, geometry))
    return encoding.items(scorer.vectors), "biased_sphere", asked


def _how(
    scorer: Scorer, encoding: FixedDimensionalEncoding | None, facts: dict[str, Any]
) -> dict[str, Any]:
    """Return what export.json says."""
    how = {"model_id": scorer.bundle.model_id, "queries": how_to_ask(scorer, encoding), **facts}
    how |= {"short_vectors": how_to_shorten(facts)} if "reduction" in facts else {}
    return how | ({} if scorer.memory is None else {"memory": _NO_MEMORY})


def _write_index(
    folder: Path, request: IndexRequest, reduced: ReductionSize | None, queries: Tensor
) -> dict[str, Any]:
    if reduced is None:
        return build_index(folder, request)
    return build_short(folder, request, reduced, queries)


def _write_ids(path: Path, item_ids: pa.Array) -> None:
    ids = pa.table({"row": range(len(item_ids)), "item_id": item_ids})
    pq.write_table(ids, path, write_page_checksum=True)


def _write_vectors(path: Path, item_ids: pa.Array, vectors: Tensor) -> None:
    flat = pa.array(vectors.reshape(-1).numpy())
    lists = pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])
    table = pa.table({"item_id": item_ids, "vector": lists})
    pq.write_table(table, path, write_page_checksum=True)


def _probe(scorer: Scorer) -> Tensor:
    """Query vectors of the probe's requests, (Q, E) or (Q, I, E): what the index will be asked."""
    return query_vectors_of_requests(scorer, read_request_probe(scorer.bundle))
