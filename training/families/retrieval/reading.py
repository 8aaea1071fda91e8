"""The data of a retrieval experiment as its family reads them."""

from collections.abc import Callable
from typing import Any, Protocol, Self

from recsys.bundle.pair_calibration import InteractionProbability
from recsys.features.dataset.dataset import Dataset
from recsys.features.dataset.queries import Queries
from recsys.features.dataset.sessions import SessionConfig, Sessions
from recsys.models.retrieval import RetrievalModel
from recsys.training.config.retrieval import RetrievalExperiment
from recsys.training.engine.loop import Task
from recsys.training.engine.ranks import World
from recsys.training.evaluation.evaluate import Ranker


class ListData(Protocol):
    """What a family of models that give lists makes of the encoded log."""

    @property
    def data(self) -> Dataset:
        """The encoded tables."""

    @property
    def sessions(self) -> Sessions | None:
        """How the log is cut, where the models read sessions step by step."""

    @property
    def cutting(self) -> SessionConfig | None:
        """How requests are cut as the log was; None where whole histories are read."""

    def queries(self, part: int, limit: int) -> Queries:
        """Return the queries of a part as the model reads them, at most `limit`."""


class RetrievalData(ListData, Protocol):
    """What a family of models that learn vectors makes of the encoded log, and trains on it."""

    @property
    def config(self) -> RetrievalExperiment:
        """The experiment."""

    @property
    def notes(self) -> dict[str, str]:
        """What was decided from the data, for the report."""

    def under(self, config: Any) -> Self:
        """Return the same under other settings of the model and its training."""

    def check(self) -> None:
        """Refuse what the data do not allow, before the training.

        Raises:
            DataError: there is too little of something.
        """

    def task(self, validation: Queries, world: World) -> Task[Any]:
        """Return what the loop trains."""

    def trained_baselines(self) -> dict[str, Ranker]:
        """Return rankers that the evaluation names and that are trained, not fitted."""

    def restore(self, model: RetrievalModel) -> None:
        """Put back into a model what comes from the data and no bundle holds."""

    def probability(self, model: RetrievalModel) -> InteractionProbability | None:
        """Return what makes probabilities of scores, where the configuration asks for it."""

    def probability_metrics(
        self, model: RetrievalModel, calibrated: InteractionProbability
    ) -> dict[str, float]:
        """Return how the probabilities do on the test part."""


Read = Callable[[Any, Dataset], RetrievalData]
"""A family's way to read an encoded log under its configuration."""
