"""What a trained retrieval model leaves behind: its bundle's files, each by its room."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys.bundle.calibration import CALIBRATOR_FILE
from recsys.bundle.directory import write_bundle
from recsys.bundle.pair_calibration import TakeProbability
from recsys.bundle.weights import load_retrieval, save_optimizer_state, save_weights, space_id
from recsys.data.batch import FeatureLayout
from recsys.features.dataset.dataset import Dataset
from recsys.features.dataset.sessions import cut_sessions
from recsys.features.dataset.split import TEST, TRAIN, VALIDATION
from recsys.features.requests.table import encode_requests, ids_sha256, request_table
from recsys.models.retrieval import RetrievalModel, catalogue_vectors
from recsys.models.two_tower import TwoTower
from recsys.retrieval.index.build import build_index
from recsys.retrieval.index.exact import ExactVectors
from recsys.retrieval.index.protocol import IndexRequest
from recsys.retrieval.recommend import recommend
from recsys.training.config.experiment import ExperimentConfig
from recsys.training.config.file import dump_config
from recsys.training.engine.warm_start import OPTIMIZER_FILE

PROBE_ROWS = 256
PROBE_K = 20


def write_retrieval(
    parent: Path,
    config: ExperimentConfig,
    data: Dataset,
    model: RetrievalModel,
    *,
    query_vectors: Tensor,
    metrics: dict[str, Any],
    origin: Mapping[str, str],
    probability: TakeProbability | None = None,
) -> Path:
    """Write the bundle of `model` below `parent` and return its folder.

    origin: facts on the model that the training started from. probability: of taking an item.
    """
    weights = save_weights(model)
    item_ids = data.tables.items.column(data.schema.item_key).combine_chunks()
    space = space_id(model)
    # The served model, read back from the bytes that are written: what is probed is what is kept.
    layouts = data.encoder.retrieval_layouts(of_steps=config.of_sessions)
    served = load_retrieval(weights, config.retrieval, config.embedding, layouts)
    if isinstance(model, TwoTower) and isinstance(served, TwoTower):
        served.smoothing = model.smoothing  # the graph stays behind: an index holds what came of it

    def write(folder: Path) -> None:
        (folder / "config.yaml").write_text(dump_config(config))
        (folder / "schema.json").write_text(data.schema.model_dump_json(indent=1))
        (folder / "model.json").write_text(_model_json(config, layouts, space))
        data.encoder.save(folder / "encoder")
        (folder / "weights.safetensors").write_bytes(weights)
        if config.keep_optimizer_state:
            state = save_optimizer_state(model.embedding.table)
            (folder / OPTIMIZER_FILE).write_bytes(state)
        items = data.tables.items.append_column("train_count", pa.array(data.train_counts))
        pq.write_table(items, folder / "items.parquet", write_page_checksum=True)
        vectors = catalogue_vectors(served, data.items)
        (folder / "index").mkdir()
        request = _index_request(config, vectors, query_vectors, space, item_ids)
        build_index(folder / "index", request)
        probe = _probe(config, data, served, vectors, item_ids)
        pq.write_table(probe, folder / "probe.parquet", write_page_checksum=True)
        if probability is not None:
            (folder / CALIBRATOR_FILE).write_text(probability.to_json())
        (folder / "metrics.json").write_text(json.dumps(metrics, indent=1, sort_keys=True))

    facts = {
        "kind": config.model.kind,
        "space_id": space,
        "data_fingerprint": data.tables.fingerprint,
        "config_sha256": hashlib.sha256(dump_config(config).encode()).hexdigest(),
        "metrics": metrics,
        **origin,
    }
    return write_bundle(parent, write, facts=facts)


def _index_request(
    config: ExperimentConfig, vectors: Tensor, queries: Tensor, space: str, item_ids: pa.Array
) -> IndexRequest:
    return IndexRequest(
        vectors=vectors,
        geometry=config.retrieval.geometry,
        queries=queries.flatten(0, -2),  # every interest searches by itself
        space_id=space,
        item_ids_sha256=ids_sha256(item_ids),
        kind=config.index.kind,
        min_recall=config.index.min_recall,
        threads=config.index.threads,
    )


def _model_json(config: ExperimentConfig, layouts: tuple[FeatureLayout, ...], space: str) -> str:
    return json.dumps(
        {
            "kind": config.model.kind,
            "space_id": space,
            "model": config.model.model_dump(mode="json"),
            "embedding": config.embedding.model_dump(mode="json"),
            "policies": config.policies.model_dump(mode="json"),
            "sessions": config.sessions.model_dump(mode="json"),
            "layouts": [asdict(layout) for layout in layouts],
        },
        indent=1,
    )


def _probe(
    config: ExperimentConfig, data: Dataset, model: RetrievalModel, vectors: Tensor, ids: pa.Array
) -> pa.Table:
    """Return golden requests with the answers that a loader must reproduce."""
    users = _probe_users(data)
    histories = data.histories((TRAIN, VALIDATION, TEST))
    sessions = cut_sessions(data, config.sessions) if config.of_sessions else None
    table = request_table(data.schema, data.tables, histories, users, sessions=sessions)
    requests = encode_requests(
        data.encoder,
        ids,
        table,
        history_length=config.retrieval.history_length,
        steps=config.of_sessions,
    )
    scores, rows = recommend(
        model,
        ExactVectors(vectors),
        vectors,
        requests.block,
        requests.history,
        k=PROBE_K,
        exclude=requests.seen,
    )
    found = rows >= 0
    offsets = torch.zeros(len(rows) + 1, dtype=torch.int64)
    torch.cumsum(found.sum(1), 0, out=offsets[1:])
    bounds = pa.array(offsets.numpy())
    items = ids.take(pa.array(rows[found].numpy()))
    answers = {
        "expected_items": pa.LargeListArray.from_arrays(bounds, items),
        "expected_scores": pa.LargeListArray.from_arrays(bounds, pa.array(scores[found].numpy())),
    }
    for name, column in answers.items():
        table = table.append_column(name, column)
    return table


def _probe_users(data: Dataset) -> NDArray[np.int64]:
    """Return users spread evenly over the table."""
    count = min(PROBE_ROWS, data.num_users)
    return np.unique(np.linspace(0, data.num_users - 1, count).astype(np.int64))
