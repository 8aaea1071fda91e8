"""What the data is: tables, their roles, and the features that enter a model.

A `Schema` says nothing about where files lie (that is `recsys.features.tables.sources.Sources`), so
it travels inside a bundle and describes the requests that the model answers.
"""

from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from recsys.core.strict import StrictModel, nearest
from recsys.data.feature_options import Multiplicity, Name, Pooling
from recsys.features.kinds.derived import CrossFeature, DerivedFeature, check_cross, check_past
from recsys.features.tables.times import TimeUnit

_LISTS = ("multi_categorical", "text")


class TimeColumn(StrictModel):
    """When an interaction happened: whole numbers in `unit` since 1970 (UTC), or `datetime`."""

    column: Name
    unit: TimeUnit


class Condition(StrictModel):
    """Keep only the rows whose `column` is at least / at most / equal to / one of a value."""

    column: Name
    at_least: float | None = None
    at_most: float | None = None
    one_of: tuple[str | int, ...] | None = None

    @model_validator(mode="after")
    def _some_bound(self) -> Self:
        if self.at_least is None and self.at_most is None and self.one_of is None:
            raise ValueError("a condition needs at_least, at_most or one_of")
        return self


class LabelColumn(StrictModel):
    """What a ranker learns to predict: 0 or 1, or whether a number is `at_least` a threshold."""

    column: Name
    at_least: float | None = None


class InteractionsTable(StrictModel):
    """Columns of the log: who took what, when. `time` or `order` says what came first.

    `order` is a whole number that grows with time within a user, where no clock time is known.
    `weight` is a non-negative number, the importance of a row. `where` keeps the rows that
    count as positive (a rating of at least 4). `label` is for rankers, whose log also holds what
    was shown and not taken; a streamed click log with a label needs neither user nor item.
    """

    user: str = ""
    item: str = ""
    label: LabelColumn | None = None
    time: TimeColumn | None = None
    order: Name | None = None
    weight: Name | None = None
    session: Name | None = None
    where: tuple[Condition, ...] = ()

    @model_validator(mode="after")
    def _one_clock(self) -> Self:
        if self.time is not None and self.order is not None:
            raise ValueError("give 'time' or 'order' for the interactions, not both")
        if bool(self.user) != bool(self.item) or (not self.user and self.label is None):
            raise ValueError("the interactions need the columns 'user' and 'item'")
        return self


class ItemsTable(StrictModel):
    """The catalogue: one row an item, known by `key`; `title` is what people read."""

    key: Name
    title: Name | None = None


class UsersTable(StrictModel):
    """User attributes: one row a user, known by `key`."""

    key: Name


class SideTable(StrictModel):
    """One more table with one row a key, joined to the items or the users (plots, prices)."""

    joins: Literal["items", "users"]
    key: Name


class _Feature(StrictModel):
    name: Name
    table: Name
    """`items`, `users`, `interactions` (context of the request) or the name of a side table."""
    column: str = ""
    """The column it is read from; the feature's name where empty."""

    @property
    def source_column(self) -> str:
        return self.column or self.name


class _SparseFeature(_Feature):
    multiplicity: Multiplicity = 1
    """How many rows of the unified table one value reads; the width is multiplicity x dim.
    `auto`: shared out by how many values the feature has (`embedding.lookups`)."""
    min_count: Annotated[int, Field(ge=1)] = 1
    """Values with fewer training rows, and those with none, are all one value: unknown. 1: every
    value is itself (an id without a training row is unknown in any case). Null stays null."""


class CategoricalFeature(_SparseFeature):
    """One value a row: an id, a brand, a country."""

    kind: Literal["categorical"] = "categorical"


class MultiCategoricalFeature(_SparseFeature):
    """Several values a row: an Arrow list, or text cut at `separator`; pooled to one vector."""

    kind: Literal["multi_categorical"] = "multi_categorical"
    separator: str | None = None
    pooling: Pooling = "mean"
    weights: str | None = None
    """A list column of non-negative numbers, as long in each row as the values'."""


