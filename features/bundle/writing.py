"""The one writer of a model's bundle."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
from numpy.typing import NDArray

from recsys.bundle.directory import Bundle, write_bundle
from recsys.bundle.relevance import Relevance
from recsys.features.bundle.description import ModelDescription
from recsys.features.bundle.files import (
    Calibration,
    write_calibration,
    write_config,
    write_description,
    write_encoder,
    write_index,
    write_items,
    write_memory,
    write_metrics,
    write_optimizer_state,
    write_ranker,
    write_relevance,
    write_request_probe,
    write_row_probe,
    write_schema,
    write_sources,
    write_weights,
)
from recsys.features.bundle.measured import Kept
from recsys.features.encoding.encoder import FeatureEncoder
from recsys.retrieval.index.protocol import IndexRequest
from recsys.retrieval.memory import PairMemory


class Answers(Protocol):
    """What a bundle holds because of what its model answers with."""

    def write(self, folder: Path) -> None:
        """Write it into `folder`."""


@dataclass(frozen=True)
class ListAnswers:
    """Of a model that gives lists.

    items: the catalogue. train_counts (n,): the number of training rows of each item. probe:
    requests with their lists. index: what is built over the items' vectors, where there are any.
    memory: of pairs of items. sources: bundles of the models that a pipeline is made of, in order.
    ranker: bundle of its ranker, where that is a model of rows. relevance: where it ends in a list.
    """

    items: pa.Table
    train_counts: NDArray[Any]
    probe: pa.Table
    index: IndexRequest | None = None
    memory: PairMemory | None = None
    sources: Sequence[Path] = ()
    ranker: Path | None = None
    relevance: Relevance | None = None

    def write(self, folder: Path) -> None:
        """Write catalogue, index and probe.

        Raises:
            UserError: the index does not reach the recall that is asked of it.
        """
        write_items(folder, self.items, self.train_counts)
        if self.index is not None:
            write_index(folder, self.index)
        if self.memory is not None:
            write_memory(folder, self.memory)
        if self.relevance is not None:
            write_relevance(folder, self.relevance)
        if self.sources:
            write_sources(folder, self.sources)
        if self.ranker is not None:
            write_ranker(folder, self.ranker)
        write_request_probe(folder, self.probe)


@dataclass(frozen=True)
class RowAnswers:
    """Of a model that gives a probability for each row; probe: encoded rows with their logits."""

    probe: bytes

    def write(self, folder: Path) -> None:
        """Write the probe."""
        write_row_probe(folder, self.probe)


@dataclass(frozen=True)
class ModelContents:
    """What the bundle of a model holds.

    Attributes:
        description: what the model is.
        encoder: fitted on its training rows.
        weights: as `recsys.bundle.weights.save_weights` gives them.
        answers: what it holds because of what the model answers with.
        config: the configuration of the training, as YAML.
        metrics: what was measured on the test part.
        fingerprint: of the data.
        calibration: how scores become probabilities, if they do.
        optimizer_state: of the table, if it is kept for a later warm start.
        origin: facts on the model that the training started from.
    """

    description: ModelDescription
    encoder: FeatureEncoder
    weights: bytes
    answers: Answers
    config: str
    metrics: Kept
    fingerprint: str
    calibration: Calibration | None = None
    optimizer_state: bytes | None = None
    origin: Mapping[str, str] | None = None


def write_renewed(
    parent: Path, bundle: Bundle, write: Callable[[Path], None], facts: Mapping[str, Any]
) -> Path:
    """Write a bundle with the files of an earlier one but those that `write` writes anew.

    facts: what the manifest says in place of, or besides, what the earlier one does, and that the
    earlier one is its parent.
    """

    def files(folder: Path) -> None:
        bundle.copy_to(folder)
        write(folder)

    known = bundle.manifest["facts"]
    return write_bundle(parent, files, facts={**known, **facts, "parent": bundle.model_id})


def write_model(parent: Path, contents: ModelContents) -> Path:
    """Write the bundle of a model below `parent` and return its folder.

    Raises:
        UserError: as the `write` of `contents.answers`; then nothing is left behind.
    """
    about = contents.description

    def write(folder: Path) -> None:
        write_config(folder, contents.config)
        write_description(folder, about)
        write_schema(folder, contents.encoder.schema)
        write_encoder(folder, contents.encoder)
        write_weights(folder, contents.weights)
        contents.answers.write(folder)
        write_metrics(folder, contents.metrics.to_json())
        if contents.calibration is not None:
            write_calibration(folder, contents.calibration)
        if contents.optimizer_state is not None:
            write_optimizer_state(folder, contents.optimizer_state)

    since = [one.space_id for one in about.compatible_since]
    facts = {
        "kind": about.kind,
        **({} if about.space_id is None else {"space_id": about.space_id}),
        **({"compatible_since": since} if since else {}),
        "data_fingerprint": contents.fingerprint,
        "config_sha256": hashlib.sha256(contents.config.encode()).hexdigest(),
        "metrics": {"test": dict(contents.metrics.test)},
        **(contents.origin or {}),
    }
    return write_bundle(parent, write, facts=facts)
