"""Exports over shorter vectors: what they are learnt from and measured with, and how to ask them.

Files and search: `recsys.retrieval.index.reduced`. Half of the probe's queries are learnt from;
recall is measured with the others, and queries near them.

Example:
    files = lambda name: Path("index", name).read_bytes()
    index = load_reduced(files, expected_space_id=space, source="index")
    scores, rows = index.search(queries, 10)   # whole query vectors (B, E); rows of ids.parquet
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from recsys.core.errors import ConfigError
from recsys.retrieval.index.protocol import IndexRequest
from recsys.retrieval.index.reduced import (
    REDUCTION_FILE,
    WHOLE_FILE,
    ReductionSize,
    build_reduced,
)
from recsys.retrieval.index.registry import kinds_by_export
from recsys.serving.export.query_encoding import EncodingSize, more_like
from recsys.serving.export.tuning import Tuning

_HOW = (
    "The index holds {dim} numbers an item in place of {whole_dim}. Multiply a query's vector q by "
    "the matrix `queries` of {file}, ({dim}, {whole_dim}): ask the index with that, by inner "
    "product, for {depth} candidates, or for twice as many as are wanted where that is more. Score "
    "them by the products of q itself and their rows of `vectors` in {whole}, and take the best. "
    "recsys.retrieval.index.reduced.load_reduced does it. recall_at_10 and recall_at_100 are of "
    "lists made so. A new item x is written as the matrix `items` times x."
)


def check_short(
    has_index: bool, encoded: EncodingSize | None, tuning: Tuning | None = None
) -> None:
    """Refuse shorter vectors of what cannot have them.

    Raises:
        ConfigError: there is no index, its search is to be chosen, or items are written as
            encodings.
    """
    if encoded is not None:
        raise ConfigError(
            "--reduce shortens the model's vectors, and --encoding fde writes others: give one of "
            "the two"
        )
    if tuning is not None:
        raise ConfigError(
            "--tune measures indexes of whole vectors: leave out --reduce, or name the index with "
            "--to and leave out --tune"
        )
    if not has_index:
        raise ConfigError(
            "--reduce is measured with an index over the shorter vectors: give --to "
            f"{', '.join(kinds_by_export())}"
        )


def build_short(
    folder: Path, request: IndexRequest, size: ReductionSize, queries: Tensor
) -> dict[str, Any]:
    """Write an index over shorter vectors, learnt from half of the queries (Q, E) or (Q, I, E).

    Raises:
        ConfigError: they would be no shorter.
        UserError: recall is too low; the figures are in the message.
    """
    several = queries if queries.ndim == 3 else queries.unsqueeze(1)
    learnt_from, others = several[::2], several[1::2] if len(several) > 1 else several
    asked = more_like(others, request.geometry).flatten(0, 1)
    measured = replace(request, queries=asked)
    return build_reduced(folder, measured, size, learnt_from.flatten(0, 1))


def how_to_shorten(facts: Mapping[str, Any]) -> str:
    """Say how an index with these facts is asked."""
    about = facts["reduction"]
    return _HOW.format(
        dim=facts["dim"],
        whole_dim=about["whole_dim"],
        depth=about["depth"],
        file=REDUCTION_FILE,
        whole=WHOLE_FILE,
    )
