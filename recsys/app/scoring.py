"""Batch scoring as a function: requests in, Parquet parts out."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recsys.bundle.directory import Bundle
from recsys.core.errors import ConfigError
from recsys.core.folders import check_folder
from recsys.features.tables.frames import path_of
from recsys.features.tables.sources import Sources
from recsys.serving.engines.batch import score_to_parquet, shards_of_log, shards_of_requests
from recsys.serving.recommend.rows import RowScorer, is_ranker, score_rows
from recsys.serving.recommend.scorer import Scorer


def score_model(
    folder: Path, output: Path, tables: Mapping[str, Any], how: Mapping[str, Any]
) -> dict[str, Any]:
    """Score everything that is asked; return the summary.

    Args:
        folder: of the bundle.
        output: folder for the parts.
        tables: paths or data frames (None: not given): `interactions` or `requests`, `users`, and
            side tables by name.
        how: `k`, `filter_seen`, `probability`, `rows_per_part`.

    Raises:
        UserError: the requests do not fit the model, or `output` is named as a file or holds
            another job's files.
    """
    check_folder(output, "Parquet parts")
    with tempfile.TemporaryDirectory() as frames:
        given = {name: one for name, one in tables.items() if one is not None}
        paths = {name: path_of(one, name, Path(frames)) for name, one in given.items()}
        requests, log = paths.pop("requests", None), paths.pop("interactions", None)
        if (requests is None) == (log is None):
            raise ConfigError("score: give an interaction log or requests, one of the two")
        if is_ranker(Bundle.open(folder)):
            if requests is None:
                raise ConfigError("score: the model is a ranker: give requests, the rows to score")
            return dict(vars(score_rows(RowScorer.open(folder, paths), requests, output)))
        scorer = Scorer.open(
            folder, k=how["k"], filter_seen=how["filter_seen"], probability=how["probability"]
        )
        if requests is not None:
            shards = shards_of_requests(scorer, requests)
        else:
            assert log is not None
            users = paths.pop("users", None)
            sources = Sources(interactions=log, users=users, others=paths)
            shards = shards_of_log(scorer, sources, rows_per_part=how["rows_per_part"])
        return dict(vars(score_to_parquet(scorer, shards, output)))
