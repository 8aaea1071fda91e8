"""What the ranker of a bundle looks at, over rows or on one, for `recsys explain`.

A row is one of the log, or a user with an item. Where the log has no row of both, the request is
the user's latest one with the item in the place of the one it held: a ranker never saw a request
without context or past, so what it says of one would be no explanation of anything.
"""

import logging
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from torch import nn

from recsys.bundle.calibration import Calibrator
from recsys.core.errors import ConfigError, NotFoundError
from recsys.data.batch import FeatureBlock, FeatureLayout
from recsys.embeddings.fields import dense_features
from recsys.explanation.explanations import field_names
from recsys.features.batches.rows import RankingLoader
from recsys.features.dataset.dataset import Dataset
from recsys.features.encoding.hashing import NULL_HASH, UNKNOWN_HASH
from recsys.features.kinds.feature import Feature
from recsys.training.engine.ranks import World
from recsys.training.explain.explanation import (
    Explanation,
    RowExplanation,
    explain_row,
    explain_rows,
)
from recsys.training.explain.ids import row_of
from recsys.training.families.opened import OpenedModel
from recsys.training.families.ranker.config import RankerExperiment
from recsys.training.families.ranker.opening import opened_ranker
from recsys.training.families.ranker.rows import RankingRows, open_rows, rows_of

LOG = logging.getLogger(__name__)

_SHOWN = 60
"""Most letters of a value."""
_PARTS = ("training", "validation", "test")


@dataclass(frozen=True)
class OpenedRanker:
    """A ranker with the rows it was made for; data: None where the log is streamed."""

    config: RankerExperiment
    rows: RankingRows
    model: nn.Module
    calibrator: Calibrator
    data: Dataset | None


def open_ranker(opened: OpenedModel) -> OpenedRanker:
    """Return an opened ranker with the rows that its configuration names.

    Raises:
        NotFoundError: its data are no longer where they were.
        IntegrityError: a file of the bundle is not what was written.
    """
    config = opened.config
    data = None if config.data.stream else opened.data()
    rows = _streamed(opened) if data is None else rows_of(config, data)
    model, calibrator = opened_ranker(opened)
    return OpenedRanker(config, rows, model, calibrator, data)


def explain_model(opened: OpenedModel, max_rows: int) -> Explanation:
    """Return what a ranker looks at, over at most `max_rows` test rows.

    Raises:
        UserError: as `open_ranker` does.
    """
    found = open_ranker(opened)
    return explain_rows(found.config, found.rows, found.model, found.calibrator, max_rows=max_rows)


def explain_pair(model: OpenedModel, user: str, item: str) -> RowExplanation:
    """Return what a ranker looks at when it scores `item` for `user`.

    Raises:
        NotFoundError: the data have no such user or item, or the user has no row in the log.
        UserError: as `open_ranker` does.
    """
    opened = open_ranker(model)
    data = _in_memory(opened)
    schema, events = data.schema, data.tables.events
    user_row = row_of(data.tables.users, schema.user_key, user, "user", schema.ids.users)
    item_row = row_of(data.tables.items, schema.item_key, item, "item", schema.ids.items)
    of_user = np.flatnonzero(events.user_row == user_row)
    if len(of_user) == 0:
        raise NotFoundError(
            f"user {user} has no row in the log, and so no request to explain; name one that has"
        )
    both = of_user[events.item_row[of_user] == item_row]
    if len(both):
        return _explained(opened, data, int(both[-1]), item_row)
    note = (
        f"the log has no row of both: this is the user's latest request, row "
        f"{events.row[of_user[-1]] + 1:,} of the log, with item {item} in place of "
        f"{_key(data, 'items', int(events.item_row[of_user[-1]]))}"
    )
    return _explained(opened, data, int(of_user[-1]), item_row, note)


def explain_log_row(model: OpenedModel, row: int) -> RowExplanation:
    """Return what a ranker looks at on a row of the log, counted from 1.

    Raises:
        NotFoundError: there is no such row, or it was left out.
        UserError: as `open_ranker` does.
    """
    opened = open_ranker(model)
    data = _in_memory(opened)
    events = data.tables.events
    (at,) = np.nonzero(events.row == row - 1)
    if len(at) == 0:
        raise NotFoundError(
            f"row {row:,} is not among the {len(events):,} rows of the log that count, the last of "
            f"which is row {events.row.max() + 1:,}; 'where' or a policy may have left it out"
        )
    return _explained(opened, data, int(at[0]), int(events.item_row[at[0]]))


