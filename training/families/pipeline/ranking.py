"""A ranker of the engine, trained on the candidates of a pipeline's validation requests."""

import hashlib
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from recsys.bundle.directory import write_bundle
from recsys.core.atomic import whole_file
from recsys.core.errors import ConfigError
from recsys.features.bundle.files import write_config
from recsys.features.bundle.model_bundle import ModelBundle
from recsys.features.bundle.rows import RowModel
from recsys.features.dataset.dataset import Dataset
from recsys.features.dataset.split import VALIDATION
from recsys.features.pipeline.model import JoinedModel
from recsys.features.pipeline.row_ranker import NOTHING, RowRanker, column_names
from recsys.features.pipeline.windows import CandidateWindows, window_names
from recsys.features.relations.asking import AskedRelations
from recsys.features.requests.ranked import RankedRequests
from recsys.training.config.file import dump_config
from recsys.training.families.chosen import keys_of_bundle
from recsys.training.families.pipeline.asking import Labelled, asked_at
from recsys.training.families.pipeline.config import LABEL, PART, TIME, PipelineExperiment
from recsys.training.families.pipeline.lines import lines_of
from recsys.training.families.pipeline.sources import Train

LOG = logging.getLogger(__name__)
FOLDER = "ranker"
_PARTS = ("train", "validation", "test")
_LOG = "candidates.parquet"
_VALIDATION = 0.2
"""Share of the requests that are learnt from by which the training stops."""
Mask = NDArray[np.bool_]
TrainRanker = Callable[[JoinedModel, Labelled, Mask], RowRanker]
"""Trains a ranker on the best fused candidates of requests, without those held out, (B,) bool."""


def train_ranker(
    config: PipelineExperiment,
    data: Dataset,
    run_dir: Path,
    train: Train,
    joined: JoinedModel,
    labelled: Labelled,
    held: Mask,
) -> RowRanker:
    """Write the candidates as a log with labels, and train the ranker on it.

    Args:
        config: the pipeline.
        data: what it is trained on.
        run_dir: of its run.
        train: trains one model.
        joined: the fusion, learnt on the requests that are not held out.
        labelled: the candidates of all requests.
        held: (B,) requests that are the ranker's test part.

    Raises:
        ConfigError: too few requests have a right item among the candidates.
    """
    folder = run_dir / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    names = joined.names(config.model.names)
    relations = relations_of(config)
    windows = CandidateWindows(
        config.schema_.relation_features,
        data.tables.items.column(data.schema.item_key).combine_chunks(),
        relations,
    )
    part = parts_of(held, config.training.seed)
    table = _rows(config, data, joined, labelled, part, windows)
    with whole_file(folder / _LOG) as staging:
        pq.write_table(table, staging)
    keys = config.of_ranker(str((folder / _LOG).resolve()), column_names(names))
    LOG.info("ranker, trained on the candidates of validation requests")
    with lines_of("ranker"):
        bundle = train(keys, folder / "run", config.evaluation.source_reports)
    model = RowModel.open(_of_any_run(bundle, folder / "bundle"))
    now = data.encoder.reference_time
    found = RowRanker.of(model, names, data.tables.items, now, windows.features)
    return found.with_relations(relations)


def relations_of(config: PipelineExperiment) -> AskedRelations | None:
    """Return what the windows of a pipeline are computed of; None: it has none.

    Raises:
        DataError: a table is not as declared.
    """
    return AskedRelations.read(config.schema_, config.data, config.policies)


def _of_any_run(path: Path, folder: Path) -> Path:
    """Write a ranker again, below `folder`, as it is whatever run trained it.

    Its configuration names its log without the folder of the run, so that the same training gives
    the same bundle.
    """
    # This knows all families, and so that of pipelines.
    from recsys.training.families.load import parse_config

    found = ModelBundle.read(path)
    keys = keys_of_bundle(found)
    keys["data"]["interactions"] = _LOG
    text = dump_config(parse_config(keys, source=str(path)))

    def write(staging: Path) -> None:
        found.bundle.copy_to(staging)
        write_config(staging, text)

    digest = hashlib.sha256(text.encode()).hexdigest()
    facts = {**found.bundle.manifest["facts"], "config_sha256": digest}
    return write_bundle(folder, write, facts=facts)


def parts_of(held: Mask, seed: int) -> NDArray[np.str_]:
    """Return the part of the ranker's log that each request is, (B,)."""
    drawn = np.random.default_rng([seed, 1]).random(len(held)) < _VALIDATION
    return np.where(held, "test", np.where(drawn, "validation", "train"))


def check_parts(right: NDArray[np.str_]) -> None:
    """Refuse requests with a right candidate, by their part, that are of few parts alone.

    Raises:
        ConfigError: a part has none.
    """
    if not all((right == name).any() for name in _PARTS):
        raise ConfigError(
            "model.rank: too few validation requests have a right item among the candidates "
            "for a ranker to learn from: take more candidates, or set model.rank: none"
        )


def _rows(
    config: PipelineExperiment,
    data: Dataset,
    joined: JoinedModel,
    labelled: Labelled,
    part: NDArray[np.str_],
    windows: CandidateWindows,
) -> pa.Table:
    """Return the best fused candidates as rows of a log, with their windows as columns."""
    kept = labelled.best(joined, getattr(config.model.rank, "candidates", 0))
    hit, owner = kept.hit, kept.candidates.items.owners().numpy()
    for label in (0.0, 1.0):
        check_parts(part[owner[hit == label]])
    roles, schema, tables = data.schema.interactions, data.schema, data.tables
    users = labelled.users[owner]
    inputs = joined.inputs(kept.candidates, kept.history)
    columns = {
        roles.user: tables.users.column(schema.user_key).take(pa.array(users)),
        roles.item: tables.items.column(schema.item_key).take(kept.candidates.items.values.numpy()),
        LABEL: pa.array(hit.astype(np.int8)),
        PART: pa.array(part[owner]),
        # Ages are counted back from there.
        TIME: pa.array(np.full(len(hit), data.encoder.reference_time)),
    }
    names = column_names(joined.names(config.model.names))
    columns |= {name: inputs[:, at] for at, name in enumerate(names)}
    if windows.features:
        ids = tables.users.column(schema.user_key).combine_chunks()
        asked = RankedRequests(NOTHING, ids, asked_at(data, VALIDATION))
        own = windows.of(users, kept.candidates.items.values.numpy(), asked)
        names = window_names(windows.features)
        columns |= {n: pa.array(own[:, at], from_pandas=True) for at, n in enumerate(names)}
    return pa.table(columns)
