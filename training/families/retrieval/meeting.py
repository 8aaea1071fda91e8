"""A model whose queries may search the item index of an earlier one: rotated onto it, measured.

A training ends in a space of its own. The one rotation of everything that brings its item vectors
nearest to those of the earlier model (`recsys.retrieval.rotation`) changes none of its lists. What
is left to find is whether the earlier index answers its queries about as well as those of the
model that it was made for: that is measured on the held-out rows, and claimed only where it holds.
"""

import logging
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys.bundle.compatible import CompatibleSpace
from recsys.core.errors import ConfigError
from recsys.features.bundle.lists import ListModel
from recsys.features.bundle.model_bundle import ModelBundle
from recsys.features.dataset.dataset import Dataset
from recsys.features.dataset.queries import Queries
from recsys.features.dataset.split import PART_NAMES
from recsys.layers.geometry import points_of
from recsys.models.retrieval import RetrievalModel, catalogue_vectors
from recsys.retrieval.rotation import rotation_onto
from recsys.training.evaluation.evaluate import ranking_metrics, vector_ranker
from recsys.training.evaluation.slices import slice_k
from recsys.training.families.comparing import CommonTest, ModelOnTest, NamedModel
from recsys.training.families.opened import OpenedModel, rows_of
from recsys.training.families.retrieval.reading import Read, RetrievalData
from recsys.training.families.retrieval.validation import vectors_with

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Met:
    """What came of a meeting.

    claimed: what the model may say of itself, of at most one earlier model. words: what was found.
    warning: why nothing is claimed; None: it is.
    """

    claimed: tuple[CompatibleSpace, ...]
    words: str
    warning: str | None = None

    def said_in(self, evaluation: Any) -> Any:
        """Return an evaluation whose protocol says what came of it."""
        return replace(evaluation, protocol={**evaluation.protocol, "compatible with": self.words})


