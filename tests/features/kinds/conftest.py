"""One feature of a kind, without a schema around it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pydantic import TypeAdapter

from recsys.data.batch import FeatureLayout
from recsys.features.encoding.encoder import FeatureEncoder
from recsys.features.encoding.past import Pasts
from recsys.features.kinds.feature import Encoded, Feature
from recsys.features.kinds.registry import KINDS
from recsys.features.kinds.suggestion import Look, Suggestion
from recsys.features.propose.profile import ColumnProfile
from recsys.features.schema import Schema
from recsys.features.table_roles import InteractionsTable

LATEST = 1_800_000_000.0


def _declared(spec: Mapping[str, Any]) -> Feature:
    found: Feature = TypeAdapter(KINDS[spec["kind"]]).validate_python(
        {"table": "interactions", **spec}
    )
    return found


def _encoded(
    spec: Mapping[str, Any], *columns: pa.Array, fit: pa.Array | None = None, reference: int = 0
) -> tuple[FeatureLayout, Encoded, dict[str, pa.DataType]]:
    """Fit a feature on `fit` (its columns where not given), and encode its columns."""
    feature = _declared(spec)
    schema = Schema.model_construct(
        interactions=InteractionsTable(user="user", item="item"), features=(feature,), others={}
    )
    given = [pa.chunked_array([column]) for column in columns]
    fitted = feature.fit(given if fit is None else [pa.chunked_array([fit])], reference)
    encoder = FeatureEncoder(schema, {}, fitted.families, fitted.scalers, reference)
    encoded = feature.encode(given, encoder)
    return feature.layout(encoder), encoded, feature.request_types(encoder)


def _proposed(name: str, values: pa.Array, kind: str, *, of_clicks: bool = False) -> Any:
    """Return what a kind proposes for a column of values."""
    types = {
        "list": pa.types.is_list(values.type),
        "string": pa.types.is_string(values.type),
        "boolean": pa.types.is_boolean(values.type),
        "float": pa.types.is_floating(values.type),
        "integer": pa.types.is_integer(values.type),
        "time": pa.types.is_timestamp(values.type),
    }
    (type_,) = [name for name, holds in types.items() if holds]
    profile = ColumnProfile(name, values, type_)  # type: ignore[arg-type]
    declared = KINDS[kind]
    assert issubclass(declared, Feature)
    return declared.propose(profile, Look(LATEST, of_clicks=of_clicks))


Encode = Callable[..., tuple[FeatureLayout, Encoded, dict[str, pa.DataType]]]
Propose = Callable[..., Suggestion | None]


@pytest.fixture
def encode() -> Encode:
    """Fit a feature and encode it: its layout, its columns, its types in a request."""
    return _encoded


@pytest.fixture
def propose() -> Propose:
    """Ask a kind for its proposal of a column."""
    return _proposed


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@dataclass(frozen=True)
class _Events:
    """Rows of a log, sorted by user, then time."""

    user_row: np.ndarray[tuple[int], np.dtype[np.int32]]
    item_row: np.ndarray[tuple[int], np.dtype[np.int32]]
    time: np.ndarray[tuple[int], np.dtype[np.int64]]
    label: np.ndarray[tuple[int], np.dtype[np.float32]] | None

    def __len__(self) -> int:
        return len(self.user_row)


@pytest.fixture
def pasts() -> Pasts:
    """Two users, three items: (user, item, second, label) of seven rows."""
    rows = [(0, 0, 0, 1), (0, 1, 10, 0), (0, 0, 10, 1), (0, 2, 40, 1)]
    rows += [(1, 0, 5, 1), (1, 2, 40, 0), (1, 0, 100, 1)]
    user, item, second, label = np.array(rows).T
    events = _Events(
        user.astype(np.int32),
        item.astype(np.int32),
        second * 1_000_000,
        label.astype(np.float32),
    )
    return Pasts(events)
