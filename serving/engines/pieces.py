"""A log that comes sorted by user, in batches, cut into pieces that hold all rows of their users.

An engine that spreads a log over workers hands each its users' rows (and the rows of tables of
users) in one stream: a column of keys, and a column of structs for each table, of which one is not
null. Each piece is read by the rules that the batch job reads a whole log with; what users do to
each other's histories is nothing, so all pieces together give the requests of the whole.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa

from recsys.features.tables.frames import lent
from recsys.features.tables.sources import Source, Sources
from recsys.serving.engines.logged import logged_users
from recsys.serving.recommend.scorer import Scorer

KEY, LOG, USERS = "key", "interactions", "users"


def pieces(batches: Iterable[pa.RecordBatch], size: int) -> Iterator[pa.Table]:
    """Yield tables of about `size` rows; rows with one value of `KEY` are in one of them.

    batches: sorted by `KEY`.
    """
    held: list[pa.RecordBatch] = []
    count = 0
    for batch in batches:
        held.append(batch)
        count += batch.num_rows
        if count < size:
            continue
        table = pa.Table.from_batches(held)
        cut = _last_start(table.column(KEY))
        if cut:
            yield table.slice(0, cut)
            held = table.slice(cut).to_batches()
            count = table.num_rows - cut
    if count:
        yield pa.Table.from_batches(held)


def tables_of(piece: pa.Table) -> dict[str, pa.Table]:
    """Return the tables whose rows a piece has, by the names of their columns of structs."""
    found = {}
    for name in piece.column_names:
        if name == KEY:
            continue
        column = piece.column(name)
        rows = pa.concat_arrays([one.filter(one.is_valid()) for one in column.chunks])
        fields = list(column.type)
        found[name] = pa.Table.from_arrays(rows.flatten(), names=[field.name for field in fields])
    return found


def requests_of(scorer: Scorer, tables: Mapping[str, pa.Table]) -> pa.Table:
    """Return the requests of the users of a piece: of `LOG`, `USERS` and side tables of users.

    Raises:
        DataError: a row breaks a rule of the training.
    """
    with lent(tables) as paths:
        others: dict[str, Source] = {
            name: path for name, path in paths.items() if name not in (LOG, USERS)
        }
        sources = Sources(interactions=paths[LOG], users=paths.get(USERS), others=others)
        found = logged_users(scorer, sources, is_piece=True)
        return found.requests(np.arange(found.tables.users.num_rows))


def requests_of_pieces(
    scorer: Scorer, batches: Iterable[pa.RecordBatch], schema: pa.Schema, size: int
) -> Iterator[pa.RecordBatch]:
    """Yield the requests of all users of a stream of pieces, with the columns of `schema`."""
    for piece in pieces(batches, size):
        yield from as_declared(requests_of(scorer, tables_of(piece)), schema).to_batches(10_000)


def as_declared(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return a table with the columns of `schema` in its types; what it lacks is null."""
    count = table.num_rows
    columns = [
        table.column(field.name).cast(field.type)
        if field.name in table.column_names
        else pa.chunked_array([pa.nulls(count, field.type)])
        for field in schema
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def _last_start(keys: pa.ChunkedArray) -> int:
    """Return where the rows of the last key begin."""
    codes = np.asarray(keys.combine_chunks().dictionary_encode("encode").indices)
    changes: Sequence[int] = np.flatnonzero(np.diff(codes)).tolist()
    return changes[-1] + 1 if changes else 0