def _streamed(opened: OpenedModel) -> RankingRows:
    """Open the encoded log where training left it; it is encoded again where that is gone."""
    config, encoder = opened.config, opened.encoder
    folder = config.cache or config.output
    LOG.info(f"opening the log in {folder}, encoding it where that is missing")
    rows = open_rows(config, World(), None if config.warm_start is None else encoder)
    if rows.encoder.digest() == encoder.digest():
        return rows
    LOG.warning("the data are not those the model was trained on; encoding them as it knew them")
    return open_rows(config, World(), encoder)


def _in_memory(opened: OpenedRanker) -> Dataset:
    if opened.data is None:
        raise ConfigError(
            "one row is explained where the tables fit into memory; of a streamed log explain the "
            "model as a whole: leave out --user, --item and --row"
        )
    return opened.data


def _explained(
    opened: OpenedRanker, data: Dataset, event: int, item_row: int, note: str | None = None
) -> RowExplanation:
    """Explain an event with its own item, or with another one where a note names it."""
    assert isinstance(opened.rows.loader, RankingLoader)
    batch = opened.rows.loader.rows(np.array([event]), np.array([item_row]))
    found, pairs, attention = explain_row(
        opened.config, opened.rows, opened.model, opened.calibrator, batch.features
    )
    events = data.tables.events
    own = f"row {events.row[event] + 1:,} of the log, a {_PARTS[data.part[event]]} row"
    values = _values(data, event, item_row, batch.features, opened.rows.layout)
    return RowExplanation(
        title=f"user {_key(data, 'users', int(events.user_row[event]))}, "
        f"item {_key(data, 'items', item_row)}",
        notes=(note or own,),
        label=None if note else float(batch.label[0]),
        values=tuple(values[name] for name in found.names),
        contributions=found,
        interactions=pairs,
        attention=attention,
    )


def _key(data: Dataset, side: Literal["users", "items"], row: int) -> str:
    """Return the id of a user or an item, with the item's title where there is one."""
    schema = data.schema
    if side == "users":
        return str(data.tables.users.column(schema.user_key)[row].as_py())
    items, title = data.tables.items, schema.items.title if schema.items else None
    name = str(items.column(schema.item_key)[row].as_py())
    return name if title in (None, schema.item_key) else f"{name} ({items.column(title)[row]})"


def _values(
    data: Dataset, event: int, item_row: int, row: FeatureBlock, layout: FeatureLayout
) -> dict[str, str]:
    """Return what each field holds: as the user wrote it, else described."""
    tables, schema = data.tables, data.schema
    found = {name: _encoded(row, layout, name) for name in field_names(layout)}
    sides: list[tuple[Literal["users", "interactions", "items"], pa.Table, int]] = [
        ("users", tables.users, int(tables.events.user_row[event])),
        ("interactions", tables.events.context, event),
        ("items", tables.items, item_row),
    ]
    for side, table, at in sides:
        for feature in schema.features_of(side):
            text = _written(table.column(feature.source_column)[at].as_py(), feature)
            for name in (feature.name, *feature.lookup_names):
                if name in found:
                    found[name] = text
    for derived in schema.row_features:
        found[derived.name] = derived.shown(found)
    for label in schema.label_features:
        first, width = layout.dense.index(label.name), len(label.layout(layout).dense)
        found[label.name] = label.shown(row.dense[0, first : first + width].tolist())
    for column, (name, _) in enumerate(layout.single):
        if int(row.single[0, column]) == UNKNOWN_HASH:
            found[name] += " (unknown to the model)"
    return found


def _written(value: Any, feature: Feature) -> str:
    if value is None:
        return "null"
    text = " ".join(feature.shown(value).split())
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."


def _encoded(row: FeatureBlock, layout: FeatureLayout, name: str) -> str:
    """Return what can be said of a field that no column holds, from its encoded values."""
    lists = [multi for multi, _ in layout.multi]
    if name in lists:
        values = row.multi[lists.index(name)].values.tolist()
        is_null = values == [NULL_HASH]
        return "null" if is_null else f"{len(values)} value{'s' if len(values) > 1 else ''}"
    first = 0
    for dense, columns in dense_features(layout.dense):
        if dense == name:
            is_null = bool(row.dense[0, first + columns - 1] > 0)
            return "null" if is_null else f"{float(row.dense[0, first]):.2f} after scaling"
        first += columns
    return ""
