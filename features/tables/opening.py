"""The tables of a schema, each found where the sources say."""

from typing import Any

from recsys.core.errors import ConfigError
from recsys.features.schema import Schema
from recsys.features.tables.reading import TableFiles, open_table
from recsys.features.tables.sources import Sources


def open_tables(
    schema: Schema, sources: Sources, *, is_piece: bool = False
) -> dict[str, TableFiles]:
    """Return the files of each table that a schema declares, by the table's name.

    Args:
        schema: tables and their roles.
        sources: their paths.
        is_piece: whether they are all rows of some users alone.

    Raises:
        NotFoundError: a path does not exist, or a glob matches nothing.
        ConfigError: tables and sources do not go together.
    """
    paths: dict[str, Any] = {"interactions": sources.interactions}
    main = {"items": schema.items, "users": schema.users}
    declared = {**main, **schema.others, **schema.relations}
    given = {"items": sources.items, "users": sources.users, **sources.others}
    for name in dict.fromkeys([*declared, *given]):
        table, path = declared.get(name), given.get(name)
        if table is not None and path is None:
            below = "relations." if name in schema.relations else ""
            where = "data.others" if below else "data"
            raise ConfigError(
                f"schema.{below}{name} is declared, but {where} has no path for '{name}'"
            )
        if table is None and path is not None:
            raise ConfigError(
                f"data has a path for '{name}', but the schema declares no such table"
            )
        if path is not None:
            paths[name] = path
    opened = {name: open_table(path, name) for name, path in paths.items()}
    for files in opened.values():
        files.is_piece = is_piece
    return opened
