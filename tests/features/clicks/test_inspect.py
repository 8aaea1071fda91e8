"""What `recsys check` says of a click log, against counts by hand."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from recsys.features.clicks.inspect import ClickFeature, ClickReport, inspect_clicks
from recsys.features.clicks.log import encode_click_log
from recsys.features.dataset.split import SplitConfig
from recsys.features.schema import Schema
from recsys.features.tables.sources import Policies, Sources

COLUMNS: dict[str, list[Any]] = {
    "click": [1, 0, 0, 0, 1, 0, 1, 0, 0, 1],
    "site": ["a", "a", "b", "a", None, "c", "a", "b", "new", "a"],
    "tags": ["x", "x|y", None, "x", "x", "x", "x", "x", None, "y|z"],
    "price": [None, 2.0, 3.0, 1.0, 1.0, None, 1.0, 1.0, 1.0, 1.0],
}
FEATURES = [
    {"name": "site", "kind": "categorical", "min_count": 2},
    {"name": "tags", "kind": "multi_categorical", "separator": "|", "multiplicity": 2},
    {"name": "price", "kind": "numeric", "transform": "piecewise"},
]


def report(folder: Path, times: int = 1, **changes: list[Any]) -> ClickReport:
    """Check ten rows, six of training, two of validation, two of test; each so many times."""
    columns = {**COLUMNS, **changes}.items()
    repeated = {name: [value for value in column for _ in range(times)] for name, column in columns}
    folder.mkdir(exist_ok=True)
    pq.write_table(pa.table(repeated), folder / "log.parquet")
    features = [{**feature, "table": "interactions"} for feature in FEATURES]
    interactions = {"label": {"column": "click"}, "where": [{"column": "click", "at_least": 0}]}
    log = encode_click_log(
        Schema.model_validate_json(
            json.dumps({"interactions": interactions, "features": features})
        ),
        Sources(interactions=str(folder / "log.parquet")),
        Policies(),
        SplitConfig(validation=0.2, test=0.2),
        folder / "log",
    )
    return inspect_clicks(log, table_bytes=5_000_000)


def test_parts_and_features_are_counted(tmp_path: Path) -> None:
    found = report(tmp_path)
    assert [(part.rows, part.positives) for part in found.parts] == [(6, 2), (2, 1), (2, 1)]
    assert found.features == (
        # Training: a a b a null c, and b and c are rare. Test: "new" is as unknown as they are.
        ClickFeature("site", 1, nulls=1 / 6, values=1, rare=2 / 6, unseen=0.0),
        # Seven values, one of them null: x 5, y 1. Test: null, y and z, which is new.
        ClickFeature("tags", 2, nulls=1 / 7, values=2, rare=0.0, unseen=1 / 2),
        ClickFeature("price", 0, nulls=2 / 6),
    )
    lines = found.lines()
    assert lines[0] == "10 interactions"
    assert "train       6     2        33.33%" in lines
    assert any(line.split() == ["site", "1", "16.7%", "1", "33.3%", "0.0%"] for line in lines)
    assert any(line.split() == ["price", "number", "33.3%"] for line in lines)
    assert "embedding table with its optimizer state: 5.0 MB" in lines
    assert lines[-1].startswith("ok: fingerprint")
    assert json.loads(json.dumps(found.to_json()))["parts"][0]["positives"] == 2


def test_rows_sorted_by_their_label_are_doubted(tmp_path: Path) -> None:
    found = report(tmp_path, click=[1, 1, 1, 1, 0, 0, 0, 0, 0, 0])
    assert [one.split(";")[0] for one in found.warnings] == [
        "all validation rows have the label 0: nothing to distinguish there",
        "all test rows have the label 0: nothing to distinguish there",
    ]
    assert found.lines()[-1].startswith("readable: fingerprint")


def test_a_share_that_moves_and_values_that_never_come_again(tmp_path: Path) -> None:
    changes = {"click": [1, 1, 1, 1, 1, 0, 1, 0, 0, 1], "tags": [*"abcdefgh", "later", "last"]}
    share, unseen = report(tmp_path / "many", 30, **changes).warnings
    assert share.startswith("the label is 1 in 83.3% of the training rows and in 50.0% of the test")
    assert unseen.startswith("feature 'tags': 100% of its test values are in no training row")
    # In a handful of rows such a share is chance.
    (unseen,) = report(tmp_path / "few", 1, **changes).warnings
    assert unseen.startswith("feature 'tags'")
