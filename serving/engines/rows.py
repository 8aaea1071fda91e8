"""Batch scoring of rows: Parquet in, a probability for each row in Parquet out, in their order."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recsys.core.errors import DataError
from recsys.core.events import Listener, ignore
from recsys.features.tables.parquet_files import opened_parquet, read_columns
from recsys.features.tables.reading import TableFiles, fingerprint, open_table, table_at
from recsys.serving.engines.parts import mark_done, write_parts
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

    Raises:
        NotFoundError: no such file.
        DataError: a row is not as the model needs it.
        ConfigError: `output` holds another job's files.
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
    parts = _parts(scorer, files)
    there = write_parts(output, job, parts, listener)
    total, rows = 0.0, 0
    for name in parts:
        column = read_columns(output / name, [PROBABILITY]).column(0)
        rows += len(column)
        total += pc.sum(column).as_py() or 0.0
    summary = RowSummary(str(output), model_id, len(parts), there, rows, total / max(rows, 1))
    mark_done(output, vars(summary))
    return summary


def _parts(scorer: RowScorer, files: TableFiles) -> dict[str, Callable[[], pa.Table]]:
    """Return what scores each row group, by the name of its part."""
    parts: dict[str, Callable[[], pa.Table]] = {}
    first = 0
    for number, path in enumerate(files.paths):
        with opened_parquet(path) as opened:
            place = table_at(path, "rows", opened.schema_arrow.names)
            sizes = [opened.metadata.row_group(g).num_rows for g in range(opened.num_row_groups)]
        scorer.rows.require(place)
        start = 0
        for group, size in enumerate(sizes):
            part = _reader(scorer, place, group, start, first)
            parts[f"part-{number:05d}-{group:05d}.parquet"] = part
            start, first = start + size, first + size
    return parts


def _reader(
    scorer: RowScorer, files: TableFiles, group: int, start: int, first: int
) -> Callable[[], pa.Table]:
    """Return what scores one row group.

    Args:
        scorer: the model.
        files: the file.
        group: number of the row group in it.
        start: number of its first row in the file.
        first: the same over all files.
    """
    columns = [name for name in files.columns if name in (*scorer.rows.columns, *scorer.rows.keys)]

    def read() -> pa.Table:
        try:
            with opened_parquet(files.paths[0], page_checksum_verification=True) as opened:
                table = opened.read_row_group(group, columns=columns)
        except (pa.ArrowException, OSError) as error:
            reason = str(error).splitlines()[0]
            raise DataError(
                f"not a readable Parquet file ({reason})", file=files.paths[0]
            ) from None
        answers = scorer.score(table, files, start)
        rows = pa.array(np.arange(first, first + table.num_rows))
        return answers.add_column(answers.column_names.index(PROBABILITY), ROW, rows)

    return read
