"""What the data is: tables, their roles, and the features that enter a model.

A `Schema` does not hold the paths of files (those are in `recsys.features.tables.sources.Sources`),
so it can be stored in a bundle and describes the requests that the model answers.
"""

from collections.abc import Mapping
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from recsys.core.strict import StrictModel, nearest
from recsys.data.feature_options import Name
from recsys.features.kinds.derived import (
    Declared,
    DerivedFeature,
    LabelFeature,
    PastFeature,
    RowFeature,
)
from recsys.features.kinds.feature import Feature
from recsys.features.kinds.registry import KINDS
from recsys.features.tables.number_text import DecimalSign, NumberText, ThousandsSign
from recsys.features.tables.times import TimeUnit


class TimeColumn(StrictModel):
    """When an interaction happened: whole numbers in `unit` since 1970 (UTC), or `datetime`."""

    column: Name
    """Column of the time."""
    unit: TimeUnit
    """Unit of whole numbers since 1970 (UTC), or `datetime`."""


class Condition(StrictModel):
    """Keep only the rows whose `column` is at least / at most / equal to / one of a value."""

    column: Name
    """Column that is looked at."""
    at_least: float | None = None
    """Smallest number that is kept."""
    at_most: float | None = None
    """Largest number that is kept."""
    one_of: tuple[str | int, ...] | None = None
    """Values that are kept."""

    @model_validator(mode="after")
    def _some_bound(self) -> Self:
        if self.at_least is None and self.at_most is None and self.one_of is None:
            raise ValueError("a condition needs at_least, at_most or one_of")
        return self


class LabelColumn(StrictModel):
    """What a ranker learns to predict: 0 or 1, or whether a number is `at_least` a threshold."""

    column: Name
    """Column of 0 and 1, or of numbers with `at_least`."""
    at_least: float | None = None
    """Numbers from here on are positive."""


class Outcome(LabelColumn):
    """What a ranker of several outcomes predicts of a row beside its label, where it is known."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]*$")]
    """What metrics (`auc_<name>`) and columns of answers (`probability_<name>`) call it."""
    weight: Annotated[float, Field(gt=0)] = 1.0
    """How much its loss counts; that of the label counts 1."""

    @field_validator("name")
    @classmethod
    def _is_no_metrics_own(cls, name: str) -> str:
        if name == "before":  # calibration_error_before is the label's, before calibration
            raise ValueError("'before' is what metrics call another thing: choose another name")
        return name


class WrittenTable(StrictModel):
    """A table whose text writes numbers in a way of its own, in files and in requests."""

    decimal: DecimalSign = "."
    """The sign before decimals where numbers come as text: "," for 39,47."""
    thousands: ThousandsSign | None = None
    """The sign between thousands where numbers come as text: "." for 1.234,56."""

    @model_validator(mode="after")
    def _signs_differ(self) -> Self:
        if self.decimal == self.thousands:
            raise ValueError(f"decimal and thousands are both '{self.decimal}'")
        return self

    @property
    def number_text(self) -> NumberText:
        """How numbers are written."""
        return NumberText(self.decimal, self.thousands or "")


class InteractionsTable(WrittenTable):
    """Columns of the log: user, item, time. `time` or `order` says what came first.

    `order` is a whole number that grows with time within a user, where no clock time is known.
    `weight` is a non-negative number, the importance of a row. `where` keeps the rows that
    count as positive (a rating of at least 4). `label` is for rankers, whose log also holds what
    was shown without an interaction; a streamed click log with a label needs neither user nor item.
    `outcomes` are predicted beside it, by rankers that have several outputs.
    """

    user: str = ""
    """Column of the user's id; empty for a streamed log without users."""
    item: str = ""
    """Column of the item's id."""
    label: LabelColumn | None = None
    """What a ranker predicts."""
    outcomes: tuple[Outcome, ...] = ()
    """What else is predicted of a row: a purchase beside the click. An outcome that is null in a
    row is unknown there, and such a row counts neither for its loss nor for its metrics."""
    time: TimeColumn | None = None
    """When the interaction happened."""
    order: Name | None = None
    """Column of whole numbers that grow with time within a user, where no time is known."""
    weight: Name | None = None
    """Column of the importance of a row, a number of at least 0."""
    session: Name | None = None
    """Column that is equal in all rows of one session."""
    where: tuple[Condition, ...] = ()
    """Conditions that a row has to meet to count."""

    @model_validator(mode="after")
    def _one_clock(self) -> Self:
        if self.time is not None and self.order is not None:
            raise ValueError("give 'time' or 'order' for the interactions, not both")
        if bool(self.user) != bool(self.item) or (not self.user and self.label is None):
            raise ValueError("the interactions need the columns 'user' and 'item'")
        return self

    @model_validator(mode="after")
    def _outcomes_beside_a_label(self) -> Self:
        names = self.outcome_names
        if names and self.label is None:
            raise ValueError("'outcomes' are further ones beside the 'label': give that, too")
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two outcomes are named '{name}'")
        return self

    @property
    def outcome_names(self) -> tuple[str, ...]:
        """Names of the outcomes beside the label, in declared order."""
        return tuple(outcome.name for outcome in self.outcomes)


class ItemsTable(WrittenTable):
    """The catalogue: one row an item, known by `key`; `title` is what people read."""

    key: Name
    """Column of the item's id."""
    title: Name | None = None
    """Column that reports show."""


