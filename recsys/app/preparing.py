"""What a training reads, encoded before it starts: what `recsys prepare` does."""

from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

from recsys.app.arguments import checked
from recsys.app.configuration import Given, config_given
from recsys.app.progress import printed
from recsys.core.folders import check_folder


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
def prepare(config: Given, *, output: str | Path | None = None, quiet: bool = False) -> Prepared:
    """Encode what training reads, so that it starts at once; what is there already is kept.

    Args:
        config: what is to be trained.
        output: folder to encode to, in place of `cache` of the configuration; a training needs to
            name it as its `cache`.
        quiet: print no progress.

    Raises:
        UserError: what training would raise on the same configuration and data, or neither
            `output` nor `cache` names a folder.

    Example:
        >>> recsys.prepare(config, output="encoded").rows["training"]
        3200
    """
    from recsys.app.starting import Start, planned
    from recsys.training.jobs.prepare import prepare as encode

    given = planned(config_given(config), Start()).config
    if output is not None:
        folder = check_folder(Path(output), "encoded data")
        given = given.model_copy(update={"cache": str(folder)})
    begin = monotonic()
    with printed(quiet):
        found = encode(given)
    return Prepared(
        folder=found[0].path.parent,
        paths=tuple(one.path for one in found),
        rows=found[0].rows,
        bytes=sum(one.num_bytes for one in found),
        seconds=monotonic() - begin,
        was_there=all(one.was_there for one in found),
        drops=tuple(map(str, found[0].drops)),
    )
