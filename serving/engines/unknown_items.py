"""How many ids of requests the catalogue lacks, counted over the parts of a batch job."""

import json
from typing import Any

import pyarrow as pa

from recsys.features.filters.requests import OwnFilters
from recsys.features.requests.table import Requests

UNKNOWN = (b"unknown_history_items", b"first_unknown_history_item")
UNKNOWN_LISTED = (b"unknown_listed_items", b"first_unknown_listed_item")
"""Facts of a part: how many ids of histories, or of its requests' own lists, the catalogue lacks,
and the first of them."""


class UnknownItems:
    """Counts ids that the catalogue lacks over parts, and keeps the first."""

    def __init__(self, names: tuple[bytes, bytes] = UNKNOWN) -> None:
        self.count = 0
        self.first: Any = None
        self._names = names

    def add(self, part: pa.Table) -> None:
        """Add what `unknown_metadata` wrote with a part."""
        facts = part.schema.metadata or {}
        count, first = self._names
        found = int(facts.get(count, b"0"))
        if found and not self.count:
            self.first = json.loads(facts.get(first, b"null"))
        self.count += found

    def merge(self, other: "UnknownItems") -> None:
        """Add the counts of other parts."""
        if other.count and not self.count:
            self.first = other.first
        self.count += other.count


def unknown_metadata(requests: Requests, own: OwnFilters | None = None) -> dict[bytes, bytes]:
    """Return how many ids of histories and lists the catalogue lacks, to be written with a part."""
    found = [(UNKNOWN, requests.unknown_items, requests.first_unknown)]
    if own is not None and own.unknown:
        found.append((UNKNOWN_LISTED, own.unknown, own.first_unknown))
    facts: dict[bytes, bytes] = {}
    for (name, first), count, value in found:
        facts |= {name: str(count).encode(), first: json.dumps(value).encode()}
    return facts