class UsersTable(WrittenTable):
    """User attributes: one row a user, known by `key`."""

    key: Name
    """Column of the user's id."""


class SideTable(WrittenTable):
    """One more table with one row a key, joined to the items or the users (plots, prices)."""

    joins: Literal["items", "users"]
    """Which side its rows describe."""
    key: Name
    """Column of that side's id."""


if TYPE_CHECKING:
    AnyFeature = Feature | DerivedFeature
else:
    AnyFeature = Annotated[reduce(or_, KINDS.values()), Field(discriminator="kind")]


class Schema(StrictModel):
    """Tables, roles and features of one recommendation problem."""

    interactions: InteractionsTable
    items: ItemsTable | None = None
    """Without an items table the catalogue is the set of items in the interactions."""
    users: UsersTable | None = None
    others: dict[str, SideTable] = Field(default_factory=dict)
    features: tuple[AnyFeature, ...]
    """What the model reads, one entry a feature; the kind of a feature decides its other keys."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        names = [feature.name for feature in self.features]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two features are named '{name}'")
        tables = ["interactions", "items", "users", *self.others]
        for feature in self.column_features:
            if feature.table not in tables:
                hint = nearest(feature.table, tables)
                raise ValueError(
                    f"feature '{feature.name}' names table '{feature.table}', "
                    f"which is none of {', '.join(tables)}{hint}"
                )
            self._check_implicit_table(feature)
        for name, side in self.others.items():
            if name in ("interactions", "items", "users"):
                raise ValueError(f"side table '{name}' has the name of a main table")
            if getattr(self, side.joins) is None:
                raise ValueError(f"side table '{name}' joins '{side.joins}', which is not declared")
        if not self.features:
            raise ValueError("at least one feature is needed")
        if self.interactions.label is None and not self.features_of("items"):
            raise ValueError("at least one feature of the items is needed (the item id will do)")
        self._check_derived()
        return self

    def _check_derived(self) -> None:
        of_items = (name for one in self.features_of("items") for name in one.lookup_names)
        roles = self.interactions
        declared = Declared(
            parts={n: one.has_several for one in self.column_features for n in one.lookup_names},
            of_items=tuple(of_items),
            has_time=roles.time is not None,
            has_order=roles.order is not None,
            has_label=roles.label is not None,
        )
        for feature in self.derived_features:
            feature.check(declared)

    def _check_implicit_table(self, feature: Feature) -> None:
        """Where no items (users) table is declared, only its key can be a feature."""
        keys = {"items": self.item_key, "users": self.user_key}
        key = keys.get(feature.table)
        if key is None or getattr(self, feature.table) is not None:
            return
        if feature.source_column != key or not feature.is_key:
            raise ValueError(
                f"feature '{feature.name}' needs a table '{feature.table}', which is not declared; "
                f"without it only a categorical '{key}' can be a feature of {feature.table}"
            )

    @property
    def number_texts(self) -> dict[str, NumberText]:
        """Table -> how its text writes numbers."""
        tables = {"interactions": self.interactions, "items": self.items, "users": self.users}
        every = {**tables, **self.others}
        return {name: table.number_text for name, table in every.items() if table is not None}

    @property
    def item_key(self) -> str:
        """Name of the items' key column (the interactions' item column without a table)."""
        return self.items.key if self.items else self.interactions.item

    @property
    def user_key(self) -> str:
        """Name of the users' key column (the interactions' user column without a table)."""
        return self.users.key if self.users else self.interactions.user

    @property
    def column_features(self) -> tuple[Feature, ...]:
        """Features that are columns of a table, in declared order."""
        return tuple(f for f in self.features if not isinstance(f, DerivedFeature))

    @property
    def derived_features(self) -> tuple[DerivedFeature, ...]:
        """Features that are worked out from other columns and other rows, in declared order."""
        return tuple(f for f in self.features if isinstance(f, DerivedFeature))

    @property
    def row_features(self) -> tuple[RowFeature, ...]:
        """Those of the derived features that are of a row's own columns."""
        return tuple(f for f in self.derived_features if isinstance(f, RowFeature))

    @property
    def past_features(self) -> tuple[PastFeature, ...]:
        """Those of the derived features that are of the rows before."""
        return tuple(f for f in self.derived_features if isinstance(f, PastFeature))

    @property
    def label_features(self) -> tuple[LabelFeature, ...]:
        """Those of the derived features that are of the labels of training rows."""
        return tuple(f for f in self.derived_features if isinstance(f, LabelFeature))

    def features_of(self, side: Literal["items", "users", "interactions"]) -> tuple[Feature, ...]:
        """Columns of one side in declared order, those of its side tables among them."""
        members = {side} | {name for name, other in self.others.items() if other.joins == side}
        return tuple(feature for feature in self.column_features if feature.table in members)

    def with_multiplicities(self, found: Mapping[str, int]) -> Self:
        """Return the schema with the multiplicities of the features in `found` set."""
        features = tuple(
            feature.model_copy(update={"multiplicity": found[feature.name]})
            if feature.name in found
            else feature
            for feature in self.features
        )
        return self.model_copy(update={"features": features})

    def is_id(self, feature: Feature) -> bool:
        """Whether `feature` is the key of the items or of the users itself."""
        keys = {"items": self.item_key, "users": self.user_key}
        return feature.is_key and keys.get(feature.table) == feature.source_column
