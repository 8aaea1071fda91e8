"""The files of a model's bundle: for each one function that writes it and one that reads it.

    config.yaml            the configuration of the training, every default written out
    model.json             what the model is (`ModelDescription`)
    schema.json            the schema of its data
    encoder/               the fitted encoder
    weights.safetensors    the shared table and the dense weights; of plain models what they counted
    optimizer.safetensors  the state of the table's optimizer, if it was kept
    calibrator.json        how scores become probabilities, if they do
    relevance.json         where relevance ends in a list, of models that know it
    metrics.json           what was measured on the test part (`recsys.features.bundle.measured`)
    items.parquet          of models that answer with lists: the catalogue, and the number of
                           training rows of each item
    index/                 the index over the items' vectors, of models that have them
    sources/               of a pipeline: the bundles of its sources
    ranker/                of a pipeline: the bundle of its ranker, where that is a model of rows
    memory.safetensors     what followed each item, of models that add it to their scores
    probe.parquet          requests with the answers that were given to them
    probe.safetensors      of models that answer with rows: encoded rows with their logits

What a function reads was hashed before. No other module knows these names.
"""

import io
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from numpy.typing import NDArray
from safetensors.torch import load
from torch import Tensor

from recsys.bundle.directory import Bundle, undated
from recsys.bundle.relevance import Relevance
from recsys.core.errors import ConfigError, IntegrityError
from recsys.features.bundle.description import ModelDescription
from recsys.features.encoding.encoder import FeatureEncoder
from recsys.features.schema import Schema
from recsys.retrieval.index.build import build_index
from recsys.retrieval.index.protocol import IndexRequest, Read
from recsys.retrieval.memory import PairMemory

CONFIG = "config.yaml"
MODEL = "model.json"
SCHEMA = "schema.json"
ENCODER = "encoder/"
WEIGHTS = "weights.safetensors"
OPTIMIZER = "optimizer.safetensors"
CALIBRATOR = "calibrator.json"
RELEVANCE = "relevance.json"
METRICS = "metrics.json"
ITEMS = "items.parquet"
INDEX = "index/"
MEMORY = "memory.safetensors"
SOURCES = "sources/"
RANKER = "ranker/"
REQUEST_PROBE = "probe.parquet"
ROW_PROBE = "probe.safetensors"
_ORDER = "order.json"
_NAME = "name.json"
TRAIN_COUNT = "train_count"
"""Column of the catalogue: how many training rows an item has."""


class Calibration(Protocol):
    """Something that turns scores into probabilities and can be written as text."""

    def to_json(self) -> str:
        """Return it as text."""

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what `to_json` gave."""


C = TypeVar("C", bound=Calibration)


def write_config(folder: Path, text: str) -> None:
    """Write the configuration of the training, as YAML."""
    (folder / CONFIG).write_text(text)


def read_config(bundle: Bundle) -> str:
    """Return the configuration of the training, as YAML."""
    return bundle.text(CONFIG)


def write_description(folder: Path, description: ModelDescription) -> None:
    """Write what the model is."""
    (folder / MODEL).write_text(json.dumps(description.to_json(), indent=1))


def read_description(bundle: Bundle) -> ModelDescription:
    """Return what the model is.

    Raises:
        NotFoundError: the bundle holds no model.
        IntegrityError: it is not described as this engine describes models.
    """
    raw = bundle.json(MODEL)
    try:
        if "answers" not in raw and bundle.has(CONFIG):
            # Bundles of older engines say there how their lists were evaluated.
            raw["evaluation"] = yaml.safe_load(read_config(bundle)).get("evaluation") or {}
        return ModelDescription.of_json(raw, source=f"{bundle.path / MODEL}")
    except (ConfigError, KeyError, TypeError, ValueError) as error:
        own = isinstance(error, ConfigError)
        reason = str(error) if own else f"{bundle.path / MODEL}: {error!r}"
        raise IntegrityError(
            f"{reason}\nthe model was written by version {bundle.manifest['engine_version']} of "
            "the engine, which describes models in another way: open it with that version, or "
            "train it again"
        ) from None


def write_schema(folder: Path, schema: Schema) -> None:
    """Write the schema of the model's data."""
    (folder / SCHEMA).write_text(schema.model_dump_json(indent=1))


def read_schema(bundle: Bundle) -> Schema:
    """Return the schema of the model's data."""
    return Schema.model_validate_json(bundle.text(SCHEMA))


def write_encoder(folder: Path, encoder: FeatureEncoder) -> None:
    """Write the fitted encoder."""
    encoder.save(folder / ENCODER)


def read_encoder(bundle: Bundle) -> FeatureEncoder:
    """Return the fitted encoder."""
    return FeatureEncoder.read(lambda name: bundle.read(f"{ENCODER}{name}"))


def write_weights(folder: Path, weights: bytes) -> None:
    """Write what `recsys.bundle.weights.save_weights` gave."""
    (folder / WEIGHTS).write_bytes(weights)


def read_weights(bundle: Bundle) -> bytes:
    """Return the weights, for `recsys.bundle.weights` to load."""
    return bundle.read(WEIGHTS)


def write_optimizer_state(folder: Path, state: bytes) -> None:
    """Write what `recsys.bundle.weights.save_optimizer_state` gave."""
    (folder / OPTIMIZER).write_bytes(state)


