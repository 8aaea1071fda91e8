"""The same transformer on item ids alone, trained for comparison: what the metadata are worth.

With one vector for each item id, and nothing known of items, users and events besides, this is what
Kang and McAuley, "Self-Attentive Sequential Recommendation", ICDM 2018, have; loss, sizes and
schedule are those of the model that it is compared with.
"""

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from recsys.data.batch import FeatureBlock, History
from recsys.features.dataset.dataset import Dataset, encoded, fit_encoder
from recsys.features.dataset.queries import Queries
from recsys.features.dataset.session_queries import build_session_queries
from recsys.features.dataset.sessions import Sessions
from recsys.features.dataset.split import VALIDATION
from recsys.features.kinds.categorical import CategoricalFeature
from recsys.models.retrieval import catalogue_vectors, query_vectors
from recsys.models.session import SessionTransformer
from recsys.training.engine.checkpoint import Checkpoints
from recsys.training.engine.loop import fit
from recsys.training.engine.machine import pick_device
from recsys.training.engine.parts import plain_table
from recsys.training.engine.ranks import World
from recsys.training.evaluation.evaluate import Ranker, vector_ranker
from recsys.training.families.session.config import SessionExperiment, SessionTraining
from recsys.training.families.session.task import session_task


def ids_only_ranker(config: SessionExperiment, data: Dataset, sessions: Sessions) -> Ranker:
    """Return the ranker; it is trained here, with the settings of `config`."""
    config, data = _on_ids(config, data)
    world = World(device=pick_device(config.training.device))
    validation = build_session_queries(
        data,
        sessions,
        VALIDATION,
        per="event" if config.evaluation.queries == "events" else "user",
        history_length=config.model.history_length,
        filter_seen=config.evaluation.filter_seen,
        limit=config.training.max_validation_queries,
        seed=config.training.seed,
    )
    task = session_task(config, data, sessions, validation, world)
    with tempfile.TemporaryDirectory() as folder:
        fit(task, config.training, Checkpoints(Path(folder)))
    model = task.trained.model
    assert isinstance(model, SessionTransformer)
    whole = plain_table(config, task.trained.table, world)
    assert whole is not None
    model.embedding.table = whole
    model.cpu().eval()
    items = catalogue_vectors(model, data.items)

    def rank(
        queries: Queries, k: int, /, among: NDArray[np.int64] | None = None
    ) -> NDArray[np.int32]:
        asked = _of_ids(queries, data)
        found = query_vectors(model, asked.block, items, asked.history)
        vectors, gain = model.without_gain(found)
        filter_seen = config.evaluation.filter_seen
        ranker = vector_ranker(items, vectors, filter_seen=filter_seen, gain=gain)
        return ranker(asked, k, among=among)

    return rank


def _on_ids(config: SessionExperiment, data: Dataset) -> tuple[SessionExperiment, Dataset]:
    """Return configuration and data whose only feature is the item id."""
    schema = data.schema
    ids = tuple(feature for feature in schema.features_of("items") if schema.is_id(feature))
    if not ids:
        ids = (CategoricalFeature(name=schema.item_key, table="items", multiplicity=2),)
    schema = schema.model_copy(update={"features": ids})
    session = config.training.session
    plain = session.model_copy(
        update={
            "attributes": (),
            "self_supervision": SessionTraining().self_supervision,
        }
    )
    changes = {
        "schema_": schema,
        "training": config.training.model_copy(update={"session": plain}),
        "model": config.model.model_copy(update={"time_gaps": False}),
    }
    encoder = fit_encoder(schema, data.tables, data.part)
    alone = encoded(schema, data.tables, data.part, encoder, data.cold)
    return config.model_copy(update=changes), alone


def _of_ids(queries: Queries, data: Dataset) -> Queries:
    """Return the queries as a model of ids reads them."""
    items = queries.history_items
    nothing = torch.zeros(len(items.values), 0)
    features = FeatureBlock(nothing.long(), (), nothing)
    gap = torch.full((len(items.values),), torch.nan)
    users = data.users.take(torch.from_numpy(queries.users.astype(np.int64)))
    return replace(queries, block=users, history=History(items, features, gap))
