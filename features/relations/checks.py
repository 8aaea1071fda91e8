"""What relations a schema may declare."""

from collections.abc import Collection, Mapping, Set
from typing import TYPE_CHECKING

from recsys.core.strict import nearest

if TYPE_CHECKING:
    from recsys.features.table_roles import RelationTable


def check_links(relations: "Mapping[str, RelationTable]", taken: Collection[str]) -> None:
    """Refuse names of other tables, and keys that lead nowhere, or on from where they lead.

    Raises:
        ValueError: what is wrong, and what to do.
    """
    for name, table in relations.items():
        where = f"schema.relations.{name}"
        if name in taken:
            raise ValueError(f"{where} has the name of another table: rename it")
        targets = list(table.keys.values())
        for to in targets:
            if targets.count(to) > 1:
                raise ValueError(
                    f"{where}: two keys lead to {to}: declare the table twice, by two names"
                )
        if len(table.links()) > 1:
            raise ValueError(f"{where}: two keys lead to other relations, and one may")
        for column, to in table.links():
            _check_link(f"{where}.keys.{column}", to, relations)
        if table.time is None and not table.links():
            raise ValueError(f"{where} needs a time")


def _check_link(where: str, to: str, relations: "Mapping[str, RelationTable]") -> None:
    if to not in relations:
        known = ["users", "items", *relations]
        raise ValueError(
            f"{where} is '{to}', which is none of {', '.join(known)}{nearest(to, known)}"
        )
    other = relations[to]
    if other.id is None or other.time is None or other.links():
        raise ValueError(
            f"{where} leads to '{to}', which needs an id (the column that tells its rows apart), a "
            "time, and no key that leads on"
        )


def check_used(relations: "Mapping[str, RelationTable]", used: Set[str]) -> None:
    """Refuse a relation, or an id of one, that changes nothing.

    Raises:
        ValueError: which, and what to do.
    """
    reached = {to for name, one in relations.items() if name in used for _, to in one.links()}
    for name, table in relations.items():
        where = f"schema.relations.{name}"
        if name not in used | reached:
            raise ValueError(
                f"{where}: no feature is of it: declare one of kind: window, or leave it out"
            )
        if table.id is not None and name not in reached:
            raise ValueError(f"{where}.id: no relation that is used leads to it: leave it out")
