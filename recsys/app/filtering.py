"""Filters of lists as callers give them: tables are paths or data frames, unknown ids warned of."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from recsys.features.filters.columns import FreshItems
from recsys.features.filters.requests import OwnFilters
from recsys.features.requests.origin import RequestOrigin
from recsys.features.requests.table import Requests
from recsys.features.tables.frames import is_frame, lent
from recsys.serving.recommend.additions import with_new_items
from recsys.serving.recommend.filters import FilterOptions, Filters
from recsys.serving.recommend.scorer import Scorer

LOG = logging.getLogger(__name__)
_TABLES = ("items", "block")


@contextmanager
def filtered(
    scorer: Scorer, given: Mapping[str, Any], plain: Filters | None = None
) -> Iterator[tuple[Scorer, Filters]]:
    """Lend a scorer with filters: `where`, `exclude`, `allow`, and tables `items` and `block`.

    With items of today the scorer recommends those, too, that its catalogue lacks, where it can.

    Args:
        scorer: of the model.
        given: by name; None: not given.
        plain: filters of the scorer, kept from call to call.

    Raises:
        UserError: what is given cannot be read, or does not fit the model.
    """
    with lent({name: given.get(name) for name in _TABLES}) as paths:
        asked, whole = {**given, **paths}, scorer
        if is_frame(given.get("items")):
            asked["items_called"] = "the data frame given as items"
        if asked.get("items") is not None:
            whole = with_new_items(scorer, asked["items"])
        added = len(whole.item_ids) - len(scorer.item_ids)
        own = Filters.of(whole, added=added) if added or plain is None else plain
        filters = own.with_(FilterOptions(**asked), scorer.policies)
        _warn_of_unknown(*filters.unknown())
        if filters.fresh is not None:
            _warn_of_items(filters.fresh, added)
        yield whole, filters


def warn_of_filters(own: OwnFilters) -> None:
    """Say how many ids of requests' own lists the catalogue lacks."""
    _warn_of_unknown(own.unknown, own.first_unknown)


def warn_of_unknown(encoded: Requests, origin: RequestOrigin) -> None:
    """Warn of items of histories that the catalogue lacks."""
    if encoded.unknown_items:
        LOG.warning(
            f"{origin.name}: {encoded.unknown_items:,} items of histories are not in the catalogue "
            f"and say nothing, the first of them {encoded.first_unknown!r}"
        )


def _warn_of_unknown(count: int, first: Any) -> None:
    if count:
        LOG.warning(
            f"{count:,} ids of lists of items are not in the catalogue, the first of them {first!r}"
        )


def _warn_of_items(fresh: FreshItems, added: int) -> None:
    if added:
        LOG.warning(
            f"{added:,} items of the table of items are not in the catalogue and are recommended "
            "by their features"
        )
    missing = int((~fresh.present).sum())
    if missing:
        LOG.warning(
            f"{missing:,} items of the catalogue are not in the table of items and are not "
            "recommended"
        )
    if fresh.num_new:
        LOG.warning(
            f"{fresh.num_new:,} items of the table of items are not in the catalogue and are not "
            f"recommended, the first of them {fresh.first_new!r}: the model reads more of an item "
            "than the table has, or its id alone"
        )
