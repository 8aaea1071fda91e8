"""The data of an experiment with a model of sessions: the log cut where a visit ends."""

from dataclasses import dataclass, field, replace
from typing import Self

from recsys.bundle.pair_calibration import InteractionProbability
from recsys.data.batch import SessionBatch
from recsys.features.dataset.dataset import Dataset
from recsys.features.dataset.queries import Queries
from recsys.features.dataset.session_queries import build_session_queries
from recsys.features.dataset.sessions import SessionConfig, Sessions, cut_sessions
from recsys.models.retrieval import RetrievalModel
from recsys.retrieval.recurrence import Recurrence
from recsys.training.engine.loop import Task
from recsys.training.engine.ranks import World
from recsys.training.evaluation.evaluate import Ranker
from recsys.training.families.plain.rows import counted
from recsys.training.families.session.config import SessionExperiment
from recsys.training.families.session.enough import check_rows
from recsys.training.families.session.ids_only import ids_only_ranker
from recsys.training.families.session.repeats import with_repeats
from recsys.training.families.session.task import session_task


@dataclass(frozen=True)
class SessionData:
    """See `recsys.training.families.retrieval.reading.RetrievalData`."""

    config: SessionExperiment
    data: Dataset
    sessions: Sessions
    notes: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, config: SessionExperiment, data: Dataset) -> Self:
        """Cut the log of `data` as `config.sessions` says, and decide what is left to the data.

        Raises:
            ConfigError: it cannot be cut so.
        """
        return cls(config, data, cut_sessions(data, config.sessions)).under(config)

    @property
    def cutting(self) -> SessionConfig:
        """How requests are cut as the log was."""
        return self.config.sessions

    def under(self, config: SessionExperiment) -> Self:
        """Return the same sessions under other settings of the model and its training."""
        if config.model.repeats != "auto":
            return replace(self, config=config, notes={})
        rows = counted(self.data, self.sessions)
        found = Recurrence.of(rows.sequence, rows.item, config.model.history_length)
        config, notes = with_repeats(config, found)
        return replace(self, config=config, notes=notes)

    def check(self) -> None:
        """Refuse a log without a next item to learn, or without anybody to ask.

        Raises:
            ConfigError, DataError: what there is too little of.
        """
        check_rows(self.config, self.data.tables, self.data.part)

    def queries(self, part: int, limit: int) -> Queries:
        """Return one query a user or an event of the part, at most `limit`."""
        config = self.config
        return build_session_queries(
            self.data,
            self.sessions,
            part,
            per="event" if config.evaluation.queries == "events" else "user",
            history_length=config.model.history_length,
            filter_seen=config.evaluation.filter_seen,
            limit=limit,
            seed=config.training.seed,
        )

    def task(self, validation: Queries, world: World) -> Task[SessionBatch]:
        """Return what the loop trains."""
        return session_task(self.config, self.data, self.sessions, validation, world)

    def trained_baselines(self) -> dict[str, Ranker]:
        """Return the transformer on ids alone, where the evaluation names it."""
        if "sasrec" not in self.config.evaluation.baselines:
            return {}
        return {"sasrec": ids_only_ranker(self.config, self.data, self.sessions)}

    def restore(self, model: RetrievalModel) -> None:
        """A bundle holds all that such a model is."""

    def probability(self, model: RetrievalModel) -> InteractionProbability | None:
        """Return None: scores of sessions have no calibration."""
        return None

    def probability_metrics(
        self, model: RetrievalModel, calibrated: InteractionProbability
    ) -> dict[str, float]:
        """Return nothing: there are no probabilities."""
        return {}
