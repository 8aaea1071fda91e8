"""The data of a two-tower's experiment: users and their items."""

from dataclasses import dataclass, replace
from typing import Self

from recsys.bundle.pair_calibration import InteractionProbability
from recsys.data.batch import PairBatch
from recsys.features.dataset.dataset import Dataset
from recsys.features.dataset.queries import Queries, build_queries
from recsys.features.dataset.split import TEST
from recsys.models.retrieval import RetrievalModel
from recsys.models.two_tower import TwoTower
from recsys.training.engine.loop import Task
from recsys.training.engine.ranks import World
from recsys.training.evaluation.evaluate import Ranker
from recsys.training.families.two_tower.config import TwoTowerExperiment
from recsys.training.families.two_tower.enough import check_rows
from recsys.training.families.two_tower.pair_calibrating import (
    interaction_probability,
    probability_metrics,
)
from recsys.training.families.two_tower.task import smoothing_of, two_tower_task


@dataclass(frozen=True)
class TwoTowerData:
    """See `recsys.training.families.retrieval.reading.RetrievalData`."""

    config: TwoTowerExperiment
    data: Dataset

    @property
    def sessions(self) -> None:
        """A two-tower reads what a user interacted with as a whole."""
        return None

    @property
    def cutting(self) -> None:
        """Requests hold whole histories, too."""
        return None

    @property
    def notes(self) -> dict[str, str]:
        """Nothing is decided from the data."""
        return {}

    def under(self, config: TwoTowerExperiment) -> Self:
        """Return the same under other settings of the model and its training."""
        return replace(self, config=config)

    def check(self) -> None:
        """Refuse rows that no training, or none with this calibration, can come of.

        Raises:
            ConfigError, DataError: what there is too little of.
        """
        check_rows(self.config, self.data.tables, self.data.part)

    def queries(self, part: int, limit: int) -> Queries:
        """Return one query a user of the part, at most `limit`."""
        config = self.config
        return build_queries(
            self.data,
            part,
            history_length=config.model.history_length,
            filter_seen=config.evaluation.filter_seen,
            limit=limit,
            seed=config.training.seed,
        )

    def task(self, validation: Queries, world: World) -> Task[PairBatch]:
        """Return what the loop trains."""
        return two_tower_task(self.config, self.data, validation, world)

    def trained_baselines(self) -> dict[str, Ranker]:
        """Return no ranker: all baselines of a two-tower are fitted."""
        return {}

    def restore(self, model: RetrievalModel) -> None:
        """Put back the graph of users and items, where items are smoothed over it."""
        assert isinstance(model, TwoTower)
        model.smoothing = smoothing_of(self.config, self.data)

    def probability(self, model: RetrievalModel) -> InteractionProbability | None:
        """Return what makes probabilities of scores, where the configuration asks for it."""
        assert isinstance(model, TwoTower)
        return interaction_probability(self.config, self.data, model)

    def probability_metrics(
        self, model: RetrievalModel, calibrated: InteractionProbability
    ) -> dict[str, float]:
        """Return how the probabilities do on the test part, for known and for new items."""
        assert isinstance(model, TwoTower)
        if self.config.split.evaluated != TEST:  # it was fitted on what is evaluated on
            return {}
        return probability_metrics(self.config, self.data, model, calibrated)
