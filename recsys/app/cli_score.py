"""`recsys score`: a model's answers, Parquet to Parquet."""

import json as json_format
from pathlib import Path
from typing import Any

import click

from recsys.app.options import COUNT, JSON, MODEL, OTHER, URI, named_paths
from recsys.core.folders import check_folder

_FIRST_OF = {
    "unknown_history_items": "first_unknown_history_item",
    "unknown_listed_items": "first_unknown_listed_item",
    "new_items_left_out": "first_new_item_left_out",
}
"""Numbers of a summary, and where it has the first of what they count."""
_ONE_OF_TWO = "give --input or --interactions, one of the two"
_FILTERS = ("where", "exclude", "allow", "block")


class Workers(click.ParamType[Any]):
    """A number of processes, or `auto`."""

    name = "workers"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the number, or "auto"."""
        return value if value == "auto" else COUNT.convert(value, param, ctx)


_REQUESTS = """A row of --input for a model of sessions, whose log has a column event:

\b
  user_id        'u1'
  history        ['p7', 'p2']       oldest first; [] for a new user
  history_times  ['2026-11-01T09:30:00', '2026-11-01T09:31:10']
  history_event  ['view', 'cart']

Columns where (text), exclude and allow (lists of ids) filter the list of their row.

Times are timestamps or ISO text (UTC where no zone is given) where the unit of the log's time is
datetime, else whole numbers in that unit; a pause longer than sessions.inactivity_minutes cuts off
what comes before it. Lists are as long as the history; null, or no such column, means unknown."""


@click.command(epilog=_REQUESTS)
@MODEL
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    required=True,
    callback=lambda _context, _option, path: check_folder(path, "Parquet parts"),
    help="Folder to write Parquet parts to.",
)
@click.option(
    "--input",
    "requests",
    help="Requests (Parquet: user key and history, see below); for a ranker, the rows to score.",
)
@click.option(
    "--interactions",
    help="Log to build histories from; its users are scored. A configuration (YAML) stands for the "
    "logs that it names. For a ranker: the log that its features of kind window are of.",
)
@click.option("--users", help="User attributes, where the model uses them.")
@click.option(
    "--items",
    help="Items as they are today: what --where reads, and what may be recommended. For a ranker: "
    "item attributes that its rows do not hold.",
)
@OTHER
@click.option("--k", type=COUNT, help="Longest list; default: as the model says, else 20.")
@click.option(
    "--probability", is_flag=True, help="Add the probability of an interaction with each item."
)
@click.option(
    "--approximate",
    is_flag=True,
    help="Search the model's index, which may miss some items; default: all vectors, exactly.",
)
@click.option(
    "--new-items",
    metavar="PATH",
    help="Items that the model's catalogue lacks: their likeliest users.",
)
@click.option("--top-customers", type=COUNT, help="With --new-items, users named; default: 100.")
@click.option(
    "--keep-seen/--hide-seen",
    default=None,
    help="Whether lists may hold items the user interacted with; default: as when the model was "
    "evaluated (evaluation.filter_seen).",
)
@click.option(
    "--cut-lists/--whole-lists",
    "cut",
    default=None,
    help="Whether lists end where relevance does; default: of models trained with the section "
    "relevance.",
)
@click.option(
    "--where",
    metavar="CONDITION",
    help="Recommend only items of which this is true: \"price < 50 and category in ('a', 'b')\".",
)
@click.option(
    "--exclude",
    metavar="PATH",
    help="Items to leave out: one id a line, or a table with the items' key.",
)
@click.option("--allow", metavar="PATH", help="The only items to recommend, likewise.")
@click.option("--block", metavar="TABLE", help="Users and items that they are not to be shown.")
@click.option("--rows-per-part", type=COUNT, help="Users of a part; default: 10000.")
@click.option(
    "--workers",
    type=Workers(),
    default=1,
    show_default=True,
    metavar="N|auto",
    help="Processes on this machine that share the parts; auto: one for each core.",
)
@click.option(
    "--since",
    metavar="OUTPUT",
    help="Output of an earlier job: score only users who are new, or of whom the log or the users "
    "table says something else now.",
)
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Override a key of the section policies for these tables: policies.float_ids=integer.",
)
@URI
@JSON
def score(model: str, output: Path, **options: Any) -> None:
    """Recommend for many users, or score many rows, Parquet to Parquet, each exactly once.

    A two-tower or a session model recommends for the users of a log (--interactions) or those who
    ask (--input). A ranker adds a probability to every row of --input; attributes of users
    and items come from the rows or from --users and --items. With --new-items a calibrated
    two-tower lists, for items without interactions, the likeliest users and the number expected
    for each.

    Example: recsys score models:/demo@champion --interactions demo/data/interactions
    --users demo/data/users.parquet --output recommendations
    """
    from recsys.app.models import folder_of
    from recsys.bundle.directory import Bundle
    from recsys.features.bundle.files import read_description

    if options["requests"] is None and options["interactions"] is None:
        raise click.UsageError(_ONE_OF_TWO)
    others = named_paths(options["other"])
    tables = {name: options[name] for name in ("interactions", "requests", "users", "items")}
    folder = folder_of(model, options["tracking_uri"])
    answer = _rows if read_description(Bundle.open(folder)).gives_rows else _lists
    _print(answer(folder, output, {**tables, **others}, options), options["as_json"])


def _rows(
    folder: Path, output: Path, tables: dict[str, str | None], options: dict[str, Any]
) -> dict[str, Any]:
    """Score the rows that a ranker is given."""
    from recsys.app.scoring import score_model

    of_lists = ("k", "rows_per_part", "probability", "approximate", "new_items", "since", *_FILTERS)
    flags = options["keep_seen"], options["cut"]
    is_of_lists = flags != (None, None) or any(options[name] for name in of_lists)
    if options["requests"] is None or is_of_lists:
        raise click.UsageError(
            "the model is a ranker: give --input, the rows to score; --k, "
            "--keep-seen, --hide-seen, --rows-per-part, --probability, --approximate, --new-items, "
            "--cut-lists, --whole-lists, --since, --where, --exclude, --allow and --block are for "
            "retrieval models"
        )
    return score_model(folder, output, tables, **_how(options))


def _lists(
    folder: Path, output: Path, tables: dict[str, str | None], options: dict[str, Any]
) -> dict[str, Any]:
    """Recommend for users, or say who will interact with new items."""
    from recsys.app.progress import parts_to_stderr
    from recsys.app.scoring import ListOptions, score_audience, score_model

    if options["requests"] is not None and options["interactions"] is not None:
        raise click.UsageError(_ONE_OF_TWO)
    k, keep_seen, probability = options["k"], options["keep_seen"], options["probability"]
    new_items, top_customers = options["new_items"], options["top_customers"]
    users = tables["users"] if tables["requests"] else None
    _check_two_tower(users, new_items, top_customers)
    if options["since"] is not None and options["interactions"] is None:
        raise click.UsageError("--since goes with --interactions: it compares users' histories")
    given = {"rows_per_part": options["rows_per_part"]}
    if new_items is None:
        given |= {"k": k, "filter_seen": None if keep_seen is None else not keep_seen}
        given |= {"probability": probability, "cut": options["cut"]}
        given["approximate"] = options["approximate"]
        given |= {name: options[name] for name in ("where", "exclude", "allow")}
        tables["block"] = options["block"]
        lists = ListOptions(**{name: one for name, one in given.items() if one is not None})
        return score_model(folder, output, tables, lists, **_how(options))
    _refuse_lists(options)
    given["top_customers"] = top_customers
    how = {name: one for name, one in given.items() if one is not None}
    how |= {"settings": _settings(options), "listener": parts_to_stderr(options["as_json"])}
    return score_audience(folder, output, {**tables, "new_items": new_items}, **how)


def _how(options: dict[str, Any]) -> dict[str, Any]:
    """Return what a job of lists or rows is told besides what to score."""
    from recsys.app.progress import parts_to_stderr

    listener = parts_to_stderr(options["as_json"])
    same = {name: options[name] for name in ("workers", "since")}
    return {**same, "settings": _settings(options), "listener": listener}


def _settings(options: dict[str, Any]) -> dict[str, Any]:
    """Return the values that --set gives, by key."""
    from recsys.training.families.overrides import typed_override

    return dict(map(typed_override, options["overrides"]))


def _check_two_tower(users: str | None, new_items: str | None, top_customers: int | None) -> None:
    if users is not None:
        raise click.UsageError("--users goes with --interactions; requests hold attributes")
    if new_items is None and top_customers is not None:
        raise click.UsageError("--top-customers goes with --new-items")


def _refuse_lists(options: dict[str, Any]) -> None:
    of_lists = ("k", "probability", "approximate", "items", "since", *_FILTERS)
    flags = options["keep_seen"], options["cut"]
    if options["workers"] != 1:
        raise click.UsageError("--new-items is scored by one process: leave out --workers")
    if flags != (None, None) or any(options[name] for name in of_lists):
        raise click.UsageError(
            "--new-items gives a probability for every new item and user; leave out --k, "
            "--keep-seen, --hide-seen, --probability, --approximate, --cut-lists, --whole-lists, "
            "--items, --since, --where, --exclude, --allow and --block"
        )


def _print(summary: dict[str, Any], as_json: bool) -> None:
    """Print what was done; the first unknown item follows their number."""
    if as_json:
        click.echo(json_format.dumps(summary, indent=1))
        return
    firsts = {n: summary.pop(n) for n in list(summary) if n.startswith("first_")}
    for name, value in summary.items():
        if value is None:
            continue
        first = firsts.get(_FIRST_OF.get(name, ""))
        shown = "null" if first is None else repr(first)
        named = f", the first {shown}" if name in _FIRST_OF and value else ""
        click.echo(f"{name.replace('_', ' ')}: {_said(value)}{named}")


def _said(value: Any) -> str:
    """Return a value as people read it: counts with commas, chances with four digits."""
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1 else f"{value:,.1f}"
    if isinstance(value, dict):
        return ", ".join(f"{name} {_said(one)}" for name, one in value.items())
    return f"{value:,}" if isinstance(value, int) else str(value)
