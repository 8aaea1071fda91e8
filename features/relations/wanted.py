"""What features read of a relation, and what other relations have of its rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from recsys.features.kinds.relation_feature import LOG, RelationFeature
from recsys.features.relations.facts import KEYS_OF
from recsys.features.schema import Schema
from recsys.features.table_roles import TimeColumn
from recsys.features.tables.condition import Condition
from recsys.features.tables.id_forms import IdForm
from recsys.features.tables.number_text import PLAIN, NumberText
from recsys.features.tables.rows import IdRole, RowRoles, forms_of_roles


@dataclass(frozen=True)
class Wanted:
    """Columns of one relation.

    ids: role -> column; "key" tells rows apart, "link" leads to another relation. numbers, codes:
    columns that are read as numbers, or whose values are only compared. wheres: the conditions of
    features. where: those that a row has to meet to count at all. id_forms: how the ids of a role
    are written. written: how text writes numbers.
    """

    ids: Mapping[IdRole, str]
    time: TimeColumn | None
    numbers: Sequence[str]
    codes: Sequence[str]
    wheres: Sequence[tuple[Condition, ...]]
    where: Sequence[Condition] = ()
    id_forms: Mapping[IdRole, IdForm] = field(default_factory=dict)
    written: NumberText = PLAIN

    @property
    def roles(self) -> RowRoles:
        """The same for the reader of rows."""
        conditions = (one.column for where in self.wheres for one in where)
        plain = list(dict.fromkeys([*self.numbers, *self.codes, *conditions]))
        return RowRoles(
            ids=self.ids,
            id_forms=self.id_forms,
            time=self.time,
            where=self.where,
            plain=plain,
            written={LOG: self.written},  # what a table's own roles are read by
        )


def relations_needed(schema: Schema) -> tuple[str, ...]:
    """Return the names of the relations that features are of, the log as `interactions`.

    Those that only lead on are among them.
    """
    found = [feature.relation for feature in schema.relation_features]
    links = [schema.relations[name].link for name in found if name != LOG]
    return tuple(dict.fromkeys([*found, *(link[1] for link in links if link is not None)]))


def wanted_of(schema: Schema, name: str) -> Wanted:
    """Return what is read of a relation."""
    table = schema.interactions if name == LOG else schema.relations[name]
    return replace(
        _wanted_of(schema, name), id_forms=forms_of_roles(schema), written=table.number_text
    )


def _wanted_of(schema: Schema, name: str) -> Wanted:
    features = [one for one in schema.relation_features if one.relation == name]
    asked = {key for one in features for key in KEYS_OF[one.owner]}
    ids: dict[IdRole, str] = {}
    if name == LOG:
        roles = schema.interactions
        ids |= {key: column for key, column in schema.keys_of(LOG).items() if key in asked}
        return _columns(features, ids, roles.time, roles.where)
    table = schema.relations[name]
    for other in schema.relation_features:
        further = None if other.relation == LOG else schema.relations[other.relation]
        if further is not None and further.link is not None and further.link[1] == name:
            asked |= set(KEYS_OF[other.owner]) - set(further.own_keys())
            assert table.id is not None
            ids["key"] = table.id
    ids |= {key: column for key, column in table.own_keys().items() if key in asked}
    if table.link is not None:
        ids["link"] = table.link[0]
    return _columns(features, ids, table.time)


def _columns(
    features: Sequence[RelationFeature],
    ids: Mapping[IdRole, str],
    time: TimeColumn | None,
    where: Sequence[Condition] = (),
) -> Wanted:
    numbers = dict.fromkeys(one.numbers_of for one in features if one.numbers_of)
    codes = dict.fromkeys(one.codes_of for one in features if one.codes_of)
    wheres = dict.fromkeys(one.conditions for one in features if one.conditions)
    return Wanted(ids, time, list(numbers), list(codes), list(wheres), where)
