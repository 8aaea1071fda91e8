"""What a feature that is a column says of itself, and what it does with the column's values.

A kind of feature is a class: its fields are what a configuration may set, its methods all that the
rest does with such a feature. Each kind has one file next to this one, and
`recsys.features.kinds.registry` lists them. Nothing else compares the name of a kind.

A feature's columns pass through it in this order: `propose` (for `recsys init`), `convert` batch by
batch as files are read, `check_rows`, `fit` on the training rows, `encode` wherever rows become
tensors, in the order that `layout` gives.
"""

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recsys.core.strict import StrictModel
from recsys.data.batch import FeatureLayout, Jagged
from recsys.data.feature_options import Multiplicity, Name
from recsys.features.encoding.scaling import Scaler
from recsys.features.kinds.expression import Expressed, Operations
from recsys.features.kinds.suggestion import Look, Suggestion
from recsys.features.propose.profile import ColumnProfile
from recsys.features.tables.ledger import Cells
from recsys.features.tables.sources import Policies

Integers = NDArray[np.int64]


class Reader(Protocol):
    """A reader of a column.

    priority: of several readers of one column the one of the lowest converts it: whose result
    loses no value that another needs.
    """

    priority: ClassVar[int]

    def convert(self, cells: Cells, policies: Policies) -> pa.Array:
        """Return a batch of the column, (N,), checked; see `Feature.convert`."""


class Fitted(Protocol):
    """What the training rows showed; `recsys.features.encoding.encoder.FeatureEncoder` is one."""

    @property
    def known(self) -> Mapping[str, Integers]:
        """Feature name -> sorted (K,) hashes of the values that are not unknown."""

    @property
    def families(self) -> Mapping[str, str]:
        """Feature name -> "integer", "string" or "boolean"."""

    @property
    def scalers(self) -> Mapping[str, Scaler]:
        """Name -> how its numbers are scaled."""

    @property
    def reference_time(self) -> int:
        """Latest training time in microseconds."""


@dataclass(frozen=True)
class Fit:
    """What one feature shows, by the names that `Fitted` keeps it under."""

    families: Mapping[str, str] = field(default_factory=dict)
    scalers: Mapping[str, Scaler] = field(default_factory=dict)


@dataclass
class Encoded:
    """Columns of N rows: single (N,) int64 value hashes, multi N rows each, dense (N,) float32."""

    single: list[Integers] = field(default_factory=list)
    multi: list[Jagged] = field(default_factory=list)
    dense: list[NDArray[np.float32]] = field(default_factory=list)


