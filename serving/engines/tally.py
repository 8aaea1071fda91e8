"""What a job's lists came to: counts that add up over batches, and the summary made of them."""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import pyarrow as pa

from recsys.serving.engines.unknown_items import UNKNOWN_LISTED, UnknownItems
from recsys.serving.recommend.filters import Filters
from recsys.serving.recommend.reasons import CANDIDATES, FILTERED, RELEVANCE, RULES
from recsys.serving.recommend.scorer import LISTED, OF_SOURCES, POPULAR, Scorer


@dataclass
class Tally:
    """Counts over batches of lists.

    users: lists. short: how many are short, by the reason. popular: how many are by popularity
    alone; None: no batch said. of_sources: of a pipeline, likewise by source. listed_items: of
    models that know where relevance ends. unknown, listed: ids of histories, and of the lists that
    requests have themselves, which the catalogue lacks.
    """

    users: int = 0
    short: Counter[str] = field(default_factory=Counter)
    popular: int | None = None
    of_sources: Counter[str] = field(default_factory=Counter)
    listed_items: int = 0
    unknown: UnknownItems = field(default_factory=UnknownItems)
    listed: UnknownItems = field(default_factory=lambda: UnknownItems(UNKNOWN_LISTED))

    def add(self, answers: pa.Table) -> None:
        """Add a batch of answers, of which the column `reason` and the metadata are read."""
        facts = answers.schema.metadata or {}
        if POPULAR in facts:
            self.popular = (self.popular or 0) + int(facts[POPULAR])
        self.of_sources.update(json.loads(facts.get(OF_SOURCES, b"{}")))
        self.listed_items += int(facts.get(LISTED, b"0"))
        self.unknown.add(answers)
        self.listed.add(answers)
        self.users += answers.num_rows
        self.short.update(answers.column("reason").drop_null().to_pylist())

    def merge(self, other: "Tally") -> None:
        """Add the counts of other batches."""
        if other.popular is not None:
            self.popular = (self.popular or 0) + other.popular
        self.users += other.users
        self.short.update(other.short)
        self.of_sources.update(other.of_sources)
        self.listed_items += other.listed_items
        self.unknown.merge(other.unknown)
        self.listed.merge(other.listed)


@dataclass(frozen=True)
class Summary:
    """What a job wrote, in users and lists.

    lists_by_popularity: of users of whose history a model that counts knows nothing; null of
    models that always have something to say. of_pipeline: of a pipeline, what its lists lack
    and which sources fell back on popularity; of_relevance: of a model that knows where relevance
    ends, how many lists end there, and their mean length; of_since: of a job since an earlier one,
    how many users are new, changed, unchanged and gone. seen_items: what became of them, and why.
    search: how items were found.
    first_unknown_history_item: null where none is. filters: what is known of the filters.
    """

    output: str
    model_id: str
    parts: int
    parts_already_there: int
    users: int
    short_lists: int
    lists_by_popularity: int | None
    seen_items: str
    search: str
    unknown_history_items: int
    first_unknown_history_item: Any
    filters: Mapping[str, Any]
    of_pipeline: Mapping[str, Any]
    of_relevance: Mapping[str, Any]
    of_since: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, tally: Tally, scorer: Scorer, filters: Filters, **of_job: Any) -> Self:
        """Return the summary of a job's lists; `of_job`: what the job knows."""
        short, users = tally.short, max(tally.users, 1)
        ended = {"lists_cut": short[RELEVANCE], "mean_list_length": tally.listed_items / users}
        has_sources = scorer.description.has_sources
        return cls(
            **of_job,
            model_id=scorer.bundle.model_id,
            users=tally.users,
            short_lists=short.total(),
            lists_by_popularity=tally.popular,
            seen_items=scorer.seen_items,
            search=scorer.searched,
            unknown_history_items=tally.unknown.count,
            first_unknown_history_item=tally.unknown.first,
            filters=_counted(filters, tally.listed, short[FILTERED]),
            of_pipeline=_of_pipeline(short, tally.of_sources) if has_sources else {},
            of_relevance=ended if scorer.cut else {},
        )

    def facts(self) -> dict[str, Any]:
        """Return everything by name; of a job without filters nothing is said of them."""
        found = dict(vars(self))
        names = ("of_since", "of_relevance", "of_pipeline", "filters")
        more = [found.pop(name) for name in names]
        return {**found, **more[0], **more[1], **more[2], **more[3]}


def _of_pipeline(short: Counter[str], of_sources: Counter[str]) -> dict[str, Any]:
    """Return what a summary says of a pipeline's lists: why short, and which sources fell back."""
    return {
        "lists_short_by_candidates": short[CANDIDATES],
        "lists_short_by_rules": short[RULES],
        "sources_by_popularity": dict(of_sources) or None,
    }


def _counted(filters: Filters, own: UnknownItems, filtered: int) -> dict[str, Any]:
    """Return what a summary says of filters, those that requests have themselves among them."""
    count, first = filters.unknown()
    found = filters.counts()
    if found or own.count or filtered:
        found["lists_short_by_filters"] = filtered
        found["unknown_listed_items"] = count + own.count
        found["first_unknown_listed_item"] = first if count else own.first
    return found
