"""Exports for ANN serving: the item vectors or an index, checked against the bundle's ids."""

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from recsys.atomic import publish, staged_folder
from recsys.errors import ConfigError
from serving.index.build import build_index
from serving.score import Scorer


@dataclass(frozen=True)
class _Request:
    vectors: Tensor
    queries: Tensor
    space_id: str
    item_ids_sha256: str
    kind: str
    min_recall: float


def export_index(bundle: Path, target: str, out: Path, *, min_recall: float) -> dict[str, Any]:
    """Write the vectors (`parquet`, `exact`) or an HNSW index (`faiss`) of a bundle to `out`.

    `out` gets `ids.parquet` (row, item id) beside the index, or for `parquet` one table of item
    id and vector. Returns what was written and, for an index, its measured recall.

    Raises:
        ConfigError: `out` exists.
        IntegrityError: the bundle is not what was written.
        UserError: the index does not reach `min_recall`.
    """
    if out.exists():
        raise ConfigError(f"{out} exists; choose another --out, an export is never overwritten")
    scorer = Scorer.open(bundle)
    stored = scorer.bundle.json("index/index.json")
    with staged_folder(out.resolve().parent, out.name) as staging:
        if target == "parquet":
            facts = {k: stored[k] for k in ("space_id", "n", "dim", "metric", "normalised")}
            _write_vectors(staging / "vectors.parquet", scorer)
            (staging / "index.json").write_text(json.dumps(facts, indent=1))
        else:
            request = _Request(
                vectors=scorer.vectors,
                queries=_probe_queries(scorer),
                space_id=stored["space_id"],
                item_ids_sha256=stored["item_ids_sha256"],
                kind="hnsw" if target == "faiss" else "exact",
                min_recall=min_recall,
            )
            facts = build_index(staging, request)
            ids = pa.table({"row": range(len(scorer.item_ids)), "item_id": scorer.item_ids})
            pq.write_table(ids, staging / "ids.parquet", write_page_checksum=True)
        publish(staging, out.resolve())
    return {"out": str(out), "model_id": scorer.bundle.model_id, **facts}


def _write_vectors(path: Path, scorer: Scorer) -> None:
    width = scorer.vectors.shape[1]
    flat = pa.array(scorer.vectors.reshape(-1).numpy())
    vectors = pa.FixedSizeListArray.from_arrays(flat, width)
    table = pa.table({"item_id": scorer.item_ids, "vector": vectors})
    pq.write_table(table, path, write_page_checksum=True)


def _probe_queries(scorer: Scorer) -> Tensor:
    """Query vectors of the probe's requests: what the index will be asked."""
    probe = pq.read_table(io.BytesIO(scorer.bundle.read("probe.parquet")))
    requests = scorer.encode(probe)
    with torch.no_grad():
        return scorer.model.encode_queries(requests.block, scorer.vectors, requests.history)
