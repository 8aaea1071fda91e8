"""`recsys export`, `register`, `promote`, `sync`: what is done with a trained model."""

import json as json_format
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from recsys.app.options import COUNT, JSON, MODEL, OTHER, URI, Finite, named_paths
from recsys.core.byte_sizes import bytes_of

if TYPE_CHECKING:
    from recsys.app.exporting import Asked


class ExportTarget(click.ParamType[str]):
    """What `recsys export --to` takes; who knows is imported where it is asked."""

    name = "target"

    @staticmethod
    def _choice() -> click.Choice[str]:
        from recsys.serving.answering.registry import export_targets

        return click.Choice(export_targets())

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str | None:
        """Return the targets as help shows them."""
        return self._choice().get_metavar(param, ctx)

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the target; refuse what is none."""
        return self._choice().convert(value, param, ctx)


class ByteSize(click.ParamType[int]):
    """What `--memory` takes: bytes, with a unit."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the bytes; refuse what is no size."""
        try:
            return value if isinstance(value, int) else bytes_of(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


@click.command()
@MODEL
@click.option("--to", "target", type=ExportTarget(), help="Not needed with --tune.")
@click.option(
    "--queries",
    metavar="PATH",
    help="In place of --to: query vectors of requests, of users, or of the users of a log.",
)
@click.option("--users", help="With --queries LOG: user attributes, where the model uses them.")
@OTHER
@click.option(
    "--out", type=click.Path(path_type=Path), required=True, help="New folder to write to."
)
@click.option(
    "--min-recall",
    type=Finite(0, 1),
    default=0.95,
    show_default=True,
    help="Refuse an index below this.",
)
@click.option(
    "--encoding",
    type=click.Choice(("vectors", "fde")),
    default="vectors",
    show_default=True,
    help="fde: items that one vector for all interests of a user searches.",
)
@click.option("--fde-bits", type=click.IntRange(0, 10), help="Hyperplanes; default: 3.")
@click.option("--fde-repetitions", type=COUNT, help="Default: 8.")
@click.option(
    "--columns",
    metavar="A,B",
    help="Columns of the items that go along, for filters; default: all; '' for none.",
)
@click.option(
    "--reduce",
    metavar="METHOD:WIDTH",
    help="Search shorter vectors: leanvec or pca, as in leanvec:32.",
)
@click.option(
    "--tune",
    is_flag=True,
    help="Measure indexes; write the cheapest to search that reaches --min-recall.",
)
@click.option("--memory", type=ByteSize(), help="What a tuned index may hold, as 200MiB.")
@URI
@JSON
def export(
    model: str,
    target: str | None,
    out: Path,
    min_recall: float,
    encoding: str,
    fde_bits: int | None,
    fde_repetitions: int | None,
    columns: str | None,
    reduce: str | None,
    tune: bool,
    memory: int | None,
    tracking_uri: str | None,
    as_json: bool,
    **asked: Any,
) -> None:
    """Export item vectors, an index or a vector store for ANN serving.

    Of an index the recall is measured. The folder has a README.md with code that loads, asks and
    filters it, and an export.json with the hash of every file, which recsys verify checks.

    A two-tower with several interests searches with each of a user's vectors and merges, or
    with one, of --encoding fde, which is wider and finds most of the same; export.json says how.

    With --reduce an index is over shorter vectors, learnt from items and queries, and its first
    finds are put in order by the whole ones; the recall is that of the final lists.

    --to onnx: of a retrieval model its query tower, which makes vectors of raw requests without
    the engine; of a ranker one graph from hashed values to probabilities. Both are checked against
    the model and timed. --queries writes the vectors themselves, for many users.

    Example: recsys export models:/demo@champion --to faiss --out index

    Example: recsys export models:/demo@champion --tune --memory 200MiB --out index
    """
    from recsys.app.exporting import Asked, export_model, tuning_table
    from recsys.app.models import folder_of

    encoded = None
    if encoding == "fde":
        encoded = (3 if fde_bits is None else fde_bits, fde_repetitions or 8)
    elif fde_bits is not None or fde_repetitions is not None:
        raise click.UsageError("--fde-bits and --fde-repetitions go with --encoding fde")
    chosen = None if columns is None else [name for name in columns.split(",") if name]
    if target is None and not tune and asked["queries"] is None:
        raise click.UsageError("Missing option '--to'.")
    how = Asked(
        min_recall=min_recall,
        encoded=encoded,
        columns=chosen,
        reduce=reduce,
        tune=tune,
        memory=memory,
    )
    folder = folder_of(model, tracking_uri)
    if _asks_for_queries(target, how, asked):
        facts = _queries(folder, out, encoded, as_json, asked)
    else:
        facts = export_model(folder, target, out, how)
    if as_json:
        click.echo(json_format.dumps(facts, indent=1))
    else:
        tuning = facts.pop("tuning", None)
        for name, value in facts.items():
            click.echo(f"{name}: {value}")
        if tuning is not None:
            click.echo(tuning_table(tuning))


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@JSON
def verify(folder: Path, as_json: bool) -> None:
    """Check every file of an export, or of a model's bundle, against its hash.

    Says that all are as they were written, or names the first that is not (exit code 5).

    Example: recsys verify index
    """
    from recsys.app.exporting import verify as check

    facts = check(folder)
    if as_json:
        click.echo(json_format.dumps(facts, indent=1))
    else:
        click.echo(f"ok: {facts['files']} files of model {facts['model_id']}")


def _asks_for_queries(target: str | None, how: "Asked", asked: dict[str, Any]) -> bool:
    """Whether query vectors are asked for, not something of the items."""
    if asked["queries"] is None:
        if asked["users"] is not None or asked["other"]:
            raise click.UsageError("--users and --other go with --queries")
        return False
    of_items = {"--to": target, "--columns": how.columns, "--reduce": how.reduce}
    of_items |= {"--tune": how.tune or None, "--memory": how.memory}
    for option, value in of_items.items():
        if value is not None:
            raise click.UsageError(
                f"{option} is about the items, and --queries writes vectors of queries: give one "
                "of the two"
            )
    return True


def _queries(
    folder: Path,
    out: Path,
    encoded: tuple[int, int] | None,
    as_json: bool,
    asked: dict[str, Any],
) -> dict[str, Any]:
    from recsys.app.progress import parts_to_stderr
    from recsys.app.query_exporting import write_query_vectors
    from recsys.serving.export.query_encoding import EncodingSize

    tables = {"queries": asked["queries"], "users": asked["users"], **named_paths(asked["other"])}
    size = None if encoded is None else EncodingSize(*encoded)
    return write_query_vectors(folder, out, tables, size, parts_to_stderr(as_json))


@click.command()
@MODEL
@click.option("--name", required=True, help="Registered model to add a version to.")
@click.option("--alias", help="Alias to move to the new version.")
@URI
@JSON
def register(
    model: str, name: str, alias: str | None, tracking_uri: str | None, as_json: bool
) -> None:
    """Add a model to the MLflow registry as a new version.

    Example: recsys register runs/two_tower-.../bundle/0123456789abcdef --name shop
    """
    from recsys.app.models import register as add_version

    version = add_version(model, name, alias=alias, tracking_uri=tracking_uri)
    if as_json:
        click.echo(json_format.dumps({"name": name, "version": version, "alias": alias}))
    else:
        click.echo(f"registered models:/{name}/{version}" + (f" as @{alias}" if alias else ""))


@click.command()
@click.argument("name")
@click.argument("version", type=int)
@click.option("--alias", default="champion", show_default=True)
@click.option(
    "--if-better",
    metavar="METRIC",
    help="Promote only if the version is surely better by this, as in ndcg_at_10 or auc.",
)
@click.option(
    "--margin",
    type=Finite(min=0),
    default=0.0,
    show_default=True,
    help="Least difference, in units of the metric.",
)
@click.option(
    "--on",
    type=click.Path(path_type=Path),
    metavar="CONFIG",
    help="Configuration whose data, split and evaluation both get; default: the version's own.",
)
@URI
@JSON
def promote(
    name: str,
    version: int,
    alias: str,
    if_better: str | None,
    margin: float,
    on: Path | None,
    tracking_uri: str | None,
    as_json: bool,
) -> None:
    """Point an alias at a version, after its bundle was verified.

    With --if-better the version and the one that holds the alias answer the same test queries. It
    is promoted if its gain is --margin or more and the 95 % interval of the gain is above zero;
    else the alias stays and the exit code is 6. Where nobody holds the alias, it is promoted. In
    the place of a version that was trained on all rows (train --final) the model that chose its
    settings is compared.

    Example: recsys promote shop 3 --alias champion --if-better ndcg_at_10
    """
    from recsys.app.promoting import promote as move_alias

    done = move_alias(
        name,
        version,
        alias=alias,
        if_better=if_better,
        margin=margin,
        on=on,
        tracking_uri=tracking_uri,
        quiet=as_json,
    )
    gain = done.gain
    if as_json:
        facts = {"name": name, "version": version, "alias": alias, "before": done.before}
        facts["metric"] = if_better
        facts["gain"] = None if gain is None else [gain.mean, gain.low, gain.high]
        click.echo(json_format.dumps(facts))
        return
    if gain is not None:
        between = f"[{gain.low:+.4f}, {gain.high:+.4f}]"
        click.echo(f"{if_better}: {gain.mean:+.4f} {between} over version {done.before}")
    click.echo(f"models:/{name}@{alias} is now version {version}")


@click.command()
@click.argument("run_dir", type=click.Path(path_type=Path))
@URI
def sync(run_dir: Path, tracking_uri: str | None) -> None:
    """Deliver to MLflow what a run could not deliver while the server was down.

    Example: recsys sync runs/two_tower-20260101-120000
    """
    from recsys.app.experiments import sync as deliver

    delivered = deliver(run_dir, tracking_uri=tracking_uri)
    click.echo(f"sent {delivered['sent']} records, {delivered['left']} left")
