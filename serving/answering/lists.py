"""Models that answer requests with lists of items."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from recsys.bundle.directory import Bundle
from recsys.core.errors import ConfigError
from recsys.core.strict import nearest
from recsys.features.bundle.files import (
    index_files,
    read_description,
    read_relevance,
    read_request_probe,
    read_schema,
    source_folders,
)
from recsys.features.bundle.request_probe import without_answers
from recsys.features.filters.requests import ALLOW, EXCLUDE, WHERE, filter_columns
from recsys.features.requests.origin import RequestOrigin
from recsys.features.requests.table import HISTORY, SEEN
from recsys.retrieval.index.build import read_facts
from recsys.retrieval.index.registry import BACKENDS
from recsys.serving.export.onnx_export import ONNX
from recsys.serving.export.options import ExportOptions
from recsys.serving.export.query_tower import export_query_tower
from recsys.serving.export.query_vectors import vectors_of_requests
from recsys.serving.export.retrieval import export_index
from recsys.serving.export.stores.registry import targets
from recsys.serving.recommend.filters import FilterOptions, Filters
from recsys.serving.recommend.scorer import Scorer

VECTORS_PARAMETER = "vectors"
DEFAULTS: dict[str, Any] = {
    "k": None,
    "filter_seen": None,
    "probability": False,
    "cut": None,
    "where": None,
    "exclude": None,
    "allow": None,
    VECTORS_PARAMETER: False,
}
"""Parameters of those who ask. k, filter_seen, cut: None for those of the model; the others None:
everything may be recommended."""
EXAMPLES = 3


@dataclass(frozen=True)
class ListServer:
    """See `Server`; the parameters are those of `DEFAULTS`."""

    scorer: Scorer
    columns: pa.Schema
    filters: Filters

    def answer(self, table: pa.Table, params: Mapping[str, Any], origin: RequestOrigin) -> pa.Table:
        """Return a list a request; no history is an empty one.

        Raises:
            ConfigError: there is no such parameter.
        """
        for name in params:
            if name not in DEFAULTS:
                raise ConfigError(
                    f"there is no parameter '{name}'{nearest(name, list(DEFAULTS))}; there are "
                    f"{', '.join(DEFAULTS)}"
                )
        if HISTORY not in table.column_names:
            kind = self.columns.field(HISTORY).type
            table = table.append_column(HISTORY, pa.array([[]] * table.num_rows, kind))
        chosen = {**DEFAULTS, **params}
        if chosen.pop(VECTORS_PARAMETER):
            self._refuse_lists(chosen)
            return vectors_of_requests(self.scorer, table, origin)
        asked = FilterOptions(**{name: chosen.pop(name) for name in (WHERE, EXCLUDE, ALLOW)})
        filters = self.filters.with_(asked, self.scorer.policies)
        return self.scorer.score(table, **chosen, origin=origin, filters=filters)

    def _refuse_lists(self, chosen: Mapping[str, Any]) -> None:
        """Refuse what is said of lists where vectors are asked for.

        MLflow gives every parameter, those that are not set with their defaults.
        """
        names = ("k", "filter_seen", "cut")
        own: dict[str, Any] = {name: getattr(self.scorer, name) for name in names} | {EXCLUDE: []}
        for name, value in chosen.items():
            plain = [DEFAULTS[name], own.get(name, DEFAULTS[name])]
            value = value.tolist() if isinstance(value, np.ndarray) else value
            if all(value != one for one in plain):
                raise ConfigError(
                    f"'{name}' is about lists, and with '{VECTORS_PARAMETER}' there are none: "
                    "leave one of the two out"
                )


class Lists:
    """See `Answering`."""

    def targets(self) -> list[str]:
        """Return the indexes, vectors without one, the stores and the graph of the query tower."""
        return [*targets(), ONNX]

    def export(
        self,
        bundle: Path,
        target: str | None,
        out: Path,
        options: ExportOptions,
    ) -> dict[str, Any]:
        """Export item vectors, an index over them, or the query tower; see `export_index`."""
        if target == ONNX:
            for option in options.given():
                raise ConfigError(
                    f"{option} is about item vectors and indexes: the graph gives a vector for "
                    "each interest; leave it out"
                )
            return export_query_tower(bundle, out)
        if target is not None and target not in self.targets():
            raise ConfigError(
                f"--to {target} is for rankers; a retrieval model goes --to an index or a store: "
                f"{', '.join(self.targets())}"
            )
        return export_index(bundle, target, out, **vars(options))

    def server(self, bundle: Path) -> ListServer:
        """Open the model."""
        scorer = Scorer.open(bundle)
        return ListServer(scorer, request_columns(scorer.bundle), Filters.of(scorer))

    def described(self, bundle: Bundle) -> tuple[pa.Table, Any, dict[str, str]]:
        """Return requests of the probe, MLflow's signature, and the types of columns."""
        from recsys.serving.answering.signatures import column_types, request_signature

        columns, key = request_columns(bundle), read_schema(bundle).user_key
        probe = without_answers(read_request_probe(bundle))
        example = probe.select([n for n in probe.column_names if n != SEEN]).slice(0, EXAMPLES)
        about, ends = read_description(bundle), read_relevance(bundle) is not None
        params = DEFAULTS | {"filter_seen": about.filter_seen, "k": about.k, "cut": ends}
        if about.space_id is None:
            del params[VECTORS_PARAMETER]
        return example, request_signature(columns, key, params), column_types(columns)

    def requirements(self, bundle: Bundle) -> list[str]:
        """Return the libraries of the index, of a pipeline's trees and of its sources."""
        about = read_description(bundle)
        if about.has_sources:
            sources = [Bundle.open(path) for path in source_folders(bundle)]
            of_sources = [name for one in sources for name in self.requirements(one)]
            settings: Any = about.model
            return [*dict.fromkeys([*of_sources, *settings.rank.libraries])]
        if about.space_id is None:
            return []
        kind = read_facts(index_files(bundle))["kind"]
        library = BACKENDS[kind].distribution
        return [] if library is None else [library]


def request_columns(bundle: Bundle) -> pa.Schema:
    """Return the columns that requests may have: those of the probe, `seen` and the filters."""
    schema = without_answers(read_request_probe(bundle)).schema
    items = schema.field(HISTORY).type
    more = {SEEN: items, WHERE: pa.string(), EXCLUDE: items, ALLOW: items}
    known = (SEEN, *filter_columns(read_schema(bundle)))
    for name in known:
        if name not in schema.names:
            schema = schema.append(pa.field(name, more[name]))
    return schema
