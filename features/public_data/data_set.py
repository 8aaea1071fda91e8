"""What a public data set is: its files, how they become tables, and how it is split in papers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from recsys.features.public_data.raw import Reader


@dataclass(frozen=True)
class Table:
    """A table that is made of files.

    name: of the Parquet file that is written. files: pattern of a name -> reader, all files that
    match one are read in their order. needed: whether the data set is nothing without it. rows:
    how many the authors say that it has; 0: unknown, or it depends on the part that was taken.
    """

    name: str
    files: Mapping[str, Reader]
    needed: bool = True
    rows: int = 0


@dataclass(frozen=True)
class Protocol:
    """How papers split a data set.

    about: a line for people, with the paper. split: lines of `split` in the configuration. where:
    conditions on rows, as lines of `interactions.where`. core: users and items with fewer rows than
    this are left out, again and again (0: none). item_core: another number for items.
    """

    about: str
    split: Sequence[str] = ()
    where: Sequence[str] = ()
    core: int = 0
    item_core: int = 0


@dataclass(frozen=True)
class DataSet:
    """A public data set.

    title: what people call it. about: where it is from, and what a row of its log is. protocols:
    name -> how it is split; the first is taken where none is named.
    """

    title: str
    about: str
    tables: Sequence[Table]
    protocols: Mapping[str, Protocol]
    notes: Sequence[str] = field(default_factory=tuple)


LEAVE_ONE_OUT = Protocol(
    "each user's last row is test, the one before validation (SASRec, ICDM 2018; BERT4Rec, CIKM "
    "2019)",
    split=("kind: leave_one_out",),
)
BY_TIME = Protocol(
    "the latest tenth of all rows is test, the tenth before validation",
    split=("kind: time", "validation: 0.1", "test: 0.1"),
)
AS_GIVEN = Protocol(
    "the split that the files come with",
    split=("kind: column", "column: split"),
)
