"""A number of the rows of a relation before a row: computed, where a feature of a column is read.

Where the relation is not at hand, as in a request, the number is a column of the row.
"""

from abc import abstractmethod
from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from recsys.core.strict import nearest
from recsys.features.kinds.feature import Feature
from recsys.features.relations.facts import KEYS_OF, Asked, By, Facts, Key
from recsys.features.tables.condition import Condition

LOG = "interactions"
"""Name of the log as a relation."""


@dataclass(frozen=True)
class DeclaredRelations:
    """What a schema has that such a feature may be of.

    keys: relation -> the keys that its rows lead to. columns: of the log, that are read. has_time:
    of the log.
    """

    keys: Mapping[str, Set[Key]]
    columns: Set[str]
    has_time: bool


class RelationFeature(Feature):
    """A feature of the rows of a relation that are strictly before a row of the log."""

    is_read: ClassVar[bool] = False

    @property
    @abstractmethod
    def relation(self) -> str:
        """Whose rows."""

    @property
    @abstractmethod
    def owner(self) -> By:
        """Whose of them."""

    @property
    @abstractmethod
    def numbers_of(self) -> str | None:
        """The column that is read as numbers."""

    @property
    @abstractmethod
    def codes_of(self) -> str | None:
        """The column whose values are only compared."""

    @property
    @abstractmethod
    def conditions(self) -> tuple[Condition, ...]:
        """On the rows."""

    @property
    def is_of_user(self) -> bool:
        """Whether it is the same for all items: a feature of the query."""
        return KEYS_OF[self.owner] == ("user",)

    @property
    @abstractmethod
    def scaled_by(self) -> str:
        """How its number is scaled, as a numeric feature of a column would be."""

    @abstractmethod
    def number(self, facts: Facts, asked: Asked) -> NDArray[np.float64]:
        """Return it for N rows, NaN where null."""

    def check(self, declared: DeclaredRelations) -> None:
        """Refuse what the schema does not have.

        Raises:
            ValueError: what is wrong, and what to do.
        """
        known = list(declared.keys)
        if self.relation not in known:
            raise ValueError(
                f"feature '{self.name}' is of '{self.relation}', which is none of "
                f"{', '.join(known)}{nearest(self.relation, known)}: declare it in schema.relations"
            )
        for key in KEYS_OF[self.owner]:
            if key not in declared.keys[self.relation]:
                raise ValueError(
                    f"feature '{self.name}' is by {self.owner}, but no key of '{self.relation}' "
                    f"leads to {key}s: add its column to schema.relations.{self.relation}.keys"
                )
        if self.name in declared.columns:
            raise ValueError(
                f"feature '{self.name}' is computed, and a column of the interactions that is read "
                "has its name: rename the feature"
            )
        if not declared.has_time:
            raise ValueError(
                f"feature '{self.name}': rows before a row need clock times: give "
                "schema.interactions.time"
            )
