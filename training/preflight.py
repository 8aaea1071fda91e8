"""The job behind `recsys check`: everything that training would trip over, without training."""

from pathlib import Path

from features.click_inspect import ClickReport, inspect_clicks
from features.click_log import open_click_log
from features.dataset import part_of
from features.inspect import Report, inspect
from features.tables import read_tables
from training.config import ExperimentConfig
from training.train import check_metric


def preflight(config: ExperimentConfig) -> Report | ClickReport:
    """Read and check the tables of `config`, part the log, and describe what was found.

    A streamed log is encoded to where training reads it from, unless it is there already.

    Raises:
        UserError: what training would raise on reading and parting the same data.
    """
    check_metric(config)
    table_bytes = config.embedding.memory_bytes
    if config.data.stream:
        cache = Path(config.cache or Path(config.output) / "encoded")
        parts = (config.schema_, config.data, config.policies, config.split)
        log = open_click_log(*parts, cache, config.embedding.lookups)
        return inspect_clicks(log, table_bytes=table_bytes)
    split_column = config.split.column
    tables = read_tables(config.schema_, config.data, config.policies, split_column=split_column)
    return inspect(config.schema_, tables, part_of(tables, config.split), table_bytes=table_bytes)
