"""What `init` proposes where log and tables write ids in several ways: `schema.ids`."""

from dataclasses import dataclass

from recsys.features.propose.draft import Draft
from recsys.features.propose.profile import ColumnProfile
from recsys.features.propose.roles import Key, Roles
from recsys.features.tables.id_forms import IdForm
from recsys.features.tables.near_ids import as_words, spellings


@dataclass(frozen=True)
class _Side:
    name: str
    log: ColumnProfile
    keys: tuple[Key, ...]


def id_form_lines(draft: Draft) -> list[str]:
    """Return the lines of `schema.ids`, and say why; ids of one column that differ in writing."""
    lines = []
    for side in _sides(draft.roles):
        form: IdForm | None = None
        for key in side.keys:
            if key.near is None:
                continue
            form = key.near.form if form is None else form.with_also(key.near.form)
            place = f"{key.table.given}, '{key.column}'"
            merged = key.near.merged
            more = f" ({merged:,} ids of the table are then one with another)" if merged else ""
            draft.unsure.append(f"{place}: {key.near}{more}: schema.ids.{side.name}")
            if merged and "duplicate_keys" not in draft.policies:
                draft.policy("duplicate_keys", "first", f"{place}: {merged:,} ids are one then")
        if form is not None:
            lines.append(f"{side.name}: {form.as_yaml()}   # ids match after {form.said()}")
        _say_spellings(draft, side, form)
    return lines


def _sides(roles: Roles) -> tuple[_Side, ...]:
    found = []
    for name, column, main in (
        ("items", roles.item, roles.items),
        ("users", roles.user, roles.users),
    ):
        more = [key for side, key in roles.sides if side == name]
        keys = tuple(key for key in (main, *more) if key is not None)
        found.append(_Side(name, roles.log.columns[column], keys))
    return tuple(found)


def _say_spellings(draft: Draft, side: _Side, form: IdForm | None) -> None:
    words = as_words(side.log.words)
    if words is None or side.log.type != "string":
        return
    found = spellings(words if form is None else form.written(words).unique())
    if found is not None:
        draft.unsure.append(found.said(side.name))
