"""What `init` proposes where log and tables write ids in several ways: `schema.ids`."""

from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa

from recsys.features.propose.draft import Draft
from recsys.features.propose.profile import ColumnProfile
from recsys.features.propose.roles import Key
from recsys.features.tables.id_faults import IdFault, id_faults
from recsys.features.tables.id_forms import IdForm
from recsys.features.tables.ledger import is_text
from recsys.features.tables.near_ids import spellings

_STRIP = IdForm(strip=True)


@dataclass(frozen=True)
class _Side:
    name: str
    log: tuple[str, ColumnProfile]
    keys: tuple[Key, ...]

    @property
    def columns(self) -> Iterator[tuple[str, ColumnProfile]]:
        """All columns that hold ids of the side, and what messages call them."""
        yield self.log
        for key in self.keys:
            yield key.table.given, key.table.columns[key.column]


def id_form_lines(draft: Draft) -> list[str]:
    """Return the lines of `schema.ids`, and say why; say what else is wrong with ids of text."""
    lines = []
    for side in _sides(draft):
        form = _stripped(draft, side, _matching(draft, side))
        _check_text(draft, side, form)
        if form is not None:
            lines.append(f"{side.name}: {form.as_yaml()}   # {form.said()}")
        words = side.log[1].words
        found = (
            spellings(words)
            if form is None or not is_text(words.type)
            else spellings(form.written(words).unique())
        )
        if found is not None:
            draft.unsure.append(found.said(side.name))
    return lines


def _sides(draft: Draft) -> Iterator[_Side]:
    roles, further = draft.roles, draft.more_log
    for name, column, main in (
        ("items", roles.item, roles.items),
        ("users", roles.user, roles.users),
    ):
        more = [key for side, key in roles.sides if side == name]
        if further is not None:
            more.append(Key(further.table, further.own(column).name, 1.0))
        keys = tuple(key for key in (main, *more) if key is not None)
        yield _Side(name, (roles.log.given, roles.log.columns[column]), keys)


def _matching(draft: Draft, side: _Side) -> IdForm | None:
    """Return the form with which the ids of the log are in the tables; None: as they come."""
    form: IdForm | None = None
    for key in side.keys:
        if key.near is None:
            continue
        form = key.near.form if form is None else form.with_also(key.near.form)
        place, merged = f"{key.table.given}, '{key.column}'", key.near.merged
        draft.unsure.append(f"{place}: {key.near}: schema.ids.{side.name} is {form.as_yaml()}")
        if merged:
            draft.policy("duplicate_keys", "first", f"{place}: {merged:,} ids are then another's")
    return form


def _stripped(draft: Draft, side: _Side, form: IdForm | None) -> IdForm | None:
    """Return the form that strips, too, where ids have white space or invisible characters."""
    for given, column in side.columns:
        for fault, _ in _faults(column, form):
            if fault.option:
                form = _STRIP if form is None else form.with_also(_STRIP)
                draft.unsure.append(
                    f"{given}, '{column.name}': {fault.reason}: schema.ids.{side.name} is "
                    f"{form.as_yaml()}"
                )
                break
    return form


def _check_text(draft: Draft, side: _Side, form: IdForm | None) -> None:
    """Declare a policy for ids that are useless however they are written."""
    for given, column in side.columns:
        for fault, example in _faults(column, form):
            why = f"{given}, '{column.name}': {fault.reason}, as in {example!r:.60}"
            draft.policy("bad_ids", "drop", why)


def _faults(column: ColumnProfile, form: IdForm | None) -> Iterator[tuple[IdFault, str]]:
    """Yield what is wrong with ids of text, as they are written, and the first such id."""
    if not is_text(column.words.type):
        return
    words = column.words.cast(pa.large_string())
    for fault in id_faults(words if form is None else form.written(words)):
        if fault.bad.any():
            yield fault, words[int(fault.bad.argmax())].as_py()
