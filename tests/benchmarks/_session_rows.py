"""Writes the loaned data sets as logs that a model of sessions trains on."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
from _loaned import loaned

VALIDATION_SESSIONS = 15_000


def diginetica(folder: Path) -> Path:
    """Write train, validation (the last training sessions) and test sessions; return the folder.

    Test sessions come as all their beginnings, the longest first: each is put together again.
    """
    source = loaned("diginetica")
    train = pd.read_parquet(source / "train_clicks.parquet")
    num_sessions = int(train.session_id.max()) + 1
    first_held_out = num_sessions - min(VALIDATION_SESSIONS, num_sessions // 10)
    held_out = train.session_id >= first_held_out
    train["split"] = np.where(held_out, "validation", "train")
    rows = pd.read_parquet(source / "test.parquet")
    sessions: list[list[int]] = []
    left = 0
    for prefix, label in zip(rows.prefix, rows.label, strict=True):
        if left == 0:
            sessions.append([*prefix.tolist(), int(label)])
            left = len(prefix)
        assert sessions[-1][:left] == prefix.tolist(), "a beginning is missing"
        left -= 1
    lengths = np.array([len(session) for session in sessions])
    starts = np.repeat(np.cumsum(lengths) - lengths, lengths)
    test = pd.DataFrame(
        {
            "session_id": np.repeat(np.arange(len(sessions)), lengths) + train.session_id.max() + 1,
            "position": np.arange(lengths.sum()) - starts,
            "item_id": np.concatenate(sessions),
            "split": "test",
        }
    )
    pd.concat([train, test]).to_parquet(folder / "clicks.parquet")
    os.symlink(source / "items.parquet", folder / "items.parquet")
    return folder


def ml1m(folder: Path) -> Path:
    """Write the films that anybody rated, the 3,416 that the published figures rank."""
    source = loaned("ml-1m")
    rated = pd.read_parquet(source / "ratings.parquet")
    films = pd.read_parquet(source / "movies.parquet")
    rated = rated[rated.position >= 0]
    films[films.movie_id.isin(rated.movie_id)].to_parquet(folder / "movies.parquet")
    os.symlink(source / "ratings.parquet", folder / "ratings.parquet")
    return folder
