"""Where requests come from: what their errors name besides column, row and remedy."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recsys.core.errors import DataError, Row
from recsys.core.remote.path import path_at
from recsys.features.tables.reading import TableFiles, table_at


@dataclass(frozen=True)
class RequestOrigin:
    """What holds the requests, and how many of its rows come before their first."""

    name: str = "requests"
    first_row: int = 0

    def error(
        self, reason: str, column: str = "", row: int | None = None, *, remedy: str = ""
    ) -> DataError:
        """Return the error for a column and, counted from 0 within the requests, a row."""
        rows = [] if row is None else [Row(self.name, self.first_row + int(row) + 1)]
        return DataError(reason, file=self.name, column=column, rows=rows, remedy=remedy)

    def files(self, columns: Sequence[str]) -> TableFiles:
        """Return the files that messages about the requests name, with their columns.

        Raises:
            DataError: two columns have one name.
        """
        return table_at(path_at(self.name), "requests", columns)

    @contextmanager
    def named(self, columns: Mapping[str, str], rows: NDArray[np.int64]) -> Iterator[None]:
        """Name the origin in errors about values that cannot be encoded.

        Args:
            columns: name of a column that is encoded inside -> its name in the requests.
            rows: (N,) the request of each row that is encoded inside, from 0.

        Raises:
            DataError: one was raised inside, or Arrow found values that it cannot convert.
        """
        try:
            yield
        except DataError as error:
            numbers = (self.first_row + rows + 1).tolist()
            raise error.within(self.name, columns.get(error.column, ""), numbers) from None
        except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
            among = " or ".join(f"'{outside}'" for outside in columns.values())
            raise self.error(
                f"column {among}: {str(error).splitlines()[0]}",
                remedy="give values of the kind that the model was trained on",
            ) from None
