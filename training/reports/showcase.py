"""What a person looks at in a report: titles, groups, and a few users with their lists."""

from typing import Any

import numpy as np
import pyarrow.compute as pc

from recsys.features.dataset.dataset import Dataset
from recsys.features.dataset.queries import Queries
from recsys.features.encoding.columns import as_lists
from recsys.training.evaluation.results import Evaluation, Example

NUM_EXAMPLES = 20
_SHOWN = 10


def item_titles(data: Dataset) -> list[str]:
    """Return what people call each item: its title, else its id."""
    items = data.schema.items
    ids = data.tables.items.column(data.schema.item_key).to_pylist()
    if items is None or items.title is None:
        return [str(item) for item in ids]
    titles = data.tables.items.column(items.title).to_pylist()
    return [str(item if title is None else title) for title, item in zip(titles, ids, strict=True)]


def item_groups(data: Dataset) -> list[str] | None:
    """Return each item's value of the first categorical feature that groups items, if any."""
    for feature in data.schema.features_of("items"):
        if data.schema.is_id(feature) or feature.kind not in ("categorical", "multi_categorical"):
            continue
        column = data.tables.items.column(feature.source_column)
        if feature.kind == "multi_categorical":
            column = pc.list_element(_at_least_one(as_lists(column, feature)), 0)
        values = ["none" if value is None else str(value) for value in column.to_pylist()]
        if 2 <= len(set(values)) <= max(2, len(values) // 4):
            return values
    return None


def _at_least_one(lists: Any) -> Any:
    """An empty list has no first value: make it null."""
    return pc.if_else(pc.greater(pc.list_value_length(lists), 0), lists, None)


def examples(data: Dataset, queries: Queries, evaluation: Evaluation) -> list[Example]:
    """Return users spread over the queries by length of history, newest item of each last."""
    titles = item_titles(data)
    model = next(iter(evaluation.results.values()))
    by_length = np.argsort(queries.history.lengths().numpy(), kind="stable")
    chosen = by_length[np.linspace(0, len(by_length) - 1, NUM_EXAMPLES).astype(int)]
    user_ids = data.tables.users.column(data.schema.user_key)
    shown = []
    for query in dict.fromkeys(chosen.tolist()):
        bounds = queries.history_items.offsets[query], queries.history_items.offsets[query + 1]
        history = queries.history_items.values[bounds[0] : bounds[1]].tolist()
        start, stop = queries.relevant.offsets[query], queries.relevant.offsets[query + 1]
        relevant = queries.relevant.values[start:stop].tolist()
        top = [int(row) for row in model.top[query][:_SHOWN] if row >= 0]
        shown.append(
            Example(
                user=str(user_ids[int(queries.users[query])].as_py()),
                history=[titles[row] for row in history[-_SHOWN:]],
                relevant=[titles[row] for row in relevant[:_SHOWN]],
                recommended=[(titles[row], float("nan"), row in relevant) for row in top],
            )
        )
    return shown
