"""Where the tables lie, and what to do with rows that are not as they should be."""

from typing import Literal

from pydantic import Field

from recsys.core.strict import StrictModel


class Sources(StrictModel):
    """One path a table: a file, a glob, or a folder (hive-partitioned or flat); Parquet or CSV."""

    interactions: str
    items: str | None = None
    users: str | None = None
    others: dict[str, str] = Field(default_factory=dict)


class LabelledSources(Sources):
    """The tables of a log with labels, which may be larger than memory."""

    stream: bool = False
    """A click log larger than memory: encoded to disk once, in pieces, and trained on from there.
    All features are columns of the interactions."""


class Policies(StrictModel):
    """What becomes of rows that break a rule. Every row dropped is counted and reported."""

    bad_ids: Literal["error", "drop"] = "error"
    """Ids that are null, NaN, empty or padded with white space."""
    float_ids: Literal["error", "integer"] = "error"
    """Ids that came as floats (whole numbers spoilt by a null); `integer` casts whole ones."""
    duplicate_keys: Literal["error", "first", "last"] = "error"
    """Two rows of one item or one user."""
    duplicate_events: Literal["keep", "drop", "error"] = "keep"
    """The same user, item and time twice."""
    unknown_items: Literal["error", "drop", "keep"] = "error"
    """Interactions with an item that the catalogue lacks; `keep` adds it without attributes."""
    unknown_users: Literal["error", "drop", "keep"] = "keep"
    """Interactions of a user that the users table lacks."""
    bad_times: Literal["error", "drop"] = "error"
    """Times that are null, negative, or after `latest_time`."""
    latest_time: str = "now"
    """ISO date; later times are in the future. `now` is the clock at reading."""
    infinite_numbers: Literal["error", "null"] = "error"
    """Infinities in numeric features, vectors and weights."""
