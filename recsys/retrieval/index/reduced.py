"""Search among shorter vectors, put in order by the whole ones.

    reduction.safetensors   matrices of items and of queries, both (D, E) float32
    whole.safetensors       vectors (n, E) float32
    index.json              `reduction`: which, from which width, how many candidates are scored

next to the files of an index over the short vectors (n, D). See `recsys.retrieval.reduction`.

Shape letters: B queries, n items, E whole width, D reduced width, M candidates.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor

from recsys.core.errors import ConfigError, IntegrityError, UserError
from recsys.core.strict import nearest
from recsys.data.batch import Jagged
from recsys.retrieval.index.build import FACTS_FILE, build_index, load_index, read_facts
from recsys.retrieval.index.protocol import Index, IndexRequest, Read
from recsys.retrieval.index.recall import measured_queries, recall_against_exact
from recsys.retrieval.pairs import score_pairs, top_of_pairs
from recsys.retrieval.reduction import SOLVERS, Reduction, reduction_of

REDUCTION_FILE, WHOLE_FILE = "reduction.safetensors", "whole.safetensors"
DEPTHS = (20, 50, 100, 200, 400, 800)
"""Numbers of candidates that are tried, the smallest first."""


@dataclass(frozen=True)
class ReductionSize:
    """Which reduction, a name in `SOLVERS`, and D; written `leanvec:32`."""

    solver: str
    dim: int

    @classmethod
    def of(cls, text: str) -> "ReductionSize":
        """Return what `text` names.

        Raises:
            ConfigError: it names nothing.
        """
        solver, _, dim = text.partition(":")
        if solver not in SOLVERS:
            raise ConfigError(
                f"there is no reduction '{solver}'{nearest(solver, list(SOLVERS))}; there are "
                f"{', '.join(SOLVERS)}: write one and a width, as in leanvec:32"
            )
        if not dim.isdecimal() or int(dim) < 1:
            raise ConfigError(f"a reduction is a name and a width, as in {solver}:32, got '{text}'")
        return cls(solver, int(dim))


class Reduced:
    """Candidates from an index over short vectors, scored by the whole ones; see `Index`.

    `depth` candidates are asked for, and never fewer than twice the length of the list. What is
    found is in the order of its exact scores. A list is short only where items are.
    """

    def __init__(self, inner: Index, reduction: Reduction, vectors: Tensor, depth: int) -> None:
        """Take an index over the short vectors of `vectors` (n, E) float32."""
        self.inner, self.reduction, self.vectors = inner, reduction, vectors
        self.depth = depth

    @property
    def dim(self) -> int:
        """E."""
        return self.vectors.shape[1]

    def __len__(self) -> int:
        return len(self.vectors)

    def search(
        self, queries: Tensor, k: int, exclude: Jagged | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return nearly the k best, with exact scores; see `Index.search`."""
        asked = self.reduction.of_queries(queries).contiguous()
        depth = min(max(self.depth, 2 * k), len(self))
        rows = self.inner.search(asked, max(depth, k), exclude)[1].numpy()
        query, place = (rows >= 0).nonzero()
        row = rows[query, place]
        exact = score_pairs(queries.contiguous(), self.vectors, query, row)
        scores, found = top_of_pairs(
            query, row, exact, num_queries=len(queries), num_rows=len(self), k=k
        )
        return torch.from_numpy(scores), torch.from_numpy(found)


