"""What is asked of an export besides its target."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

from recsys.retrieval.index.reduced import ReductionSize
from recsys.serving.export.query_encoding import EncodingSize
from recsys.serving.export.tuning import Tuning

_FLAGS = {
    "encoded": "--encoding fde",
    "columns": "--columns",
    "reduced": "--reduce",
    "tuning": "--tune",
}


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """What is asked of an export of vectors.

    Attributes:
        min_recall: an index below this is refused.
        encoded: size of encodings that stand for several vectors of a query; None: vectors.
        columns: of the items that go along; None: all that a store can hold.
        reduced: of which an index is to be over shorter vectors.
        tuning: of a search that is to be chosen by measuring.
    """

    min_recall: float
    encoded: EncodingSize | None = None
    columns: Sequence[str] | None = None
    reduced: ReductionSize | None = None
    tuning: Tuning | None = None

    def given(self) -> list[str]:
        """Return what is asked for, as the command line calls it."""
        names = [one.name for one in fields(self) if one.name in _FLAGS]
        return [_FLAGS[name] for name in names if getattr(self, name) is not None]
