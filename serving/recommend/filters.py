"""What may be recommended: what a job or a call asks for, and what each request asks for besides.

Predicates, lists of ids, fresh items and block lists become a `Passing` of the requests; a search
needs to know no more. Nothing here depends on how a model scores.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, Self

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from recsys.bundle.directory import Bundle
from recsys.features.bundle.description import ModelDescription
from recsys.features.bundle.files import read_items
from recsys.features.filters.columns import CatalogueColumns, FreshItems
from recsys.features.filters.lists import Blocks, IdList, read_ids
from recsys.features.filters.requests import WHERE, OwnFilters, own_filters
from recsys.features.filters.sets import ItemSets
from recsys.features.filters.syntax import FilterError
from recsys.features.requests.origin import RequestOrigin
from recsys.features.schema import Schema
from recsys.features.tables.id_forms import written_column
from recsys.features.tables.sources import Policies
from recsys.retrieval.passing import Bits, Passing
from recsys.sampling.candidates import row_by_row

_UNNAMED = RequestOrigin()


class Catalogued(Protocol):
    """A model that answers with items of a catalogue."""

    @property
    def bundle(self) -> Bundle:
        """Its bundle."""

    @property
    def schema(self) -> Schema:
        """What it was trained with."""

    @property
    def policies(self) -> Policies:
        """What is done with rows that break a rule."""

    @property
    def description(self) -> ModelDescription:
        """What it is."""

    @property
    def item_ids(self) -> pa.Array:
        """(N,) of the catalogue."""


@dataclass(frozen=True, kw_only=True)
class FilterOptions:
    """What is asked for besides the best items.

    Attributes:
        where: a predicate over columns of the items (`recsys.features.filters.syntax`).
        exclude: ids to leave out: a path, a data frame or ids.
        allow: the only ids that may be recommended, likewise; an empty list allows none.
        items: path of a table of items as they are today: the columns that predicates read. An
            item that is not in it is not recommended.
        items_called: what messages call that table; None: by its path.
        block: path of a table with users and items that they are not to be shown.
    """

    where: str | None = None
    exclude: Any = None
    allow: Any = None
    items: str | None = None
    items_called: str | None = None
    block: str | None = None

    def given(self) -> list[str]:
        """Return the names of what is asked for."""
        known = {name: one for name, one in vars(self).items() if name != "items_called"}
        return [name for name, value in known.items() if value is not None]


@dataclass(frozen=True)
class Filters:
    """What passes, for requests to one model.

    schema, item_ids: of the model. sets: items by predicate. always: a predicate of the model,
    which holds for every request. base: bits of what passes for all requests; None: nothing was
    asked for. fresh: the items of today. added: how many of them the model's own catalogue lacks.
    job: JSON facts that identify what was asked for.
    """

    schema: Schema
    item_ids: pa.Array
    sets: ItemSets
    always: str | None = None
    base: Bits | None = None
    lists: tuple[IdList, ...] = ()
    blocks: Blocks | None = None
    fresh: FreshItems | None = None
    added: int = 0
    job: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, model: Catalogued, asked: FilterOptions | None = None, *, added: int = 0) -> Self:
        """Read what is asked for.

        Args:
            model: whose lists are filtered.
            asked: what is asked for.
            added: items of the model that its bundle's catalogue lacks, the last ones.

        Raises:
            FilterError: the predicate cannot be read or does not fit the items.
            NotFoundError: there is no such file.
            DataError: a table or a list of ids is not as the model's.
        """
        bundle, size = model.bundle, len(model.item_ids)
        sets = ItemSets(CatalogueColumns(model.schema, lambda: read_items(bundle)), size)
        always = getattr(model.description.model, "filter", None)
        plain = cls(model.schema, model.item_ids, sets, always, added=added)
        if always is not None:
            plain = replace(plain, base=sets.of(always))
        return plain if asked is None else plain.with_(asked, model.policies)

    def with_(self, asked: FilterOptions, policies: Policies) -> Self:
        """Return filters with what is asked for; see `of`."""
        if not asked.given():
            return self
        schema, ids, sets = self.schema, self.item_ids, self.sets
        passes = np.ones(len(ids), bool)
        job: dict[str, Any] = {}
        fresh = blocks = None
        if asked.items is not None:
            fresh = FreshItems.read(asked.items, schema, policies, ids, asked.items_called)
            sets, passes, job["items"] = ItemSets(fresh, len(ids)), fresh.present, fresh.fingerprint
        if asked.where is not None:
            job["where"] = asked.where
        for predicate in (self.always, asked.where):
            if predicate is not None:
                passes = passes & _unpacked(sets.of(predicate), len(ids))
        lists = []
        for name in ("exclude", "allow"):
            if getattr(asked, name) is not None:
                found = read_ids(getattr(asked, name), name, schema, policies, ids)
                named = np.zeros(len(ids), bool)
                named[found.rows] = True
                passes = passes & (named if name == "allow" else ~named)
                job[name] = found.fingerprint
                lists.append(found)
        if asked.block is not None:
            blocks = Blocks.read(asked.block, schema, policies, ids)
            job["block"] = blocks.fingerprint
        base = np.packbits(passes)
        return replace(
            self, sets=sets, base=base, lists=tuple(lists), blocks=blocks, fresh=fresh, job=job
        )

    def of_requests(
        self, table: pa.Table, origin: RequestOrigin = _UNNAMED
    ) -> tuple[Passing | None, OwnFilters]:
        """Return what passes for the requests of a table, and what they ask for themselves.

        None where neither they nor anybody else asks for anything.

        Raises:
            DataError: a predicate, or a list of ids, of a request cannot be read; its row is named.
        """
        own = own_filters(self.schema, table, self.item_ids, origin)
        if self.base is None and own.ask_nothing:
            return None, own
        size = len(self.item_ids)
        base = np.packbits(np.ones(size, bool)) if self.base is None else self.base
        numbers: dict[str | None, int] = {}
        set_of = [numbers.setdefault(text, len(numbers)) for text in own.where]
        rows = [base if text is None else base & self._bits(text, own, origin) for text in numbers]
        blocked = own.exclude
        if self.blocks is not None:
            key = self.schema.user_key
            users = written_column(table, key, self.schema.ids.users).column(key).combine_chunks()
            blocked = row_by_row(blocked, self.blocks.of(users))
        sets = np.stack(rows) if rows else np.zeros((0, len(base)), np.uint8)
        chosen = torch.from_numpy(np.array(set_of, np.int64))
        return Passing(size, sets, chosen, blocked, own.allow, own.is_limited), own

    def counts(self) -> dict[str, Any]:
        """Return what is known of the filters of a job, for its summary."""
        found: dict[str, Any] = {}
        if self.base is None:
            return found
        if "where" in self.job:
            found["where"] = self.job["where"]
        found["passing_items"] = int(np.bitwise_count(self.base).sum())
        if self.fresh is not None:
            found["items_missing_today"] = int((~self.fresh.present).sum())
            found["new_items"] = self.added
            found["new_items_left_out"] = self.fresh.num_new
            found["first_new_item_left_out"] = self.fresh.first_new
        return found

    def unknown(self) -> tuple[int, Any]:
        """Return how many ids of lists the catalogue lacks, and the first."""
        found = [(one.unknown, one.first_unknown) for one in self.lists]
        if self.blocks is not None:
            found.append((self.blocks.unknown, self.blocks.first_unknown))
        firsts = [first for count, first in found if count]
        return sum(count for count, _ in found), firsts[0] if firsts else None

    def _bits(self, text: str, own: OwnFilters, origin: RequestOrigin) -> Bits:
        try:
            return self.sets.of(text)
        except FilterError as error:
            reason = f"{error.reason}, at character {error.position} of {text!r}"
            row = own.where.index(text)
            raise origin.error(reason, WHERE, row, remedy="correct the predicate") from None


def _unpacked(bits: Bits, size: int) -> NDArray[np.bool_]:
    return np.unpackbits(bits, count=size).view(np.bool_)
