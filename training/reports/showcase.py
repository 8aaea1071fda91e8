"""What a person looks at in a report: titles, groups, and a few users with their lists."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from recsys.features.dataset.dataset import Dataset
from recsys.features.dataset.queries import Queries
from recsys.training.evaluation.results import Evaluation, Example

NUM_EXAMPLES = 20
MIN_COVERED, MAX_LARGEST = 0.8, 0.9
"""Of a column that colours the map: share of the items with a value, and of them with the same."""
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
    """Return each item's value of the coarsest categorical feature of items, if any groups them.

    Of a feature with several values the first one counts.
    """
    columns = []
    for feature in data.schema.features_of("items"):
        if data.schema.is_id(feature):
            continue
        column = feature.group_names(data.tables.items.column(feature.source_column))
        if column is not None:
            columns.append(column.to_pylist())
    found = coarsest(columns)
    return None if found is None else ["none" if one is None else str(one) for one in found]


def coarsest(columns: Sequence[Sequence[Any]]) -> Sequence[Any] | None:
    """Return the column with the fewest values, the first of equals; None if none groups items.

    A column groups items if most have a value, no value is that of nearly all of them, and there
    are four times as many items as values.
    """
    best, fewest = None, 0
    for column in columns:
        sizes = Counter(value for value in column if value is not None)
        covered = sum(sizes.values())
        if len(sizes) < 2 or len(sizes) > max(2, len(column) // 4):
            continue
        if covered < MIN_COVERED * len(column) or max(sizes.values()) > MAX_LARGEST * covered:
            continue
        if best is None or len(sizes) < fewest:
            best, fewest = column, len(sizes)
    return best


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
