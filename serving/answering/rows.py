"""Models that answer each row with a probability."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from recsys.bundle.directory import Bundle
from recsys.core.errors import ConfigError
from recsys.features.bundle.model_bundle import ModelBundle
from recsys.features.requests.origin import RequestOrigin
from recsys.features.requests.rows import RowEncoder, as_rows
from recsys.serving.export.onnx_export import ONNX, export_onnx
from recsys.serving.export.options import ExportOptions
from recsys.serving.recommend.rows import RowScorer, probability_column


@dataclass(frozen=True)
class RowServer:
    """See `Server`; there are no parameters."""

    scorer: RowScorer

    @property
    def columns(self) -> pa.Schema:
        """Those that the model reads, and the keys."""
        return self.scorer.rows.types

    def answer(self, table: pa.Table, params: Mapping[str, Any], origin: RequestOrigin) -> pa.Table:
        """Return the keys of the rows and their probability, or probabilities.

        Raises:
            ConfigError: parameters are given.
        """
        if params:
            raise ConfigError(
                f"a ranker has no parameters, got '{next(iter(params))}': lists and their filters "
                "are of retrieval models"
            )
        return self.scorer.score(table, as_rows(table, origin.name))


class Rows:
    """See `Answering`."""

    def targets(self) -> list[str]:
        """Return the one there is."""
        return [ONNX]

    def export(
        self,
        bundle: Path,
        target: str | None,
        out: Path,
        options: ExportOptions,
    ) -> dict[str, Any]:
        """Export the graph of the model; see `export_onnx`."""
        for option in options.given():
            raise ConfigError(f"{option} is about vectors, and a ranker has none: leave it out")
        if target != ONNX:
            raise ConfigError(f"--to {target}: a ranker has no vectors to search; give --to {ONNX}")
        return export_onnx(bundle, out)

    def server(self, bundle: Path) -> RowServer:
        """Open the model."""
        return RowServer(RowScorer.open(bundle))

    def described(self, bundle: Bundle) -> tuple[None, Any, dict[str, str]]:
        """Return MLflow's signature and the types of columns; there is no example of a row."""
        from recsys.serving.answering.signatures import column_types, row_signature

        model = ModelBundle.read(bundle.path)
        outcomes = ("", *model.schema.interactions.outcome_names)
        columns = RowEncoder(model.encoder, model.policies).types
        signature = row_signature(columns, [probability_column(one) for one in outcomes])
        return None, signature, column_types(columns)

    def requirements(self, bundle: Bundle) -> list[str]:
        """Need nothing more."""
        return []
