"""What `check` warns of in ids: spellings of one id that are learnt apart, rows without a key."""

from collections.abc import Iterator

from recsys.features.schema import Schema
from recsys.features.tables.checked import Tables
from recsys.features.tables.near_ids import spellings

_MANY = 0.2
_RULES = {"policies.unknown_items": "items", "policies.unknown_users": "users"}


def id_warnings(schema: Schema, tables: Tables) -> Iterator[str]:
    """Yield what is doubtful about the ids of checked tables."""
    dropped = sum(drop.rows for drop in tables.drops if drop.choice == "drop")
    for drop in tables.drops:
        share = drop.rows / max(1, len(tables.events) + dropped)
        if drop.rule in _RULES and share > _MANY:
            what = "are left out" if drop.choice == "drop" else "stay without attributes"
            yield (
                f"{share:.0%} of the rows {what} ({drop.policy}): '{drop.column}' {drop.reason}; "
                f"compare the ids with those of the table of {_RULES[drop.rule]}"
            )
    for side, table, key in (
        ("items", tables.items, schema.item_key),
        ("users", tables.users, schema.user_key),
    ):
        if key in table.column_names:
            found = spellings(table.column(key).combine_chunks())
            if found is not None:
                yield found.said(side)
