"""A bundle that holds a model: verified, described, its encoder read, its weights available."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from torch import nn

from recsys.bundle.directory import Bundle
from recsys.bundle.weights import load_ranker, load_retrieval
from recsys.core.errors import IntegrityError
from recsys.data.batch import FeatureLayout
from recsys.embeddings.table import TableConfig
from recsys.features.bundle.description import ModelDescription
from recsys.features.bundle.files import read_description, read_encoder, read_weights
from recsys.features.encoding.encoder import FeatureEncoder
from recsys.features.pipeline.model import JoinedModel
from recsys.features.schema import Schema
from recsys.features.tables.sources import Policies, policies_with
from recsys.models.kind import Reads
from recsys.models.registry import MODELS
from recsys.models.retrieval import RetrievalModel
from recsys.plain.answering import PlainModel


@dataclass(frozen=True)
class ModelBundle:
    """What everybody who opens a model has of it."""

    bundle: Bundle
    description: ModelDescription
    encoder: FeatureEncoder

    @classmethod
    def read(cls, path: Path) -> Self:
        """Verify the bundle at `path` and read what it says of its model.

        Raises:
            NotFoundError: there is no bundle, or it holds no model.
            IntegrityError: a file is not what was written, or encoder and model do not belong
                together.
        """
        bundle = Bundle.open(path)
        description, encoder = read_description(bundle), read_encoder(bundle)
        found = cls(bundle, description, encoder)
        stored, layouts = description.layouts, layouts_of(encoder, description.kind)
        if [_settled(one) for one in stored] != [_settled(one) for one in layouts]:
            raise IntegrityError(
                f"{path}: the encoder lays out {layouts}, the model was trained on {stored}"
            )
        return found

    @property
    def schema(self) -> Schema:
        """The schema that the model was trained with."""
        return self.encoder.schema

    @property
    def policies(self) -> Policies:
        """What was done with rows that break a rule."""
        return self.description.policies

    def with_settings(self, settings: Mapping[str, Any] | None) -> Self:
        """Return the model with other policies for what it is asked about.

        Args:
            settings: by full key, as in {"policies.float_ids": "integer"}.

        Raises:
            ConfigError: a key is no policy's, or its value is wrong.
        """
        if not settings:
            return self
        policies = policies_with(self.policies, settings)
        return replace(self, description=replace(self.description, policies=policies))

    def retrieval_model(self) -> RetrievalModel:
        """Return a model that retrieves, with its weights, in evaluation mode.

        Raises:
            IntegrityError: the weights are not those of such a model.
        """
        about, model = self.description, self._settings()
        return load_retrieval(read_weights(self.bundle), model, self._embedding(), about.layouts)

    def plain_model(self) -> PlainModel:
        """Return a model that counts and solves.

        Raises:
            IntegrityError: the weights are not those of such a model.
        """
        return PlainModel.from_bytes(self._settings(), read_weights(self.bundle))

    def joined_model(self) -> JoinedModel:
        """Return what makes one list of the candidates of a pipeline's sources.

        Raises:
            IntegrityError: it is of another pipeline.
        """
        return JoinedModel.from_bytes(self._settings(), read_weights(self.bundle))

    def ranker(self) -> nn.Module:
        """Return a ranker, with its weights, in evaluation mode.

        Raises:
            IntegrityError: the weights are not those of such a model.
        """
        (layout,) = self.description.layouts
        outcomes = 1 + len(self.schema.interactions.outcomes)
        weights = read_weights(self.bundle)
        return load_ranker(weights, self._settings(), self._embedding(), layout, outcomes)

    def _embedding(self) -> TableConfig:
        """Return the settings of the table of a model that has one."""
        assert self.description.embedding is not None
        return self.description.embedding

    def _settings(self) -> Any:
        """Return the settings of the model; the caller knows their type."""
        return self.description.model


_LAYOUTS: dict[Reads, Callable[[FeatureEncoder], tuple[FeatureLayout, ...]]] = {
    "row": lambda encoder: (encoder.ranking_layout(),),
    "request": lambda encoder: encoder.retrieval_layouts(of_steps=False),
    "steps": lambda encoder: encoder.retrieval_layouts(of_steps=True),
    "items": lambda encoder: (),
    "parts": lambda encoder: encoder.retrieval_layouts(of_steps=False),
}


def layouts_of(encoder: FeatureEncoder, kind: str) -> tuple[FeatureLayout, ...]:
    """Return what each side of a model of some kind reads of what `encoder` encodes."""
    return _LAYOUTS[MODELS[kind].reads](encoder)


def _settled(layout: FeatureLayout) -> tuple[object, ...]:
    return layout.single, layout.multi, layout.dense, layout.poolings, layout.reads
