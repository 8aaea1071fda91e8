"""What `recsys check` does with tables in memory, whatever the family."""

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from recsys.core.errors import ConfigError
from recsys.embeddings.memory import check_memory, free_memory_bytes
from recsys.features.dataset.dataset import drawn_validation, parted
from recsys.features.dataset.sessions import SessionConfig, sessions_of
from recsys.features.encoding.multiplicity import check_lookups
from recsys.features.propose.inspect import Report, inspect
from recsys.features.propose.number_doubts import number_doubts
from recsys.features.tables.checked import Tables, read_tables
from recsys.training.config.experiment import ExperimentConfig, LearnedExperiment
from recsys.training.families.costs import Rates, estimate

C = TypeVar("C", bound=ExperimentConfig)


def inspect_tables(
    config: C,
    notes_on: Callable[[Tables, NDArray[np.int8]], tuple[str, ...]] = lambda tables, part: (),
    *,
    check_rows: Callable[[C, Tables, NDArray[np.int8]], None],
    cutting: SessionConfig | None = None,
    rates: Rates | None = None,
) -> Report:
    """Read and check the tables of `config`, part the log, and describe what was found.

    Args:
        config: the experiment.
        notes_on: tables and the part of each event (E,) to more of what is well, and good to know.
        cutting: how the log is cut into sessions, where it is.
        rates: what a training of such a model takes, where it was measured.
        check_rows: refuses what training of the family refuses (`Family.check_rows`).

    Raises:
        UserError: what training would raise on reading and parting the same data.
    """
    split = config.split
    tables = read_tables(
        config.schema_, config.data, config.policies, split_column=split.column, to_part=True
    )
    tables, part, _ = parted(config.schema_, tables, split)
    lookups = config.embedding.lookups if isinstance(config, LearnedExperiment) else None
    check_lookups(config.schema_, lookups)
    check_rows(config, tables, part)
    drawn = drawn_validation(config.schema_, tables, split)
    notes: tuple[str, ...] = (
        () if drawn is None else (f"no row of '{split.column}' is validation: it is {drawn}",)
    )
    lengths = None
    if cutting is not None:
        lengths = sessions_of(config.schema_, tables.events, cutting).lengths()
    found = inspect(
        config.schema_,
        tables,
        part,
        table_bytes=table_bytes(config),
        notes=(*tables.said, *notes, *tables.matches, *notes_on(tables, part)),
        session_lengths=lengths,
    )
    doubts = number_doubts(config.schema_, tables)
    warnings = (*found.warnings, *doubts, *_too_large(config))
    return replace(found, warnings=warnings, estimate=estimate(rates, config, tables, part))


def _too_large(config: ExperimentConfig) -> tuple[str, ...]:
    """Return why one process of this machine cannot train the table; several may."""
    if not isinstance(config, LearnedExperiment):
        return ()
    copies = int(config.training.average_epochs > 0)
    try:
        check_memory(config.embedding, free_memory_bytes(), copies=copies)
    except ConfigError as error:
        return (f"training is refused here: {error}, or share the table with other machines",)
    return ()


def table_bytes(config: ExperimentConfig) -> int | None:
    """Return the memory of the embedding table with its optimizer state; None: there is none."""
    return config.embedding.memory_bytes if isinstance(config, LearnedExperiment) else None