def build_reduced(
    folder: Path, request: IndexRequest, size: ReductionSize, learnt_from: Tensor
) -> dict[str, Any]:
    """Write an index over short vectors, the matrices and the whole vectors; return the facts.

    The index over short vectors reaches `min_recall` by itself; the number of candidates is the
    smallest of `DEPTHS` with which the k best by whole vectors are found so often, too.

    Args:
        folder: that is written to.
        request: of whole vectors, and queries to measure with.
        size: of the short vectors.
        learnt_from: (Q, E) queries that the matrices are learnt from, others than those.

    Raises:
        ConfigError: the short vectors would be no shorter; a library is not installed.
        UserError: no number of candidates reaches it; the figures are in the message.
    """
    vectors, whole = request.vectors.contiguous(), request.vectors.shape[1]
    if size.dim >= whole:
        raise ConfigError(
            f"{size.solver}:{size.dim} is no shorter than the model's vectors of width {whole}: "
            f"name a width below {whole}, or leave the reduction out"
        )
    reduction = reduction_of(SOLVERS[size.solver], vectors, learnt_from, size.dim)
    queries = measured_queries(request)
    # Products of short vectors represent no distance, and their length is not 1.
    short = replace(
        request,
        vectors=reduction.of_items(vectors),
        geometry="biased_sphere",
        queries=reduction.of_queries(queries),
    )
    facts = build_index(folder, short)
    inner = load_index(_reader(folder), expected_space_id=request.space_id, source=folder)[0]
    index = Reduced(inner, reduction, vectors, DEPTHS[0])
    facts["reduction"] = {
        "solver": size.solver,
        "whole_dim": whole,
        "recall_at_10_of_short_lists": facts.pop("recall_at_10"),
        "recall_at_100_of_short_lists": facts.pop("recall_at_100"),
        "learnt_from_queries": len(learnt_from),
    }
    facts |= _measured(index, queries, request.min_recall, size)
    facts["reduction"]["depth"] = index.depth
    (folder / REDUCTION_FILE).write_bytes(save(_tensors(reduction)))
    (folder / WHOLE_FILE).write_bytes(save({"vectors": vectors}))
    (folder / FACTS_FILE).write_text(json.dumps(facts, indent=1, sort_keys=True))
    return facts


def load_reduced(read: Read, *, expected_space_id: str, source: object) -> Reduced:
    """Return what `build_reduced` wrote.

    Args:
        read: gives the verified bytes of the files.
        expected_space_id: the space in which the model answers.
        source: the path of the files, for messages.

    Raises:
        ConfigError: the library that built the index is not installed.
        IntegrityError: the files were written for another space, do not belong together, or hold
            no reduction.
    """
    facts = read_facts(read)
    about: Mapping[str, Any] | None = facts.get("reduction")
    if about is None:
        raise IntegrityError(f"{source}: index.json names no reduction; `load_index` opens it")
    inner, short = load_index(read, expected_space_id=expected_space_id, source=source)
    reduction, vectors = Reduction(**load(read(REDUCTION_FILE))), load(read(WHOLE_FILE))["vectors"]
    found = (tuple(reduction.items.shape), tuple(reduction.queries.shape), tuple(vectors.shape))
    width = about["whole_dim"]
    wanted = ((short.shape[1], width), (short.shape[1], width), (len(short), width))
    if found != wanted:
        raise IntegrityError(
            f"{source}: index.json says {width} numbers a vector, {short.shape[1]} of them kept, "
            f"of {len(short)} items; the matrices and vectors are {found}"
        )
    return Reduced(inner, reduction, vectors, about["depth"])


def _measured(
    index: Reduced, queries: Tensor, min_recall: float, size: ReductionSize
) -> dict[str, Any]:
    """Score more candidates until recall@10 holds; return what was measured."""
    recall = 0.0
    for index.depth in DEPTHS:
        recall = recall_against_exact(index, queries, index.vectors, 10)
        if recall >= min_recall:
            break
    else:
        raise UserError(
            f"{size.solver}:{size.dim} reaches recall@10 {recall:.4f} with {index.depth} "
            f"candidates scored by whole vectors, {min_recall} is wanted: keep more numbers of a "
            f"vector than {size.dim}, or lower min_recall"
        )
    return {
        "recall_at_10": recall,
        "recall_at_100": recall_against_exact(index, queries, index.vectors, 100),
        "recall_queries": len(queries),
    }


def _tensors(reduction: Reduction) -> dict[str, Tensor]:
    return {name: tensor.contiguous() for name, tensor in vars(reduction).items()}


def _reader(folder: Path) -> Read:
    return lambda name: (folder / name).read_bytes()
