"""What a training will read, encoded on disk before it starts."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from recsys.core.errors import ConfigError
from recsys.core.imports import on_first_use
from recsys.features.clicks.log import ClickEngine
from recsys.features.dataset.split import PART_NAMES
from recsys.features.encoding.encoder import FeatureEncoder
from recsys.features.tables.checked import Tables
from recsys.features.tables.ledger import Drop
from recsys.training.config.experiment import ExperimentConfig, LearnedExperiment

with on_first_use():
    from recsys.features.dataset.cache import entry_of, kept
    from recsys.features.dataset.dataset import prepare

C = TypeVar("C", bound=ExperimentConfig)


@dataclass(frozen=True)
class Encoding:
    """How data are encoded.

    earlier: the encoder of the model that the training starts from. engine: what reads a streamed
    log; None: this process.
    """

    earlier: FeatureEncoder | None = None
    engine: ClickEngine | None = None


@dataclass(frozen=True)
class Encoded:
    """Encoded data on disk.

    path: their folder, whose name is a hash of all that they depend on. rows: by name of the part.
    was_there: whether they were encoded before. drops: rows that conditions and policies left out.
    """

    path: Path
    rows: dict[str, int]
    was_there: bool
    drops: tuple[Drop, ...] = ()

    @property
    def num_bytes(self) -> int:
        """Size of all files."""
        return sum(path.stat().st_size for path in self.path.rglob("*") if path.is_file())


def encode_tables(
    config: C,
    how: Encoding,
    check_rows: Callable[[C, Tables, NDArray[np.int8]], None],
) -> Encoded:
    """Encode tables in memory to where training reads them from, unless they are there.

    Args:
        config: of the experiment.
        how: a model that is started from changes nothing that is kept; an engine is refused.
        check_rows: refuses what training refuses (`Family.check_rows`).

    Raises:
        ConfigError: the configuration names no cache, an engine is to read, or nothing can be
            trained on the rows.
        DataError: the data are not as declared.
        OSError: nothing can be written there.
    """
    if how.engine is not None:
        raise ConfigError(
            "--engine is for logs that are larger than memory, with data.stream: true, which "
            f"rankers are trained on; what {config.model.kind} is trained on here is encoded in "
            "memory: leave it out"
        )
    if config.cache is None:
        raise ConfigError(
            "cache: the configuration names no folder, so training would not find what is "
            "encoded: set it, or give --output FOLDER, and train with --set cache=FOLDER"
        )
    lookups = config.embedding.lookups if isinstance(config, LearnedExperiment) else None
    parts = (config.schema_, config.data, config.policies, config.split, lookups)
    entry = entry_of(Path(config.cache), *parts)
    found = kept(entry, lambda: prepare(*parts), must=True)
    data = found.data
    check_rows(config, data.tables, data.part)
    rows = {name: int((data.part == number).sum()) for number, name in enumerate(PART_NAMES)}
    return Encoded(entry, rows, found.was_there, data.tables.drops)
