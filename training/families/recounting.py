"""A newer log as a trained model knows it, whose counts are taken anew: its weights stay.

The log is read for what is counted alone: who, what, when, in which session. The catalogue is that
of the bundle; rows of other items are counted and left out.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import torch

from recsys.core.distinct import distinct
from recsys.core.errors import DataError
from recsys.data.batch import FeatureBlock
from recsys.features.bundle.files import TRAIN_COUNT, read_items
from recsys.features.bundle.searching import Search
from recsys.features.dataset.dataset import Dataset, parted
from recsys.features.dataset.sessions import Sessions, cut_sessions
from recsys.features.dataset.split import TRAIN
from recsys.features.kinds.categorical import CategoricalFeature
from recsys.features.schema import Schema
from recsys.features.tables.checked import Tables, read_tables
from recsys.features.tables.sources import Sources
from recsys.training.families.opened import OpenedModel, rows_of

Rows = Literal["training", "all"]
"""Which rows of the log are counted: those that the model's split trains on, or all."""


@dataclass(frozen=True)
class NewLog:
    """What is counted.

    data: the known rows, parted, over the catalogue of the model; of its encoded rows those of the
    items alone are there. sessions: how they are cut, where the model reads sessions. unknown_rows,
    unknown_items: rows, and distinct items, that the catalogue lacks; first_unknown: one of them.
    """

    data: Dataset
    sessions: Sessions | None
    unknown_rows: int
    unknown_items: int
    first_unknown: Any

    @property
    def until(self) -> int | None:
        """The latest time that is counted, in microseconds; None: no times are known."""
        if self.data.schema.interactions.time is None:
            return None
        return int(self.data.tables.events.time[self.data.part == TRAIN].max())


@dataclass(frozen=True)
class Renewed:
    """A model with new counts.

    search: what finds items with them. write: writes the files that hold them, in place of the old
    ones. words: what was counted, by name.
    """

    search: Search
    write: Callable[[Path], None]
    words: dict[str, str]


Renew = Callable[[OpenedModel, Search, NewLog], Renewed]
"""What takes a model, what finds its items now, and the log, and counts."""


def read_new_log(opened: OpenedModel, log: str, rows: Rows) -> NewLog:
    """Read a log for a model.

    Raises:
        NotFoundError: there is no such file.
        DataError: the log is not as the model's schema says, or holds no known item.
        ConfigError: it cannot be parted or cut as the configuration says.
    """
    schema = opened.schema
    tables, unknown = _over_catalogue(opened, _read(opened, log), log)
    if rows == "all":
        part = np.full(len(tables.events), TRAIN, np.int8)
        cold = np.zeros(tables.items.num_rows, bool)
    else:
        tables, part, cold = parted(schema, tables, opened.config.split)
    nothing = torch.zeros(0, 0)
    data = Dataset(
        schema=schema,
        tables=tables,
        part=part,
        encoder=opened.encoder,
        items=opened.encoder.encode("items", tables.items),
        users=FeatureBlock(nothing.long(), (), nothing),
        context=FeatureBlock(nothing.long(), (), nothing),
        cold=cold,
    )
    cutting = opened.description.sessions
    sessions = None if cutting is None else cut_sessions(data, cutting)
    return NewLog(data, sessions, *unknown)


def _read(opened: OpenedModel, log: str) -> Tables:
    """Read what is counted; whatever the policy, an unknown item is no error."""
    config = opened.config
    return read_tables(
        _of_ids(opened.schema),
        Sources(interactions=log),
        opened.policies.model_copy(update={"unknown_items": "keep"}),
        split_column=config.split.column,
        trained=True,
    )


def _of_ids(schema: Schema) -> Schema:
    """Return the schema of the log alone, of which nothing but the ids is read."""
    item = CategoricalFeature(name=schema.interactions.item, table="items")
    alone: dict[str, Any] = {"items": None, "users": None, "others": {}, "features": (item,)}
    return schema.model_copy(update=alone)


def _over_catalogue(
    opened: OpenedModel, tables: Tables, log: str
) -> tuple[Tables, tuple[int, int, Any]]:
    """Return the tables with the catalogue of the model; and of other items rows, items, one."""
    schema, items = opened.schema, read_items(opened.bundle).drop_columns([TRAIN_COUNT])
    ids = tables.items.column(schema.interactions.item).combine_chunks()
    known = items.column(schema.item_key).combine_chunks()
    try:
        place = rows_of(ids.cast(known.type), known)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        raise DataError(
            f"item ids are of type {ids.type}, those of the model of type {known.type}",
            file=log,
            column=schema.interactions.item,
            remedy=f"give ids of type {known.type}",
        ) from None
    events = tables.events
    row = place[events.item_row]
    strange = distinct(events.item_row[row < 0])
    if not (row >= 0).any():
        raise DataError(
            f"none of its {len(strange):,} items is in the catalogue of the model",
            file=log,
            column=schema.interactions.item,
            value=repr(ids[int(strange[0])].as_py()),
            remedy="give a log of the items that the model was trained on, or train it on this one",
        )
    kept = events.take(np.flatnonzero(row >= 0))
    kept = replace(kept, item_row=row[row >= 0].astype(np.int32))
    first = ids[int(strange[0])].as_py() if len(strange) else None
    unknown = (int((row < 0).sum()), len(strange), first)
    return replace(tables, items=items, events=kept), unknown
