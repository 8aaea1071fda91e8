"""What baselines are called in a configuration."""

from typing import Literal

BaselineName = Literal[
    "auto",
    "popularity",
    "popularity_recent",
    "item_knn",
    "ease",
    "gf_cf",
    "ials",
    "session_items",
    "markov",
    "markov_10",
    "v_sknn",
    "attributes",
    "sasrec",
]
