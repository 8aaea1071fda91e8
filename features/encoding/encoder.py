"""The fitted encoder: raw table rows to `FeatureBlock`s, the same object at every stage.

Fitted on the training rows only, frozen, saved next to the weights. Categorical values become
64-bit hashes, so there is no vocabulary, with two exceptions. Of the ids of users and items the
encoder knows which had a training row, and of a feature with `min_count` which values had so
many; all others share one value, unknown. Training learns it as "a value that says nothing yet":
from the rows of rare values, and from ids that it drops on purpose. Rare and never seen are one,
since at the next training the one may be the other, and a value of its own for what training
never saw would never be trained.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays

from recsys.core.distinct import distinct
from recsys.core.errors import DataError
from recsys.core.imports import on_first_use
from recsys.data.batch import FeatureBlock, FeatureLayout
from recsys.features.encoding.columns import columns_of
from recsys.features.encoding.crosses import Crosses
from recsys.features.encoding.hashing import NULL_HASH
from recsys.features.encoding.history_features import past_layout
from recsys.features.encoding.label_features import label_layout
from recsys.features.encoding.label_sums import LabelTable
from recsys.features.encoding.scaling import Scaler
from recsys.features.encoding.value_counts import ValueCounts
from recsys.features.kinds.feature import Encoded, Feature
from recsys.features.schema import Schema

with on_first_use():
    import torch

Side = Literal["items", "users", "interactions"]
SIDES: tuple[Side, ...] = ("items", "users", "interactions")
_FILES = ("encoder.json", "known_ids.safetensors")
_LABELS = "labels.safetensors"
"""Of schemas with features of the labels alone."""


@dataclass(frozen=True)
class FeatureEncoder:
    """Encodes items, users and request contexts; see the module's text.

    known: feature name -> sorted (K,) int64 hashes of the values that are not unknown, for ids
    and for features with `min_count`.
    families: feature name -> "integer", "string" or "boolean", as fitted.
    scalers: feature name -> its `Scaler`.
    label_tables: feature name -> what the labels of the training rows say of its values.
    """

    schema: Schema
    known: Mapping[str, NDArray[np.int64]]
    families: Mapping[str, str]
    scalers: Mapping[str, Scaler]
    reference_time: int
    """Latest training time in microseconds; ages are counted back from it."""
    label_tables: Mapping[str, LabelTable] = field(default_factory=dict)

    @classmethod
    def fit(
        cls,
        schema: Schema,
        tables: Mapping[Side, pa.Table],
        *,
        reference_time: int,
        times: Mapping[Side, NDArray[np.int64]] | None = None,
    ) -> Self:
        """Fit on the items, the users and the context of the training rows alone.

        `times`: side -> (N,) how many training rows each row of its table stands for, for
        `min_count`; one where a side is absent.
        """
        known: dict[str, NDArray[np.int64]] = {}
        families: dict[str, str] = {}
        scalers: dict[str, Scaler] = {}
        for side in SIDES:
            for feature in schema.features_of(side):
                columns = columns_of(tables[side], feature)
                fit = feature.fit(columns, reference_time)
                families.update(fit.families)
                scalers.update(fit.scalers)
                if knows_its_values(schema, feature):
                    counts = ValueCounts(feature)
                    counts.add(columns[0], (times or {}).get(side))
                    known[feature.name] = known_values(schema, feature, counts)
        return cls(schema, known, families, scalers, reference_time)

    def continuing(self, earlier: "FeatureEncoder") -> "FeatureEncoder":
        """Return this encoder with the scales of `earlier`, and with the values that it knew.

        So a number means to weights that were learnt with `earlier` what it meant then. Features
        that `earlier` lacks, or transforms in another way, keep what was fitted here.

        Raises:
            DataError: a category was whole numbers then and is text now, or the like.
        """
        for name, family in self.families.items():
            before = earlier.families.get(name, family)
            if before != family and "null" not in (before, family):
                raise DataError(
                    f"feature '{name}' holds {family} values, the earlier model was trained on "
                    f"{before} values",
                    remedy=f"cast the column to {before}, or train without warm_start",
                )
        known = {
            name: distinct(np.concatenate([own, earlier.known.get(name, own[:0])]))
            for name, own in self.known.items()
        }
        scalers = {
            name: earlier.scalers[name]
            if name in earlier.scalers and earlier.scalers[name].is_like(own)
            else own
            for name, own in self.scalers.items()
        }
        return replace(self, known=known, scalers=scalers)

    @property
    def known_ids(self) -> dict[str, NDArray[np.int64]]:
        """Feature name -> sorted hashes of the ids of users or items that are not unknown."""
        schema = self.schema
        ids = {f.name for side in SIDES for f in schema.features_of(side) if schema.is_id(f)}
        return {name: values for name, values in self.known.items() if name in ids}

    def layout(self, side: Side) -> FeatureLayout:
        """Return what `encode(side, ...)` holds, in order."""
        layouts = (feature.layout(self) for feature in self.schema.features_of(side))
        return sum(layouts, start=FeatureLayout((), (), ()))

    def query_layout(self) -> FeatureLayout:
        """Return the layout of users and context side by side (`FeatureBlock.beside`)."""
        return self.layout("users") + self.layout("interactions")

    def retrieval_layouts(self, *, of_steps: bool) -> tuple[FeatureLayout, ...]:
        """Return the sides that a retrieval model reads.

        of_steps: `interactions` describe the steps of a history (items, users, steps), else the
        request (items, query).
        """
        if of_steps:
            return tuple(self.layout(side) for side in SIDES)
        return self.layout("items"), self.query_layout()

    def columns_layout(self) -> FeatureLayout:
        """Return the layout of users, context and items side by side."""
        return self.query_layout() + self.layout("items")

    def ranking_layout(self) -> FeatureLayout:
        """Return the layout of a row of a ranker: all columns, then what is derived from them."""
        columns, derived = self.columns_layout(), self.schema.derived_features
        past, labels = past_layout(derived, columns), label_layout(derived, columns)
        return columns + Crosses(derived, columns).layout + past + labels

    def id_columns(self, side: Side) -> tuple[int, ...]:
        """Return which single-valued columns of a side are ids."""
        names = [name for name, _ in self.layout(side).single]
        return tuple(names.index(name) for name in names if name in self.known_ids)

    def encode(self, side: Side, table: pa.Table) -> FeatureBlock:
        """Return N rows; an absent context column counts as null, any other is an error.

        Raises:
            DataError: a column is missing, or of another type than the one fitted.
        """
        found = Encoded()
        for feature in self.schema.features_of(side):
            columns = columns_of(table, feature, absent_is_null=side == "interactions")
            one = feature.encode(columns, self)
            found.single += one.single
            found.multi += one.multi
            found.dense += one.dense
        return FeatureBlock(
            torch.from_numpy(_columns(found.single, table.num_rows, np.int64)),
            tuple(found.multi),
            torch.from_numpy(_columns(found.dense, table.num_rows, np.float32)),
        )

    def save(self, folder: Path) -> None:
        """Write encoder.json, known_ids.safetensors and what labels say into `folder` (created)."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in self._to_bytes().items():
            (folder / name).write_bytes(data)

    def digest(self) -> str:
        """Return a hash of all that was fitted."""
        return hashlib.sha256(b"\0".join(self._to_bytes().values())).hexdigest()

    def _to_bytes(self) -> dict[str, bytes]:
        state = {
            "schema": self.schema.model_dump(mode="json"),
            "families": dict(self.families),
            "scalers": {name: scaler.to_json() for name, scaler in self.scalers.items()},
            "reference_time": self.reference_time,
        }
        text = json.dumps(state, indent=1, sort_keys=True)
        found = dict(zip(_FILES, (text.encode(), save_arrays(dict(self.known))), strict=True))
        if self.label_tables:
            tables = self.label_tables.items()
            arrays = {f"{part}.{name}": a for name, one in tables for part, a in vars(one).items()}
            found[_LABELS] = save_arrays(arrays)
        return found

    @classmethod
    def read(cls, read: Callable[[str], bytes]) -> Self:
        """Return the encoder that `save` wrote; `read` gives the bytes of its files by name."""
        found = cls.from_bytes(*(read(name) for name in _FILES))
        features = found.schema.label_features
        arrays = load_arrays(read(_LABELS)) if features else {}
        parts = [one.name for one in fields(LabelTable)]
        tables = {
            feature.name: LabelTable(**{part: arrays[f"{part}.{feature.name}"] for part in parts})
            for feature in features
        }
        return replace(found, label_tables=tables)

    @classmethod
    def from_bytes(cls, state: bytes, known: bytes) -> Self:
        """Read the bytes of the two files that `save` wrote of every schema."""
        raw = json.loads(state)
        return cls(
            schema=Schema.model_validate_json(json.dumps(raw["schema"])),
            known=load_arrays(known),
            families=raw["families"],
            scalers={name: Scaler.from_json(one) for name, one in raw["scalers"].items()},
            reference_time=raw["reference_time"],
        )


def knows_its_values(schema: Schema, feature: Feature) -> bool:
    """Whether some values of `feature` are unknown to its encoder: of ids, and with `min_count`."""
    return schema.is_id(feature) or feature.least_count > 1


def known_values(schema: Schema, feature: Feature, counts: ValueCounts) -> NDArray[np.int64]:
    """Return the sorted hashes of the values that are not unknown, by their training rows."""
    found = counts.at_least(feature.least_count)
    # Null is no value that could be rare; only a key is never null.
    return found if schema.is_id(feature) else distinct(np.append(found, NULL_HASH))


def _columns(parts: list[Any], num_rows: int, dtype: type) -> NDArray[Any]:
    if not parts:
        return np.zeros((num_rows, 0), dtype)
    return np.ascontiguousarray(np.stack(parts, axis=1).astype(dtype, copy=False))
