"""Filters of lists as callers give them: tables are paths or data frames, unknown ids warned of."""

import logging
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from recsys.features.filters.columns import FreshItems
from recsys.features.filters.requests import OwnFilters
from recsys.features.tables.frames import path_of
from recsys.features.tables.sources import Policies
from recsys.serving.recommend.filters import FilterOptions, Filters

LOG = logging.getLogger(__name__)
_TABLES = ("items", "block")


@contextmanager
def opened_filters(
    plain: Filters, policies: Policies, given: Mapping[str, Any]
) -> Iterator[Filters]:
    """Lend filters with what is given: `where`, `exclude`, `allow`, and tables `items` and `block`.

    Args:
        plain: filters of the model, which nothing was asked of yet.
        policies: what to do with rows that break a rule.
        given: by name; None: not given.

    Raises:
        UserError: what is given cannot be read, or does not fit the model.
    """
    with tempfile.TemporaryDirectory() as folder:
        asked = dict(given)
        for name in _TABLES:
            if given.get(name) is not None:
                asked[name] = path_of(given[name], name, Path(folder))
        filters = plain.with_(FilterOptions(**asked), policies)
        _warn_of_unknown(*filters.unknown())
        if filters.fresh is not None:
            _warn_of_items(filters.fresh)
        yield filters


def warn_of_filters(own: OwnFilters) -> None:
    """Say how many ids of requests' own lists the catalogue lacks."""
    _warn_of_unknown(own.unknown, own.first_unknown)


def _warn_of_unknown(count: int, first: Any) -> None:
    if count:
        LOG.warning(
            f"{count:,} ids of lists of items are not in the catalogue, the first of them {first!r}"
        )


def _warn_of_items(fresh: FreshItems) -> None:
    missing = int((~fresh.present).sum())
    if missing:
        LOG.warning(
            f"{missing:,} items of the catalogue are not in the table of items and are not "
            "recommended"
        )
    if fresh.num_new:
        LOG.warning(
            f"{fresh.num_new:,} items of the table of items are not in the catalogue and are not "
            f"recommended, the first of them {fresh.first_new!r}"
        )
