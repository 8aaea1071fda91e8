"""A model that answers requests with lists of items, out of its bundle."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from torch import Tensor

from recsys.bundle.directory import Bundle
from recsys.bundle.pair_calibration import InteractionProbability
from recsys.bundle.relevance import Relevance
from recsys.core.errors import ConfigError, IntegrityError
from recsys.core.strict import listed
from recsys.features.bundle.files import (
    ITEMS,
    TRAIN_COUNT,
    index_files,
    ranker_folder,
    read_calibration,
    read_items,
    read_memory,
    read_relevance,
    read_request_probe,
    source_folders,
)
from recsys.features.bundle.model_bundle import ModelBundle
from recsys.features.bundle.request_probe import check_answers, longest_list
from recsys.features.bundle.rows import RowModel
from recsys.features.bundle.searching import Found, PlainSearch, Search, VectorSearch
from recsys.features.dataset.sessions import SessionConfig
from recsys.features.filters.columns import CatalogueColumns
from recsys.features.pipeline.model import JoinedModel
from recsys.features.pipeline.row_ranker import RowRanker
from recsys.features.pipeline.rules import Rules
from recsys.features.pipeline.searching import PipelineSearch
from recsys.features.requests.origin import RequestOrigin
from recsys.features.requests.table import Requests, encode_requests, ids_sha256
from recsys.models.retrieval import RetrievalModel
from recsys.retrieval.index.build import load_index, read_facts
from recsys.retrieval.index.protocol import Index
from recsys.retrieval.memory import PairMemory
from recsys.retrieval.passing import Passing

_UNNAMED = RequestOrigin()


@dataclass(frozen=True)
class ListModel(ModelBundle):
    """A model that gives lists, out of a verified bundle, its probe replayed.

    Attributes:
        found_by: how it finds items.
        item_ids: (n,) of the catalogue, ascending.
        is_new: (n,) which items have no training row.
        calibration: what makes probabilities of scores, where the model has that.
    """

    found_by: Search
    item_ids: pa.Array
    is_new: NDArray[np.bool_]
    calibration: InteractionProbability | None

    @classmethod
    def open(cls, path: Path) -> Self:
        """Verify and read the bundle at `path`, and replay its probe.

        Raises:
            NotFoundError: there is no bundle.
            ConfigError: its model answers rows, or the library of its index is not installed.
            IntegrityError: a file is not what was written, model and index do not belong
                together, or the probe's answers are not reproduced here.
        """
        found = ModelBundle.read(path)
        about = found.description
        if about.gives_rows:
            raise ConfigError(
                f"{path}: a {about.kind} gives a probability for each row, and no lists of items: "
                "give it rows"
            )
        items = read_items(found.bundle)
        item_ids = items.column(found.schema.item_key).combine_chunks()
        search: Search
        if about.has_sources:
            search = _pipeline_search(found, item_ids)
        elif about.space_id is None:
            search = PlainSearch(found.plain_model())
        else:
            search = _vector_search(found, item_ids)
        model = cls(
            **vars(found),
            found_by=search,
            item_ids=item_ids,
            is_new=np.asarray(items.column(TRAIN_COUNT)) == 0,
            calibration=read_calibration(found.bundle, InteractionProbability),
        )
        model.replay_probe()
        return model

    @property
    def sessions(self) -> SessionConfig | None:
        """How a log is cut into sessions; None where the model reads whole histories."""
        return self.description.sessions

    @property
    def by_vectors(self) -> VectorSearch:
        """The model, its vectors and its index.

        Raises:
            ConfigError: it has no vectors.
        """
        if not isinstance(self.found_by, VectorSearch):
            self._has_no_vectors()
        return self.found_by

    @property
    def model(self) -> RetrievalModel:
        """The model that encodes requests and items; see `by_vectors`."""
        return self.by_vectors.model

    @property
    def index(self) -> Index:
        """The index over the items' vectors; see `by_vectors`."""
        return self.by_vectors.index

    @property
    def vectors(self) -> Tensor:
        """Vectors of the catalogue, (n, E) float32; see `by_vectors`."""
        return self.by_vectors.vectors

    @property
    def memory(self) -> PairMemory | None:
        """The memory of pairs of items, which adds to the scores; see `by_vectors`."""
        return self.by_vectors.memory

    @property
    def relevance(self) -> Relevance | None:
        """Where relevance ends in a list; None: the model does not know."""
        return self.found_by.relevance if isinstance(self.found_by, VectorSearch) else None

    def encode(self, requests: pa.Table, origin: RequestOrigin = _UNNAMED) -> Requests:
        """Return `requests` as tensors; refuses a table without user key or history."""
        sessions, settings = self.sessions, self.description.model
        length: Any = getattr(settings, "history_length")  # noqa: B009 - of models of lists
        found = encode_requests(
            self.encoder,
            self.item_ids,
            requests,
            history_length=length,
            steps=sessions is not None,
            inactivity_minutes=None if sessions is None else sessions.inactivity_minutes,
            policies=self.policies,
            origin=origin,
        )
        if isinstance(self.found_by, PipelineSearch):
            return self.found_by.reading(found, requests, origin)
        return found

    def search(
        self,
        requests: Requests,
        k: int,
        *,
        filter_seen: bool,
        exact: bool = False,
        passing: Passing | None = None,
    ) -> Found:
        """Return the best items of B requests.

        Args:
            requests: B of them.
            k: longest list; no more than there are items.
            filter_seen: leave out what the user has seen.
            exact: search all vectors and not the bundle's index.
            passing: which items may be in the lists; None: all.
        """
        seen = requests.seen if filter_seen else None
        exclude = seen if passing is None else passing.hiding(seen)
        return self.found_by(requests, min(k, len(self.item_ids)), exclude=exclude, exact=exact)

    def replay_probe(self) -> None:
        """Answer the bundle's golden requests again with exact search and compare.

        Raises:
            IntegrityError: another item, or a score further off than the tolerance.
        """
        probe = read_request_probe(self.bundle)
        requests, k = self.encode(probe), longest_list(probe)
        found = self.search(requests, k, filter_seen=True, exact=True)
        user_key, who = self.schema.user_key, str(self.bundle.path)
        check_answers(probe, self.item_ids, found.scores, found.rows, user_key=user_key, who=who)

    def _has_no_vectors(self) -> NoReturn:
        if isinstance(self.found_by, PipelineSearch):
            raise ConfigError(_no_vectors_of_its_own(self.bundle, self.found_by))
        raise ConfigError(
            f"{self.bundle.path}: a model of kind {self.description.kind} scores items by what it "
            "counted, and has no vectors: recommend, score and similar_items answer with it; for "
            "vectors or an index train model.kind: two_tower or session"
        )


