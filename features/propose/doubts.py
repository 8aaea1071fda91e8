"""What looks wrong about a log and its split: context that tells the answer, parts that overlap."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from recsys.core.codes import whole_runs
from recsys.core.distinct import distinct, distinct_codes, distinct_counts, is_among
from recsys.features.dataset.dataset import are_had
from recsys.features.propose.roles import names_a_rating
from recsys.features.schema import Schema
from recsys.features.tables.checked import Events, Tables

Codes = NDArray[np.int64]


def context_warnings(
    schema: Schema, events: Events, codes: Mapping[str, Codes | None], num_pairs: int
) -> list[str]:
    """Return which features of the log may leak the item.

    Args:
        schema: roles and features.
        events: the log.
        codes: of the categories of its context, by column, (E,) each, -1 for null; None of lists.
        num_pairs: distinct pairs of a user and an item.
    """
    found = []
    for feature in schema.features_of("interactions"):
        name = feature.source_column
        own = codes.get(name) if feature.is_category else None
        if names_a_rating(name):
            found.append(
                f"context feature '{feature.name}' looks like a rating: known only after the item "
                "was rated, it leaks the answer; remove it from the features"
            )
        elif own is not None and _determines(own, events.item_row):
            found.append(
                f"context feature '{feature.name}' determines the item almost alone: if a "
                "request does not know it beforehand, it leaks the answer"
            )
        elif own is not None and not feature.has_several and len(distinct(own)) > 0.9 * num_pairs:
            found.append(
                f"context feature '{feature.name}' is nearly unique for each user and item: it "
                "cannot be learnt from and may leak the answer"
            )
    return found


def split_warnings(
    schema: Schema, events: Events, parts: NDArray[np.int8], again: int, asked: int
) -> list[str]:
    """Return which parts overlap in time or in pairs, or are missing.

    Args:
        schema: roles and features.
        events: the log.
        parts: (E,) the part of each event.
        again: those of `asked` whose user had the item in an earlier part.
        asked: held-out rows that are asked for.
    """
    found = []
    early = _starts_before_training_ends(schema, events, parts)
    if early:
        found.append(
            f"{early:,} held-out rows are earlier than the last training row of their user: the "
            "split lets training see the future"
        )
    held_out = int((parts > 0).sum())
    unlabelled = schema.interactions.label is None
    if unlabelled and again > 0.5 * asked:
        found.append(
            f"{again / asked:.0%} of the held-out rows repeat a pair of user and item seen "
            "before: evaluation.filter_seen leaves them out of what counts"
        )
    if held_out and not (parts == 1).any():
        found.append("no validation rows: training cannot determine when to stop")
    return found


def pair_counts(
    schema: Schema, tables: Tables, parts: NDArray[np.int8], asked: NDArray[np.bool_]
) -> tuple[int, int, int]:
    """Return how many distinct pairs of a user and an item there are, and how many rows repeat one.

    The latter are held-out rows whose pair is in an earlier part: all, and of those `asked` (E,)
    the ones whose pair says that the item was had. Users are worked on a few at a time.
    """
    events, num_items = tables.events, np.int64(tables.items.num_rows)
    had = are_had(schema, events)
    num_pairs = across = again = 0
    for rows in whole_runs(events.user_row):
        pairs = events.user_row[rows] * num_items + events.item_row[rows]
        there, pair = distinct_codes(pairs)
        num_pairs += len(there)
        across += int(seen_earlier(pair, parts[rows], np.ones(len(pair), bool)).sum())
        again += int((seen_earlier(pair, parts[rows], had[rows]) & asked[rows]).sum())
    return num_pairs, across, again


def seen_earlier(pair: Codes, parts: NDArray[np.int8], had: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return which held-out events repeat the (user, item) pair of one of `had` (E,), (E,).

    That one is of an earlier part.
    """
    seen = np.zeros(len(pair), bool)
    for number in (1, 2):
        now = parts == number
        if now.any():
            seen[now] = is_among(pair[now], pair[(parts < number) & had])
    return seen


def _determines(codes: Codes, item_row: NDArray[np.int32]) -> bool:
    """Whether a value that comes again nearly always comes with its one item."""
    if codes.max(initial=-1) < 1:
        return False
    num_values = int(codes.max()) + 1
    if num_values < 0.5 * len(distinct(item_row)):
        return False
    values, items = codes[codes >= 0], item_row[codes >= 0].astype(np.int64)
    num_items = int(items.max()) + 1
    pairs, counts = distinct_counts(values * num_items + items)
    most = np.zeros(num_values, np.int64)
    np.maximum.at(most, pairs // num_items, counts)
    total = np.bincount(values, minlength=num_values)
    again = total > 1
    if total[again].sum() < 0.2 * len(codes):
        return False
    return bool(most[again].sum() > 0.95 * total[again].sum())


def _starts_before_training_ends(schema: Schema, events: Events, parts: NDArray[np.int8]) -> int:
    """Count held-out rows that precede a training row of the same user."""
    roles = schema.interactions
    if (roles.time is None and roles.order is None) or not len(events):
        return 0
    latest = np.full(int(events.user_row.max()) + 1, np.iinfo(np.int64).min)
    train = parts == 0
    np.maximum.at(latest, events.user_row[train], events.time[train])
    return int(((parts > 0) & (events.time < latest[events.user_row])).sum())
