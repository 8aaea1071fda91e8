"""The settings of a pipeline: its sources, how they are joined, and the rules of its lists."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    Field,
    PrivateAttr,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)

from recsys.core.key_tree import Place
from recsys.core.strict import StrictModel, listed, named, nearest
from recsys.models.kind import ModelConfig
from recsys.pipeline.rules import Reserve, Rule

Positive = Annotated[int, Field(ge=1)]
Section = dict[str, Any]


class NewItems(StrictModel):
    """Items that are new, ranked by what items with their attributes are followed by."""

    days: Annotated[float, Field(gt=0)] = 14.0
    """New is an item whose first training row is within so many days of the last one, or that has
    none; without a clock, one that has none."""


class ModelSections(StrictModel):
    """Sections of a configuration of a model, in place or out of a file of its own."""

    _files: dict[str, str] = PrivateAttr(default_factory=dict)

    def with_file(self, path: str | Path, sections: Mapping[str, Any]) -> Self:
        """Return the same with sections of the file at `path`."""
        found = self.model_copy(update=sections)
        found._files = {name: str(path) for name in sections}
        return found

    def written(self, at: str, source: str, place: Place) -> tuple[str, str]:
        """Return where a key of the sections was written: the file, and the key there.

        Args:
            at: the key of these sections in the pipeline's configuration.
            source: what that configuration is called.
            place: of the key, ("model", "dim").
        """
        file = self._files.get(place[0])
        return (source, self._key(at, place)) if file is None else (file, ".".join(place))

    def _key(self, at: str, place: Place) -> str:
        return ".".join((at, *place))


class Source(ModelSections):
    """A model that names candidates, or `new_items`.

    The data, the schema, the policies and the split are those of the pipeline.
    """

    model: Section | str | None = None
    """Settings of the model with its `kind`; the path of a configuration whose sections model,
    training, embedding and sessions are taken (a calibration is left out: joining learns one); or
    a model that was trained on the same data and split, which is used as it is: a bundle or run
    folder, a run id or models:/name@alias."""
    new_items: NewItems | None = None
    """In place of `model`: new items, for exploration."""
    take: Positive = 100
    """Candidates of a request at most."""
    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")] | None = None
    """What reports call it; null: the kind of its model."""
    training: Section | None = None
    """As in a configuration of the model's kind."""
    embedding: Section | None = None
    """Likewise."""
    sessions: Section | None = None
    """Likewise."""

    @model_validator(mode="before")
    @classmethod
    def _is_a_source(cls, value: Any) -> Any:
        example = "{model: {kind: ease}, take: 100}"
        if isinstance(value, dict) and "kind" in value:
            raise ValueError(f"the settings of a source's model are below 'model', as in {example}")
        if not isinstance(value, dict | Source):
            raise ValueError(f"a source is expected, as in {example}")
        return value

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if (self.model is None) == (self.new_items is None):
            raise ValueError("give model or new_items, one of the two")
        if self.model is None and (self.training or self.embedding or self.sessions):
            raise ValueError("training, embedding and sessions are those of a model")
        return self


class ReciprocalRank(StrictModel):
    """Sum over the sources of 1 / (constant + rank)."""

    kind: Literal["reciprocal_rank"] = "reciprocal_rank"
    constant: Annotated[float, Field(gt=0)] = 60.0
    """The larger, the less the first places count above the next ones."""


class RoundRobin(StrictModel):
    """The first candidate of each source, then the second ones, and so on."""

    kind: Literal["round_robin"] = "round_robin"


class Calibrated(StrictModel):
    """The probability that one of the sources is right, each source's rank as a probability."""

    kind: Literal["calibrated"] = "calibrated"


class Learned(StrictModel):
    """Logistic regression on the ranks and scores of the sources and an item's popularity."""

    kind: Literal["learned"] = "learned"
    l2: Annotated[float, Field(ge=0)] = 1.0
    """Of the weights, in the scale of standardised inputs."""


Fuse = Annotated[
    Annotated[Learned | Calibrated | ReciprocalRank | RoundRobin, Field(discriminator="kind")],
    BeforeValidator(named),
]


class Trees(StrictModel):
    """Boosted trees with LightGBM's LambdaRank on everything that is known of a candidate."""

    libraries: ClassVar[tuple[str, ...]] = ("lightgbm",)
    kind: Literal["gbdt"] = "gbdt"
    candidates: Positive = 300
    """The best of the fused candidates that are ranked."""
    trees: Positive = 300
    """At most; they end where held-out users gain no more."""
    leaves: Annotated[int, Field(ge=2)] = 15
    """Of a tree."""
    learning_rate: Annotated[float, Field(gt=0)] = 0.05
    """Share of each tree."""
    least_rows: Positive = 100
    """Candidates in a leaf."""


