"""Relations at hand when a model is asked: windows before the instants of requests.

A request is asked just after what is known: windows before it hold the newest row.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
import pyarrow as pa

from recsys.core.errors import ConfigError
from recsys.features.kinds.relation_feature import LOG
from recsys.features.relations.columns import relation_columns
from recsys.features.relations.facts import Asked, Facts, Key
from recsys.features.relations.reading import facts_of
from recsys.features.relations.timeline import Integers
from recsys.features.relations.wanted import relations_needed
from recsys.features.schema import Schema
from recsys.features.tables.reading import fingerprint, open_table
from recsys.features.tables.sources import Logs, Policies, Source, Sources


@dataclass(frozen=True, eq=False)
class AskedRelations:
    """The relations that the windows of a schema are of, by name; fingerprint of their files."""

    schema: Schema
    facts: Mapping[str, Facts]
    fingerprint: str

    @classmethod
    def read(cls, schema: Schema, sources: Sources, policies: Policies) -> Self | None:
        """Read them; None: the schema has no windows.

        Args:
            schema: of the trained model.
            sources: the log and, among its other tables, the relations.
            policies: what is done with rows that break a rule.

        Raises:
            ConfigError: a relation has no path.
            DataError: a table is not as declared.
        """
        paths = relation_paths(schema, sources)
        if not paths:
            return None
        files = [open_table(path, name) for name, path in paths.items()]
        return cls(schema, facts_of(schema, paths, policies), fingerprint(files))

    def after(self, newest: int) -> int:
        """Return the instant just after all rows of the relations and `newest`, in microseconds."""
        times = [int(one.time.max()) for one in self.facts.values() if len(one)]
        return max([newest, *times]) + 1

    def of_users(self, users: pa.Array, time: Integers) -> dict[str, pa.Array]:
        """Return the windows by user of B requests, (B,) float64 each, null where not known.

        Args:
            users: (B,) ids.
            time: (B,) when each is asked, in microseconds.

        Raises:
            DataError: ids are text in one table and numbers in the other.
        """
        features = [one for one in self.schema.relation_features if one.is_of_user]
        ids: dict[Key, tuple[pa.Array, Integers]] = {"user": (users, np.arange(len(users)))}
        return relation_columns(features, self.facts, Asked(ids, time))

    def beside(self, requests: pa.Table, time: Integers | int) -> pa.Table:
        """Return requests with their windows by user as columns.

        Args:
            requests: B rows with the user key.
            time: (B,) when each is asked, or when all are, in microseconds.
        """
        users = requests.column(self.schema.user_key).combine_chunks()
        asked = np.broadcast_to(np.asarray(time, np.int64), len(users))
        for name, values in self.of_users(users, asked).items():
            requests = requests.append_column(name, values)
        return requests


def relation_paths(schema: Schema, sources: Sources) -> dict[str, Source | Logs]:
    """Return the paths of the relations that windows of a schema are of, the log's among them.

    Raises:
        ConfigError: a relation has no path.
    """
    paths: dict[str, Source | Logs] = {LOG: sources.interactions, **sources.others}
    needed = relations_needed(schema)
    for name in needed:
        if name not in paths:
            features = [one.name for one in schema.relation_features if one.relation == name]
            read = f"reads {', '.join(features)} of it" if features else "joins it"
            raise ConfigError(
                f"the model {read}, and '{name}' is not given: give it as others (--other "
                f"{name}=PATH)"
            )
    return {name: paths[name] for name in needed}