class TextFeature(_SparseFeature):
    """Free text as its lower-cased word tokens, pooled to one vector."""

    kind: Literal["text"] = "text"
    pooling: Pooling = "mean"


class NumericFeature(_Feature):
    """One number a row, scaled with what the training rows show; null has an indicator."""

    kind: Literal["numeric"] = "numeric"
    transform: Literal[
        "standardise", "log1p", "log_squared", "quantile", "piecewise", "discretise"
    ] = "standardise"
    """Formulas: `recsys.features.encoding.scaling`. `piecewise` makes several numbers of one,
    `discretise` a category that reads one row of the table."""
    bins: Annotated[int, Field(ge=2, le=1024)] | Literal["log_squared"] | None = None
    """How many bins, each with as many training rows, `piecewise` and `discretise` make (16 where
    not given). `log_squared`, for `discretise`: the floor of log(x)^2, as for Criteo."""

    @model_validator(mode="after")
    def _bins_are_used(self) -> Self:
        binned = self.transform in ("piecewise", "discretise")
        if self.bins is not None and not binned:
            raise ValueError(
                f"feature '{self.name}': bins are for transform: piecewise or discretise, not for "
                f"{self.transform}"
            )
        if self.bins == "log_squared" and self.transform == "piecewise":
            raise ValueError(
                f"feature '{self.name}': bins: log_squared is for transform: discretise; give "
                "piecewise a number of bins"
            )
        return self


class VectorFeature(_Feature):
    """A list of `dim` floats a row (the embedding of a plot or an image)."""

    kind: Literal["vector"] = "vector"
    dim: Annotated[int, Field(ge=1)]


class TimestampFeature(_Feature):
    """A point in time as hour of day, weekday (sparse) and age in days (dense)."""

    kind: Literal["timestamp"] = "timestamp"
    unit: TimeUnit
    multiplicity: Multiplicity = 1


Feature = Annotated[
    CategoricalFeature
    | MultiCategoricalFeature
    | TextFeature
    | NumericFeature
    | VectorFeature
    | TimestampFeature,
    Field(discriminator="kind"),
]


class Schema(StrictModel):
    """Tables, roles and features of one recommendation problem."""

    interactions: InteractionsTable
    items: ItemsTable | None = None
    """Without an items table the catalogue is the set of items in the interactions."""
    users: UsersTable | None = None
    others: dict[str, SideTable] = Field(default_factory=dict)
    features: tuple[Annotated[Feature | DerivedFeature, Field(discriminator="kind")], ...]

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
        parts = {n: f.kind in _LISTS for f in self.column_features for n in lookup_names(f)}
        of_items = [name for f in self.features_of("items") for name in lookup_names(f)]
        roles = self.interactions
        for feature in self.derived_features:
            if isinstance(feature, CrossFeature):
                check_cross(feature, parts)
            else:
                check_past(
                    feature,
                    of_items,
                    has_time=roles.time is not None,
                    has_order=roles.order is not None,
                )

    def _check_implicit_table(self, feature: Feature) -> None:
        """Where no items (users) table is declared, only its key can be a feature."""
        keys = {"items": self.item_key, "users": self.user_key}
        key = keys.get(feature.table)
        if key is None or getattr(self, feature.table) is not None:
            return
        if feature.source_column != key or feature.kind != "categorical":
            raise ValueError(
                f"feature '{feature.name}' needs a table '{feature.table}', which is not declared; "
                f"without it only a categorical '{key}' can be a feature of {feature.table}"
            )

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
        return feature.kind == "categorical" and keys.get(feature.table) == feature.source_column


def lookup_names(feature: Feature) -> tuple[str, ...]:
    """Return the names under which the values of a column are looked up; none of a number."""
    if feature.kind == "timestamp":
        return f"{feature.name}.hour", f"{feature.name}.weekday"
    number = feature.kind == "numeric" and feature.transform != "discretise"
    return () if number or feature.kind == "vector" else (feature.name,)