class Ranker(ModelSections):
    """A ranker of the engine, trained on the candidates of validation requests.

    It reads the features of users and items, and what the sources say of a candidate.
    """

    libraries: ClassVar[tuple[str, ...]] = ()
    kind: Literal["ranker"] = "ranker"
    model: Section | str
    """Settings of the ranker with its `kind`, or the path of a configuration whose sections model,
    training and embedding are taken."""
    candidates: Positive = 300
    """The best of the fused candidates that are ranked."""
    training: Section | None = None
    """As in a configuration of the ranker's kind."""
    embedding: Section | None = None
    """Likewise."""

    _beside: bool = PrivateAttr(default=False)

    def _key(self, at: str, place: Place) -> str:
        inside = place[1:] if self._beside and place[0] == "model" else place
        return ".".join((at, *inside))


class Nothing(StrictModel):
    """The order of the fusion stays."""

    libraries: ClassVar[tuple[str, ...]] = ()
    kind: Literal["none"] = "none"


_OF_THEIR_OWN = ("none", "gbdt")
"""Ways to rank that are no rankers of the engine."""
_BESIDE_A_RANKER = ("candidates", "training", "embedding")
"""Keys that are no ranker's own."""


def _way_to_rank(value: Any, validated: ValidatorFunctionWrapHandler) -> Any:
    found = validated(_ranked(value))
    if isinstance(found, Ranker) and isinstance(value, dict) and "model" not in value:
        found._beside = True
    return found


def _ranked(value: Any) -> Any:
    """Return the mapping of a way to rank that is given by its name, by a file or by a model."""
    if isinstance(value, str) and value not in _OF_THEIR_OWN:
        return {"kind": "ranker", "model": _ranker_model(value)}
    if isinstance(value, dict) and value.get("kind", "ranker") == "ranker" and "model" in value:
        return {"kind": "ranker", **value, "model": _ranker_model(value["model"])}
    if isinstance(value, dict) and value.get("kind", "none") not in (*_OF_THEIR_OWN, "ranker"):
        own = {key: one for key, one in value.items() if key not in _BESIDE_A_RANKER}
        beside = {key: value[key] for key in _BESIDE_A_RANKER if key in value}
        return {"kind": "ranker", "model": own, **beside}
    if not isinstance(value, str | dict | BaseModel):
        raise ValueError("a way to rank is expected, as in rank: dcn; or rank: none")
    return named(value)


def _ranker_model(value: Any) -> Any:
    """Return the settings of a ranker that is given by its kind; a file stays."""
    is_kind = isinstance(value, str) and not value.endswith((".yaml", ".yml"))
    return {"kind": value} if is_kind else value


Rank = Annotated[
    Annotated[Nothing | Trees | Ranker, Field(discriminator="kind")], WrapValidator(_way_to_rank)
]


class PipelineConfig(ModelConfig):
    """The settings of a pipeline."""

    history_length: ClassVar[int] = 1 << 31
    """It hands whole histories on."""
    kind: Literal["pipeline"] = "pipeline"
    sources: Annotated[tuple[Source, ...], Field(min_length=1)]
    """Models that name candidates."""
    filter: str | None = None
    """A condition on columns of the items, of every request; requests may have more."""
    fuse: Fuse = Learned()
    """How the candidates of all sources become one list: `learned`, `calibrated`,
    `reciprocal_rank` or `round_robin`, or a mapping with `kind` and its settings."""
    rank: Rank = Nothing()
    """What orders the fused candidates again, where that is better on held-out validation requests:
    `gbdt` (the extra `lightgbm`), a ranker of the engine by its kind (`autoint`, `dcn`, ...), its
    file or its settings below `model`; `none`."""
    rules: tuple[Rule, ...] = ()
    """What lists keep to, applied in this order."""

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        names = self.names
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"sources: two are called '{name}': give each a name of its own")
        return self

    @model_validator(mode="after")
    def _reserved_of_sources(self) -> Self:
        for number, rule in enumerate(self.rules, 1):
            if isinstance(rule, Reserve) and rule.of not in self.names:
                raise ValueError(
                    f"rule {number} (reserve): there is no source '{rule.of}'"
                    f"{nearest(rule.of, list(self.names))}; there is {listed(self.names, 'and')}"
                )
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """What the sources are called."""
        return tuple(_name(source) for source in self.sources)


def _name(source: Source) -> str:
    if source.name is not None:
        return source.name
    if source.new_items is not None:
        return "new_items"
    if isinstance(source.model, dict):
        return str(source.model.get("kind", "two_tower"))
    name = str(source.model).rsplit("/", 1)[-1]
    return name.removesuffix(".yaml").removesuffix(".yml")
