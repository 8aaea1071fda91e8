"""Where requests come from: what their errors name beside column, row and remedy."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from recsys.core.errors import DataError
from recsys.features.tables.reading import TableFiles, table_at


@dataclass(frozen=True)
class RequestOrigin:
    """What holds the requests, and how many of its rows come before their first."""

    name: str = "requests"
    first_row: int = 0

    def at(self, column: str, row: int | None = None) -> str:
        """Return the words for a column and, counted from 0 within the requests, a row."""
        number = "" if row is None else f" row {self.first_row + row + 1}"
        return f"{self.name}{number}, column '{column}'"

    def files(self, columns: Sequence[str]) -> TableFiles:
        """Return what stands in the messages of who reads the requests, with their columns.

        Raises:
            DataError: two columns have one name.
        """
        return table_at(Path(self.name), "requests", columns)

    @contextmanager
    def named(self, columns: Mapping[str, str]) -> Iterator[None]:
        """Name the origin in errors about values that cannot be encoded.

        columns: name of a column that is encoded inside -> its name in the requests.

        Raises:
            DataError: one was raised inside, or Arrow found values that it cannot convert.
        """
        try:
            yield
        except (DataError, pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as e:
            message = str(e).splitlines()[0]
            for inside, outside in columns.items():
                message = message.replace(f"column '{inside}'", f"column '{outside}'")
            if not isinstance(e, DataError):
                among = " or ".join(f"'{outside}'" for outside in columns.values())
                message = (
                    f"column {among}: {message}; give values of the kind that the model was "
                    "trained on"
                )
            raise DataError(f"{self.name}: {message}") from None
