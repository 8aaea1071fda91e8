"""Rows scored by a ranker: a verified bundle that turns a table of rows into probabilities.

One code path for batch scoring, the MLflow model and the Python API.

    scorer = RowScorer.open(path, {"items": "movies.parquet"})
    scorer.score(rows)   # keys and probability, a row each, in order
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from recsys.core.errors import ConfigError, DataError
from recsys.core.events import Listener, ignore
from recsys.data.batch import FeatureBlock
from recsys.features.bundle.rows import RowModel
from recsys.features.requests.rows import SIDES, RowEncoder, as_rows, read_side
from recsys.features.tables.reading import TableFiles, fingerprint, open_table, table_at
from recsys.serving.engines.parts import mark_done, write_parts

PROBABILITY, ROW = "probability", "row"
_CHUNK_ROWS, _BATCH_ROWS = 65_536, 4_096


@dataclass(frozen=True)
class RowScorer:
    """Scores tables of rows; where attribute tables were given, users and items are joined."""

    ranker: RowModel
    rows: RowEncoder
    tables: str
    """Fingerprint of the attribute tables."""

    @classmethod
    def open(
        cls,
        path: Path,
        tables: Mapping[str, str] | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> Self:
        """Open the bundle at `path`.

        Args:
            path: of a ranker's bundle.
            tables: attribute table -> its path: "users", "items", or a side table; what
                is not given has to be in the rows.
            settings: other policies than in training, by full key.

        Raises:
            UserError: as `RowModel.open`; a table is not as declared, or none of the model's.
        """
        ranker = RowModel.open(path).with_settings(settings)
        schema, given = ranker.encoder.schema, dict(tables or {})
        for name in given:
            if name not in (*SIDES, *schema.others):
                known = ", ".join([*SIDES, *schema.others])
                raise ConfigError(f"--other {name}: the model has no such table; it has {known}")
        found = {side: read_side(side, schema, given, ranker.policies) for side in SIDES}
        attributes = {side: table for side, table in found.items() if table is not None}
        rows = RowEncoder(ranker.encoder, ranker.policies, attributes)
        return cls(ranker, rows, fingerprint(open_table(given[name], name) for name in given))

    def score(
        self, table: pa.Table, files: TableFiles | None = None, first_row: int = 0
    ) -> pa.Table:
        """Return the keys of the rows (user and item, where they have them) and `probability`.

        Args:
            table: the rows.
            files: the file they come from, for messages.
            first_row: number of the first of them in it, from 0.

        Raises:
            DataError: a column is missing or a value is wrong; file, column and row are named.
        """
        files = files or as_rows(table)
        self.rows.require(files)
        parts = []
        for start in range(0, table.num_rows, _CHUNK_ROWS):
            chunk = table.slice(start, _CHUNK_ROWS)
            parts.append(self._probability(self.rows.encode(chunk, files, first_row + start)))
        keys = [name for name in self.rows.keys if name in table.column_names]
        found = np.concatenate(parts) if parts else np.zeros(0)
        return table.select(keys).append_column(PROBABILITY, pa.array(found))

    def _probability(self, features: FeatureBlock) -> NDArray[np.float64]:
        parts = []
        for rows in torch.arange(len(features)).split(_BATCH_ROWS):
            parts.append(self.ranker.logits(features.take(rows)))
        return self.ranker.calibrator.probability(np.concatenate(parts))


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
    and `probability`. A job that was stopped continues where it stopped.

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
        column = pq.read_table(output / name, columns=[PROBABILITY]).column(0)
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
        with pq.ParquetFile(path) as opened:
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
            with pq.ParquetFile(files.paths[0], page_checksum_verification=True) as opened:
                table = opened.read_row_group(group, columns=columns)
        except (pa.ArrowException, OSError) as error:
            reason = str(error).splitlines()[0]
            raise DataError(
                f"not a readable Parquet file ({reason})", file=files.paths[0]
            ) from None
        answers = scorer.score(table, files, start)
        rows = pa.array(np.arange(first, first + table.num_rows))
        return answers.add_column(answers.num_columns - 1, ROW, rows)

    return read
