"""Indexes of bundles and exports: built, measured against exact search, refused where too bad."""

import json
from pathlib import Path
from typing import Any

from safetensors.torch import load, save
from torch import Tensor

from recsys.core.errors import IntegrityError
from recsys.retrieval.index.protocol import Index, IndexRequest, Read
from recsys.retrieval.index.registry import BACKENDS, kind_for

FACTS_FILE, VECTORS_FILE = "index.json", "vectors.safetensors"


def build_index(folder: Path, request: IndexRequest) -> dict[str, Any]:
    """Write vectors, the files of a library and index.json into `folder`; return the facts.

    The exact vectors are always there; an approximate search makes the cheapest effort that reaches
    `min_recall` on the queries.

    Raises:
        ConfigError: the library of `request.kind` is not installed.
        UserError: no effort reaches it; the figures are in the message.
    """
    kind = kind_for(request.kind, *request.vectors.shape)
    facts = with_vectors(folder, request, kind) | BACKENDS[kind].build(folder, request)
    write_facts(folder, facts)
    return facts


def with_vectors(folder: Path, request: IndexRequest, kind: str) -> dict[str, Any]:
    """Write the exact vectors into `folder`; return the facts that indexes of all kinds have."""
    vectors = request.vectors.contiguous()
    (folder / VECTORS_FILE).write_bytes(save({"vectors": vectors}))
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
    if request.compatible_since:
        facts["compatible_since"] = list(request.compatible_since)
    return facts


def write_facts(folder: Path, facts: dict[str, Any]) -> None:
    """Write index.json into `folder`."""
    (folder / FACTS_FILE).write_text(json.dumps(facts, indent=1, sort_keys=True))


def read_facts(read: Read) -> dict[str, Any]:
    """Return what index.json says."""
    facts: dict[str, Any] = json.loads(read(FACTS_FILE))
    return facts


def load_index(read: Read, *, expected_space_id: str, source: object) -> tuple[Index, Tensor]:
    """Return an index and its exact vectors (n, E).

    Args:
        read: gives the verified bytes of the index's files.
        expected_space_id: the space in which the model answers.
        source: the path of the files, for messages.

    Raises:
        ConfigError: the library that built it is not installed.
        IntegrityError: the index was built in another space than the model's, or its files do
            not belong together.
    """
    facts = read_facts(read)
    if facts["space_id"] != expected_space_id:
        raise IntegrityError(
            f"{source}: the index holds vectors of space {facts['space_id']}, the model "
            f"answers in space {expected_space_id}: export the index again from this model"
        )
    vectors = load(read(VECTORS_FILE))["vectors"]
    if tuple(vectors.shape) != (facts["n"], facts["dim"]):
        raise IntegrityError(
            f"{source}: index.json says {facts['n']} x {facts['dim']}, the vectors are "
            f"{tuple(vectors.shape)}"
        )
    backend = BACKENDS.get(facts["kind"])
    if backend is None:
        raise IntegrityError(
            f"{source}: index.json says kind '{facts['kind']}', this engine has "
            f"{', '.join(BACKENDS)}: update the engine, or export the index again"
        )
    return backend.open(read, facts, vectors), vectors
