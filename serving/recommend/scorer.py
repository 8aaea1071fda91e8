"""The scorer: a verified bundle that answers requests with recommendations.

One code path for batch scoring, the MLflow model and the probe that is replayed at load.
"""

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from torch import Tensor

from recsys.bundle.calibration import CALIBRATOR_FILE
from recsys.bundle.directory import Bundle
from recsys.bundle.pair_calibration import TakeProbability
from recsys.bundle.weights import load_retrieval
from recsys.core.errors import ConfigError, IntegrityError
from recsys.data.batch import FeatureLayout
from recsys.embeddings.table import TableConfig
from recsys.features.dataset.sessions import SessionConfig
from recsys.features.encoding.encoder import FeatureEncoder
from recsys.features.requests.origin import RequestOrigin
from recsys.features.requests.table import Requests, encode_requests, ids_sha256
from recsys.features.schema import Schema
from recsys.features.tables.sources import Policies
from recsys.models.retrieval import RETRIEVAL, RetrievalModel
from recsys.retrieval.index.build import load_index
from recsys.retrieval.index.exact import ExactVectors
from recsys.retrieval.index.protocol import Index
from recsys.retrieval.recommend import recommend
from recsys.serving.recommend.seen import judged_without_seen, seen_in_words

EXHAUSTED = "exhausted"
"""Why a list is short: no further item is left that may be shown."""
SCORE_TOLERANCE = 1e-4
_UNNAMED = RequestOrigin()


@dataclass(frozen=True)
class Scorer:
    """Answers request tables (`recsys.features.requests.table`) from one bundle."""

    bundle: Bundle
    encoder: FeatureEncoder
    policies: Policies
    model: RetrievalModel
    index: Index
    vectors: Tensor
    item_ids: pa.Array
    k: int
    filter_seen: bool
    """Whether lists leave out what the user has taken."""
    judged_without_seen: bool
    """Whether they did when the model was evaluated."""
    probability: bool
    calibration: TakeProbability | None
    is_new: NDArray[np.bool_]
    sessions: SessionConfig | None
    """How a log is cut into sessions; None where the model reads whole histories."""

    @classmethod
    def open(
        cls,
        path: Path,
        k: int = 20,
        filter_seen: bool | None = None,
        probability: bool = False,
    ) -> Self:
        """Verify and read the bundle at `path`, and replay its probe.

        Args:
            path: of a retrieval model's bundle.
            k: longest list, unless `score` is told another.
            filter_seen: leave out what a user has taken; None: as when the model was evaluated.
            probability: add that the user takes each item.

        Raises:
            NotFoundError: there is no bundle.
            IntegrityError: a file is not what was written, model and index do not belong
                together, or the probe's answers are not reproduced here.
            ConfigError: probabilities are wanted of a model trained without calibration.
        """
        bundle = Bundle.open(path)
        facts: dict[str, Any] = bundle.json("model.json")
        encoder = FeatureEncoder.from_bytes(
            bundle.read("encoder/encoder.json"), bundle.read("encoder/known_ids.safetensors")
        )
        index, vectors = load_index(
            lambda name: bundle.read(f"index/{name}"),
            expected_space_id=facts["space_id"],
            source=path,
        )
        items = pq.read_table(io.BytesIO(bundle.read("items.parquet")))
        item_ids = items.column(encoder.schema.item_key).combine_chunks()
        if bundle.json("index/index.json")["item_ids_sha256"] != ids_sha256(item_ids):
            raise IntegrityError(f"{path}: the index was built over other items than items.parquet")
        judged = judged_without_seen(bundle)
        scorer = cls(
            bundle=bundle,
            encoder=encoder,
            policies=Policies.model_validate_json(json.dumps(facts["policies"])),
            model=_model(bundle, encoder, facts),
            index=index,
            vectors=vectors,
            item_ids=item_ids,
            k=_checked_k(k),
            filter_seen=judged if filter_seen is None else filter_seen,
            judged_without_seen=judged,
            probability=probability,
            calibration=_calibration(bundle),
            is_new=np.asarray(items.column("train_count")) == 0,
            sessions=_sessions(facts),
        )
        if probability:
            scorer.calibrated()
        scorer.replay_probe()
        return scorer

    @property
    def schema(self) -> Schema:
        """The schema that the model was trained with."""
        return self.encoder.schema

    @property
    def seen_items(self) -> str:
        """What becomes of items that the user has taken, and why, in words."""
        return seen_in_words(self.filter_seen, self.judged_without_seen)

    def score(
        self,
        requests: pa.Table,
        k: int | None = None,
        filter_seen: bool | None = None,
        probability: bool | None = None,
        origin: RequestOrigin = _UNNAMED,
    ) -> pa.Table:
        """Return one row a request: user key, items, scores, reason (null unless short).

        Lists hold at most k items, best first, and fewer where fewer are left: never padding,
        never an item that the user has seen (unless `filter_seen` is off). With `probability`
        there is a column `probabilities`: that the user takes each item of the list.

        Raises:
            ConfigError: probabilities are wanted of a model trained without calibration.
            DataError: the requests do not fit the model; `origin` is named.
        """
        return self.answer(self.encode(requests, origin), k, filter_seen, probability)

    def answer(
        self,
        requests: Requests,
        k: int | None = None,
        filter_seen: bool | None = None,
        probability: bool | None = None,
    ) -> pa.Table:
        """Return what `score` returns, for requests that are encoded already."""
        wanted = _checked_k(self.k if k is None else k)
        without_seen = self.filter_seen if filter_seen is None else filter_seen
        scores, rows = self._recommend(requests, wanted, without_seen, self.index)
        table = self._table(requests, scores, rows, wanted)
        if self.probability if probability is None else probability:
            found = self._probabilities(requests, scores, rows)
            bounds = table.column("scores").combine_chunks().offsets
            lists = pa.LargeListArray.from_arrays(bounds, found)
            table = table.add_column(table.num_columns - 1, "probabilities", lists)
        return table

    def calibrated(self) -> TakeProbability:
        """Return what turns scores into probabilities.

        Raises:
            ConfigError: the model was trained without calibration.
        """
        if self.calibration is None:
            raise ConfigError(
                f"{self.bundle.path}: the model gives no probabilities: train it with "
                "calibration: logistic (or isotonic)"
            )
        return self.calibration

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
            origin=origin,
        )

    def replay_probe(self) -> None:
        """Answer the bundle's golden requests again with exact search and compare.

        Raises:
            IntegrityError: another item, or a score further off than `SCORE_TOLERANCE`.
        """
        table = pq.read_table(io.BytesIO(self.bundle.read("probe.parquet")))
        lengths = [len(items) for items in table.column("expected_items").to_pylist()]
        requests = self.encode(table)
        exact = ExactVectors(self.vectors)
        scores, rows = self._recommend(requests, max([1, *lengths]), True, exact)
        answer = self._table(requests, scores, rows, max([1, *lengths]))
        for user, items, wanted, got, expected in zip(
            answer.column(0).to_pylist(),
            answer.column("items").to_pylist(),
            table.column("expected_items").to_pylist(),
            answer.column("scores").to_pylist(),
            table.column("expected_scores").to_pylist(),
            strict=True,
        ):
            if not _same(items[: len(wanted)], wanted, got[: len(wanted)], expected):
                raise IntegrityError(
                    f"{self.bundle.path}: the probe for user {user!r} gives {items[:3]}..., "
                    f"{wanted[:3]}... was recorded: this installation computes other "
                    "scores than the one that trained the model"
                )

    def _recommend(
        self, requests: Requests, k: int, filter_seen: bool, index: Index
    ) -> tuple[Tensor, Tensor]:
        return recommend(
            self.model,
            index,
            self.vectors,
            requests.block,
            requests.history,
            k=min(k, len(self.item_ids)),
            exclude=requests.seen if filter_seen else None,
        )

    def _probabilities(self, requests: Requests, scores: Tensor, rows: Tensor) -> pa.Array:
        """Return one probability for each item found, list after list."""
        found = rows >= 0
        events = requests.num_events.unsqueeze(1).expand_as(rows)[found].numpy()
        is_new = self.is_new[rows[found].numpy()]
        return pa.array(self.calibrated().probability(scores[found].numpy(), events, is_new))

    def _table(self, requests: Requests, scores: Tensor, rows: Tensor, k: int) -> pa.Table:
        found = rows >= 0
        lengths = found.sum(1).numpy()
        bounds = pa.array(np.concatenate([[0], np.cumsum(lengths)]))
        items = self.item_ids.take(pa.array(rows[found].numpy()))
        reason = pa.array(np.where(lengths < k, EXHAUSTED, ""), pa.string())
        return pa.table(
            {
                self.schema.user_key: requests.user_ids,
                "items": pa.LargeListArray.from_arrays(bounds, items),
                "scores": pa.LargeListArray.from_arrays(bounds, pa.array(scores[found].numpy())),
                "reason": pc.if_else(pc.equal(reason, ""), None, reason),
            }
        )


