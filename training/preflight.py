"""The job behind `recsys check`: everything that training would trip over, without training."""

from features.dataset import part_of
from features.inspect import Report, inspect
from features.tables import read_tables
from training.config import ExperimentConfig
from training.train import check_metric


def preflight(config: ExperimentConfig) -> Report:
    """Read and check the tables of `config`, part the log, and describe what was found.

    Raises:
        UserError: what training would raise on reading and parting the same data.
    """
    check_metric(config)
    split_column = config.split.column
    tables = read_tables(config.schema_, config.data, config.policies, split_column=split_column)
    table_bytes = config.embedding.memory_bytes
    return inspect(config.schema_, tables, part_of(tables, config.split), table_bytes=table_bytes)
