"""The data of an experiment with a plain model."""

from dataclasses import dataclass, replace
from typing import Self

from recsys.features.dataset.dataset import Dataset
from recsys.features.dataset.queries import Queries, build_queries
from recsys.features.dataset.session_queries import build_session_queries
from recsys.features.dataset.sessions import SessionConfig, Sessions, cut_sessions
from recsys.plain.answering import MovedModel, PlainModel
from recsys.training.families.plain.config import PlainExperiment
from recsys.training.families.plain.fallback import Answering, PlainRanker


@dataclass(frozen=True)
class PlainData:
    """The encoded log, and how it is cut where the model is one of sessions."""

    config: PlainExperiment
    data: Dataset
    sessions: Sessions | None

    @classmethod
    def of(cls, config: PlainExperiment, data: Dataset) -> Self:
        """Cut the log of `data` where `config.sessions` says how.

        Raises:
            ConfigError: it cannot be cut so.
        """
        cutting = config.sessions
        return cls(config, data, None if cutting is None else cut_sessions(data, cutting))

    @property
    def cutting(self) -> SessionConfig | None:
        """How requests are cut as the log was; None where whole histories are read."""
        return self.config.sessions

    def under(self, config: PlainExperiment) -> Self:
        """Return the same log under other settings of the model."""
        return replace(self, config=config)

    def queries(self, part: int, limit: int) -> Queries:
        """Return one query a user or an event of the part, at most `limit`."""
        config, sessions = self.config, self.sessions
        settings = config.evaluation
        if sessions is None:
            return build_queries(
                self.data,
                part,
                history_length=config.model.history_length,
                filter_seen=settings.filter_seen,
                limit=limit,
                seed=config.training.seed,
            )
        return build_session_queries(
            self.data,
            sessions,
            part,
            per="event" if settings.queries == "events" else "user",
            history_length=config.model.history_length,
            filter_seen=settings.filter_seen,
            limit=limit,
            seed=config.training.seed,
        )

    def ranker(self, model: PlainModel | MovedModel) -> PlainRanker:
        """Return the model as what is evaluated."""
        filter_seen = self.config.evaluation.filter_seen
        of_sessions = self.sessions is not None
        return PlainRanker(model, Answering(filter_seen=filter_seen, of_sessions=of_sessions))
