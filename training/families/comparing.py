"""The test that models are compared on: data, split and evaluation of one configuration.

Each model reads these data with its own schema and encoder. Whether it was trained on rows that
are test rows here is found out as far as its bundle says.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recsys.core.distinct import is_among
from recsys.features.dataset.dataset import Dataset, parted
from recsys.features.dataset.split import TEST
from recsys.features.encoding.encoder import Side
from recsys.features.encoding.hashing import hash_values
from recsys.features.tables.checked import Tables
from recsys.features.tables.sources import Sources
from recsys.training.evaluation.comparison import Comparison
from recsys.training.families.opened import OpenedModel


@dataclass(frozen=True)
class NamedModel:
    """A model that is compared: what it is called, and its bundle, as it was trained."""

    name: str
    opened: OpenedModel

    @property
    def model_id(self) -> str:
        """The hash of its bundle."""
        return str(self.opened.bundle.model_id)


@dataclass(frozen=True)
class CommonTest:
    """The data, the split and the evaluation that all models get.

    config: the configuration that says them, of its family's class. source: what it is called in
    messages. metric: decides which model is better. fixed: it is that of a model, and nobody can
    set its policies.
    """

    config: Any
    source: str
    metric: str
    fixed: bool = True

    def given_to(self, model: NamedModel) -> OpenedModel:
        """Return the model with the data, split and evaluation of this test."""
        own, common = model.opened.config, self.config
        evaluation = type(own.evaluation)()
        known = type(evaluation).model_fields
        settings = {name: one for name, one in dict(common.evaluation).items() if name in known}
        config = own.model_copy(
            update={
                "data": self._sources(model.opened),
                "policies": common.policies,
                "split": common.split,
                "evaluation": evaluation.model_copy(update=settings),
                "training": own.training.model_copy(update={"seed": common.training.seed}),
            }
        )
        return replace(model.opened, config=config)

    def _sources(self, opened: OpenedModel) -> Sources:
        """Return the paths of the tables that a model reads.

        Where the configuration names no such table it is the model's own: attributes of items and
        users do not decide what is asked.
        """
        schema, own, given = opened.schema, opened.config.data, self.config.data
        others = {name: given.others.get(name) or own.others[name] for name in schema.others}
        paths: dict[str, Any] = {
            "interactions": given.interactions,
            "items": None if schema.items is None else given.items or own.items,
            "users": None if schema.users is None else given.users or own.users,
            "others": others,
        }
        return own.model_copy(update=paths)


@dataclass(frozen=True)
class Comparer:
    """How models that give the same kind of answers are compared.

    answers: what such a model does, in messages. settled: returns a test with what its metric
    needs, or refuses the metric. compare: takes what the families' `ask` gave of each model.
    """

    answers: str
    settled: Callable[[CommonTest], CommonTest]
    compare: Callable[[tuple[Any, ...], CommonTest], Comparison]


@dataclass(frozen=True)
class ModelOnTest:
    """A model with the data of the common test, as its encoder sees them.

    opened: its configuration is that of the test. leak: why its figures may be too good. unknown:
    what of the test rows it does not know. Both in words; None: nothing.
    """

    name: str
    opened: OpenedModel
    data: Dataset
    leak: str | None
    unknown: str | None

    @classmethod
    def of(cls, model: NamedModel, test: CommonTest) -> "ModelOnTest":
        """Read the data of `test` as a model sees them.

        Raises:
            UserError: the model cannot read them; file, column and rows are named.
        """
        opened = test.given_to(model)
        tables = opened.tables(fixed=test.fixed)
        data = opened.encoded(tables)
        leak = trained_on_test(model.opened, opened, tables, data)
        return cls(model.name, opened, data, leak, unknown_rows(opened, data))


def trained_on_test(
    trained: OpenedModel, opened: OpenedModel, tables: Tables, data: Dataset
) -> str | None:
    """Describe which test rows of `data` a model was, or may have been, trained on; None: none.

    Of the very data of its training that is known row by row; of others by the latest time that
    it was trained on, where the log has times.

    Args:
        trained: the model with the configuration of its training.
        opened: the same with that of the comparison.
        tables: the tables of the comparison.
        data: the same, parted and encoded.
    """
    events, test = data.tables.events, data.part == TEST
    num_test, recounted = int(test.sum()), trained.recounted
    same_rows = trained.config.policies == opened.config.policies
    if same_rows and tables.fingerprint == trained.fingerprint:
        if recounted is not None and recounted["rows"] == "all":
            return (
                "its counts hold all rows of these data, test rows among them: its figures here "
                "are too good"
            )
        left, part, _ = parted(trained.schema, tables, trained.config.split)
        used = int(is_among(events.row[test], left.events.row[part != TEST]).sum())
        if used:
            return (
                f"{used:,} of {num_test:,} test rows were training or validation rows when it was "
                "trained, with another split: its figures here are too good"
            )
        if recounted is None or trained.description.embedding is None:
            return None
    if trained.schema.interactions.time is None:
        return (
            "it was trained on other data, and the log has no times: whether it was trained on "
            "test rows is not known"
        )
    last = max(trained.encoder.reference_time, (recounted or {}).get("until") or 0)
    early = int((events.time[test] <= last).sum())
    if not early:
        return None
    return (
        f"it was trained on other data, up to {_instant(last)}, and {early:,} of {num_test:,} test "
        "rows are not later: it may have been trained on them, and its figures be too good"
    )


def unknown_rows(opened: OpenedModel, data: Dataset) -> str | None:
    """Describe how many test rows are of items or users that a model has no training row of."""
    schema, encoder, events = data.schema, opened.encoder, data.tables.events
    test = data.part == TEST
    sides: tuple[tuple[Side, pa.ChunkedArray, NDArray[np.int32]], ...] = (
        ("items", data.tables.items.column(schema.item_key), events.item_row),
        ("users", data.tables.users.column(schema.user_key), events.user_row),
    )
    found = []
    for side, ids, row in sides:
        names = [one.name for one in schema.features_of(side) if schema.is_id(one)]
        if not names:  # the model does not know them by their ids
            continue
        absent = ~is_among(hash_values(ids), encoder.known[names[0]])
        count = int(absent[row[test]].sum())
        if count:
            found.append(f"{count:,} of {side} without a training row")
    if not found:
        return None
    return f"{' and '.join(found)} (of {int(test.sum()):,} test rows)"


def words_of_roles(model: ModelOnTest, other: ModelOnTest) -> str:
    """Return in which roles two models read columns of the log that differ; "" where none do."""
    roles, own = (dict(one.opened.schema.interactions) for one in (model, other))
    keys = [f"schema.interactions.{name}" for name in own if own[name] != roles[name]]
    return f": {', '.join(keys)} differ" if keys else ""


def _instant(microseconds: int) -> str:
    return f"{datetime.fromtimestamp(microseconds / 1e6, UTC):%Y-%m-%d %H:%M}"
