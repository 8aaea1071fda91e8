"""What a scoring job runs on, by the name that `recsys score --engine` takes."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from recsys.core.errors import ConfigError

Job = Callable[..., dict[str, Any]]
"""Called as `recsys.app.scoring.score_model`, with `master`; returns the summary."""


def _local(*given: Any, master: str | None, **options: Any) -> dict[str, Any]:
    from recsys.app.scoring import score_model

    if master is not None:
        raise ConfigError("--master is of Spark: add --engine spark, or leave it out")
    return score_model(*given, **options)


def _spark(
    folder: Path, output: Path, tables: Mapping[str, Any], lists: Any = None, **options: Any
) -> dict[str, Any]:
    from recsys.app.spark.job import score_on_spark

    if options.pop("workers") != 1:
        raise ConfigError("--workers is of --engine local: Spark's --master says how many")
    if options.pop("since") is not None:
        raise ConfigError("--since is of --engine local: leave one of the two out")
    return score_on_spark(folder, output, tables, lists, **options)


DEFAULT = "local"
ENGINES: dict[str, Job] = {DEFAULT: _local, "spark": _spark}
