"""A feature kind for a column, from what its values look like."""

from recsys.features.kinds.registry import column_kinds
from recsys.features.kinds.suggestion import Look, Suggestion
from recsys.features.propose.profile import ColumnProfile
from recsys.features.propose.roles import has_word

_TITLE_WORDS = {"title", "name", "headline", "label", "caption"}


def suggest(column: ColumnProfile, look: Look) -> Suggestion:
    """Return what the column may be to a model."""
    if column.type in ("null", "other"):
        return Suggestion("", {}, f"{column.values.type}: nothing a feature can read")
    if len(column.known) == 0 or (column.type != "list" and column.distinct <= 1):
        return Suggestion("", {}, "one value throughout: nothing to learn from")
    for kind in column_kinds():
        found = kind.propose(column, look)
        if found is not None:
            return found
    inner = f"lists of {column.values.type.value_type}" if column.type == "list" else column.type
    return Suggestion("", {}, f"{inner}: nothing a feature can read")


def title_of(columns: dict[str, ColumnProfile]) -> str | None:
    """Return the column that people would read as the title."""
    texts = [column for column in columns.values() if column.type == "string" and len(column.known)]
    named = [column for column in texts if has_word(column.name, _TITLE_WORDS)]
    wordy = [column for column in named if column.mean_words > 1.2]
    for choice in (wordy, named):
        if choice:
            return max(choice, key=lambda column: column.distinct).name
    return None
