"""Batch scoring of rows: Parquet in, a probability for each row in Parquet out, in their order."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from recsys.core.errors import DataError
from recsys.core.events import Listener, ignore
from recsys.features.tables.reading import TableFiles, fingerprint, open_table, table_at
from recsys.serving.engines.messages import Message
from recsys.serving.engines.parts import mark_done, write_parts
from recsys.serving.engines.worker import Maker
from recsys.serving.engines.workers import Shared, Team
from recsys.serving.recommend.rows import PROBABILITY, ROW, RowScorer


@dataclass(frozen=True)
class RowSummary:
    """What a job wrote."""

    output: str
    model_id: str
    parts: int
    parts_already_there: int
    rows: int
    mean_probability: float


def score_rows(
    scorer: RowScorer,
    given: str,
    output: Path,
    *,
    listener: Listener = ignore,
    team: Team | None = None,
) -> RowSummary:
    """Score every row of Parquet files into `output`, a part a row group, each row once.

    A part has the keys of the rows, `row`, its number over all files in reading order from 0,
    and `probability`, with those of further outcomes after it. A job that was stopped continues
    where it stopped.

    Args:
        scorer: the model.
        given: a file, a folder or a glob.
        output: folder for the parts.
        listener: called with each `PartDone`.
        team: processes that open the same scorer and share the parts; None: this one alone.

    Raises:
        NotFoundError: no such file.
        DataError: a row is not as the model needs it.
        ConfigError: `output` holds another job's files.
        WorkerError: a process of the team is gone.
    """
    files = open_table(given, "rows")
    if files.format != "parquet":
        raise DataError(
            "rows are read as Parquet, whose columns have types", file=given, remedy="convert it"
        )
    model_id = scorer.ranker.bundle.model_id
    job = {
        "model_id": model_id,
        "tables": scorer.tables,
        "rows": fingerprint([files]),
        "policies": scorer.ranker.policies.model_dump(mode="json"),
    }
    groups = _groups(scorer, files)
    parts = {name: partial(_scored, scorer, group) for name, group in groups.items()}
    orders = {name: partial(_order, group) for name, group in groups.items()}
    helping = None if team is None else Shared(team, orders)
    there = write_parts(output, job, parts, listener, helping)
    total, rows = 0.0, 0
    for name in parts:
        column = pq.read_table(output / name, columns=[PROBABILITY]).column(0)
        rows += len(column)
        total += pc.sum(column).as_py() or 0.0
    summary = RowSummary(str(output), model_id, len(parts), there, rows, total / max(rows, 1))
    mark_done(output, vars(summary))
    return summary


def maker_of(scorer: RowScorer) -> Maker:
    """Return what a worker makes parts with."""

    def make(facts: dict[str, Any], _table: pa.Table | None) -> pa.Table:
        return _scored(scorer, _Group(**{name: facts[name] for name in _Group._fields}))

    return make


class _Group(NamedTuple):
    """A row group: its file and number; of its first row the number there, and over all files."""

    path: str
    group: int
    start: int
    first: int


def _order(group: _Group) -> Message:
    """Return what a worker is sent for a part; it reads the rows itself."""
    return {**group._asdict(), "path": str(Path(group.path).absolute())}, None


def _groups(scorer: RowScorer, files: TableFiles) -> dict[str, _Group]:
    """Return each row group, by the name of its part."""
    groups: dict[str, _Group] = {}
    first = 0
    for number, path in enumerate(files.paths):
        with pq.ParquetFile(path) as opened:
            place = table_at(path, "rows", opened.schema_arrow.names)
            sizes = [opened.metadata.row_group(g).num_rows for g in range(opened.num_row_groups)]
        scorer.rows.require(place)
        start = 0
        for group, size in enumerate(sizes):
            groups[f"part-{number:05d}-{group:05d}.parquet"] = _Group(
                str(path), group, start, first
            )
            start, first = start + size, first + size
    return groups


def _scored(scorer: RowScorer, group: _Group) -> pa.Table:
    """Read and score one row group.

    Raises:
        DataError: the file cannot be read, or a row is not as the model needs it.
    """
    try:
        with pq.ParquetFile(group.path, page_checksum_verification=True) as opened:
            files = table_at(Path(group.path), "rows", opened.schema_arrow.names)
            known = (*scorer.rows.columns, *scorer.rows.keys)
            columns = [name for name in files.columns if name in known]
            table = opened.read_row_group(group.group, columns=columns)
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"not a readable Parquet file ({reason})", file=group.path) from None
    answers = scorer.score(table, files, group.start)
    rows = pa.array(np.arange(group.first, group.first + table.num_rows))
    return answers.add_column(answers.column_names.index(PROBABILITY), ROW, rows)
