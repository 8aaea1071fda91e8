"""What `recsys check` says about a click log that is encoded on disk: parts, features, doubts."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from recsys.data.batch import FeatureBlock, FeatureLayout
from recsys.features.clicks.log import ClickLog
from recsys.features.dataset.split import TEST, TRAIN, VALIDATION
from recsys.features.encoding.hashing import NULL_HASH, UNKNOWN_HASH
from recsys.features.propose.labels import LabelledPart, label_lines, label_warnings
from recsys.features.propose.text_grid import grid
from recsys.features.tables.ledger import Drop

SEEN_ROWS = {TRAIN: 1_000_000, VALIDATION: 100_000, TEST: 100_000}
"""Rows of a part whose features are looked at, the first ones."""
_PARTS = ("train", "validation", "test")


@dataclass(frozen=True)
class ClickFeature:
    """The values of one feature in the inspected rows.

    lookups: rows of the table that a value reads, 0 for numbers. nulls: share of the training
    values that are null; rare: that `min_count` made unknown. values: distinct ones in training.
    unseen: share of the test values, null apart, that no training row looked at holds.
    """

    feature: str
    lookups: int
    nulls: float
    values: int = 0
    rare: float = 0.0
    unseen: float = 0.0


@dataclass(frozen=True)
class ClickReport:
    """Everything `recsys check` prints of a click log."""

    parts: tuple[LabelledPart, ...]
    features: tuple[ClickFeature, ...]
    drops: tuple[Drop, ...]
    warnings: tuple[str, ...]
    table_bytes: int
    fingerprint: str
    folder: str

    def lines(self) -> list[str]:
        """Return the report as text."""
        out = [f"{sum(part.rows for part in self.parts):,} interactions", ""]
        out += label_lines(self.parts)
        head = ("feature", "lookups", "null", "distinct", "rare", "new in test")
        out += ["", *grid(head, [_row(feature) for feature in self.features]), ""]
        out += [f"embedding table with its optimizer state: {self.table_bytes / 1e6:,.1f} MB"]
        out += [str(drop) for drop in self.drops]
        out += [f"encoded in {self.folder}; training reads it from there"]
        out += ["", *(f"warning: {warning}" for warning in self.warnings)]
        out.append(f"{'ok' if not self.warnings else 'readable'}: fingerprint {self.fingerprint}")
        return out

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def to_json(self) -> dict[str, Any]:
        """Return the same as plain values."""
        return asdict(self)


def inspect_clicks(
    log: ClickLog, *, table_bytes: int, expected: tuple[int, ...] = (TRAIN, VALIDATION, TEST)
) -> ClickReport:
    """Describe an encoded click log.

    Args:
        log: what `open_click_log` gave.
        table_bytes: memory of the embedding table with its optimizer state.
        expected: the parts that the split has; the last one is looked at for values that are new.
    """
    counts = tuple(map(LabelledPart, _PARTS, log.counts, log.positives))
    parts = tuple(counts[part] for part in expected)
    train, last = (
        log.read(part, slice(SEEN_ROWS[part])).features for part in (TRAIN, expected[-1])
    )
    features = tuple(_features(log.layout, train, last))
    return ClickReport(
        parts=parts,
        features=features,
        drops=log.drops,
        warnings=tuple(_warnings(parts, features)),
        table_bytes=table_bytes,
        fingerprint=log.fingerprint,
        folder=str(log.folder),
    )


def _features(layout: FeatureLayout, train: FeatureBlock, test: FeatureBlock) -> list[ClickFeature]:
    seen, later = _values(layout, train), _values(layout, test)
    found = [_looked_up(name, m, seen[name], later[name]) for name, m in layout.features]
    for column, name in enumerate(layout.dense):
        if name.endswith(".null"):
            share = _share(train.dense[:, column] > 0)
            found.append(ClickFeature(name.removesuffix(".null"), 0, share))
    return found


def _values(layout: FeatureLayout, block: FeatureBlock) -> Mapping[str, Tensor]:
    values = {name: block.single[:, at] for at, (name, _) in enumerate(layout.single)}
    names = [name for name, _ in layout.multi]
    return {**values, **{n: one.values for n, one in zip(names, block.multi, strict=True)}}


def _looked_up(name: str, lookups: int, train: Tensor, test: Tensor) -> ClickFeature:
    null, unknown = int(NULL_HASH), int(UNKNOWN_HASH)
    distinct = train.unique()
    known = test[test != null]
    return ClickFeature(
        feature=name,
        lookups=lookups,
        nulls=_share(train == null),
        values=int(((distinct != null) & (distinct != unknown)).sum()),
        rare=_share(train == unknown),
        unseen=_share(~torch.isin(known, distinct)),
    )


def _share(mask: Tensor) -> float:
    return float(mask.double().mean()) if len(mask) else 0.0


def _warnings(parts: tuple[LabelledPart, ...], features: tuple[ClickFeature, ...]) -> list[str]:
    found = [
        f"no {one.part} rows: choose a larger share in the section 'split'"
        for one in parts
        if not one.rows
    ]
    found += label_warnings(parts)
    found += [
        f"feature '{one.feature}': {one.unseen:.0%} of its test values are in no training row; "
        "it has no information on later rows"
        for one in features
        if one.unseen > 0.9
    ]
    return found


def _row(one: ClickFeature) -> tuple[str, ...]:
    if not one.lookups:
        return (one.feature, "number", f"{one.nulls:.1%}", "", "", "")
    shares = (f"{one.rare:.1%}", f"{one.unseen:.1%}")
    return (one.feature, str(one.lookups), f"{one.nulls:.1%}", f"{one.values:,}", *shares)
