"""What a training reads, encoded before it starts: what `recsys prepare` does."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, Literal

from recsys.app.arguments import checked
from recsys.app.configuration import Given, config_given
from recsys.app.progress import printed
from recsys.core.errors import ConfigError
from recsys.core.folders import check_folder
from recsys.core.remote.path import here

if TYPE_CHECKING:
    from recsys.features.clicks.log import ClickEngine


def _local(master: str | None) -> None:
    if master is not None:
        raise ConfigError("--master is of Spark: add --engine spark, or leave it out")


def _spark(master: str | None) -> "ClickEngine":
    from recsys.app.spark.encoding import SparkWorkers
    from recsys.features.clicks.by_pieces import ByPieces

    return ByPieces(SparkWorkers(master))


ENGINES: dict[str, Callable[[str | None], "ClickEngine | None"]] = {
    "local": _local,
    "spark": _spark,
}
"""What reads a streamed log, by name: from the address of Spark's master; None: this process."""


@dataclass(frozen=True)
class Prepared:
    """Encoded data that a training finds.

    Attributes:
        folder: the cache: what `cache` of the training's configuration has to name.
        paths: the encoded data in it: of the model first, then of those that it is made of.
        rows: rows of the log, by part.
        bytes: size of all of it on disk.
        seconds: how long it took.
        was_there: whether all of it was encoded before.
        drops: what conditions and policies left out, in words.
    """

    folder: Path
    paths: tuple[Path, ...]
    rows: dict[str, int]
    bytes: int
    seconds: float
    was_there: bool
    drops: tuple[str, ...]

    def facts(self) -> dict[str, Any]:
        """Return everything by name, as plain values."""
        return vars(self) | {"folder": str(self.folder), "paths": [str(one) for one in self.paths]}


@checked
def prepare(
    config: Given,
    *,
    output: str | Path | None = None,
    engine: Literal["local", "spark"] = "local",
    master: str | None = None,
    quiet: bool = False,
) -> Prepared:
    """Encode what training reads, so that it starts at once; what is there already is kept.

    Args:
        config: what is to be trained.
        output: folder to encode to, in place of `cache` of the configuration; a training needs to
            name it as its `cache`.
        engine: what encodes a log with `data.stream: true`: this process, or Spark's workers, who
            write the same bytes.
        master: where Spark runs, as `local[4]`; None: as Spark is set up, or in the session that
            is there.
        quiet: print no progress.

    Raises:
        UserError: what training would raise on the same configuration and data, neither `output`
            nor `cache` names a folder, or the data are not for the engine.

    Example:
        >>> recsys.prepare(config, output="encoded").rows["training"]
        3200
    """
    from recsys.app.starting import Start, planned
    from recsys.training.jobs.prepare import prepare as encode

    reader = ENGINES[engine](master)
    given = planned(config_given(config), Start()).config
    if output is not None:
        folder = check_folder(
            here(output, "output", "encoded data are mapped into memory"), "encoded data"
        )
        given = given.model_copy(update={"cache": str(folder)})
    begin = monotonic()
    with printed(quiet):
        found = encode(given, reader)
    return Prepared(
        folder=found[0].path.parent,
        paths=tuple(one.path for one in found),
        rows=found[0].rows,
        bytes=sum(one.num_bytes for one in found),
        seconds=monotonic() - begin,
        was_there=all(one.was_there for one in found),
        drops=tuple(map(str, found[0].drops)),
    )
