"""Features of a ranker that no column holds: of the rows before, and of several columns at once.

A schema lists them among the others:

    - {name: recent, kind: history, of: movie_id, last: 20, pooling: attention}
    - {name: user_genre, kind: cross, of: [user_id, genres]}
    - {name: popularity, kind: count, of: item}
    - {name: pause, kind: elapsed, of: user}
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

from pydantic import Field

from recsys.core.strict import StrictModel, nearest
from recsys.data.feature_options import HistoryPooling, Multiplicity, Name, Pooling

CountedRows = Literal["positives", "all"]


class HistoryFeature(StrictModel):
    """The values of an item feature over the last items of the user before the row.

    They read the rows of `of` itself: history and candidate share their embedding (Zhou et al.,
    "Deep Interest Network", KDD 2018, https://arxiv.org/abs/1706.06978, section 4).
    """

    name: Name
    kind: Literal["history"] = "history"
    of: Name
    """A feature of the items that is looked up: their id, their genres."""
    last: Annotated[int, Field(ge=1, le=10_000)] = 20
    """At most so many items, the latest ones."""
    pooling: HistoryPooling = "mean"
    """`attention`: each value weighs as much as it is like the row's own value of `of`."""
    rows: CountedRows = "positives"
    """Which rows count: those with label 1, or all."""


class CrossFeature(StrictModel):
    """The values of several features, taken together as one value: a user and a genre.

    At most one of them may have several values a row; then so has the cross.
    """

    name: Name
    kind: Literal["cross"] = "cross"
    of: Annotated[tuple[Name, ...], Field(min_length=2)]
    """Features with values to look up; of a timestamp, `NAME.hour` or `NAME.weekday`."""
    pooling: Pooling = "mean"
    multiplicity: Multiplicity = 1


class CountFeature(StrictModel):
    """How many rows of the row's user (item) came before it, on a logarithmic scale."""

    name: Name
    kind: Literal["count"] = "count"
    of: Literal["user", "item"]
    rows: CountedRows = "positives"


class ElapsedFeature(StrictModel):
    """Seconds since the latest earlier row of the row's user (item), on a logarithmic scale."""

    name: Name
    kind: Literal["elapsed"] = "elapsed"
    of: Literal["user", "item"]
    rows: CountedRows = "all"


PastFeature = HistoryFeature | CountFeature | ElapsedFeature
"""What a row's time tells of the rows before it."""
DerivedFeature = PastFeature | CrossFeature


def check_cross(cross: CrossFeature, parts: Mapping[str, bool]) -> None:
    """Refuse a cross of what is no value, of a feature with itself, or of two lists.

    Args:
        cross: the feature.
        parts: name under which values are looked up -> whether there are several a row.

    Raises:
        ValueError: it is one of these.
    """
    for name in cross.of:
        if name not in parts:
            raise ValueError(
                f"feature '{cross.name}' crosses '{name}', which is none of the features that are "
                f"looked up: {', '.join(parts)}{nearest(name, list(parts))}"
            )
    if len(set(cross.of)) < len(cross.of):
        raise ValueError(f"feature '{cross.name}' crosses a feature with itself")
    lists = [name for name in cross.of if parts[name]]
    if len(lists) > 1:
        raise ValueError(
            f"feature '{cross.name}' crosses '{lists[0]}' and '{lists[1]}', which both hold "
            "several values a row: one of them at most"
        )


def check_past(
    feature: PastFeature, of_items: Sequence[str], *, has_time: bool, has_order: bool
) -> None:
    """Refuse what needs an order that the log does not have, or a feature that is not there.

    Args:
        feature: a history, a count or an elapsed time.
        of_items: names under which values of the items are looked up.
        has_time: whether the log has clock times.
        has_order: whether it has an order within each user.

    Raises:
        ValueError: it is one of these.
    """
    if not has_time and not has_order:
        raise ValueError(
            f"feature '{feature.name}': {feature.kind} needs an order: give "
            "schema.interactions.time or schema.interactions.order"
        )
    if isinstance(feature, HistoryFeature):
        if feature.of not in of_items:
            raise ValueError(
                f"feature '{feature.name}' is a history of '{feature.of}', which is none of the "
                f"features of the items that are looked up: {', '.join(of_items)}"
                f"{nearest(feature.of, list(of_items))}"
            )
    elif not has_time and (feature.kind == "elapsed" or feature.of == "item"):
        raise ValueError(
            f"feature '{feature.name}': {feature.kind} of the {feature.of} needs clock times, as "
            "an order is one within a user: give schema.interactions.time"
        )
