"""The description of a trained model, shared by training, loading and serving."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from recsys.bundle.compatible import CompatibleSpace
from recsys.core.strict import parse
from recsys.data.batch import FeatureLayout
from recsys.embeddings.table import TableConfig
from recsys.features.dataset.sessions import SessionConfig
from recsys.features.tables.sources import Policies
from recsys.models.kind import Answers
from recsys.models.rankers import RankerConfig
from recsys.models.registry import MODELS
from recsys.models.retrieval_kinds import RetrievalConfig
from recsys.pipeline.config import PipelineConfig
from recsys.plain.registry import PlainModelConfig

LIST_LENGTH = 20
"""Items of a list where nobody says how many."""
ModelSettings = RetrievalConfig | RankerConfig | PlainModelConfig | PipelineConfig


@dataclass(frozen=True)
class ModelDescription:
    """A trained model without its weights.

    Attributes:
        model: the settings of the model; `model.kind` is the name of its kind.
        embedding: the settings of the shared table; None of models without one.
        policies: what was done with rows that break a rule.
        layouts: what each side of the model reads, as the encoder lays it out.
        sessions: how a log is cut into sessions; None where the model reads whole histories.
        filter_seen: whether lists left out what the user had interacted with when the model was
            evaluated.
        space_id: hash of all that shapes an item's vector; None where items have none.
        compatible_since: earlier spaces whose item vectors its queries may search as well.
        k: items of a list where who asks does not say how many.
    """

    model: ModelSettings
    embedding: TableConfig | None
    policies: Policies
    layouts: tuple[FeatureLayout, ...]
    sessions: SessionConfig | None = None
    filter_seen: bool = True
    space_id: str | None = None
    compatible_since: tuple[CompatibleSpace, ...] = ()
    k: int = LIST_LENGTH

    @property
    def kind(self) -> str:
        """The name of the model's kind, as in `model.kind`."""
        return self.model.kind

    @property
    def answers(self) -> Answers:
        """What the model gives."""
        return MODELS[self.kind].answers

    @property
    def has_sources(self) -> bool:
        """Whether the model is made of others, which are in its bundle."""
        return MODELS[self.kind].of_parts

    @property
    def reads_features(self) -> bool:
        """Whether the model reads more of a request than the items of its history."""
        return not MODELS[self.kind].of_items_alone

    @property
    def gives_rows(self) -> bool:
        """Whether the model gives a probability for each row, and no lists."""
        return self.answers == "rows"

    def to_json(self) -> dict[str, Any]:
        """Return plain values, for `of_json`."""
        found: dict[str, Any] = {"kind": self.kind, "answers": self.answers}
        table = self.embedding
        if not self.gives_rows:
            found["space_id"] = self.space_id
            if self.compatible_since:
                found["compatible_since"] = [one.model_dump() for one in self.compatible_since]
            found["evaluation"] = {"filter_seen": self.filter_seen}
            found["k"] = self.k
        if self.sessions is not None:
            found["sessions"] = self.sessions.model_dump(mode="json")
        return found | {
            "model": self.model.model_dump(mode="json"),
            "embedding": None if table is None else table.model_dump(mode="json"),
            "policies": self.policies.model_dump(mode="json"),
            "layouts": [asdict(layout) for layout in self.layouts],
        }

    @classmethod
    def of_json(cls, raw: Mapping[str, Any], *, source: str) -> "ModelDescription":
        """Read what `to_json` gave.

        Args:
            raw: the plain values; without "evaluation", lists left out what was seen.
            source: what holds them, for messages.

        Raises:
            ConfigError: a setting is unknown or wrong; `source` is named.
            KeyError: a part is missing, or the kind of the model is unknown.
        """
        kind, table = MODELS[raw["kind"]], raw["embedding"]
        settings: Any = parse(kind.config, kind.config.of_earlier(raw["model"]), source=source)
        sessions = None
        if kind.of_steps or (kind.of_items_alone and "sessions" in raw):
            sessions = parse(SessionConfig, raw["sessions"], source=source)
        return cls(
            model=settings,
            embedding=None if table is None else parse(TableConfig, table, source=source),
            policies=parse(Policies, raw["policies"], source=source),
            layouts=tuple(FeatureLayout.from_json(layout) for layout in raw["layouts"]),
            sessions=sessions,
            filter_seen=bool(raw.get("evaluation", {}).get("filter_seen", True)),
            space_id=raw.get("space_id"),
            compatible_since=tuple(
                parse(CompatibleSpace, one, source=source)
                for one in raw.get("compatible_since", ())
            ),
            k=int(raw.get("k", LIST_LENGTH)),
        )