class Feature(StrictModel):
    """A feature that a column of a table holds."""

    name: Name
    """Of the feature; rows of the table follow from it."""
    table: Name
    """`items`, `users`, `interactions` (context of the request) or the name of a side table."""
    column: str = ""
    """The column it is read from; the feature's name where empty."""

    if TYPE_CHECKING:
        kind: str  # each kind declares its own name, behind its other common fields

    priority: ClassVar[int]
    """As `Reader` has it."""
    proposal_order: ClassVar[int] = 0
    """Of several kinds that `recsys init` could write, it writes that of the lowest."""
    is_read: ClassVar[bool] = True
    """Whether the files of its table hold its columns; else they are computed."""
    is_key: ClassVar[bool] = False
    """Whether the key of the items or users can be such a feature."""
    is_category: ClassVar[bool] = False
    """Whether its values are names of things, each the same wherever it occurs."""
    has_classes: ClassVar[bool] = False
    """Whether a model can be asked which values a row has."""
    has_several: ClassVar[bool] = False
    """Whether a row has several values."""
    is_scaled: ClassVar[bool] = False
    """Whether fitting looks at its numbers."""
    decides_type: ClassVar[bool] = False
    """Whether text of a CSV file becomes whole numbers where all of the column is such."""

    @property
    def is_flattened(self) -> bool:
        """Whether one number far from the others makes these nearly equal."""
        return False

    @property
    def source_column(self) -> str:
        """The column that holds its values."""
        return self.column or self.name

    @property
    def columns(self) -> tuple[str, ...]:
        """All columns that it reads, that of its values first."""
        return tuple(self.readers())

    def readers(self) -> dict[str, Reader]:
        """Return each column that it reads, and what converts it."""
        return {self.source_column: self}

    @property
    def lookup_names(self) -> tuple[str, ...]:
        """Names under which its values are looked up in the table; none of a number."""
        return ()

    @property
    def asked_multiplicity(self) -> Multiplicity:
        """How many rows of the table one value reads."""
        return 1

    @property
    def has_multiplicity(self) -> bool:
        """Whether a configuration can say how many rows of the table each of its values reads."""
        return False

    @property
    def least_count(self) -> int:
        """Training rows that a value needs to be known."""
        return 1

    @abstractmethod
    def convert(self, cells: Cells, policies: Policies) -> pa.Array:
        """Return a batch of its column, (N,), as it is kept until it is encoded.

        Single bad values go to the ledger of `cells`.

        Raises:
            DataError: the column's type goes with no such feature.
        """

    def check_rows(self, cell: Callable[[str], Cells], columns: Mapping[str, pa.Array]) -> None:
        """Note rows whose columns do not go together.

        Args:
            cell: returns one of its columns as the file holds it.
            columns: name -> (N,), converted.
        """

    def fit(self, columns: Sequence[pa.ChunkedArray], reference_time: int) -> Fit:
        """Return what the training rows show.

        Args:
            columns: its columns, converted.
            reference_time: latest training time in microseconds.

        Raises:
            DataError: the values are of a type that it cannot read.
        """
        return Fit()

    @abstractmethod
    def layout(self, fitted: Fitted) -> FeatureLayout:
        """Return what `encode` gives, in order."""

    @abstractmethod
    def encode(self, columns: Sequence[pa.ChunkedArray], fitted: Fitted) -> Encoded:
        """Return N rows as numbers.

        Args:
            columns: its columns; of nulls where a request does not hold them.
            fitted: on training rows.

        Raises:
            DataError: the values are of another type than those fitted.
        """

    def express(self, ops: Operations, fitted: Fitted) -> Expressed:
        """Return what `encode` does as a graph over columns of the same names.

        Raises:
            NotImplementedError: it cannot be said so; the message is about the kind.
        """
        raise NotImplementedError(f"a {self.kind} feature cannot be written as a graph")

    def num_values(self, lookup: str, column: pa.ChunkedArray) -> int:
        """Return how many values `lookup` (one of `lookup_names`) distinguishes in a column."""
        raise NotImplementedError(f"no value of a {self.kind} feature is looked up")

    def values_to_share_rows(self, column: pa.ChunkedArray) -> int:
        """Return what `multiplicity: auto` counts as its values."""
        return self.num_values(self.name, column)

    def rows_and_values(self, column: pa.ChunkedArray) -> tuple[Integers, pa.Array]:
        """Return each value (T,) of a column with the row that holds it (T,), ascending."""
        raise NotImplementedError(f"values of a {self.kind} feature are not counted")

    def group_names(self, column: pa.ChunkedArray) -> pa.ChunkedArray | None:
        """Return a name of a group for each row, (N,); None where its values name no groups."""
        return None

    @abstractmethod
    def request_types(self, fitted: Fitted) -> dict[str, pa.DataType]:
        """Return the types of its columns as a request brings them."""

    @classmethod
    def propose(cls, column: ColumnProfile, look: Look) -> Suggestion | None:
        """Return how `recsys init` writes a column as such a feature; None where it is none.

        Kinds are asked in the order of `proposal_order`. A `Suggestion` of no kind says that the
        column is to be left out, and why.
        """
        return None

    def shown(self, value: Any) -> str:
        """Return a value of its column as people read it."""
        if isinstance(value, list):
            value = ", ".join(map(str, value))
        return f"{value:g}" if isinstance(value, float) else str(value)


def is_nan(values: NDArray[Any]) -> NDArray[np.float32]:
    """Return (N,) float32: 1 where NaN."""
    return np.isnan(values).astype(np.float32)