@dataclass(frozen=True)
class EarlierIndex:
    """The item index of an earlier model in the catalogue of the training.

    vectors (N, W): of all N items of the catalogue, 0 where it has none. known (M,): the rows of
    those that it has, ascending. read: how the family reads a log.
    """

    opened: OpenedModel
    vectors: Tensor
    known: NDArray[np.int64]
    read: Read

    @classmethod
    def of(cls, opened: OpenedModel, reading: RetrievalData, read: Read) -> Self:
        """Find its items in the catalogue of `reading`.

        Raises:
            ConfigError: its vectors cannot be met by those of a model of this configuration.
            IntegrityError: its bundle is not what was written.
        """
        _check_settings(opened, reading.config)
        earlier = ListModel.open(opened.bundle.path)
        column = reading.data.tables.items.column(reading.data.schema.item_key)
        ids, type_then = column.combine_chunks(), earlier.item_ids.type
        if _is_text(ids.type) != _is_text(type_then):
            raise ConfigError(
                f"compatible_with: item ids of {opened.bundle.path} are of type "
                f"{type_then}, those of the catalogue {ids.type}: give the ids as then"
            )
        place = rows_of(ids.cast(type_then), earlier.item_ids)
        known, dim = np.flatnonzero(place >= 0), reading.config.model.dim
        if len(known) < dim:
            raise ConfigError(
                f"compatible_with: {opened.bundle.path} and the catalogue share {len(known):,} "
                f"items, and {dim} (model.dim) are needed to find how one space lies in the other: "
                "train on a catalogue with the earlier items, or leave compatible_with out"
            )
        vectors = torch.zeros(len(place), earlier.vectors.shape[1])
        vectors[torch.from_numpy(known)] = earlier.vectors[torch.from_numpy(place[known])]
        return cls(opened, vectors, known, read)

    @property
    def space_id(self) -> str:
        """Of the vectors."""
        return str(self.opened.description.space_id)

    def rotate(self, model: RetrievalModel, data: Dataset) -> None:
        """Rotate a model so that its item vectors are nearest to these."""
        geometry, rows = model.config.geometry, torch.from_numpy(self.known)
        now, before = (
            points_of(vectors[rows], geometry)
            for vectors in (catalogue_vectors(model, data.items), self.vectors)
        )
        model.rotate(rotation_onto(now, before))

    def meet(self, reading: RetrievalData, model: RetrievalModel, part: int) -> Met:
        """Measure a rotated model on the queries of a part.

        Raises:
            ConfigError: the earlier model is not asked the same queries.
        """
        config = reading.config
        k, settings = slice_k(config.evaluation), config.evaluation
        queries = reading.queries(part, settings.max_queries)
        items, vectors = vectors_with(model, reading.data, queries)
        earlier = self._asked(reading, queries, part)
        pairs: dict[str, tuple[Any, Queries, Tensor, NDArray[np.int64] | None]] = {
            "new_on_old": (model.without_gain(vectors), queries, self.vectors, self.known),
            "old_on_old": (earlier.answers, earlier.queries, self.vectors, self.known),
            "new_on_new": (model.without_gain(vectors), queries, items, None),
        }
        found = {
            name: _recall(answers, asked, index, among, k, settings.filter_seen)
            for name, (answers, asked, index, among) in pairs.items()
        }
        space = CompatibleSpace(
            space_id=self.space_id,
            model_id=self.opened.bundle.model_id,
            metric=f"recall_at_{k}",
            part=PART_NAMES[part],
            new_on_old=found["new_on_old"],
            old_on_old=found["old_on_old"],
            new_on_new=found["new_on_new"],
            shared_items=len(self.known),
        )
        doubt = f"; of that model: {earlier.leak}" if earlier.leak else ""
        return _judged(space, space.words + doubt, config.compatible_share)

    def as_chosen(self, chosen: ModelBundle | None) -> Met:
        """Return what a model that was trained on all rows takes over from the one that chose.

        Nothing is held out to measure it on.
        """
        of = () if chosen is None else chosen.description.compatible_since
        found = [one for one in of if one.space_id == self.space_id]
        if chosen is None or not found:
            why = (
                "compatible_with: the model that chose the settings does not claim that its "
                f"queries may search the item index of model {self.opened.bundle.model_id}, so "
                "neither does this one"
            )
            return Met((), why, why)
        measured = found[0].measured_of or chosen.bundle.model_id
        space = found[0].model_copy(update={"measured_of": measured})
        return Met((space,), f"measured of model {measured}: {space.words}")

    def _asked(self, reading: RetrievalData, queries: Queries, part: int) -> "_Earlier":
        test = CommonTest(reading.config, "compatible_with", reading.config.training.metric)
        here = ModelOnTest.of(NamedModel("the earlier model", self.opened), test)
        own = self.read(here.opened.config, here.data)
        asked = own.queries(part, reading.config.evaluation.max_queries)
        same = len(asked) == len(queries) and torch.equal(
            asked.relevant.values, queries.relevant.values
        )
        if not same or here.data.num_items != reading.data.num_items:
            raise ConfigError(
                f"compatible_with: {self.opened.bundle.path} reads the log in another way, and is "
                f"asked {len(asked):,} queries of its own in place of {len(queries):,}: keep the "
                "roles of the columns and the cut of sessions, or leave compatible_with out"
            )
        network = self.opened.retrieval_model()
        own.restore(network)
        vectors = vectors_with(network, here.data, asked)[1]
        return _Earlier(network.without_gain(vectors), asked, here.leak)


@dataclass(frozen=True)
class _Earlier:
    answers: tuple[Tensor, Tensor | None]
    queries: Queries
    leak: str | None


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _check_settings(opened: OpenedModel, config: Any) -> None:
    """Refuse an earlier model whose vectors are of another form.

    Raises:
        ConfigError: which, and what to set.
    """
    about, path = opened.description, opened.bundle.path
    if about.kind != config.model.kind:
        raise ConfigError(
            f"compatible_with: {path} is of kind {about.kind}, model.kind is {config.model.kind}: "
            "name a model of the same kind"
        )
    for key in ("dim", "geometry"):
        before, now = getattr(about.model, key), getattr(config.model, key)
        if before != now:
            raise ConfigError(
                f"compatible_with: vectors of {path} are of model.{key}: {before}, and model.{key} "
                f"is {now}: set it to {before}, or leave compatible_with out"
            )


def _recall(
    answers: tuple[Tensor, Tensor | None],
    queries: Queries,
    items: Tensor,
    among: NDArray[np.int64] | None,
    k: int,
    filter_seen: bool,
) -> float:
    vectors, gain = answers
    rank = vector_ranker(items, vectors, filter_seen=filter_seen, gain=gain)
    found = ranking_metrics(rank(queries, k, among=among), queries.relevant, (k,))
    return float(np.nanmean(found[f"recall_at_{k}"]))


def _judged(space: CompatibleSpace, words: str, least: float) -> Met:
    if space.share >= least:
        LOG.info("compatible with: %s", words)
        return Met((space,), words)
    warning = (
        f"compatible_with: not claimed: {words}; less than compatible_share: {least:g}. Export the "
        "items of this model, or train it from the weights of the earlier one (warm_start)"
    )
    return Met((), f"not claimed: {words}", warning)
