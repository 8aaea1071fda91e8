"""Exports for queries of several vectors: how to ask them, and one encoding for all of a query's.

    export.json              how to ask: several searches to merge, or encodings and their size
    hyperplanes.safetensors  of encodings: what decides the cells, (repetitions, dim, bits) float32

Example:
    encoding = read_encoding(Path("index"))
    vectors = query_encodings(scorer, encoding, requests)   # (B, W): what the index is asked
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from safetensors.torch import load, save
from torch import Tensor

from recsys.core.errors import ConfigError, IntegrityError, NotFoundError
from recsys.layers.choices import Geometry
from recsys.layers.geometry import neighbours_of, points_of
from recsys.models.retrieval import query_vectors
from recsys.retrieval.index.exact import ExactVectors
from recsys.retrieval.index.recall import MEASURED_QUERIES
from recsys.retrieval.interests import search
from recsys.retrieval.muvera import FixedDimensionalEncoding
from recsys.serving.export.manifest import EXPORT_FILE, open_export
from recsys.serving.recommend.scorer import Scorer

PLANES_FILE = "hyperplanes.safetensors"
_MERGED = (
    "A query has {interests} vectors, and an item's score is the best over them: search with each "
    "for k items, keep an item's best score where several found it, and take the k best. That is "
    "exact where the searches are; recsys.retrieval.interests does it."
)
_REPEATS = (
    "A query is one vector, and a number that the items of its own session gain: search for the k "
    "best of all other items, add the number to the products with the session's own, and take the "
    "k best of both; recsys.retrieval.repeats does it."
)
_NEVER = "A query is one vector. Leave the items of its own session out of what is found."
_HOW_REPEATS = {True: _REPEATS, "never": _NEVER}
_ENCODED = (
    "A query is the one vector that recsys.serving.export.query_encoding.query_encodings makes of "
    "it with hyperplanes.safetensors. Products estimate the best score over its {interests} "
    "interests and never exceed it; score what is found by the interests themselves where the "
    "order matters."
)


@dataclass(frozen=True)
class EncodingSize:
    """Hyperplanes, repetitions and the seed that draws them: see `recsys.retrieval.muvera`."""

    bits: int = 3
    repetitions: int = 8
    seed: int = 0


def encoding_of(scorer: Scorer, size: EncodingSize) -> FixedDimensionalEncoding:
    """Return the encoding of a model's vectors.

    Raises:
        ConfigError: the model has one interest.
    """
    config = scorer.model.config
    if config.interests == 1:
        raise ConfigError(
            f"--encoding fde makes one vector of several, and {scorer.bundle.path} has one a query "
            "already (model.interests: 1), which any index takes as it is: leave out --encoding"
        )
    return FixedDimensionalEncoding(
        scorer.vectors.shape[1],
        bits=size.bits,
        repetitions=size.repetitions,
        seed=size.seed,
        cell_dim=config.dim,
    )


def write_encoding(
    folder: Path,
    scorer: Scorer,
    encoding: FixedDimensionalEncoding,
    size: EncodingSize,
    queries: Tensor,
) -> dict[str, Any]:
    """Write the hyperplanes; return size and recall, measured on queries (Q, I, E)."""
    (folder / PLANES_FILE).write_bytes(save({"hyperplanes": encoding.planes.contiguous()}))
    facts = {"bits": size.bits, "repetitions": size.repetitions, "seed": size.seed}
    found = {
        f"interest_recall_at_{k}": interest_recall(encoding, scorer.vectors, queries, k)
        for k in (10, 100)
    }
    return {"encoding": "fde", **facts, "vector_dim": encoding.dim, **found}


def read_encoding(folder: Path) -> FixedDimensionalEncoding:
    """Return the encoding that an export in `folder` was made with.

    Raises:
        NotFoundError: the export has none.
        IntegrityError: a file of the export is not what was written.
    """
    export = open_export(folder)
    path, facts = folder / PLANES_FILE, export.facts
    if PLANES_FILE not in export.names():
        raise NotFoundError(f"{path}: no such file; `recsys export --encoding fde` writes one")
    planes = load(export.read(PLANES_FILE))["hyperplanes"]
    wanted = (facts["repetitions"], facts["vector_dim"], facts["bits"])
    if tuple(planes.shape) != wanted:
        raise IntegrityError(f"{path}: {tuple(planes.shape)}, {EXPORT_FILE} says {wanted}")
    return FixedDimensionalEncoding.of_planes(planes)


def query_encodings(
    scorer: Scorer, encoding: FixedDimensionalEncoding, requests: pa.Table
) -> Tensor:
    """Return what an export of encodings is asked for each request, (B, W) float32."""
    return encoding.queries(query_vectors_of_requests(scorer, requests))


def query_vectors_of_requests(scorer: Scorer, requests: pa.Table) -> Tensor:
    """Return the vectors of each request, (B, E), or (B, I, E) of several interests."""
    encoded = scorer.encode(requests)
    found = query_vectors(scorer.model, encoded.block, scorer.vectors, encoded.history)
    return scorer.model.without_gain(found)[0]


def how_to_ask(scorer: Scorer, encoding: FixedDimensionalEncoding | None) -> str:
    """Say what a query is to the exported vectors."""
    interests = scorer.model.config.interests
    if encoding is not None:
        return _ENCODED.format(interests=interests)
    repeats = scorer.model.config.repeats
    if repeats in _HOW_REPEATS:
        return _HOW_REPEATS[repeats]
    return "A query is one vector." if interests == 1 else _MERGED.format(interests=interests)


def interest_recall(
    encoding: FixedDimensionalEncoding, vectors: Tensor, queries: Tensor, k: int
) -> dict[str, float]:
    """Return the share of the k best by all interests that one vector a query finds exactly.

    Of the encodings; of their first 10 k, scored by all interests; and of simpler vectors.
    """
    wide, k = min(10 * k, len(vectors)), min(k, len(vectors))
    wanted = search(ExactVectors(vectors), queries, k)[1]
    ways = {
        "encoded": (encoding.items(vectors), encoding.queries(queries)),
        "mean of the interests": (vectors, queries.mean(1)),
        "one interest": (vectors, queries[:, 0]),
    }
    found = {
        name: search(ExactVectors(items), asked, wide)[1] for name, (items, asked) in ways.items()
    }
    shares = {name: _share(wanted, top[:, :k]) for name, top in found.items()}
    return {**shares, "encoded, ten times as many rescored": _share(wanted, found["encoded"])}


def more_like(queries: Tensor, geometry: Geometry) -> Tensor:
    """Return queries (Q, I, E) and, where an index's recall needs more, others near them."""
    times = -(-(MEASURED_QUERIES // 2) // len(queries))
    flat = queries.flatten(0, 1)
    width = points_of(flat, geometry).shape[1]
    generator = torch.Generator().manual_seed(0)
    near = [queries]
    for _ in range(times - 1):
        noise = torch.randn(len(flat), width, generator=generator) * 0.25 / width**0.5
        near.append(neighbours_of(flat, geometry, noise).view_as(queries))
    return torch.cat(near)


def _share(wanted: Tensor, found: Tensor) -> float:
    return float((wanted.unsqueeze(2) == found.unsqueeze(1)).any(2).float().mean())
