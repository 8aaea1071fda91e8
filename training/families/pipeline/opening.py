"""A pipeline of a bundle, evaluated and asked again."""

from dataclasses import dataclass
from pathlib import Path

from recsys.core.errors import ConfigError
from recsys.features.bundle.files import read_items
from recsys.features.bundle.lists import ListModel
from recsys.features.dataset.dataset import Dataset
from recsys.features.dataset.queries import Queries
from recsys.features.dataset.split import TEST
from recsys.features.pipeline.searching import PipelineSearch
from recsys.training.evaluation.results import Evaluation
from recsys.training.families.comparing import ModelOnTest
from recsys.training.families.list_evaluation import ListReport, write_list_report
from recsys.training.families.opened import OpenedModel
from recsys.training.families.pipeline.all_rows import trained_on_all
from recsys.training.families.pipeline.asking import Asking, StageRanker, whole
from recsys.training.families.pipeline.config import PipelineExperiment
from recsys.training.families.pipeline.job import TITLE, evaluated, queries_of
from recsys.training.families.pipeline.ranking import relations_of
from recsys.training.families.plain.choose import check_baselines


def evaluate_opened(opened: OpenedModel, report: Path) -> Evaluation:
    """Evaluate an opened pipeline on its own split of the data, and write `report`.

    Raises:
        ConfigError: a baseline is not available, or the catalogue is not that of the pipeline.
    """
    config: PipelineExperiment = opened.config
    check_baselines(config)
    data = trained_on_all(opened.data())
    search = search_in(opened, data)
    queries = queries_of(config, data, TEST, config.evaluation.max_queries)
    evaluation = evaluated(config, data, search, queries)
    write_list_report(report, TITLE, ListReport(config, data, evaluation, queries))
    return evaluation


def search_in(opened: OpenedModel, data: Dataset) -> PipelineSearch:
    """Return what answers with the pipeline of a bundle, for the catalogue of `data`.

    Raises:
        ConfigError: the data have another catalogue.
    """
    model = ListModel.open(opened.bundle.path)
    ids = data.tables.items.column(data.schema.item_key).combine_chunks()
    if not model.item_ids.equals(ids):
        raise ConfigError(
            f"{opened.bundle.path}: the data have other items than the pipeline: train it again"
        )
    search = model.found_by
    assert isinstance(search, PipelineSearch)
    return search.with_relations(relations_of(opened.config))


@dataclass(frozen=True)
class PipelineData:
    """See `recsys.training.families.retrieval.reading.ListData`."""

    config: PipelineExperiment
    data: Dataset

    @property
    def sessions(self) -> None:
        """A pipeline is asked with whole histories."""
        return None

    @property
    def cutting(self) -> None:
        """Requests hold whole histories, too."""
        return None

    def queries(self, part: int, limit: int) -> Queries:
        """Return one query a user of the part, at most `limit`."""
        return queries_of(self.config, self.data, part, limit)


def answering(here: ModelOnTest, reading: PipelineData, _queries: Queries) -> StageRanker:
    """Return what answers queries on the data of a comparison, over the catalogue of its bundle."""
    search = ListModel.open(here.opened.bundle.path).found_by
    assert isinstance(search, PipelineSearch)
    items = read_items(here.opened.bundle)
    search = search.with_relations(relations_of(reading.config))
    return StageRanker(Asking.over(reading.config, here.data, TEST, items), search, whole)
