"""Lists of ids that are left out or allowed: in files, tables or memory, for all or for each user.

A file of ids is Parquet or CSV with the items' key, or a text with one id a line. A block list is a
table with the keys of users and of items: what each user is not to be shown.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray

from recsys.core.distinct import distinct
from recsys.core.errors import DataError, Row
from recsys.core.remote.path import path_at
from recsys.data.batch import Jagged
from recsys.features.filters.columns import ids_like
from recsys.features.schema import Schema
from recsys.features.tables.attributes import read_attributes
from recsys.features.tables.frames import is_frame, to_arrow
from recsys.features.tables.id_forms import IdForm, written_ids
from recsys.features.tables.ids import IdCollector, settle_ids
from recsys.features.tables.ledger import Ledger, is_text
from recsys.features.tables.reading import fingerprint, open_table
from recsys.features.tables.rows import RowReader, RowRoles, forms_of_roles
from recsys.features.tables.sources import Policies

_TABLES = (".parquet", ".pq", ".parq", ".csv", ".tsv", ".gz", ".bz2", ".zst", ".xz")


@dataclass(frozen=True)
class IdList:
    """Items of a catalogue: distinct rows, ascending; ids that it lacks, the first of them.

    fingerprint: of the ids.
    """

    rows: NDArray[np.int64]
    unknown: int
    first_unknown: Any
    fingerprint: str


def read_ids(
    given: Any, name: str, schema: Schema, policies: Policies, item_ids: pa.Array
) -> IdList:
    """Return the items that a list of ids names.

    Args:
        given: a path, a data frame with the items' key, or ids.
        name: what messages call it, as in "exclude".
        schema: of the trained model.
        policies: what to do with ids that break a rule.
        item_ids: (N,) of the catalogue.

    Raises:
        NotFoundError: there is no such file.
        DataError: an id is not of the catalogue's kind.
    """
    form = schema.ids.items
    if isinstance(given, str | Path):
        ids = _ids_in(path_at(given), name, schema, policies, item_ids)
    elif is_frame(given):
        table = to_arrow(given, name)
        if schema.item_key not in table.column_names:
            raise DataError(
                "the frame has no such column",
                file=name,
                column=schema.item_key,
                remedy="name the column of the ids so",
            )
        ids = _of_kind(table.column(schema.item_key).to_pylist(), name, item_ids, form)
    else:
        ids = _of_kind(given, name, item_ids, form)
    found = pc.index_in(ids, item_ids)
    missing = ids.filter(found.is_null())
    first = missing[0].as_py() if len(missing) else None
    rows = distinct(np.asarray(found.drop_null(), np.int64))
    digest = hashlib.sha256("\n".join(sorted(map(str, ids.to_pylist()))).encode()).hexdigest()
    return IdList(rows, len(missing.unique()), first, digest)


def _ids_in(
    path: Path, name: str, schema: Schema, policies: Policies, item_ids: pa.Array
) -> pa.Array:
    """Return the ids in a file, in the type of the catalogue's."""
    if not _is_lines(path):
        files = open_table(path, name)
        attributes = read_attributes(
            files, schema.item_key, [], policies, form=schema.ids.items, trained=True
        )
        attributes.ledger.check()
        ids = ids_like(attributes.ids, item_ids, policies)
        return ids.distinct.cast(item_ids.type)
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise DataError("not a text in UTF-8", file=path, remedy="write one id a line") from None
    numbered = [(number, line.strip()) for number, line in enumerate(lines, 1) if line.strip()]
    if is_text(item_ids.type):
        return _of_kind([line for _, line in numbered], str(path), item_ids, schema.ids.items)
    wrong = [(number, line) for number, line in numbered if not _is_whole(line)]
    if wrong:
        raise DataError(
            "no whole number, as the model's item ids are",
            rows=[Row(str(path), number) for number, _ in wrong[:5]],
            num_rows=len(wrong),
            value=repr(wrong[0][1]),
            remedy="write one id a line, and nothing else",
        )
    return _of_kind([int(line) for _, line in numbered], str(path), item_ids)


def _is_lines(path: Path) -> bool:
    """Whether a file holds one id a line: it is there, and neither Parquet nor CSV."""
    if not path.is_file() or path.name.lower().endswith(_TABLES):
        return False
    with path.open("rb") as stream:
        return stream.read(4) != b"PAR1"


