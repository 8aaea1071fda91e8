"""The fitted encoder: raw table rows to `FeatureBlock`s, the same object at every stage.

Fitted on the training rows only, frozen, saved beside the weights. Categorical values become
64-bit hashes, so there is no vocabulary; the one exception are the ids of users and items:
the encoder knows which of them had a training row, and all others share one value, which
training learns as "an id that says nothing yet".
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays

from features.columns import (
    as_float,
    as_lists,
    as_microseconds,
    as_vectors,
    column_of,
    value_family,
)
from features.hashing import NULL_HASH, UNKNOWN_HASH, hash_values
from features.scaling import Scaler
from recsys.batch import FeatureBlock, FeatureLayout, Jagged
from recsys.errors import DataError
from recsys.schema import Feature, Pooling, Schema

Side = Literal["items", "users", "interactions"]
SIDES: tuple[Side, ...] = ("items", "users", "interactions")
_DAY = 86_400_000_000  # microseconds


@dataclass(frozen=True)
class FeatureEncoder:
    """Encodes items, users and request contexts; see the module's text.

    known_ids: feature name -> sorted (K,) int64 hashes of ids with a training row.
    families: feature name -> "integer", "string" or "boolean", as fitted.
    scalers: feature name -> its `Scaler`.
    """

    schema: Schema
    known_ids: Mapping[str, NDArray[np.int64]]
    families: Mapping[str, str]
    scalers: Mapping[str, Scaler]
    reference_time: int
    """Latest training time in microseconds; ages are counted back from it."""

    @classmethod
    def fit(cls, schema: Schema, tables: Mapping[Side, pa.Table], *, reference_time: int) -> Self:
        """Fit on the items, the users and the context of the training rows alone."""
        known: dict[str, NDArray[np.int64]] = {}
        families: dict[str, str] = {}
        scalers: dict[str, Scaler] = {}
        blank = cls(schema, known, families, scalers, reference_time)
        for side in SIDES:
            for feature in schema.features_of(side):
                column = column_of(tables[side], feature)
                if feature.kind in ("categorical", "multi_categorical"):
                    families[feature.name] = value_family(column, feature)
                if schema.is_id(feature):
                    known[feature.name] = np.unique(hash_values(column))
                elif feature.kind == "numeric":
                    scalers[feature.name] = Scaler.fit(feature.transform, as_float(column))
                elif feature.kind == "timestamp":
                    age = blank._age(column, feature.unit)
                    scalers[feature.name] = Scaler.fit("log1p", age)
        return blank

    def continuing(self, earlier: "FeatureEncoder") -> "FeatureEncoder":
        """Return this encoder with the scales of `earlier`, and with the ids that it knew.

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
                    f"{before} values: cast the column to {before}, or train without warm_start"
                )
        known = {
            name: np.union1d(ids, earlier.known_ids[name]) if name in earlier.known_ids else ids
            for name, ids in self.known_ids.items()
        }
        scalers = {
            name: earlier.scalers[name]
            if name in earlier.scalers and earlier.scalers[name].transform == own.transform
            else own
            for name, own in self.scalers.items()
        }
        return replace(self, known_ids=known, scalers=scalers)

    def layout(self, side: Side) -> FeatureLayout:
        """Return what `encode(side, ...)` holds, in order."""
        single: list[tuple[str, int]] = []
        multi: list[tuple[str, int]] = []
        pooling: list[Pooling] = []
        dense: list[str] = []
        for feature in self.schema.features_of(side):
            if feature.kind == "categorical":
                single.append((feature.name, _number(feature.multiplicity)))
            elif feature.kind in ("multi_categorical", "text"):
                multi.append((feature.name, _number(feature.multiplicity)))
                pooling.append(feature.pooling)
            elif feature.kind == "numeric":
                dense += [feature.name, f"{feature.name}.null"]
            elif feature.kind == "vector":
                dense += [f"{feature.name}.{i}" for i in range(feature.dim)]
                dense.append(f"{feature.name}.null")
            elif feature.kind == "timestamp":
                multiplicity = _number(feature.multiplicity)
                single.append((f"{feature.name}.hour", multiplicity))
                single.append((f"{feature.name}.weekday", multiplicity))
                dense += [f"{feature.name}.age", f"{feature.name}.null"]
        return FeatureLayout(tuple(single), tuple(multi), tuple(dense), tuple(pooling))

    def query_layout(self) -> FeatureLayout:
        """Return the layout of users and context side by side (`FeatureBlock.beside`)."""
        return self.layout("users") + self.layout("interactions")

    def ranking_layout(self) -> FeatureLayout:
        """Return the layout of users, context and items side by side: a row of a ranker."""
        return self.query_layout() + self.layout("items")

    def id_columns(self, side: Side) -> tuple[int, ...]:
        """Return which single-valued columns of a side are ids."""
        names = [name for name, _ in self.layout(side).single]
        return tuple(names.index(name) for name in names if name in self.known_ids)

    def encode(self, side: Side, table: pa.Table) -> FeatureBlock:
        """Return N rows; an absent context column counts as null, any other is an error.

        Raises:
            DataError: a column is missing, or of another type than the one fitted.
        """
        single: list[NDArray[np.int64]] = []
        multi: list[Jagged] = []
        dense: list[NDArray[np.float32]] = []
        for feature in self.schema.features_of(side):
            if side == "interactions" and feature.source_column not in table.column_names:
                column: Any = pa.nulls(table.num_rows)
            else:
                column = column_of(table, feature)
            self._encode_one(feature, column, single, multi, dense)
        return FeatureBlock(
            torch.from_numpy(_columns(single, table.num_rows, np.int64)),
            tuple(multi),
            torch.from_numpy(_columns(dense, table.num_rows, np.float32)),
        )

    def _encode_one(
        self,
        feature: Feature,
        column: pa.ChunkedArray,
        single: list[NDArray[np.int64]],
        multi: list[Jagged],
        dense: list[NDArray[np.float32]],
    ) -> None:
        if feature.kind == "categorical":
            single.append(self._categorical(feature, column))
        elif feature.kind in ("multi_categorical", "text"):
            multi.append(self._multi(feature, column))
        elif feature.kind == "numeric":
            values = as_float(column)
            dense += [self.scalers[feature.name].apply(values), _is_nan(values)]
        elif feature.kind == "vector":
            vectors = as_vectors(column, feature)
            dense += list(np.nan_to_num(vectors).T)
            dense.append(_is_nan(vectors[:, 0]))
        elif feature.kind == "timestamp":
            single += self._clock(column, feature.unit)
            age = self._age(column, feature.unit)
            dense += [self.scalers[feature.name].apply(age), _is_nan(age)]

    def _categorical(self, feature: Feature, column: pa.ChunkedArray) -> NDArray[np.int64]:
        self._check_family(feature, column)
        hashes = hash_values(column) if not pa.types.is_null(column.type) else _nulls(len(column))
        known = self.known_ids.get(feature.name)
        if known is not None:
            at = np.searchsorted(known, hashes).clip(max=max(len(known) - 1, 0))
            seen = known[at] == hashes if len(known) else np.zeros(len(hashes), bool)
            hashes = np.where(seen, hashes, UNKNOWN_HASH)
        return hashes

    def _multi(self, feature: Feature, column: pa.ChunkedArray) -> Jagged:
        lists = as_lists(column, feature)
        if feature.kind == "multi_categorical":
            self._check_family(feature, column)
        values = lists.flatten()
        hashes = _nulls(len(values)) if pa.types.is_null(values.type) else hash_values(values)
        lengths = np.asarray(pc.list_value_length(lists).fill_null(0)).astype(np.int64)
        # An empty bag would be a zero vector that nothing trains: give it the null value.
        starts = np.cumsum(lengths) - lengths
        hashes = np.insert(hashes, starts[lengths == 0], NULL_HASH)
        offsets = np.concatenate([[0], np.cumsum(np.maximum(lengths, 1))])
        return Jagged(torch.from_numpy(hashes), torch.from_numpy(offsets))

    def _check_family(self, feature: Feature, column: pa.ChunkedArray) -> None:
        if pa.types.is_null(column.type):
            return
        got, want = value_family(column, feature), self.families[feature.name]
        if "null" not in (got, want) and got != want:
            raise DataError(
                f"column '{feature.source_column}' holds {got} values, the model was trained on "
                f"{want} values: cast the column to {want}"
            )

    def _age(self, column: pa.ChunkedArray, unit: str) -> NDArray[np.float64]:
        """Days before the last training row; NaN where null."""
        times = as_microseconds(column, unit)
        age = (self.reference_time - times.values) / _DAY
        return np.where(times.valid, age, np.nan)

    def _clock(self, column: pa.ChunkedArray, unit: str) -> list[NDArray[np.int64]]:
        times = as_microseconds(column, unit)
        hour = times.values // 3_600_000_000 % 24
        weekday = (times.values // _DAY + 4) % 7  # 1970-01-01 was a Thursday; 0 is Sunday
        return [
            np.where(times.valid, hash_values(pa.array(part)), NULL_HASH)
            for part in (hour, weekday)
        ]

    def save(self, folder: Path) -> None:
        """Write encoder.json and known_ids.safetensors into `folder` (created)."""
        folder.mkdir(parents=True, exist_ok=True)
        state, known_ids = self._to_bytes()
        (folder / "encoder.json").write_bytes(state)
        (folder / "known_ids.safetensors").write_bytes(known_ids)

    def digest(self) -> str:
        """Return a hash of all that was fitted."""
        return hashlib.sha256(b"\0".join(self._to_bytes())).hexdigest()

    def _to_bytes(self) -> tuple[bytes, bytes]:
        state = {
            "schema": self.schema.model_dump(mode="json"),
            "families": dict(self.families),
            "scalers": {name: scaler.to_json() for name, scaler in self.scalers.items()},
            "reference_time": self.reference_time,
        }
        text = json.dumps(state, indent=1, sort_keys=True)
        return text.encode(), save_arrays(dict(self.known_ids))

    @classmethod
    def from_bytes(cls, state: bytes, known_ids: bytes) -> Self:
        """Read the bytes of the two files that `save` wrote."""
        raw = json.loads(state)
        return cls(
            schema=Schema.model_validate_json(json.dumps(raw["schema"])),
            known_ids=load_arrays(known_ids),
            families=raw["families"],
            scalers={name: Scaler.from_json(one) for name, one in raw["scalers"].items()},
            reference_time=raw["reference_time"],
        )


def _columns(parts: list[Any], num_rows: int, dtype: type) -> NDArray[Any]:
    if not parts:
        return np.zeros((num_rows, 0), dtype)
    return np.ascontiguousarray(np.stack(parts, axis=1).astype(dtype, copy=False))


def _number(multiplicity: int | str) -> int:
    """`auto` is settled before rows are encoded (`features.multiplicity`); until then it is 1."""
    return multiplicity if isinstance(multiplicity, int) else 1


def _is_nan(values: NDArray[Any]) -> NDArray[np.float32]:
    return np.isnan(values).astype(np.float32)


def _nulls(count: int) -> NDArray[np.int64]:
    return np.full(count, NULL_HASH)
