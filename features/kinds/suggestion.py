"""What `recsys init` proposes for a column."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Look:
    """Why a column is looked at.

    latest: the instant, in seconds since 1970, after which a time is in the future. of_clicks: for
    a labelled log that a ranker learns from. Columns of such logs seldom have names with a meaning:
    whole numbers that start near 0 and have a long tail are counts; others whose values come again
    are codes.
    """

    latest: float
    of_clicks: bool = False


@dataclass(frozen=True)
class Suggestion:
    """A feature as the configuration writes it; without `kind` the column is left out.

    options: keys besides name, table and kind; comment: why, or why not; values: distinct values
    it looks up; unsure: a sentence for the person who reads the configuration. maybe_amounts: many
    whole numbers, treated as names of things.
    """

    kind: str
    options: dict[str, object]
    comment: str = ""
    values: int = 0
    unsure: str = ""
    maybe_amounts: bool = False
