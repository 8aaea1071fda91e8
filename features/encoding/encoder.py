"""The fitted encoder: raw table rows to `FeatureBlock`s, the same object at every stage.

Fitted on the training rows only, frozen, saved beside the weights. Categorical values become
64-bit hashes, so there is no vocabulary, with two exceptions. Of the ids of users and items the
encoder knows which had a training row, and of a feature with `min_count` which values had so
many; all others share one value, unknown. Training learns it as "a value that says nothing yet":
from the rows of rare values, and from ids that it drops on purpose. Rare and never seen are one,
since at the next training the one may be the other, and a value of its own for what training
never saw would never be trained.
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

from recsys.core.errors import DataError
from recsys.data.batch import FeatureBlock, FeatureLayout, Jagged
from recsys.data.feature_options import Pooling
from recsys.features.encoding.columns import (
    as_float,
    as_lists,
    as_microseconds,
    as_vectors,
    column_of,
    value_family,
)
from recsys.features.encoding.crosses import Crosses
from recsys.features.encoding.hashing import NULL_HASH, UNKNOWN_HASH, hash_values
from recsys.features.encoding.history_features import past_layout
from recsys.features.encoding.scaling import Scaler
from recsys.features.encoding.value_counts import ValueCounts
from recsys.features.schema import Feature, NumericFeature, Schema

Side = Literal["items", "users", "interactions"]
SIDES: tuple[Side, ...] = ("items", "users", "interactions")
_DAY = 86_400_000_000  # microseconds


@dataclass(frozen=True)
class FeatureEncoder:
    """Encodes items, users and request contexts; see the module's text.

    known: feature name -> sorted (K,) int64 hashes of the values that are not unknown, for ids
    and for features with `min_count`.
    families: feature name -> "integer", "string" or "boolean", as fitted.
    scalers: feature name -> its `Scaler`.
    """

    schema: Schema
    known: Mapping[str, NDArray[np.int64]]
    families: Mapping[str, str]
    scalers: Mapping[str, Scaler]
    reference_time: int
    """Latest training time in microseconds; ages are counted back from it."""

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
        blank = cls(schema, known, families, scalers, reference_time)
        for side in SIDES:
            for feature in schema.features_of(side):
                column = column_of(tables[side], feature)
                if feature.kind in ("categorical", "multi_categorical"):
                    families[feature.name] = value_family(column, feature)
                if feature.kind == "numeric":
                    values = as_float(column)
                    scalers[feature.name] = Scaler.fit(feature.transform, values, feature.bins)
                elif feature.kind == "timestamp":
                    age = blank._age(column, feature.unit)
                    scalers[feature.name] = Scaler.fit("log1p", age)
                elif knows_its_values(schema, feature):
                    counts = ValueCounts(feature)
                    counts.add(column, (times or {}).get(side))
                    known[feature.name] = known_values(schema, feature, counts)
        return blank

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
                    f"{before} values: cast the column to {before}, or train without warm_start"
                )
        known = {
            name: np.union1d(own, earlier.known[name]) if name in earlier.known else own
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
            elif feature.kind == "timestamp":
                multiplicity = _number(feature.multiplicity)
                single.append((f"{feature.name}.hour", multiplicity))
                single.append((f"{feature.name}.weekday", multiplicity))
            elif feature.kind == "numeric" and feature.transform == "discretise":
                single.append((feature.name, 1))
            dense += self._dense_columns(feature)
        return FeatureLayout(tuple(single), tuple(multi), tuple(dense), tuple(pooling))

    def _dense_columns(self, feature: Feature) -> list[str]:
        """Name the numbers of a feature; the last one says whether it is null."""
        name = feature.name
        if feature.kind == "timestamp":
            return [f"{name}.age", f"{name}.null"]
        if feature.kind == "vector":
            return [*(f"{name}.{i}" for i in range(feature.dim)), f"{name}.null"]
        if feature.kind != "numeric" or feature.transform == "discretise":
            return []
        if feature.transform == "piecewise":
            bins = self.scalers[name].num_bins
            return [*(f"{name}.{i}" for i in range(bins)), f"{name}.null"]
        return [name, f"{name}.null"]

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
        return columns + Crosses(derived, columns).layout + past_layout(derived, columns)

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
            self._numeric(feature, column, single, dense)
        elif feature.kind == "vector":
            vectors = as_vectors(column, feature)
            dense += list(np.nan_to_num(vectors).T)
            dense.append(_is_nan(vectors[:, 0]))
        elif feature.kind == "timestamp":
            single += self._clock(column, feature.unit)
            age = self._age(column, feature.unit)
            dense += [self.scalers[feature.name].apply(age), _is_nan(age)]

    def _numeric(
        self,
        feature: NumericFeature,
        column: pa.ChunkedArray,
        single: list[NDArray[np.int64]],
        dense: list[NDArray[np.float32]],
    ) -> None:
        values, scaler = as_float(column), self.scalers[feature.name]
        if feature.transform == "discretise":
            bins = hash_values(pa.array(scaler.category(values)))
            single.append(np.where(np.isnan(values), NULL_HASH, bins))
        elif feature.transform == "piecewise":
            dense += [*scaler.piecewise(values), _is_nan(values)]
        else:
            dense += [scaler.apply(values), _is_nan(values)]

    def _categorical(self, feature: Feature, column: pa.ChunkedArray) -> NDArray[np.int64]:
        self._check_family(feature, column)
        hashes = hash_values(column) if not pa.types.is_null(column.type) else _nulls(len(column))
        return self._without_unknown(feature, hashes)

    def _without_unknown(self, feature: Feature, hashes: NDArray[np.int64]) -> NDArray[np.int64]:
        known = self.known.get(feature.name)
        if known is None:
            return hashes
        at = np.searchsorted(known, hashes).clip(max=max(len(known) - 1, 0))
        seen = known[at] == hashes if len(known) else np.zeros(len(hashes), bool)
        return np.where(seen, hashes, UNKNOWN_HASH)

    def _multi(self, feature: Feature, column: pa.ChunkedArray) -> Jagged:
        lists = as_lists(column, feature)
        if feature.kind == "multi_categorical":
            self._check_family(feature, column)
        values = lists.flatten()
        hashes = _nulls(len(values)) if pa.types.is_null(values.type) else hash_values(values)
        hashes = self._without_unknown(feature, hashes)
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
        state, known = self._to_bytes()
        (folder / "encoder.json").write_bytes(state)
        (folder / "known_ids.safetensors").write_bytes(known)

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
        return text.encode(), save_arrays(dict(self.known))

    @classmethod
    def from_bytes(cls, state: bytes, known: bytes) -> Self:
        """Read the bytes of the two files that `save` wrote."""
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
    return schema.is_id(feature) or getattr(feature, "min_count", 1) > 1


def known_values(schema: Schema, feature: Feature, counts: ValueCounts) -> NDArray[np.int64]:
    """Return the sorted hashes of the values that are not unknown, by their training rows."""
    found = counts.at_least(getattr(feature, "min_count", 1))
    # Null is no value that could be rare; only a key is never null.
    return found if schema.is_id(feature) else np.union1d(found, [NULL_HASH])


def _columns(parts: list[Any], num_rows: int, dtype: type) -> NDArray[Any]:
    if not parts:
        return np.zeros((num_rows, 0), dtype)
    return np.ascontiguousarray(np.stack(parts, axis=1).astype(dtype, copy=False))


def _number(multiplicity: int | str) -> int:
    """`auto` is settled before rows are encoded (`encoding.multiplicity`); until then it is 1."""
    return multiplicity if isinstance(multiplicity, int) else 1


def _is_nan(values: NDArray[Any]) -> NDArray[np.float32]:
    return np.isnan(values).astype(np.float32)


def _nulls(count: int) -> NDArray[np.int64]:
    return np.full(count, NULL_HASH)
