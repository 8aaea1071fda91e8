"""`recsys export --queries` as a function: query vectors of a table or a log, as Parquet."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from recsys.app.arguments import Count, checked
from recsys.app.models import Reference, folder_of
from recsys.core.events import Listener, ignore
from recsys.core.remote.path import path_at
from recsys.features.tables.frames import lent
from recsys.serving.export.query_encoding import EncodingSize
from recsys.serving.export.query_vectors import QuerySources, export_queries
from recsys.serving.recommend.scorer import Scorer

_ROLES = ("queries", "users")


@checked
def export_query_vectors(
    model: Reference,
    out: str | Path,
    *,
    queries: Any,
    users: Any = None,
    encoding: Literal["vectors", "fde"] = "vectors",
    fde_bits: Annotated[int, Field(ge=0, le=10)] = 3,
    fde_repetitions: Count = 8,
    tracking_uri: str | None = None,
    **others: Any,
) -> dict[str, Any]:
    """Write what an index is searched with, for many users, to a new folder.

    Args:
        model: see `load`; one that has vectors.
        out: folder to make, for queries.parquet and export.json.
        queries: requests (user key, `history`, attributes), users without a history, or an
            interaction log whose users are asked for; a path or a data frame.
        users: the users' attributes, with a log.
        encoding: `fde`: one vector a query, for an export of encodings.
        fde_bits: hyperplanes of such an encoding.
        fde_repetitions: of such an encoding.
        tracking_uri: MLflow store.
        others: side tables of users by name, with a log.

    Returns:
        What was written: numbers of users, of interests, the width of a vector, unknown items.

    Raises:
        UserError: `out` exists, the model has no vectors, or the tables do not fit it.

    Example:
        >>> recsys.export_query_vectors(model, "queries", queries=log, users=users)["users"]
        40
    """
    encoded = EncodingSize(fde_bits, fde_repetitions) if encoding == "fde" else None
    tables = {"queries": queries, "users": users, **others}
    return write_query_vectors(folder_of(model, tracking_uri), path_at(out), tables, encoded)


def write_query_vectors(
    folder: Path,
    out: Path,
    tables: Mapping[str, Any],
    encoded: EncodingSize | None = None,
    listener: Listener = ignore,
) -> dict[str, Any]:
    """Write the vectors of the model in `folder`; return what was written.

    Args:
        folder: of the bundle.
        out: folder to make.
        tables: `queries`, `users` and side tables by name; None: not given.
        encoded: the size of encodings, where queries are to be such.
        listener: called with each `PartDone`.

    Raises:
        UserError: as `export_query_vectors`.
    """
    with lent(tables) as paths:
        others = {name: path for name, path in paths.items() if name not in _ROLES}
        sources = QuerySources(paths["queries"], paths.get("users"), others)
        return export_queries(Scorer.open(folder), sources, out, encoded=encoded, listener=listener)
