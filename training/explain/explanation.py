"""What a trained ranker looks at, measured on a sample of rows or on one row, for readers."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from recsys.bundle.calibration import Calibrator
from recsys.data.batch import FeatureBlock, RankingBatch
from recsys.explanation.attention_maps import AttentionMaps, FieldAttention, attention_maps
from recsys.explanation.explanations import (
    Agreement,
    Contributions,
    Importance,
    Interactions,
    Probability,
    Score,
    agreement,
    contributions,
    pair_interactions,
    permutation_importance,
    row_interactions,
)
from recsys.features.clicks.loader import joined
from recsys.features.clicks.store import take_rows
from recsys.features.dataset.split import PART_NAMES, TEST, TRAIN
from recsys.models.rankers import of_label
from recsys.training.families.ranker.config import RankerExperiment
from recsys.training.families.ranker.rows import RankingRows

REPORTED_ROWS = 10_000
"""Most rows that a report looks at."""
REPEATS = 3
"""Permutations of every field."""
PAIRED_FIELDS = 6
"""The most important fields, among which pairs are looked at: 15 pairs."""
BACKGROUND_ROWS = 256
"""Training rows that the fields of one row are exchanged with."""
_CHUNK_ROWS = 2048


@dataclass(frozen=True)
class Explanation:
    """What a ranker looks at, over `num_rows` rows of a part of the log.

    interactions: of the most important fields. attention: of models that have it. part: "test", or
    where there is no such part "validation" or "training".
    """

    kind: str
    num_rows: int
    importance: Importance
    interactions: Interactions
    attention: AttentionMaps | None
    part: str = PART_NAMES[TEST]

    @property
    def field_agreement(self) -> Agreement | None:
        """How far attention puts the fields into the order that their permutation does."""
        if self.attention is None:
            return None
        return agreement(self.attention.received, self.importance.auc_fall)

    @property
    def pair_agreement(self) -> Agreement | None:
        """How far attention puts the pairs into the order of their interactions."""
        attention = self.attention
        if attention is None:
            return None
        looks = np.array([attention.between(*pair) for pair in self.interactions.pairs])
        return agreement(looks, self.interactions.logits)

    def to_json(self) -> dict[str, Any]:
        """Return all of it as plain values, fields and pairs in the order of their importance."""
        found, place = self.importance, self.importance.names.index
        fields: list[dict[str, Any]] = []
        for name in found.ranking:
            field = place(name)
            one = {
                "auc_fall": float(found.auc_fall[field]),
                "auc_fall_deviation": float(found.auc_deviation[field]),
                "log_loss_rise": float(found.log_loss_rise[field]),
            }
            fields.append({"field": name, **one, **_received(self.attention, name)})
        return {
            "kind": self.kind,
            "rows": self.num_rows,
            "part": self.part,
            "auc": found.auc,
            "log_loss": found.log_loss,
            "fields": fields,
            "pairs": _pairs(self.interactions, self.attention),
            "attention_agreement": {
                name: None if one is None else one.correlation
                for name, one in (("fields", self.field_agreement), ("pairs", self.pair_agreement))
            },
        }


@dataclass(frozen=True)
class RowExplanation:
    """What a ranker looks at on one row.

    title: which row it is. notes: where it comes from. values: of each field, as the user wrote
    it. label: what came of it, None where the log does not say.
    """

    title: str
    notes: tuple[str, ...]
    label: float | None
    values: tuple[str, ...]
    contributions: Contributions
    interactions: Interactions
    attention: AttentionMaps | None

    @property
    def ranking(self) -> tuple[int, ...]:
        """Fields by how far they move the logit, the furthest first."""
        change = np.abs(self.contributions.change)
        return tuple(np.argsort(-change, kind="stable").tolist())

    def to_json(self) -> dict[str, Any]:
        """Return all of it as plain values, fields and pairs in the order of their importance."""
        found, fields = self.contributions, []
        for field in self.ranking:
            name = found.names[field]
            one = {
                "field": name,
                "value": self.values[field],
                "logit_change": float(found.change[field]),
                "logit_change_error": float(found.error[field]),
                "probability_otherwise": float(found.otherwise[field]),
            }
            fields.append({**one, **_received(self.attention, name)})
        return {
            "row": self.title,
            "notes": list(self.notes),
            "label": self.label,
            "logit": found.logit,
            "probability": found.probability,
            "fields": fields,
            "pairs": _pairs(self.interactions, self.attention),
        }


def explain_rows(
    config: RankerExperiment,
    rows: RankingRows,
    model: nn.Module,
    calibrator: Calibrator,
    *,
    max_rows: int = REPORTED_ROWS,
) -> Explanation:
    """Return what `model` looks at, on at most `max_rows` rows of the last part, drawn at random.

    That is the test part, where the split has one.
    """
    seed, part = config.training.seed, config.split.parts[-1]
    batch = sampled(rows, part, max_rows, seed)
    layout, features = rows.layout, batch.features
    with _scoring(model, calibrator) as score:
        importance = permutation_importance(
            score,
            layout,
            features,
            batch.label.numpy(),
            batch.weight.numpy(),
            repeats=REPEATS,
            seed=seed,
            probability=_probability(calibrator),
        )
        most = importance.ranking[:PAIRED_FIELDS]
        pairs = pair_interactions(score, layout, features, most, seed=seed)
        attention = _attention(model, features)
    about = (config.model.kind, len(batch))
    return Explanation(*about, importance, pairs, attention, PART_NAMES[part])


def explain_row(
    config: RankerExperiment,
    rows: RankingRows,
    model: nn.Module,
    calibrator: Calibrator,
    row: FeatureBlock,
) -> tuple[Contributions, Interactions, AttentionMaps | None]:
    """Return what `model` looks at on one row, against a sample of training rows."""
    background = sampled(rows, TRAIN, BACKGROUND_ROWS, config.training.seed).features
    with _scoring(model, calibrator) as score:
        found = contributions(score, rows.layout, row, background, _probability(calibrator))
        order = np.argsort(-np.abs(found.change), kind="stable")
        most = [found.names[field] for field in order[:PAIRED_FIELDS]]
        pairs = row_interactions(score, rows.layout, row, background, most)
        return found, pairs, _attention(model, row)


def sampled(rows: RankingRows, part: int, count: int, seed: int) -> RankingBatch:
    """Return `count` rows of a part, drawn without replacement, or all of them where fewer."""
    total = rows.rows[part]
    rng = np.random.default_rng(seed)
    chosen = np.sort(rng.choice(total, min(count, total), replace=False))
    pieces, first = [], 0
    for batch in rows.loader.ordered(part, _CHUNK_ROWS):
        begin, end = np.searchsorted(chosen, (first, first + len(batch)))
        if end > begin:
            pieces.append(take_rows(batch, torch.from_numpy(chosen[begin:end] - first)))
        first += len(batch)
    return joined(pieces)


@contextmanager
def _scoring(model: nn.Module, calibrator: Calibrator) -> Iterator[Score]:
    """Give logits of `model` in evaluation mode, with the sampling of the training rows undone."""

    @torch.no_grad()
    def score(features: FeatureBlock) -> Tensor:
        chunks = torch.arange(len(features)).split(_CHUNK_ROWS)
        logits = [of_label(model(features.take(chunk))) for chunk in chunks]
        return torch.cat(logits) + calibrator.offset

    was_training = model.training
    model.eval()
    try:
        yield score
    finally:
        model.train(was_training)


def _probability(calibrator: Calibrator) -> Probability:
    """Return what makes probabilities of the logits that `_scoring` gives."""
    return lambda logits: calibrator.probability(logits - calibrator.offset)


def _attention(model: nn.Module, features: FeatureBlock) -> AttentionMaps | None:
    if not isinstance(model, FieldAttention):
        return None
    return attention_maps(model.attention, model.fields.names, features)


def _received(attention: AttentionMaps | None, name: str) -> dict[str, float]:
    if attention is None:
        return {}
    return {"attention": float(attention.received[attention.names.index(name)])}


def _pairs(found: Interactions, attention: AttentionMaps | None) -> list[dict[str, Any]]:
    return [
        {
            "fields": list(pair),
            "logits": logits,
            **({} if attention is None else {"attention": attention.between(*pair)}),
        }
        for pair, logits in found.strongest(len(found.pairs))
    ]