def _is_whole(text: str) -> bool:
    return text.removeprefix("-").isascii() and text.removeprefix("-").isdigit()


def _of_kind(
    given: Iterable[Any], name: str, item_ids: pa.Array, form: IdForm | None = None
) -> pa.Array:
    """Return ids in the type of the catalogue's, as `form` writes them.

    Raises:
        DataError: they are of another.
    """
    values = written_ids(given, form, name)
    try:
        found = pa.array(values) if values else pa.array([], item_ids.type)
        if not pa.types.is_null(found.type) and is_text(found.type) != is_text(item_ids.type):
            raise pa.ArrowInvalid(f"they are {found.type}")
        return found.cast(item_ids.type)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
        raise DataError(
            f"item ids of type {item_ids.type} are expected ({str(error).splitlines()[0]})",
            file=name,
            value=repr(values[0]) if values else "",
            remedy=f"give ids of type {item_ids.type}",
        ) from None


@dataclass(frozen=True, eq=False)
class Blocks:
    """What users are not to be shown.

    users: (U,) distinct ids, in the order of `rows`: U rows of item rows, and an empty one.
    place: of the users, for messages. untyped: they came as text of a CSV file. unknown: items that
    the catalogue lacks, the first of them. fingerprint: of the files.
    """

    users: pa.Array
    rows: Jagged
    place: str
    untyped: bool
    unknown: int
    first_unknown: Any
    fingerprint: str

    @classmethod
    def read(cls, path: str, schema: Schema, policies: Policies, item_ids: pa.Array) -> "Blocks":
        """Read a table of pairs; its columns are called as in the log or the attribute tables.

        Raises:
            NotFoundError: there is no such file.
            DataError: a key is missing, or an id is not of the catalogue's kind.
        """
        files, log = open_table(path, "block"), schema.interactions
        keys = {"user": (log.user, schema.user_key), "item": (log.item, schema.item_key)}
        names = {role: one if one in files.columns else two for role, (one, two) in keys.items()}
        files.require(names.values())
        ledger = Ledger(files, trained=True)
        forms = forms_of_roles(schema)
        roles = RowRoles(ids={"user": names["user"], "item": names["item"]}, id_forms=forms)
        collected = {
            role: IdCollector(name, ledger, forms.get(role)) for role, name in roles.ids.items()
        }
        numbers = [np.zeros(0, np.int64)]
        for batch in RowReader(files, roles, policies, ledger).batches():
            numbers.append(batch.rows)
            for role, ids in batch.ids.items():
                collected[role].add(ids)
        ledger.check()
        read = {role: one.finish(np.concatenate(numbers)) for role, one in collected.items()}
        (users,) = settle_ids([read["user"]], policies)
        ledger.check()
        items = ids_like(read["item"], item_ids, policies)
        found = pc.index_in(items.distinct.cast(item_ids.type), item_ids)
        missing = items.distinct.filter(found.is_null())
        row = np.asarray(found.fill_null(-1), np.int64)[items.codes]
        order = np.lexsort((row, users.codes))
        order = order[row[order] >= 0]
        counts = np.bincount(users.codes[order], minlength=len(users.distinct) + 1)
        return cls(
            users.distinct,
            Jagged.of_lengths(row[order], counts),
            users.place,
            users.untyped or read["user"].untyped,
            len(missing),
            missing[0].as_py() if len(missing) else None,
            fingerprint([files]),
        )

    def of(self, user_ids: pa.Array) -> Jagged:
        """Return the rows of some users, (Q,); of those without an entry empty ones.

        Raises:
            DataError: ids of users are of another kind.
        """
        known = self.users
        unlike = len(known) and is_text(known.type) != is_text(user_ids.type)
        if unlike and (is_text(known.type) or not self.untyped):
            raise DataError(
                f"{self.place}: {known.type} ids, the requests have {user_ids.type} ids",
                value=repr(known[0].as_py()),
                remedy=f"cast them to {user_ids.type}",
            )
        place = pc.index_in(user_ids, known.cast(user_ids.type))
        at = np.asarray(place.fill_null(len(known)), np.int64)
        return self.rows.take(torch.from_numpy(at))
