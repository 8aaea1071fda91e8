"""Exports of models with vectors: for a library of indexes or a vector store, with a manifest.

A folder holds the target's files (`recsys.serving.export.stores`), `queries.parquet`, `README.md`
and `export.json` (`recsys.serving.export.manifest`).
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from recsys.core.atomic import publish, staged_folder
from recsys.core.errors import ConfigError
from recsys.core.folders import check_folder
from recsys.features.bundle.files import index_files, read_request_probe
from recsys.layers.choices import Geometry
from recsys.retrieval.index.build import FACTS_FILE, build_index, read_facts, write_facts
from recsys.retrieval.index.protocol import IndexRequest
from recsys.retrieval.index.reduced import ReductionSize
from recsys.retrieval.index.registry import AUTO, BACKENDS, kinds_by_export
from recsys.retrieval.muvera import FixedDimensionalEncoding
from recsys.serving.export.manifest import EXPORT_FILE, write_manifest
from recsys.serving.export.page import write_page
from recsys.serving.export.payload import payload_of
from recsys.serving.export.query_encoding import (
    EncodingSize,
    encoding_of,
    how_to_ask,
    more_like,
    query_vectors_of_requests,
    write_encoding,
)
from recsys.serving.export.short_vectors import build_short, check_short, how_to_shorten
from recsys.serving.export.stores.protocol import Build, Content, write_probe
from recsys.serving.export.stores.registry import target_of
from recsys.serving.export.tuning import Tuning, tuned_index
from recsys.serving.recommend.scorer import Scorer

_NO_MEMORY = (
    "the model adds what followed the last items before to its scores; that is not in the index, "
    "whose lists are those of the model without its memory"
)


def export_index(
    bundle: Path,
    target: str | None,
    out: Path,
    *,
    min_recall: float,
    encoded: EncodingSize | None = None,
    columns: Sequence[str] | None = None,
    reduced: ReductionSize | None = None,
    tuning: Tuning | None = None,
) -> dict[str, Any]:
    """Write the item vectors of a bundle to the folder `out`, in the form of a target.

    A memory of pairs is not exported.

    Args:
        bundle: of a model with vectors.
        target: a name of `recsys.serving.export.stores.registry.targets`; None, with `tuning`: the
            index of any kind.
        out: folder to make.
        min_recall: an index below this is refused.
        encoded: size of encodings that stand for several vectors of a query; None: vectors.
        columns: of the items that go along; None: all that a store can hold.
        reduced: size of shorter vectors; None: whole ones.
        tuning: of the search; None: that of the kind of index.

    Returns:
        What was written and, for an index, its measured recall.

    Raises:
        ConfigError: `out` exists or is named as a file, `min_recall` is no share, a column is not
            there, encodings are wanted of a model with one interest, or what has no index is to be
            tuned or shortened.
        IntegrityError: the bundle is not what was written.
        UserError: the index does not reach `min_recall`, or the store cannot hold the items.
    """
    check_folder(out, "item vectors or an index, and export.json")
    if out.exists():
        raise ConfigError(f"{out} exists; choose another --out, an export is never overwritten")
    _check(target, encoded, reduced, tuning)
    writer = target_of(target)
    writer.require()
    scorer = Scorer.open(bundle)
    source = _source(scorer, encoded)
    build = _build_of(source, reduced, tuning)
    content = Content(_request(scorer, source, min_recall), payload_of(scorer, columns), build)
    with staged_folder(out.resolve().parent, out.name) as staging:
        facts = writer.write(staging, content)
        facts |= {"interests": scorer.model.config.interests}
        facts |= _encoding_facts(staging, scorer, source, encoded)
        if (staging / FACTS_FILE).exists():
            write_facts(staging, facts)
        write_probe(staging, content)
        how = _described(scorer, source.encoding, content) | facts
        how |= {} if reduced is None else {"short_vectors": how_to_shorten(facts)}
        write_page(staging, writer.page(content, facts), content, how)
        write_manifest(staging, target or BACKENDS[facts["kind"]].export_name, how)
        publish(staging, out.resolve(), EXPORT_FILE)
    return {"out": str(out), "model_id": scorer.bundle.model_id, **facts}


def _check(
    target: str | None,
    encoded: EncodingSize | None,
    reduced: ReductionSize | None,
    tuning: Tuning | None,
) -> None:
    """Refuse what does not go together."""
    has_index = target is None or target in kinds_by_export()
    if reduced is not None:
        check_short(has_index, encoded, tuning)
    if tuning is not None and not has_index:
        raise ConfigError(f"--tune chooses an index, and --to {target} has none: leave out one")


@dataclass(frozen=True)
class _Source:
    """What is exported, and what asks it.

    vectors: (n, W), of items in `geometry`. queries: of the bundle's probe, (Q, E) or (Q, I, E).
    asked: what the target is asked with, (Q', W). encoding: of several interests, if wanted.
    """

    vectors: Tensor
    geometry: Geometry
    queries: Tensor
    asked: Tensor
    encoding: FixedDimensionalEncoding | None = None


def _encoding_facts(
    folder: Path, scorer: Scorer, source: _Source, encoded: EncodingSize | None
) -> dict[str, Any]:
    """Write what makes encodings, where there are any; return the facts of them."""
    if source.encoding is None or encoded is None:
        return {}
    own: dict[str, Any] = {"dim": source.encoding.width, "normalised": False}
    own["geometry"] = scorer.model.config.geometry
    return own | write_encoding(folder, scorer, source.encoding, encoded, source.queries)


def _source(scorer: Scorer, size: EncodingSize | None) -> _Source:
    vectors, geometry = scorer.vectors, scorer.model.config.geometry
    queries = query_vectors_of_requests(scorer, read_request_probe(scorer.bundle))
    if size is None:  # every interest searches by itself
        return _Source(vectors, geometry, queries, queries.flatten(0, -2))
    encoding = encoding_of(scorer, size)
    asked = encoding.queries(more_like(queries, geometry))
    # Products of encodings, like those of the biased sphere, represent no distance.
    return _Source(encoding.items(vectors), "biased_sphere", queries, asked, encoding)


def _build_of(source: _Source, reduced: ReductionSize | None, tuning: Tuning | None) -> Build:
    """Return how an index is built."""
    if reduced is not None:
        return partial(build_short, size=reduced, queries=source.queries)
    return build_index if tuning is None else partial(tuned_index, tuning=tuning)


def _request(scorer: Scorer, source: _Source, min_recall: float) -> IndexRequest:
    stored = read_facts(index_files(scorer.bundle))
    return IndexRequest(
        vectors=source.vectors,
        geometry=source.geometry,
        queries=source.asked,
        space_id=stored["space_id"],
        item_ids_sha256=stored["item_ids_sha256"],
        kind=AUTO,
        min_recall=min_recall,
        compatible_since=tuple(stored.get("compatible_since", ())),
    )


def _described(
    scorer: Scorer, encoding: FixedDimensionalEncoding | None, content: Content
) -> dict[str, Any]:
    """Return what export.json says before the facts of the target."""
    types = {field.name: str(field.type) for field in content.items.schema}
    how = {
        "model_id": scorer.bundle.model_id,
        "queries": how_to_ask(scorer, encoding),
        "key": content.key,
        "columns": types,
        "filter": [asdict(condition) for condition in content.example],
    }
    how |= {"left_out": content.payload.left_out} if content.payload.left_out else {}
    return how | ({} if scorer.memory is None else {"memory": _NO_MEMORY})