def read_optimizer_state(bundle: Bundle) -> dict[str, Tensor]:
    """Return the state of the table's optimizer by name; empty where it was not kept."""
    return load(bundle.read(OPTIMIZER)) if bundle.has(OPTIMIZER) else {}


def write_calibration(folder: Path, calibration: Calibration) -> None:
    """Write how scores become probabilities."""
    (folder / CALIBRATOR).write_text(calibration.to_json())


def read_calibration(bundle: Bundle, form: type[C]) -> C | None:
    """Return how scores become probabilities; None where the model does not say."""
    return form.from_json(bundle.text(CALIBRATOR)) if bundle.has(CALIBRATOR) else None


def write_relevance(folder: Path, relevance: Relevance) -> None:
    """Write where relevance ends in a list."""
    (folder / RELEVANCE).write_text(relevance.to_json())


def read_relevance(bundle: Bundle) -> Relevance | None:
    """Return where relevance ends in a list; None where the model does not know."""
    return Relevance.from_json(bundle.text(RELEVANCE)) if bundle.has(RELEVANCE) else None


def write_metrics(folder: Path, metrics: Mapping[str, Any]) -> None:
    """Write what was measured."""
    (folder / METRICS).write_text(json.dumps(metrics, indent=1, sort_keys=True))


def read_metrics(bundle: Bundle) -> dict[str, Any]:
    """Return what was measured; empty where nothing was kept."""
    metrics: dict[str, Any] = bundle.json(METRICS) if bundle.has(METRICS) else {}
    return metrics


def write_items(folder: Path, items: pa.Table, train_counts: NDArray[Any]) -> None:
    """Write the catalogue, and the number of training rows of each item."""
    table = items.append_column(TRAIN_COUNT, pa.array(train_counts))
    pq.write_table(table, folder / ITEMS, write_page_checksum=True)


def read_items(bundle: Bundle) -> pa.Table:
    """Return the catalogue with its column `TRAIN_COUNT`."""
    return pq.read_table(io.BytesIO(bundle.read(ITEMS)))


def write_index(folder: Path, request: IndexRequest) -> None:
    """Build the index and write it.

    Raises:
        UserError: it does not reach `request.min_recall`.
    """
    (folder / INDEX).mkdir()
    build_index(folder / INDEX, request)


def index_files(bundle: Bundle) -> Read:
    """Return what reads the files of the index, for `recsys.retrieval.index.build`."""
    return lambda name: bundle.read(f"{INDEX}{name}")


def write_sources(folder: Path, bundles: Sequence[Path]) -> None:
    """Copy the bundles of a pipeline's sources, without the day on which each was written."""
    names = []
    for number, bundle in enumerate(bundles):
        names.append(f"{number}/{bundle.name}")
        _copy(bundle, folder / SOURCES / names[-1])
    (folder / SOURCES / _ORDER).write_text(json.dumps(names))


def source_folders(bundle: Bundle) -> list[Path]:
    """Return the folders of the bundles of a pipeline's sources, in order."""
    names: list[str] = bundle.json(f"{SOURCES}{_ORDER}")
    return [bundle.path / SOURCES.rstrip("/") / name for name in names]


def write_ranker(folder: Path, bundle: Path) -> None:
    """Copy the bundle of a pipeline's ranker, without the day on which it was written."""
    _copy(bundle, folder / RANKER / bundle.name)
    (folder / RANKER / _NAME).write_text(json.dumps(bundle.name))


def ranker_folder(bundle: Bundle) -> Path | None:
    """Return the folder of the bundle of a pipeline's ranker; None: it has no such one."""
    if not bundle.has(f"{RANKER}{_NAME}"):
        return None
    name: str = bundle.json(f"{RANKER}{_NAME}")
    return bundle.path / RANKER.rstrip("/") / name


def _copy(bundle: Path, copy: Path) -> None:
    shutil.copytree(bundle, copy)
    undated(copy)


def write_memory(folder: Path, memory: PairMemory) -> None:
    """Write what followed each item."""
    (folder / MEMORY).write_bytes(memory.to_bytes())


def read_memory(bundle: Bundle, num_items: int) -> PairMemory | None:
    """Return what followed each of the items; None where the model has no memory.

    Raises:
        IntegrityError: it is of another catalogue.
    """
    if not bundle.has(MEMORY):
        return None
    memory = PairMemory.from_bytes(bundle.read(MEMORY))
    if len(memory) != num_items:
        raise IntegrityError(
            f"{bundle.path / MEMORY}: it is of {len(memory):,} items, the catalogue has "
            f"{num_items:,}"
        )
    return memory


def write_request_probe(folder: Path, requests: pa.Table) -> None:
    """Write requests with the answers that were given to them."""
    pq.write_table(requests, folder / REQUEST_PROBE, write_page_checksum=True)


def read_request_probe(bundle: Bundle) -> pa.Table:
    """Return requests with the answers that were given to them."""
    return pq.read_table(io.BytesIO(bundle.read(REQUEST_PROBE)))


def write_row_probe(folder: Path, probe: bytes) -> None:
    """Write what `recsys.bundle.probe.write_probe` gave."""
    (folder / ROW_PROBE).write_bytes(probe)


def read_row_probe(bundle: Bundle) -> bytes | None:
    """Return encoded rows with their logits, for `recsys.bundle.probe`; None: there are none."""
    return bundle.read(ROW_PROBE) if bundle.has(ROW_PROBE) else None
