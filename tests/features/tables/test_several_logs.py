"""Several logs read as one: names of their own, columns that are set, rows known by their file."""

import json
from pathlib import Path
from typing import Any

import pytest

from recsys.core.errors import DataError
from recsys.features.schema import Schema
from recsys.features.tables.checked import Tables, read_tables
from recsys.features.tables.reading import fingerprint, open_table
from recsys.features.tables.sources import Policies, Sources, log_name, path_words

SCHEMA = {
    "interactions": {
        "user": "user",
        "item": "item",
        "time": {"column": "time", "unit": "datetime"},
        "events": {"column": "event", "weights": {"view": 1, "purchase": 5}},
    },
    "features": [{"name": "item", "table": "items", "kind": "categorical"}],
}
ORDERS = {"columns": {"item": "sku", "time": "ordered_at"}, "set": {"event": "purchase"}}


def written(folder: Path) -> tuple[str, str]:
    views, orders = folder / "views.csv", folder / "orders.csv"
    views.write_text(
        "user,item,time,event\nann,a,2024-01-01,view\nbob,b,2024-01-02,view\nann,b,2024-01-05,view\n"
    )
    orders.write_text("user,sku,ordered_at\nann,a,2024-01-03\nbob,b,2024-01-04\n")
    return str(views), str(orders)


def sources_at(given: Any) -> Sources:
    return Sources.model_validate_json(json.dumps({"interactions": given}))


def read(given: Any, **policies: Any) -> Tables:
    schema = Schema.model_validate_json(json.dumps(SCHEMA))
    return read_tables(schema, sources_at(given), Policies(**policies))


def test_two_logs_are_one_by_the_names_of_the_first(tmp_path: Path) -> None:
    views, orders = written(tmp_path)
    events = read([views, {"path": orders, **ORDERS}]).events
    assert events.user_row.tolist() == [0, 0, 0, 1, 1]
    assert events.item_row.tolist() == [0, 0, 1, 1, 1]
    assert events.weight.tolist() == [1, 5, 1, 1, 5]
    assert events.row.tolist() == [0, 3, 2, 1, 4]


def test_a_bad_row_is_named_by_its_own_file(tmp_path: Path) -> None:
    views, orders = written(tmp_path)
    with Path(orders).open("a") as file:
        file.write(",b,2024-01-06\n")
    with pytest.raises(DataError, match=r"orders.csv row 3, column 'user': the id is null"):
        read([views, {"path": orders, **ORDERS}])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"columns": {"item": "skuu"}}, "column 'skuu': no such column.*did you mean 'sku'"),
        ({"set": {"event": "purchase", "user": "x"}}, "column 'user': the file has this column"),
        ({"set": {}}, "the interactions table has no such column.*column 'event'|column 'event'"),
        ({"columns": {"user": "sku", "time": "ordered_at"}}, "two columns are named 'user'"),
    ],
)
def test_a_name_that_does_not_fit_is_refused(
    change: dict[str, Any], message: str, tmp_path: Path
) -> None:
    views, orders = written(tmp_path)
    with pytest.raises(DataError, match=message):
        read([views, {"path": orders, **ORDERS, **change}])


def test_one_file_twice_is_refused(tmp_path: Path) -> None:
    views, _ = written(tmp_path)
    with pytest.raises(DataError, match="names this file twice"):
        read([views, views])


def test_names_count_in_the_fingerprint_and_survive_a_file(tmp_path: Path) -> None:
    views, orders = written(tmp_path)
    sources = sources_at([views, {"path": orders, **ORDERS}])
    again = Sources.model_validate_json(sources.model_dump_json())
    assert again == sources
    other = sources_at([views, {"path": orders, **ORDERS, "set": {"event": "view"}}])
    of_each = [fingerprint([open_table(one.interactions, "log")]) for one in (sources, other)]
    assert of_each[0] != of_each[1]
    moved = sources.relocated(lambda path: Path(path).name)["interactions"]
    assert path_words(moved) == "views.csv, orders.csv"
    assert log_name(moved) == "views+orders"
