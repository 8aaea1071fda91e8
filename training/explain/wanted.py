"""What a list was asked for, whose items are explained: filters as a request has them."""

import logging
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys.core.errors import ConfigError
from recsys.features.dataset.dataset import Dataset
from recsys.features.filters.columns import CatalogueColumns
from recsys.features.filters.lists import read_ids
from recsys.features.filters.predicate import passing
from recsys.features.tables.sources import Policies

LOG = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """Filters of a list.

    Attributes:
        where: a predicate over columns of the items.
        exclude: ids to leave out: a path, a data frame or ids.
        allow: the only ids that may be in the list, likewise.
    """

    where: str | None = None
    exclude: Any = None
    allow: Any = None

    @property
    def is_everything(self) -> bool:
        """Whether nothing is left out."""
        return self.where is None and self.exclude is None and self.allow is None

    def passing(self, data: Dataset, policies: Policies) -> NDArray[np.bool_]:
        """Return which items of `data` may be in the list, (n_items,).

        Raises:
            FilterError: the predicate cannot be read or does not fit the items.
            NotFoundError, DataError: a list of ids cannot be read.
        """
        passes = np.ones(data.num_items, bool)
        if self.where is not None:
            columns = CatalogueColumns(data.schema, lambda: data.tables.items)
            passes &= passing(self.where, columns, data.num_items)
        ids = data.tables.items.column(data.schema.item_key).combine_chunks()
        for name in ("exclude", "allow"):
            given = getattr(self, name)
            if given is not None:
                found = read_ids(given, name, data.schema, policies, ids)
                if found.unknown:
                    LOG.warning(
                        f"{name}: {found.unknown:,} ids are not in the catalogue, the first of "
                        f"them {found.first_unknown!r}"
                    )
                named = np.zeros(data.num_items, bool)
                named[found.rows] = True
                passes &= named if name == "allow" else ~named
        return passes

    def check(self, passes: NDArray[np.bool_], item_row: int, item: str) -> None:
        """Refuse an item that no list with these filters holds.

        Raises:
            ConfigError: it does not pass.
        """
        if not passes[item_row]:
            raise ConfigError(
                f"item {item} does not pass the filters, so that no list with them holds it: give "
                "others, or another item"
            )


EVERYTHING = Wanted()
