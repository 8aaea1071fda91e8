"""Rows scored by a ranker: a verified bundle that turns a table of rows into probabilities.

One code path for batch scoring, the MLflow model and the Python API.

    scorer = RowScorer.open(path, {"items": "movies.parquet"})
    scorer.score(rows)   # keys and probability, a row each, in order

Where the model predicts further outcomes, their probabilities follow: `probability_<name>`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from recsys.core.errors import ConfigError
from recsys.data.batch import FeatureBlock
from recsys.features.bundle.rows import RowModel
from recsys.features.relations.reading import facts_of
from recsys.features.relations.wanted import relations_needed
from recsys.features.requests.rows import SIDES, RowEncoder, as_rows, read_side
from recsys.features.tables.reading import TableFiles, fingerprint, open_table

PROBABILITY, ROW = "probability", "row"
_CHUNK_ROWS, _BATCH_ROWS = 65_536, 4_096


@dataclass(frozen=True)
class RowScorer:
    """Scores tables of rows; where attribute tables were given, users and items are joined."""

    ranker: RowModel
    rows: RowEncoder
    tables: str
    """Fingerprint of the tables of attributes and of the relations."""

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
            tables: name -> path of a table: "users", "items", a side table or a relation (the log
                is "interactions"); what is not given has to be in the rows.
            settings: other policies than in training, by full key.

        Raises:
            UserError: as `RowModel.open`; a table is not as declared, or none of the model's.
        """
        ranker = RowModel.open(path).with_settings(settings)
        schema, given = ranker.encoder.schema, dict(tables or {})
        relations = relations_needed(schema)
        for name in given:
            if name not in (*SIDES, *schema.others, *relations):
                known = ", ".join([*SIDES, *schema.others, *relations])
                raise ConfigError(f"--other {name}: the model has no such table; it has {known}")
        found = {side: read_side(side, schema, given, ranker.policies) for side in SIDES}
        attributes = {side: table for side, table in found.items() if table is not None}
        facts = facts_of(schema, given, ranker.policies)
        rows = RowEncoder(ranker.encoder, ranker.policies, attributes, facts)
        return cls(ranker, rows, fingerprint(open_table(given[name], name) for name in given))

    def score(
        self, table: pa.Table, files: TableFiles | None = None, first_row: int = 0
    ) -> pa.Table:
        """Return the keys of the rows (user and item, where they have them) and `probability`.

        Of further outcomes `probability_<name>` follows.

        Args:
            table: the rows.
            files: the file they come from, for messages.
            first_row: number of the first of them in it, from 0.

        Raises:
            DataError: a column is missing or a value is wrong; file, column and row are named.
        """
        files = files or as_rows(table)
        self.rows.require(files)
        table = self.rows.as_read(table, files, first_row)
        parts = []
        for start in range(0, table.num_rows, _CHUNK_ROWS):
            chunk = table.slice(start, _CHUNK_ROWS)
            parts.append(self._probabilities(self.rows.encode(chunk, files, first_row + start)))
        keys = [name for name in self.rows.keys if name in table.column_names]
        answers = table.select(keys)
        for outcome in ("", *self.ranker.calibrator.others):
            found = np.concatenate([part[outcome] for part in parts]) if parts else np.zeros(0)
            answers = answers.append_column(probability_column(outcome), pa.array(found))
        return answers

    def _probabilities(self, features: FeatureBlock) -> dict[str, NDArray[np.float64]]:
        parts = []
        for rows in torch.arange(len(features)).split(_BATCH_ROWS):
            parts.append(self.ranker.logits(features.take(rows)))
        return self.ranker.calibrator.by_outcome(np.concatenate(parts))


def probability_column(outcome: str) -> str:
    """Return the column of an outcome's probability; "" is the label."""
    return f"{PROBABILITY}_{outcome}" if outcome else PROBABILITY
