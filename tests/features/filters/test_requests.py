"""Columns of requests that filter, and those that are features of the model."""

import pyarrow as pa
import pytest

from recsys.core.errors import DataError
from recsys.features.filters.requests import filter_columns, own_filters
from recsys.features.requests.origin import RequestOrigin
from recsys.features.schema import Schema

ITEMS = pa.array([1, 7, 9])


def schema(*names: str) -> Schema:
    features = [{"name": "item", "table": "items", "kind": "categorical"}]
    features += [{"name": name, "table": "interactions", "kind": "categorical"} for name in names]
    roles = {"user": "user", "item": "item"}
    return Schema.model_validate({"interactions": roles, "features": tuple(features)})


def test_a_column_that_the_model_reads_is_no_filter() -> None:
    assert filter_columns(schema()) == ["where", "exclude", "allow"]
    assert filter_columns(schema("where", "device")) == ["exclude", "allow"]
    table = pa.table({"user": ["a"], "where": ["in a shop"], "exclude": [[7]]})
    own = own_filters(schema("where"), table, ITEMS, RequestOrigin())
    assert own.where == [None]
    assert own.exclude.values.tolist() == [1]
    assert not own.ask_nothing


def test_nulls_ask_for_nothing_and_an_empty_list_allows_nothing() -> None:
    table = pa.table(
        {"user": ["a", "b", "c"], "allow": pa.array([None, [], [9, 3, 4]], pa.list_(pa.int64()))}
    )
    own = own_filters(schema(), table, ITEMS, RequestOrigin())
    assert own.is_limited.tolist() == [False, True, True]
    assert own.allow.offsets.tolist() == [0, 0, 0, 1]
    assert (own.unknown, own.first_unknown) == (2, 3)
    nulls = {name: pa.nulls(2) for name in ("where", "exclude", "allow")}
    table = pa.table({"user": ["a", "b"], **nulls})
    assert own_filters(schema(), table, ITEMS, RequestOrigin()).ask_nothing
    assert own_filters(schema(), table.select(["user"]), ITEMS, RequestOrigin()).ask_nothing


def test_predicates_are_text() -> None:
    words = pa.array(["item = 1"]).dictionary_encode()
    own = own_filters(schema(), pa.table({"where": words}), ITEMS, RequestOrigin())
    assert own.where == ["item = 1"]
    with pytest.raises(DataError, match="asked, column 'where': bool, where a predicate over"):
        own_filters(schema(), pa.table({"where": [True]}), ITEMS, RequestOrigin("asked"))
