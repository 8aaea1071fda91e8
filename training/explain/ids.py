"""Ids as people give them, as text."""

import pyarrow as pa
import pyarrow.compute as pc

from recsys.core.errors import ConfigError, NotFoundError
from recsys.features.tables.id_forms import IdForm, written_ids


def row_of(table: pa.Table, key: str, given: str, what: str, form: IdForm | None = None) -> int:
    """Return the row of the id that was given as text.

    Args:
        table: of items or users.
        key: the column of the ids.
        given: the id.
        what: what has it, for messages.
        form: how the ids are written, None: as they come.

    Raises:
        ConfigError: the ids are whole numbers, and this is none.
        NotFoundError: no row has it.
    """
    column = table.column(key).combine_chunks()
    some = ", ".join(str(one) for one in column[:3].to_pylist())
    (given,) = written_ids([given], form, what)
    try:
        value = pa.scalar(given).cast(column.type)
    except pa.ArrowInvalid:
        raise ConfigError(
            f"--{what} {given}: the {what} ids in '{key}' are whole numbers, such as {some}"
        ) from None
    at = int(pc.index(column, value).as_py())
    if at < 0:
        raise NotFoundError(f"the data have no {what} {given} in '{key}', which holds {some}, ...")
    return at
