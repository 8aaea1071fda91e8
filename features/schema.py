"""What the data is: tables, their roles, and the features that enter a model.

A `Schema` does not hold the paths of files (those are in `recsys.features.tables.sources.Sources`),
so it can be stored in a bundle and describes the requests that the model answers.
"""

from collections.abc import Mapping
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from recsys.core.strict import StrictModel, nearest
from recsys.features.kinds.categorical import CategoricalFeature
from recsys.features.kinds.derived import (
    Declared,
    DerivedFeature,
    LabelFeature,
    PastFeature,
    RowFeature,
)
from recsys.features.kinds.feature import Feature
from recsys.features.kinds.registry import KINDS
from recsys.features.kinds.relation_feature import LOG, DeclaredRelations, RelationFeature
from recsys.features.relations.checks import check_links, check_used
from recsys.features.relations.facts import Key
from recsys.features.table_roles import (
    InteractionsTable,
    ItemsTable,
    RelationTable,
    SideTable,
    UsersTable,
)
from recsys.features.tables.id_forms import IdForm, IdForms
from recsys.features.tables.number_text import NumberText

if TYPE_CHECKING:
    AnyFeature = Feature | DerivedFeature
else:
    AnyFeature = Annotated[reduce(or_, KINDS.values()), Field(discriminator="kind")]


def _item_id(declared: dict[str, Any]) -> tuple[Feature, ...]:
    """Return the item id as a feature, where items are ranked: models that count need no other."""
    roles, items = declared.get("interactions"), declared.get("items")
    if roles is None or roles.label is not None:
        return ()
    name = roles.item if items is None else items.key
    return (CategoricalFeature(name=name, table="items", kind="categorical"),)


class Schema(StrictModel):
    """Tables, roles and features of one recommendation problem."""

    interactions: InteractionsTable
    items: ItemsTable | None = None
    """Without an items table the catalogue is the set of items in the interactions."""
    users: UsersTable | None = None
    others: dict[str, SideTable] = Field(default_factory=dict)
    ids: IdForms = IdForms()
    """How ids are written, where tables write one id in several ways."""
    relations: dict[str, RelationTable] = Field(default_factory=dict)
    """Further tables with many rows a key, by name; features of kind: window are of their rows."""
    features: tuple[AnyFeature, ...] = Field(default_factory=_item_id)
    """What the model reads, one entry a feature; the kind of a feature decides its other keys.
    Where the key is missing and there is no label: the item id alone."""

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
            raise ValueError("at least one feature is needed: what the model reads of a row")
        if self.interactions.label is None and not self.features_of("items"):
            raise ValueError("at least one feature of the items is needed (the item id will do)")
        self._check_derived()
        self._check_relations()
        return self

    def _check_relations(self) -> None:
        check_links(self.relations, ("interactions", "items", "users", *self.others))
        roles = self.interactions
        keys = {name: set(self.keys_of(name)) for name in [LOG, *self.relations]}
        of_log = (one for one in self.features_of("interactions") if one.is_read)
        read = {roles.user, roles.item, *(column for one in of_log for column in one.columns)}
        declared = DeclaredRelations(keys, read, has_time=roles.time is not None)
        for feature in self.relation_features:
            feature.check(declared)
        check_used(self.relations, {one.relation for one in self.relation_features})

    def keys_of(self, relation: str) -> dict[Key, str]:
        """Return the keys that the rows of a relation lead to, and the column of each.

        A key that rows have of another relation has the column of the key that leads there.
        """
        if relation == LOG:
            return {"user": self.interactions.user, "item": self.interactions.item}
        table = self.relations[relation]
        own = table.own_keys()
        if table.link is None:
            return own
        column, to = table.link
        return {**{key: column for key in self.relations[to].own_keys()}, **own}

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
    def relation_features(self) -> tuple[RelationFeature, ...]:
        """Those of the columns that are computed of a relation's rows, in declared order."""
        return tuple(f for f in self.column_features if isinstance(f, RelationFeature))

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

    def form_of(self, side: str) -> IdForm | None:
        """Return how the ids of the side ("items" or "users") are written; None: as they come."""
        form: IdForm | None = getattr(self.ids, side)
        return form

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
