"""The job behind `recsys check`: everything that training would trip over, without training."""

from pathlib import Path

from recsys.features.clicks.inspect import ClickReport, inspect_clicks
from recsys.features.clicks.log import open_click_log
from recsys.features.dataset.dataset import drawn_validation, parted
from recsys.features.dataset.sessions import sessions_of
from recsys.features.propose.inspect import Report, inspect
from recsys.features.tables.checked import read_tables
from recsys.retrieval.index.registry import require
from recsys.training.config.experiment import ExperimentConfig
from recsys.training.families.plain.choose import check_baselines
from recsys.training.jobs.train import check_metric


def preflight(config: ExperimentConfig) -> Report | ClickReport:
    """Read and check the tables of `config`, part the log, and describe what was found.

    A streamed log is encoded to where training reads it from, unless it is there already.

    Raises:
        UserError: what training would raise on reading and parting the same data.
    """
    check_metric(config)
    check_baselines(config)
    require(config.index.kind)
    table_bytes = config.embedding.memory_bytes
    if config.data.stream:
        cache = Path(config.cache or Path(config.output) / "encoded")
        parts = (config.schema_, config.data, config.policies, config.split)
        log = open_click_log(*parts, cache, config.embedding.lookups)
        return inspect_clicks(log, table_bytes=table_bytes)
    split_column = config.split.column
    tables = read_tables(config.schema_, config.data, config.policies, split_column=split_column)
    tables, part, _ = parted(config.schema_, tables, config.split)
    drawn = drawn_validation(config.schema_, tables, config.split)
    notes: tuple[str, ...] = (
        () if drawn is None else (f"no row of '{split_column}' is validation: it is {drawn}",)
    )
    if config.of_sessions:
        cut = sessions_of(config.schema_, tables.events, config.sessions)
        notes = (*notes, cut.in_words())
    return inspect(config.schema_, tables, part, table_bytes=table_bytes, notes=notes)
