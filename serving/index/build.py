"""Indexes of bundles and exports: built, measured against exact search, refused where too bad."""

import json
import time
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors.torch import load
from torch import Tensor

from recsys.bundle.directory import Bundle
from recsys.core.errors import IntegrityError, UserError
from recsys.layers.geometry import Geometry, neighbours_of, points_of
from recsys.retrieval.index import ExactVectors, Index
from recsys.retrieval.topk import exact_topk
from recsys.serving.index.faiss_hnsw import EF_CONSTRUCTION, LINKS, HnswIndex

EXACT_BELOW = 100_000
"""Catalogues below this size are searched exactly by default: it is quick and it is right."""
MEASURED_QUERIES = 2_000
_BREADTHS = (64, 128, 256, 512, 1024, 2048)


class IndexRequest(Protocol):
    """What is asked for: vectors (n, E), sample queries (Q, E), names of space and ids."""

    @property
    def vectors(self) -> Tensor:
        """Vectors of the catalogue."""

    @property
    def geometry(self) -> Geometry:
        """Where they live."""

    @property
    def queries(self) -> Tensor:
        """Queries to measure recall with."""

    @property
    def space_id(self) -> str:
        """Hash of all that shapes an item's vector."""

    @property
    def item_ids_sha256(self) -> str:
        """Hash of the catalogue's ids in order."""

    @property
    def kind(self) -> str:
        """`auto`, `exact` or `hnsw`."""

    @property
    def min_recall(self) -> float:
        """Recall@10 that an approximate index must reach."""


def build_index(folder: Path, request: IndexRequest) -> dict[str, Any]:
    """Write vectors, where asked a graph, and index.json into `folder`; return the facts.

    The exact vectors are always there; the breadth of a graph's search is the smallest that
    reaches `min_recall` on the queries.

    Raises:
        UserError: no breadth reaches it; the figures are in the message.
    """
    vectors = request.vectors.contiguous()
    kind = request.kind
    if kind == "auto":
        kind = "exact" if len(vectors) < EXACT_BELOW else "hnsw"
    facts: dict[str, Any] = {
        "kind": kind,
        "space_id": request.space_id,
        "item_ids_sha256": request.item_ids_sha256,
        "metric": "inner_product",
        "geometry": request.geometry,
        "normalised": request.geometry == "sphere",
        "n": len(vectors),
        "dim": vectors.shape[1],
    }
    ExactVectors(vectors).save(folder)
    if kind == "hnsw":
        started = time.process_time()
        index = HnswIndex.build(vectors, geometry=request.geometry)
        facts["build_cpu_seconds"] = round(time.process_time() - started, 3)
        queries = _sample(request.queries, vectors, request.geometry)
        facts |= _tune(index, queries, request.min_recall)
        index.save(folder)
    else:
        facts |= {"recall_at_10": 1.0, "recall_at_100": 1.0}
    (folder / "index.json").write_text(json.dumps(facts, indent=1, sort_keys=True))
    return facts


def load_index(bundle: Bundle, *, expected_space_id: str) -> tuple[Index, Tensor]:
    """Return the bundle's index and its exact vectors (n, E).

    Raises:
        IntegrityError: the index was built in another space than the model's, or its files do
            not belong together.
    """
    facts = bundle.json("index/index.json")
    if facts["space_id"] != expected_space_id:
        raise IntegrityError(
            f"{bundle.path}: the index holds vectors of space {facts['space_id']}, the model "
            f"answers in space {expected_space_id}: export the index again from this model"
        )
    vectors = load(bundle.read("index/vectors.safetensors"))["vectors"]
    if tuple(vectors.shape) != (facts["n"], facts["dim"]):
        raise IntegrityError(
            f"{bundle.path}: index.json says {facts['n']} x {facts['dim']}, the vectors are "
            f"{tuple(vectors.shape)}"
        )
    if facts["kind"] == "hnsw":
        data = bundle.read("index/index.faiss")
        geometry = facts.get("geometry", "sphere")
        return HnswIndex.from_bytes(data, vectors, facts["ef"], geometry), vectors
    return ExactVectors(vectors), vectors


def recall_against_exact(index: Index, queries: Tensor, vectors: Tensor, k: int) -> float:
    """Return the share of the exact k best that `index` finds, the mean over queries (Q, E)."""
    k = min(k, len(vectors))
    truth = exact_topk(queries, vectors, k)[1]
    found = index.search(queries, k)[1]
    return float((truth.unsqueeze(2) == found.unsqueeze(1)).any(2).float().mean())


def _tune(index: HnswIndex, queries: Tensor, min_recall: float) -> dict[str, Any]:
    """Widen the search until recall@10 holds; return the measured facts."""
    recall = 0.0
    for index.ef in _BREADTHS:
        recall = recall_against_exact(index, queries, index.vectors, 10)
        if recall >= min_recall:
            break
    else:
        raise UserError(
            f"HNSW reaches recall@10 {recall:.4f} at ef {index.ef} over {len(index)} items, "
            f"{min_recall} is wanted: lower min_recall, or use the exact index"
        )
    return {
        "recall_at_10": recall,
        "recall_at_100": recall_against_exact(index, queries, index.vectors, 100),
        "recall_queries": len(queries),
        "ef": index.ef,
        "graph_metric": "l2" if index.geometry == "ball" else "inner_product",
        "graph_dim": int(index.graph.d),
        "links": LINKS,
        "ef_construction": EF_CONSTRUCTION,
    }


def _sample(queries: Tensor, vectors: Tensor, geometry: Geometry) -> Tensor:
    """At most `MEASURED_QUERIES` of the queries; item vectors with noise make up for too few."""
    generator = torch.Generator().manual_seed(0)
    missing = MEASURED_QUERIES // 2 - len(queries)
    if missing > 0:
        rows = torch.randint(0, len(vectors), (missing,), generator=generator)
        width = points_of(vectors, geometry).shape[1]
        noise = torch.randn(missing, width, generator=generator) * 0.5 / width**0.5
        queries = torch.cat([queries, neighbours_of(vectors[rows], geometry, noise)])
    order = torch.randperm(len(queries), generator=generator)
    return queries[order[:MEASURED_QUERIES]].contiguous()
