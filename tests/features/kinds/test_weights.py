"""Weights of the values of a row: from the files to the pooled vector, or a clear refusal."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
import torch
from pydantic import ValidationError

from recsys.core.errors import DataError
from recsys.data.batch import FeatureBlock, Jagged
from recsys.embeddings.backend import build_table
from recsys.embeddings.plan import EmbeddingPlan
from recsys.embeddings.table import TableConfig
from recsys.embeddings.unified import UnifiedEmbedding
from recsys.features.batches.parts import with_absent
from recsys.features.clicks.log import encode_click_log
from recsys.features.dataset.cache import cached
from recsys.features.dataset.dataset import prepare
from recsys.features.dataset.split import TRAIN, SplitConfig
from recsys.features.encoding.encoder import FeatureEncoder
from recsys.features.encoding.hashing import NULL_HASH, hash_values
from recsys.features.requests.rows import RowEncoder, as_rows
from recsys.features.requests.table import encode_requests
from recsys.features.schema import Schema
from recsys.features.tables.checked import Tables, read_tables
from recsys.features.tables.sources import Policies, Sources

TAGS = {"name": "tags", "table": "interactions", "kind": "multi_categorical", "weights": "shares"}
WEIGHTED = {
    "name": "weighted", "column": "tags", "table": "items", "kind": "multi_categorical",
    "weights": "shares",
}  # fmt: skip
ReadShop = Callable[..., Tables]


def schema_of(pooling: str, **options: Any) -> Schema:
    features = [
        {"name": "item", "table": "items", "kind": "categorical"},
        {**TAGS, "pooling": pooling, **options},
    ]
    raw = {"interactions": {"user": "user", "item": "item"}, "features": features}
    return Schema.model_validate_json(json.dumps(raw))


def fitted(schema: Schema, context: pa.Table) -> FeatureEncoder:
    ids = pa.table({"item": [1], "user": [1]})
    tables: Any = {"items": ids, "users": ids, "interactions": context}
    return FeatureEncoder.fit(schema, tables, reference_time=0)


CONTEXT = pa.table(
    {
        "tags": [["a", "b"], ["a", "b"], [], ["c"], None, ["a", "b", "c"]],
        "shares": [[1.0, 3.0], [2.0, 0.0], [], [0.5], None, [1.0, 1.0, 2.0]],
    }
)


def test_values_come_with_their_weights_and_null_weighs_one() -> None:
    (tags,) = fitted(schema_of("sum"), CONTEXT).encode("interactions", CONTEXT).multi
    assert tags.weights is not None
    assert tags.weights.dtype == torch.float32
    assert tags.weights.tolist() == [1, 3, 2, 0, 1, 0.5, 1, 1, 1, 2]
    a, b, c = hash_values(pa.array(["a", "b", "c"])).tolist()
    null = int(NULL_HASH)
    assert tags.values.tolist() == [a, b, a, b, null, c, null, a, b, c]
    assert tags.offsets.tolist() == [0, 2, 4, 5, 6, 7, 10]


@pytest.mark.parametrize("backend", ["torch", "fbgemm"])
@pytest.mark.parametrize(
    ("pooling", "shares"),
    {
        "sum": [[1, 3], [2, 0]],
        "mean": [[1 / 4, 3 / 4], [1, 0]],
        "sqrtn": [[1 / math.sqrt(10), 3 / math.sqrt(10)], [1, 0]],
    }.items(),
)
def test_a_row_is_pooled_by_its_weights(
    pooling: str, shares: list[list[float]], backend: str
) -> None:
    encoder = fitted(schema_of(pooling, multiplicity=2), CONTEXT)
    layout = encoder.layout("interactions")
    config = TableConfig(num_rows=64, dim=4, backend=backend)  # type: ignore[arg-type]
    plan = EmbeddingPlan.of(config, (layout,))
    table = build_table(config, device=torch.device("cpu"), seed=0)
    block = encoder.encode("interactions", CONTEXT)
    (got,) = UnifiedEmbedding(plan, table)([block])
    words = torch.from_numpy(hash_values(pa.array(["a", "b"])))
    alone = table.weight[plan.rows_of("tags", words)].flatten(1)  # a, b: both lookups
    for row, (of_a, of_b) in enumerate(shares):
        assert torch.allclose(got[row], of_a * alone[0] + of_b * alone[1], atol=1e-6)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "missing column": ({}, r"column 'shares': .* no such column"),
    "too few": (
        {"shares": [[1.0], [], None]},
        r"items\.parquet row 1, column 'shares': the row has another number of values in 'tags' "
        r"than of weights, \[1\.0\]; give each value of the row a weight",
    ),
    "null beside values": ({"shares": [None, [], None]}, r"row 1, column 'shares': the row has"),
    "weights without values": (
        {"shares": [[1.0, 2.0], [1.0], None]},
        r"row 2, column 'shares': the row has another number",
    ),
    "negative": (
        {"shares": [[1.0, -2.0], [], None]},
        r"row 1, column 'shares': a weight is negative, \[1\.0, -2\.0\]; a weight is zero or more",
    ),
    "not a number": (
        {"shares": [[1.0, math.nan], [], None]},
        r"row 1, column 'shares': a weight is null, NaN or infinite, .*; correct it in the source",
    ),
    "infinite": ({"shares": [[1.0, math.inf], [], None]}, "a weight is null, NaN or infinite"),
    "one number": (
        {"shares": [1.0, 2.0, None]},
        r"row 1, column 'shares': one double where a list of weights is expected, 1\.0; name a "
        r"column of lists of numbers as the weights of feature 'weighted'",
    ),
    "text": (
        {"shares": [["x", "y"], [], None]},
        r"column 'shares': lists of string where a list of weights is expected, \['x', 'y'\]",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_weights_that_do_not_go_with_the_values_are_refused(read_shop: ReadShop, case: str) -> None:
    items, message = REFUSED[case]
    with pytest.raises(DataError, match=message):
        read_shop(items=items, features=[WEIGHTED])


def test_weights_are_another_column() -> None:
    with pytest.raises(ValidationError, match="the column 'tags' holds the values, not their"):
        schema_of("mean", weights="tags")


def test_a_csv_file_holds_weights_as_text(tmp_path: Path) -> None:
    text = pa.table(
        {"user": [1, 1], "item": [1, 2], "tags": ["a|b", None], "shares": ["1|3", None]}
    )
    pa.csv.write_csv(text, tmp_path / "log.csv")
    schema = schema_of("mean", separator="|")
    tables = read_tables(schema, Sources(interactions=str(tmp_path / "log.csv")), Policies())
    context = tables.events.context
    (tags,) = fitted(schema, context).encode("interactions", context).multi
    assert tags.weights is not None
    assert tags.weights.tolist() == [1, 3, 1]
    bad = text.set_column(3, "shares", pa.array(["1|x", None]))
    pa.csv.write_csv(bad, tmp_path / "log.csv")
    with pytest.raises(DataError, match=r"row 1, column 'shares': not a list of weights"):
        read_tables(schema, Sources(interactions=str(tmp_path / "log.csv")), Policies())


def test_a_request_without_the_weights_of_its_values_is_refused() -> None:
    encoder = fitted(schema_of("mean"), CONTEXT)
    asked = pa.table({"user": [1, 2], "history": [[1], [1]], "tags": [None, ["a", "b"]]})
    message = r"requests row 2, column 'shares': the row has another number of values in 'tags'"
    with pytest.raises(DataError, match=message):
        encode_requests(encoder, pa.array([1]), asked, history_length=5, policies=Policies())
    weighed = asked.append_column("shares", pa.array([None, [1.0, -1.0]]))
    with pytest.raises(DataError, match=r"row 2, column 'shares': a weight is negative, \[1.0, -1"):
        encode_requests(encoder, pa.array([1]), weighed, history_length=5, policies=Policies())
    good = asked.append_column("shares", pa.array([None, [1.0, 2.0]]))
    found = encode_requests(encoder, pa.array([1]), good, history_length=5, policies=Policies())
    weights = found.block.multi[0].weights
    assert weights is not None
    assert weights.tolist() == [1, 1, 2]


def test_an_encoder_refuses_weights_that_were_not_checked() -> None:
    encoder = fitted(schema_of("mean"), CONTEXT)
    tags = {"tags": [None, ["a", "b"]]}
    with pytest.raises(DataError, match=r"row 2, column 'shares': 0 weights for 2 values of colu"):
        encoder.encode("interactions", pa.table({**tags, "shares": [[], []]}))
    with pytest.raises(DataError, match=r"'shares': holds a weight that is negative, null"):
        encoder.encode("interactions", pa.table({**tags, "shares": [None, [1.0, -1.0]]}))


def test_steps_of_a_history_have_weights() -> None:
    encoder = fitted(schema_of("mean"), CONTEXT)
    asked = pa.table(
        {
            "user": [1],
            "history": [[1, 1]],
            "history_tags": [[["a", "b"], ["c"]]],
            "history_shares": [[[1.0, 2.0], [3.0]]],
        }
    )
    found = encode_requests(
        encoder, pa.array([1]), asked, history_length=5, policies=Policies(), steps=True
    )
    assert not isinstance(found.history, Jagged)
    weights = found.history.features.multi[0].weights
    assert weights is not None
    assert weights.tolist() == [1, 2, 3]


def log_of(folder: Path, rows: int = 60) -> tuple[Schema, Sources]:
    rng = np.random.default_rng(0)
    lengths = rng.integers(0, 4, rows)
    columns: dict[str, Any] = {
        "user": np.arange(rows) % 3,
        "item": np.arange(rows) % 5,
        "click": np.arange(rows) % 2,
        "tags": [rng.choice(["a", "b", "c"], n).tolist() for n in lengths],
        "shares": [rng.random(n).tolist() for n in lengths],
    }
    pq.write_table(pa.table(columns), folder / "log.parquet")
    raw = {
        "interactions": {"user": "user", "item": "item", "label": {"column": "click"}},
        "features": [TAGS],
    }
    return Schema.model_validate_json(json.dumps(raw)), Sources(
        interactions=str(folder / "log.parquet")
    )


def same(one: Jagged, two: Jagged) -> bool:
    assert one.weights is not None
    assert two.weights is not None
    return torch.equal(one.values, two.values) and torch.equal(one.weights, two.weights)


def test_every_way_to_the_rows_gives_the_same_weights(tmp_path: Path) -> None:
    """In memory, from the cache, streamed to disk, as rows to score."""
    schema, sources = log_of(tmp_path)
    settings = (schema, sources, Policies(), SplitConfig(validation=0.2, test=0.2))
    data = prepare(*settings)
    order = torch.from_numpy(np.argsort(data.tables.events.row))
    (tags,) = data.context.take(order).multi
    for _ in range(2):
        again = cached(tmp_path / "cache", lambda: data, *settings)
        assert same(again.context.take(order).multi[0], tags)
    log = encode_click_log(*settings, tmp_path / "encoded")
    streamed = log.read(TRAIN, slice(None)).features.multi[0]
    assert same(streamed, tags.take(torch.arange(log.num_rows(TRAIN))))
    rows = pq.read_table(tmp_path / "log.parquet")
    encoder = RowEncoder(data.encoder, Policies())
    assert set(encoder.columns) == {"tags", "shares"}
    assert encoder.types.field("shares").type == pa.list_(pa.float64())
    assert same(encoder.encode(rows, as_rows(rows)).multi[0], tags)


def test_rows_to_score_without_weights_are_refused(tmp_path: Path) -> None:
    schema, sources = log_of(tmp_path)
    data = prepare(schema, sources, Policies(), SplitConfig(validation=0.2, test=0.2))
    rows = pq.read_table(tmp_path / "log.parquet").drop_columns(["shares"])
    with pytest.raises(DataError, match=r"column 'shares': .* no such column"):
        RowEncoder(data.encoder, Policies()).encode(rows, as_rows(rows))


def test_rows_without_a_context_keep_the_weights_of_the_others() -> None:
    encoder = fitted(schema_of("mean"), CONTEXT)
    block = encoder.encode("interactions", CONTEXT)
    nothing = pa.table({"": pa.nulls(1)})
    absent = encoder.encode("interactions", nothing)
    drop = np.array([False, True, False, False, False, True])
    found = with_absent(block, absent, drop)
    rows = [absent if dropped else block.take(torch.tensor([n])) for n, dropped in enumerate(drop)]
    expected = rows[0]
    for row in rows[1:]:
        expected = expected.above(row)
    assert isinstance(found, FeatureBlock)
    assert same(found.multi[0], expected.multi[0])
    assert found.multi[0].weights is not None
    assert found.multi[0].weights.tolist() == [1, 3, 1, 1, 0.5, 1, 1]
