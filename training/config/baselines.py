"""What baselines are called in a configuration, and which of them are about sessions."""

from typing import Literal

BaselineName = Literal[
    "auto",
    "popularity",
    "popularity_recent",
    "item_knn",
    "ease",
    "gf_cf",
    "cheby_cf",
    "ials",
    "session_items",
    "markov",
    "markov_10",
    "v_sknn",
    "attributes",
    "sasrec",
]
NEED_SESSIONS = ("session_items", "markov", "markov_10", "v_sknn", "sasrec")
"""Those that are about the order within sessions."""


def about_sessions(names: tuple[BaselineName, ...]) -> str | None:
    """Return why a model without sessions cannot be compared with one of `names`; None: it can."""
    for name in names:
        if name in NEED_SESSIONS:
            return (
                f"{name} is about the order within sessions: set model.kind: session, or leave it "
                "out"
            )
    return None
