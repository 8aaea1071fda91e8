"""Requests to a pipeline: asked for in parts, they are those of all users at once."""

import numpy as np
import pyarrow as pa

from recsys.features.dataset.dataset import Dataset
from recsys.features.pipeline.requests import whole_requests


def test_parts_in_any_order_are_the_whole(dataset: Dataset) -> None:
    schema, tables = dataset.schema, dataset.tables
    kept = np.random.default_rng(0).random(len(tables.events)) < 0.7
    users = np.random.default_rng(1).permutation(dataset.num_users)
    whole = whole_requests(schema, tables, kept, np.arange(dataset.num_users))
    items = tables.items.column(schema.item_key).to_pylist()
    by_hand: dict[int, list[str]] = {user: [] for user in range(dataset.num_users)}
    for user, item, is_kept in zip(
        tables.events.user_row, tables.events.item_row, kept, strict=True
    ):
        if is_kept:
            by_hand[int(user)].append(items[item])
    assert whole.column("history").to_pylist() == list(by_hand.values())
    parts = [
        whole_requests(schema, tables, kept, users[start : start + 31])
        for start in range(0, 200, 31)
    ]
    assert pa.concat_tables(parts).equals(whole.take(users))
    without = kept & (tables.events.user_row >= 31)
    strangers = whole_requests(schema, tables, without, np.arange(31))
    assert strangers.column("history").to_pylist() == [[]] * 31
    nobody = whole_requests(schema, tables, kept, users[:0])
    assert nobody.schema.equals(whole.schema)
