"""The Python API of trained models: what `recsys evaluate`, `score`, `export`, ... do.

Tables are paths or data frames (pandas, polars, Arrow). Arguments are checked before any work is
done. What a caller can put right is a `recsys.UserError`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, InstanceOf

from recsys.app.arguments import Count, Share, checked
from recsys.app.evaluating import evaluate_folder, explain_folder
from recsys.app.exporting import Asked, Size, Target, export_model
from recsys.app.model import Model
from recsys.app.run import Run
from recsys.app.scoring import ListOptions, score_audience, score_model
from recsys.core.byte_sizes import bytes_of
from recsys.core.events import Listener, ignore
from recsys.core.remote.path import path_at

if TYPE_CHECKING:
    from recsys.training.evaluation.results import ModelEvaluation
    from recsys.training.explain.because import ListExplanation
    from recsys.training.explain.explanation import Explanation, RowExplanation

Reference = InstanceOf[Model] | InstanceOf[Run] | str | Path
"""A model: an object, a bundle or run folder, a run id, or models:/name@alias."""


@checked
def load(
    model: Reference,
    *,
    settings: Mapping[str, Any] | None = None,
    tracking_uri: str | None = None,
) -> Model:
    """Open a model: its bundle is fetched where needed, and verified.

    Args:
        model: a bundle or run folder, a run id, models:/name@alias, models:/name/3.
        settings: other policies than in training for the tables that the model is given, by key:
            {"policies.float_ids": "integer"}.
        tracking_uri: MLflow store; None: MLFLOW_TRACKING_URI, else mlflow.db in this folder.

    Raises:
        NotFoundError: there is none; the nearest names are named.
        IntegrityError: a file is not what was written.

    Example:
        >>> recsys.load(run.bundle).kind
        'two_tower'
    """
    if isinstance(model, Model) and settings is None:
        return model
    return Model(folder_of(model, tracking_uri), settings)


@checked
def evaluate(
    model: Reference,
    *,
    report: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
    tracking_uri: str | None = None,
    quiet: bool = True,
) -> "ModelEvaluation":
    """Evaluate a model again on the test part of its own data, with baselines.

    Args:
        model: see `load`.
        report: HTML file to write; None: none is kept.
        settings: other values of the section `evaluation` than in training, by key:
            {"evaluation.ks": [5], "evaluation.filter_seen": False}.
        tracking_uri: MLflow store.
        quiet: print no progress.

    Raises:
        UserError: there is no such model, its data are no longer where they were, or `settings`
            has another key or a wrong value.

    Example:
        >>> evaluation = recsys.evaluate(run)
        >>> sorted(evaluation.to_frame().columns)
        ['high', 'low', 'metric', 'model', 'value']
    """
    folder = folder_of(model, tracking_uri)
    return evaluate_folder(folder, report=report, settings=settings, quiet=quiet)


@checked
def score(
    model: Reference,
    output: str | Path,
    *,
    history: Any = None,
    users: Any = None,
    items: Any = None,
    requests: Any = None,
    others: Mapping[str, Any] | None = None,
    k: Count | None = None,
    filter_seen: bool | None = None,
    probability: bool = False,
    approximate: bool = False,
    where: str | None = None,
    exclude: Any = None,
    allow: Any = None,
    block: Any = None,
    cut: bool | None = None,
    rows_per_part: Count = 10_000,
    workers: Count | Literal["auto"] = 1,
    since: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
    tracking_uri: str | None = None,
    listener: Listener = ignore,
) -> dict[str, Any]:
    """Recommend for many users into Parquet files, each user exactly once; return a summary.

    Args:
        model: see `load`.
        output: folder for the parts; a job that was stopped there continues.
        history: the interaction log (of a retrieval model).
        users: table of users, where the model reads one.
        items: the items of today, which `where` reads; of a ranker attributes of its rows.
        requests: in place of `history`: one row a user; of a ranker the rows to score.
        others: side tables, by name.
        k: longest list; None: as the model says, else 20.
        filter_seen: leave out items the user has interacted with; None: as in the evaluation.
        probability: add the probability of each item.
        approximate: search the model's index, which may miss some, and not all vectors.
        where: a condition on columns of the items, as in "price < 50 and in_stock".
        exclude: ids to leave out, or a file or frame of them.
        allow: the only ids that may be recommended, likewise.
        block: a table of users and items that they are not to be shown.
        cut: end lists where relevance does; None: where the model knows that (`relevance`).
        rows_per_part: users in a part.
        workers: processes that share the parts, this one among them; "auto": one for each core.
        since: output of an earlier job; users without a change since are left out.
        settings: other policies than in training: {"policies.float_ids": ...}.
        tracking_uri: MLflow store.
        listener: called with a `recsys.PartDone` for each part.

    Raises:
        UserError: requests do not fit, `output` is another job's, a worker died; call it again.
    """
    asked = dict(locals())
    lists = ListOptions(**{name: asked[name] for name in ListOptions.__dataclass_fields__})
    tables = {"interactions": history, "requests": requests, "users": users, "items": items}
    tables |= {"block": block, **(others or {})}
    how = {name: asked[name] for name in ("settings", "workers", "since", "listener")}
    return score_model(folder_of(model, tracking_uri), path_at(output), tables, lists, **how)


@checked
def score_new_items(
    model: Reference,
    new_items: Any,
    output: str | Path,
    *,
    history: Any = None,
    users: Any = None,
    others: Mapping[str, Any] | None = None,
    top_customers: Count = 100,
    settings: Mapping[str, Any] | None = None,
    tracking_uri: str | None = None,
) -> dict[str, Any]:
    """Say who will interact with items that the catalogue lacks, and how many are expected to.

    Args:
        model: a calibrated two-tower; see `load`.
        new_items: table of the items, with the attributes that the model reads.
        output: folder for the parts.
        history: the interaction log whose users are asked.
        users: table of users, where the model reads one.
        others: side tables, by name.
        top_customers: users named for each item.
        settings: other policies for these tables than in training, by key.
        tracking_uri: MLflow store.

    Returns:
        What was written, and the expected audience.

    Raises:
        UserError: the model gives no probabilities, or tables do not fit it.
    """
    tables = {"interactions": history, "new_items": new_items, "users": users, **(others or {})}
    folder = folder_of(model, tracking_uri)
    how: dict[str, Any] = {"top_customers": top_customers, "settings": settings}
    return score_audience(folder, path_at(output), tables, **how)


@checked
def explain(
    model: Reference,
    *,
    user: Any = None,
    item: Any = None,
    row: Count | None = None,
    max_rows: Count = 20_000,
    picture: str | Path | None = None,
    tracking_uri: str | None = None,
    quiet: bool = True,
    **filters: Any,
) -> "Explanation | RowExplanation | ListExplanation":
    """Return what a ranker looks at, or why an item is recommended.

    A ranker is explained over its test rows, or on one row. Of a model of lists `user` and `item`
    say which items of the history speak for the item, of a pipeline which sources name it, at
    which place; there is no picture then.

    Args:
        model: see `load`.
        user: explain one row, or one recommendation: this user ...
        item: ... with this item.
        row: explain this row of the log, from 1.
        max_rows: most test rows to look at.
        picture: file to draw it in, .png or .svg.
        tracking_uri: MLflow store.
        quiet: print no progress.
        filters: of models of lists, the `where`, `exclude` and `allow` that the list was asked for
            with, as for `score`.

    Raises:
        UserError: there is no such row, user or item, or the model is not explained in this way.
    """
    folder = folder_of(model, tracking_uri)
    return explain_folder(
        folder,
        user=user,
        item=item,
        row=row,
        wanted=filters,
        max_rows=max_rows,
        picture=picture,
        quiet=quiet,
    )


@checked
def export(
    model: Reference,
    out: str | Path,
    *,
    to: Target | None = None,
    min_recall: Share = 0.95,
    encoding: Literal["vectors", "fde"] = "vectors",
    fde_bits: Annotated[int, Field(ge=0, le=10)] = 3,
    fde_repetitions: Count = 8,
    columns: Sequence[str] | None = None,
    reduce: str | None = None,
    tune: bool = False,
    memory: Size | None = None,
    tracking_uri: str | None = None,
) -> dict[str, Any]:
    """Export item vectors, an index or a vector store for ANN serving, or a ranker's graph.

    Args:
        model: see `load`.
        out: folder to make.
        to: `parquet`, an index (`exact`, `faiss`, `usearch`, ...), a store (`lancedb`, `qdrant`,
            `pgvector`, `milvus`, `opensearch`, `elasticsearch`) or `onnx` (query tower) of
            retrieval models, `onnx` of rankers; None with `tune`: any kind of index.
        min_recall: refuse an index below this.
        encoding: `fde`: items that one vector for all interests of a user searches.
        fde_bits: hyperplanes of such an encoding.
        fde_repetitions: of such an encoding.
        columns: of the items that go along, for filters; None: all that a store can hold.
        reduce: search shorter vectors, `leanvec` or `pca` and a width, as in `leanvec:32`; what is
            found is put in order by whole vectors.
        tune: measure indexes and write the cheapest that reaches `min_recall`.
        memory: what such an index may hold, as "200MiB"; None: any.
        tracking_uri: MLflow store.

    Returns:
        What was written and measured.

    Raises:
        UserError: `out` exists, the target does not suit the model, or recall is too low.
    """
    asked = Asked(
        min_recall=min_recall,
        encoded=(fde_bits, fde_repetitions) if encoding == "fde" else None,
        columns=columns,
        reduce=reduce,
        tune=tune,
        memory=None if memory is None else bytes_of(memory),
    )
    return export_model(folder_of(model, tracking_uri), to, path_at(out), asked)


@checked
def register(
    model: Reference, name: str, *, alias: str | None = None, tracking_uri: str | None = None
) -> int:
    """Add a model to the MLflow registry and return the number of its version.

    Example:
        >>> recsys.register(run, "shop", alias="champion", tracking_uri=store)
        1
        >>> recsys.load("models:/shop@champion", tracking_uri=store).kind
        'two_tower'
    """
    from recsys.serving.registry import register as add_version

    bundle = load(model, tracking_uri=tracking_uri)._bundle
    return add_version(bundle, name, uri=tracking_uri, alias=alias)


def folder_of(model: Reference, tracking_uri: str | None) -> Path:
    """Return the folder of the bundle that `model` means, fetched and verified where needed."""
    from recsys.serving.registry import resolve

    if isinstance(model, Model):
        return model.path
    return Path(resolve(reference_of(model), uri=tracking_uri))


def reference_of(model: Reference) -> str:
    """Return a model as a path or a name."""
    if isinstance(model, Model):
        return str(model.path)
    given = model.bundle if isinstance(model, Run) else model
    return str(path_at(given) if isinstance(given, Path) else given)