def _no_vectors_of_its_own(bundle: Bundle, search: PipelineSearch) -> str:
    """Say which sources of a pipeline have vectors, and where they are."""
    said = f"{bundle.path}: a pipeline joins what its sources name, and has no vectors of its own"
    found = [
        f"{name} in {folder}"
        for name, source, folder in zip(
            search.names, search.sources, source_folders(bundle), strict=True
        )
        if isinstance(source.found_by, VectorSearch)
    ]
    if not found:
        return f"{said}, nor has a source: {listed(search.names, 'and')} score by what they counted"
    return f"{said}; export or open a source that has some by its path: {'; '.join(found)}"


def _vector_search(found: ModelBundle, item_ids: pa.Array) -> VectorSearch:
    path, read = found.bundle.path, index_files(found.bundle)
    index, vectors = load_index(
        read, expected_space_id=str(found.description.space_id), source=path
    )
    if read_facts(read)["item_ids_sha256"] != ids_sha256(item_ids):
        raise IntegrityError(f"{path}: the index was built over other items than {ITEMS}")
    memory = read_memory(found.bundle, len(item_ids))
    relevance = read_relevance(found.bundle)
    return VectorSearch(found.retrieval_model(), index, vectors, memory, relevance)


def _pipeline_search(found: ModelBundle, item_ids: pa.Array) -> PipelineSearch:
    settings: Any = found.description.model
    sources = []
    for path in source_folders(found.bundle):
        source = ListModel.open(path)
        if not source.item_ids.equals(item_ids):
            raise IntegrityError(f"{path}: a source of other items than the pipeline's")
        sources.append(source)
    rules = None
    if settings.rules:
        columns = CatalogueColumns(found.schema, lambda: read_items(found.bundle))
        rules = Rules.compiled(settings.rules, columns, len(item_ids), first_vectors(sources))
    return PipelineSearch(
        names=settings.names,
        sources=tuple(sources),
        takes=tuple(source.take for source in settings.sources),
        only_new=tuple(source.new_items is not None for source in settings.sources),
        joined=_joined(found, settings.names),
        rules=rules,
    )


def _joined(found: ModelBundle, sources: Sequence[str]) -> JoinedModel:
    """Return what joins and ranks, with the ranker that is a bundle of its own."""
    joined, path = found.joined_model(), ranker_folder(found.bundle)
    if path is None:
        return joined
    names, items = joined.names(sources), read_items(found.bundle)
    now, windows = found.encoder.reference_time, found.schema.relation_features
    ranker = RowRanker.of(RowModel.open(path), names, items, now, windows)
    return replace(joined, ranker=ranker)


def first_vectors(sources: Sequence[ListModel]) -> NDArray[np.float32] | None:
    """Return the item vectors of the first source that has some."""
    found = (one.found_by for one in sources)
    vectors = next((one.vectors for one in found if isinstance(one, VectorSearch)), None)
    return None if vectors is None else vectors.numpy()
