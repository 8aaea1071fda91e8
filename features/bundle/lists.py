"""A model that answers requests with lists of items, out of its bundle."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from torch import Tensor

from recsys.bundle.pair_calibration import InteractionProbability
from recsys.core.errors import ConfigError, IntegrityError
from recsys.features.bundle.files import (
    ITEMS,
    TRAIN_COUNT,
    index_files,
    read_calibration,
    read_items,
    read_memory,
    read_request_probe,
)
from recsys.features.bundle.model_bundle import ModelBundle
from recsys.features.bundle.request_probe import check_answers, longest_list
from recsys.features.dataset.sessions import SessionConfig
from recsys.features.requests.origin import RequestOrigin
from recsys.features.requests.table import Requests, encode_requests, ids_sha256
from recsys.models.retrieval import RetrievalModel
from recsys.retrieval.index.build import load_index, read_facts
from recsys.retrieval.index.exact import ExactVectors
from recsys.retrieval.index.protocol import Index
from recsys.retrieval.memory import PairMemory
from recsys.retrieval.passing import Passing
from recsys.retrieval.recommend import recommend

_UNNAMED = RequestOrigin()


@dataclass(frozen=True)
class ListModel(ModelBundle):
    """A model that retrieves, out of a verified bundle, its probe replayed.

    Attributes:
        vectors: (n, E) float32 of the catalogue.
        item_ids: (n,) of the catalogue, ascending.
        is_new: (n,) which items have no training row.
        memory: of pairs of items, which adds to the scores.
    """

    model: RetrievalModel
    index: Index
    vectors: Tensor
    item_ids: pa.Array
    is_new: NDArray[np.bool_]
    calibration: InteractionProbability | None
    memory: PairMemory | None

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
        about, read = found.description, index_files(found.bundle)
        if about.gives_rows:
            raise ConfigError(
                f"{path}: a {about.kind} gives a probability for each row, and no lists of items: "
                "give it rows"
            )
        index, vectors = load_index(read, expected_space_id=str(about.space_id), source=path)
        items = read_items(found.bundle)
        item_ids = items.column(found.schema.item_key).combine_chunks()
        if read_facts(read)["item_ids_sha256"] != ids_sha256(item_ids):
            raise IntegrityError(f"{path}: the index was built over other items than {ITEMS}")
        model = cls(
            **vars(found),
            model=found.retrieval_model(),
            index=index,
            vectors=vectors,
            item_ids=item_ids,
            is_new=np.asarray(items.column(TRAIN_COUNT)) == 0,
            calibration=read_calibration(found.bundle, InteractionProbability),
            memory=read_memory(found.bundle, len(item_ids)),
        )
        model.replay_probe()
        return model

    @property
    def sessions(self) -> SessionConfig | None:
        """How a log is cut into sessions; None where the model reads whole histories."""
        return self.description.sessions

    def encode(self, requests: pa.Table, origin: RequestOrigin = _UNNAMED) -> Requests:
        """Return `requests` as tensors; refuses a table without user key or history."""
        sessions = self.sessions
        return encode_requests(
            self.encoder,
            self.item_ids,
            requests,
            history_length=self.model.config.history_length,
            steps=sessions is not None,
            inactivity_minutes=None if sessions is None else sessions.inactivity_minutes,
            policies=self.policies,
            origin=origin,
        )

    def search(
        self,
        requests: Requests,
        k: int,
        *,
        filter_seen: bool,
        index: Index | None = None,
        passing: Passing | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return scores (B, k) float32 and rows of the catalogue (B, k) int64, -1 where short.

        Args:
            requests: B of them.
            k: longest list; no more than there are items.
            filter_seen: leave out what the user has seen.
            index: what is searched; None: the bundle's index.
            passing: which items may be in the lists; None: all.
        """
        seen = requests.seen if filter_seen else None
        return recommend(
            self.model,
            self.index if index is None else index,
            self.vectors,
            requests.block,
            requests.history,
            k=min(k, len(self.item_ids)),
            exclude=seen if passing is None else passing.hiding(seen),
            memory=self.memory,
        )

    def replay_probe(self) -> None:
        """Answer the bundle's golden requests again with exact search and compare.

        Raises:
            IntegrityError: another item, or a score further off than the tolerance.
        """
        probe, exact = read_request_probe(self.bundle), ExactVectors(self.vectors)
        requests, k = self.encode(probe), longest_list(probe)
        scores, rows = self.search(requests, k, filter_seen=True, index=exact)
        user_key, who = self.schema.user_key, str(self.bundle.path)
        check_answers(probe, self.item_ids, scores, rows, user_key=user_key, who=who)
