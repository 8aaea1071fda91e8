"""`recsys export`, `recsys verify`: what leaves a model for other engines, and its check."""

import json as json_format
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from recsys.app.options import COUNT, JSON, MODEL, OTHER, PLACE, URI, Finite, named_paths
from recsys.core.byte_sizes import bytes_of, size_text

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
@click.option("--out", type=PLACE, required=True, help="New folder to write to.")
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
@click.option(
    "--delta-from",
    metavar="EARLIER",
    help="In place of --to: what makes MODEL of this earlier model, for recsys patch.",
)
@URI
@JSON
def export(
    model: str,
    target: str | None,
    out: Path,
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
    the model and timed. --queries writes the vectors themselves, for many users. --delta-from
    writes the rows of the table that differ from an earlier model, and what else differs.

    Example: recsys export models:/demo@champion --to faiss --out index

    Example: recsys export models:/demo@champion --tune --memory 200MiB --out index
    """
    from recsys.app.exporting import export_model, tuning_table
    from recsys.app.models import folder_of

    earlier = asked.pop("delta_from")
    if earlier is not None:
        _refuse_beside_delta()
        _delta(model, earlier, out, tracking_uri, as_json)
        return
    if target is None and not asked["tune"] and asked["queries"] is None:
        raise click.UsageError(
            "give --to, or --tune, which chooses an index, or --queries, or --delta-from"
        )
    how, folder = _how(asked), folder_of(model, tracking_uri)
    if _asks_for_queries(target, how, asked):
        facts = _queries(folder, out, how.encoded, as_json, asked)
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
@click.argument("folder", type=PLACE)
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


def _refuse_beside_delta() -> None:
    """Refuse options that are about vectors, of which a delta has none."""
    context = click.get_current_context()
    goes_along = {"model", "out", "delta_from", "tracking_uri", "as_json"}
    for option in context.command.params:
        given = context.get_parameter_source(option.name or "") is ParameterSource.COMMANDLINE
        if given and option.name not in goes_along:
            raise click.UsageError(
                f"{option.opts[0]} does not go with --delta-from, which writes what makes a model "
                "of an earlier one: give one of the two"
            )


def _delta(model: str, earlier: str, out: Path, tracking_uri: str | None, as_json: bool) -> None:
    from recsys.app.deltas import export_delta

    facts = export_delta(model, earlier, out, tracking_uri=tracking_uri)
    if as_json:
        click.echo(json_format.dumps(facts, indent=1))
        return
    for name, (changed, rows) in facts["rows_that_differ"].items():
        if 0 < changed < rows:
            click.echo(f"{name}: {changed:,} of {rows:,} rows differ")
    click.echo(
        f"{facts['folder']}: model {facts['model_id']} of model {facts['base']}, "
        f"{size_text(facts['bytes'])} in place of {size_text(facts['bytes_of_the_model'])}"
    )


def _how(asked: dict[str, Any]) -> "Asked":
    """Return what is asked of an export of items."""
    from recsys.app.exporting import Asked

    bits, repetitions, encoded = asked["fde_bits"], asked["fde_repetitions"], None
    if asked["encoding"] == "fde":
        encoded = (3 if bits is None else bits, repetitions or 8)
    elif bits is not None or repetitions is not None:
        raise click.UsageError("--fde-bits and --fde-repetitions go with --encoding fde")
    columns = asked["columns"]
    return Asked(
        min_recall=asked["min_recall"],
        encoded=encoded,
        columns=None if columns is None else [name for name in columns.split(",") if name],
        reduce=asked["reduce"],
        tune=asked["tune"],
        memory=asked["memory"],
    )


def _asks_for_queries(target: str | None, how: "Asked", asked: dict[str, Any]) -> bool:
    """Whether query vectors are asked for, not something of the items."""
    if asked["queries"] is None:
        if asked["users"] is not None or asked["other"]:
            raise click.UsageError("--users and --other go with --queries")
        return False
    of_items: dict[str, Any] = {"--to": target, "--columns": how.columns, "--reduce": how.reduce}
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