def _model(bundle: Bundle, encoder: FeatureEncoder, facts: dict[str, Any]) -> RetrievalModel:
    kind = RETRIEVAL[facts["kind"]]
    settings: Any = kind.config.model_validate_json(json.dumps(facts["model"]))
    layouts = encoder.retrieval_layouts(of_steps=kind.of_steps)
    stored = tuple(FeatureLayout.from_json(raw) for raw in facts["layouts"])
    if [_settled(one) for one in stored] != [_settled(one) for one in layouts]:
        raise IntegrityError(
            f"{bundle.path}: the encoder lays out {layouts}, the model was trained on {stored}"
        )
    return load_retrieval(
        bundle.read("weights.safetensors"),
        settings,
        TableConfig.model_validate_json(json.dumps(facts["embedding"])),
        layouts,
    )


def _sessions(facts: dict[str, Any]) -> SessionConfig | None:
    if not RETRIEVAL[facts["kind"]].of_steps:
        return None
    return SessionConfig.model_validate_json(json.dumps(facts["sessions"]))


def _calibration(bundle: Bundle) -> TakeProbability | None:
    if not bundle.has(CALIBRATOR_FILE):
        return None
    return TakeProbability.from_json(bundle.text(CALIBRATOR_FILE))


def _settled(layout: FeatureLayout) -> tuple[object, ...]:
    return layout.single, layout.multi, layout.dense, layout.poolings


def _checked_k(k: int) -> int:
    if k < 1:
        raise ConfigError(f"k must be at least 1, got {k}")
    return k


def _same(items: list[Any], wanted: list[Any], got: list[float], expected: list[float]) -> bool:
    """Equal lists up to rounding: neighbours whose scores nearly tie may have changed places."""
    if len(items) != len(wanted) or not np.allclose(got, expected, rtol=0, atol=SCORE_TOLERANCE):
        return False
    score_of = dict(zip(wanted, expected, strict=True))
    last = expected[-1] if expected else 0.0
    return all(
        abs(score_of.get(item, last) - score) <= SCORE_TOLERANCE
        for item, score in zip(items, got, strict=True)
    )
