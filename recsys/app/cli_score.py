"""`recsys score`: a model's answers, Parquet to Parquet."""

import json as json_format
from pathlib import Path
from typing import Any

import click

from recsys.app.cli_jobs import (
    audience_of_new_items,
    is_ranker,
    named_paths,
    progress_lines,
    resolve_model,
    score_labelled_rows,
    score_users,
)
from recsys.app.options import COUNT
from recsys.core.folders import check_folder

_REQUESTS = """A row of --input for a model of sessions, whose log has a column event:

\b
  user_id        'u1'
  history        ['p7', 'p2']       oldest first; [] for a new user
  history_times  ['2026-11-01T09:30:00', '2026-11-01T09:31:10']
  history_event  ['view', 'cart']

Times are timestamps or ISO text (UTC where no zone is given) where the unit of the log's time is
datetime, else whole numbers in that unit; a pause longer than sessions.inactivity_minutes cuts off
what lies before it. Lists are as long as the history; null, or no such column, means unknown."""


@click.command(epilog=_REQUESTS)
@click.argument("model")
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
    help="Requests (Parquet: user key and history, see below); for a ranker, the rows to judge.",
)
@click.option("--interactions", help="Log to build histories from; its users are scored.")
@click.option("--users", help="User attributes, where the model uses them.")
@click.option("--items", help="Item attributes, for a ranker's rows that do not hold them.")
@click.option("--other", multiple=True, metavar="NAME=PATH", help="A side table of users or items.")
@click.option("--k", type=COUNT, help="Longest list; default: 20.")
@click.option("--probability", is_flag=True, help="Add the probability that a user takes an item.")
@click.option(
    "--new-items", metavar="PATH", help="Items that the model's catalogue lacks: who takes them?"
)
@click.option("--top-customers", type=COUNT, help="With --new-items, users named; default: 100.")
@click.option(
    "--keep-seen/--hide-seen",
    default=None,
    help="Whether lists may hold items the user has taken; default: as when the model was "
    "evaluated (evaluation.filter_seen).",
)
@click.option("--rows-per-part", type=COUNT, help="Users of a part; default: 10000.")
@click.option("--tracking-uri", help="MLflow store; default: mlflow.db in this folder.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def score(
    model: str,
    output: Path,
    requests: str | None,
    interactions: str | None,
    users: str | None,
    items: str | None,
    other: tuple[str, ...],
    k: int | None,
    probability: bool,
    new_items: str | None,
    top_customers: int | None,
    keep_seen: bool | None,
    rows_per_part: int | None,
    tracking_uri: str | None,
    as_json: bool,
) -> None:
    """Recommend for many users, or judge many rows, Parquet to Parquet, each exactly once.

    A two-tower or a model of sessions recommends for the users of a log (--interactions) or those
    who ask (--input). A ranker adds a probability to every row of --input; attributes of users
    and items come from the rows or from --users and --items. With --new-items a calibrated
    two-tower says of items that nobody could take yet who will, and how many are expected to.

    Example: recsys score models:/demo@champion --interactions demo/data/interactions
    --users demo/data/users.parquet --output recommendations
    """
    if (requests is None) == (interactions is None):
        raise click.UsageError("give --input or --interactions, one of the two")
    side_tables = named_paths(other)
    folder, say = resolve_model(model, tracking_uri), progress_lines(as_json)
    if is_ranker(folder):
        of_lists = (k, rows_per_part, probability, new_items)
        if requests is None or keep_seen is not None or any(of_lists):
            raise click.UsageError(
                "the model is a ranker: give --input, the rows to judge; --interactions, --k, "
                "--keep-seen, --hide-seen, --rows-per-part, --probability and --new-items are for "
                "retrieval models"
            )
        given = {"users": users, "items": items, **side_tables}
        tables = {name: path for name, path in given.items() if path is not None}
        summary = score_labelled_rows(folder, requests, tables, output, say=say)
    else:
        _check_two_tower(users if requests else None, items, new_items, top_customers)
        asked: dict[str, Any] = {
            "requests": requests,
            "others": side_tables,
            "rows_per_part": 10_000 if rows_per_part is None else rows_per_part,
            "say": say,
        }
        who = (output, interactions, users)
        if new_items is not None:
            _refuse_lists(k, keep_seen, probability)
            asked["top_customers"] = 100 if top_customers is None else top_customers
            summary = audience_of_new_items(str(folder), new_items, *who, **asked)
        else:
            asked |= {"k": 20 if k is None else k}
            asked |= {"filter_seen": None if keep_seen is None else not keep_seen}
            summary = score_users(str(folder), *who, probability=probability, **asked)
    _print(summary, as_json)


def _check_two_tower(
    users: str | None, items: str | None, new_items: str | None, top_customers: int | None
) -> None:
    if users is not None:
        raise click.UsageError("--users goes with --interactions; requests hold attributes")
    if items is not None:
        raise click.UsageError("--items is for a ranker; a two-tower's bundle holds its items")
    if new_items is None and top_customers is not None:
        raise click.UsageError("--top-customers goes with --new-items")


def _refuse_lists(k: int | None, keep_seen: bool | None, probability: bool) -> None:
    if k or keep_seen is not None or probability:
        raise click.UsageError(
            "--new-items gives a probability for every new item and user; leave --k, --keep-seen, "
            "--hide-seen and --probability away"
        )


def _print(summary: dict[str, Any], as_json: bool) -> None:
    """Print what was done; the first unknown item stands behind their number."""
    if as_json:
        click.echo(json_format.dumps(summary, indent=1))
        return
    first = summary.pop("first_unknown_history_item", None)
    for name, value in summary.items():
        shown = "null" if first is None else repr(first)
        named = f", the first {shown}" if name == "unknown_history_items" and value else ""
        click.echo(f"{name.replace('_', ' ')}: {value}{named}")
