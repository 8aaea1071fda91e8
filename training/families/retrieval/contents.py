"""What the training of a model that retrieves leaves in a bundle."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
from torch import Tensor

from recsys.bundle.compatible import CompatibleSpace
from recsys.bundle.pair_calibration import InteractionProbability
from recsys.bundle.relevance import Relevance
from recsys.bundle.weights import load_retrieval, save_weights, space_id
from recsys.features.bundle.description import ModelDescription
from recsys.features.bundle.measured import Kept
from recsys.features.bundle.model_bundle import layouts_of
from recsys.features.bundle.request_probe import with_answers
from recsys.features.bundle.writing import ListAnswers, ModelContents, write_model
from recsys.features.dataset.dataset import Dataset
from recsys.features.requests.table import ids_sha256
from recsys.models.retrieval import RetrievalModel, catalogue_vectors
from recsys.retrieval.index.exact import ExactVectors
from recsys.retrieval.index.protocol import IndexRequest
from recsys.retrieval.memory import PairMemory
from recsys.retrieval.recommend import recommend
from recsys.training.config.file import dump_config
from recsys.training.config.retrieval import RetrievalExperiment
from recsys.training.engine.warm_start import kept_optimizer_state
from recsys.training.families.golden import PROBE_K, golden_requests
from recsys.training.families.retrieval.reading import RetrievalData


@dataclass(frozen=True)
class Beside:
    """What comes with a model that retrieves, where it has that.

    probability: of an interaction with an item. memory: of pairs of items. relevance: where it ends
    in a list. compatible_since: earlier models whose item indexes its queries may search.
    """

    probability: InteractionProbability | None = None
    memory: PairMemory | None = None
    relevance: Relevance | None = None
    compatible_since: tuple[CompatibleSpace, ...] = ()


def write_retrieval(
    parent: Path,
    reading: RetrievalData,
    model: RetrievalModel,
    *,
    query_vectors: Tensor,
    metrics: Kept,
    origin: Mapping[str, str],
    beside: Beside,
) -> Path:
    """Write the bundle of `model` below `parent` and return its folder.

    origin: facts on the model that the training started from. beside: what comes with the model.
    """
    config, data = reading.config, reading.data
    weights = save_weights(model)
    described = describe(reading, space_id(model), beside.compatible_since)
    # The served model, read back from the bytes that are written: what is probed is what is kept.
    served = load_retrieval(weights, config.model, config.embedding, described.layouts)
    reading.restore(served)  # what comes of the graph is in the index, the graph in no bundle
    vectors = catalogue_vectors(served, data.items)
    contents = ModelContents(
        description=described,
        encoder=data.encoder,
        weights=weights,
        answers=ListAnswers(
            items=data.tables.items,
            train_counts=data.train_counts,
            index=_index_request(config, data, vectors, query_vectors, described),
            probe=_probe(reading, served, vectors, beside.memory),
            memory=beside.memory,
            relevance=beside.relevance,
        ),
        config=dump_config(config),
        metrics=metrics,
        fingerprint=data.tables.fingerprint,
        calibration=beside.probability,
        optimizer_state=kept_optimizer_state(config, model),
        origin=origin,
    )
    return write_model(parent, contents)


def describe(
    reading: RetrievalData, space: str, compatible_since: tuple[CompatibleSpace, ...] = ()
) -> ModelDescription:
    """Return what a model trained on `reading` is; `space` is the hash of its vectors' space."""
    config = reading.config
    return ModelDescription(
        model=config.model,
        embedding=config.embedding,
        policies=config.policies,
        layouts=layouts_of(reading.data.encoder, config.model.kind),
        sessions=reading.cutting,
        filter_seen=config.evaluation.filter_seen,
        space_id=space,
        compatible_since=compatible_since,
    )


def _index_request(
    config: RetrievalExperiment,
    data: Dataset,
    vectors: Tensor,
    queries: Tensor,
    described: ModelDescription,
) -> IndexRequest:
    return IndexRequest(
        vectors=vectors,
        geometry=config.model.geometry,
        queries=queries.flatten(0, -2),  # every interest searches by itself
        space_id=str(described.space_id),
        item_ids_sha256=ids_sha256(_item_ids(data)),
        compatible_since=tuple(one.space_id for one in described.compatible_since),
        kind=config.index.kind,
        min_recall=config.index.min_recall,
        threads=config.index.threads,
    )


def _item_ids(data: Dataset) -> pa.Array:
    return data.tables.items.column(data.schema.item_key).combine_chunks()


def _probe(
    reading: RetrievalData, model: RetrievalModel, vectors: Tensor, memory: PairMemory | None
) -> pa.Table:
    """Return golden requests with the answers that a loader must reproduce."""
    asked = golden_requests(
        reading.data,
        reading.sessions,
        history_length=reading.config.model.history_length,
        policies=reading.config.policies,
    )
    requests = asked.encoded
    scores, rows = recommend(
        model,
        ExactVectors(vectors),
        vectors,
        requests.block,
        requests.history,
        k=PROBE_K,
        exclude=requests.seen,
        memory=memory,
    )
    return with_answers(asked.table, asked.item_ids, scores, rows)
