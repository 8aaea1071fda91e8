"""The page of `recsys check`: one HTML file, like the reports of trainings."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from recsys.core.atomic import whole_file
from recsys.features.clicks.inspect import ClickReport
from recsys.features.propose.inspect import Report
from recsys.features.propose.labels import LabelledPart
from recsys.features.propose.part_facts import PARTS
from recsys.features.tables.ledger import Drop
from recsys.training.families.family import Findings
from recsys.training.reports.drawing import VARIABLES
from recsys.training.reports.retrieval import template_of

TEMPLATE = "data_page.html"


@dataclass(frozen=True)
class Table:
    """A table of the page: its heading, the names of its columns, its rows of text."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


@dataclass(frozen=True)
class _Page:
    """What the page shows; tiles: name, value, note."""

    verdict: str
    warnings: tuple[str, ...]
    notes: tuple[str, ...]
    tiles: tuple[tuple[str, str, str], ...]
    tables: tuple[Table, ...]
    advice: tuple[str, ...] = ()
    facts: Mapping[str, str] = field(default_factory=dict)
    charts: tuple[str | None, str | None] = (None, None)


def write_data_page(path: Path, findings: Findings, *, title: str, config_text: str) -> None:
    """Write what `recsys check` found as a page.

    Args:
        path: the HTML file; replaced as a whole.
        findings: of any family.
        title: the heading.
        config_text: the configuration, as YAML.
    """
    page = _PAGES[type(findings)](findings)
    colours = [VARIABLES[one] for one in _part_colours()]
    html = template_of(TEMPLATE).render(
        title=title,
        page=page,
        parts=list(zip(PARTS, colours, strict=True)),
        config_text=config_text,
    )
    with whole_file(path) as staging:
        staging.write_text(html, encoding="utf-8")


def _part_colours() -> tuple[str, ...]:
    from recsys.training.reports.data_plots import PART_COLOURS

    return PART_COLOURS


def _of_tables(found: Report) -> _Page:
    from recsys.training.reports.data_plots import rows_over_time, tails_and_lengths

    rows, time = found.rows["interactions"], found.shape.timeline
    first, last = found.parts[0].first, max(one.last for one in found.parts)
    span = f", from {first[:10]} to {last[:10]}" if time is not None else ""
    verdict = (
        f"{rows:,} interactions of {found.rows['users']:,} users with {found.rows['items']:,} "
        f"items{span}. {_status(found.warnings)}"
    )
    spread, test = found.spread, found.parts[-1]
    tiles = (
        ("interactions", _count(rows), f"{found.repeats.exact_rows:,} exact duplicates"),
        ("users", _count(found.rows["users"]), f"as many as {spread.users:,.0f} of equal shares"),
        ("items", _count(found.rows["items"]), f"as many as {spread.items:,.0f} of equal shares"),
        ("rows a user", f"{rows / max(found.rows['users'], 1):,.1f}", "on average"),
        ("new users in the test part", _percent(test.users_without_past, test.users), ""),
        ("cold items in the test part", _percent(test.cold_items, test.items), ""),
    )
    advice = (found.suggestion.line, *(() if found.estimate is None else (found.estimate.line,)))
    return _Page(
        verdict,
        found.warnings,
        found.notes,
        tiles,
        tuple(one for one in _tables(found) if one.rows),
        tuple(f"{one[0].upper()}{one[1:]}." for one in advice),
        {"data fingerprint": found.fingerprint},
        (None if time is None else rows_over_time(time), tails_and_lengths(found.shape)),
    )


def _tables(found: Report) -> tuple[Table, ...]:
    by_table = {"items": "items", "users": "users", "interactions": "interactions"}
    sizes = {name: found.rows[key] for name, key in by_table.items()}
    parts = tuple(
        (
            one.part,
            f"{one.rows:,}",
            f"{one.users:,}",
            _percent(one.users_without_past, one.users) if number else "",
            f"{one.items:,}",
            _percent(one.cold_items, one.items) if number else "",
            one.first.replace("T", " ")[:16],
            one.last.replace("T", " ")[:16],
        )
        for number, one in enumerate(found.parts)
        if one.rows
    )
    columns = tuple(
        (
            f"{one.table}.{one.column}",
            one.type,
            f"{one.distinct:,}",
            f"{one.nulls:,}",
            _percent(one.nulls, sizes[one.table]),
        )
        for one in found.columns
    )
    matches = (
        ("items without an interaction", f"{found.items_without_events:,}"),
        ("users without an interaction", f"{found.users_without_events:,}"),
        ("rows of a user and an item beyond the first", f"{found.repeated_events:,}"),
        ("held-out rows whose pair was seen before", f"{found.repeated_across_parts:,}"),
    )
    head = ("part", "rows", "users", "new", "items", "cold", "from", "to")
    return (
        Table("The parts", head, parts, "New: without an earlier row. Cold: no training row."),
        _labels(found.labels),
        Table("How the tables match", ("", "count"), matches),
        _drops(found.drops),
        Table(
            "The columns",
            ("column", "type", "distinct", "nulls", "share"),
            columns,
            "Those that are read.",
        ),
    )


def _of_clicks(found: ClickReport) -> _Page:
    rows = sum(part.rows for part in found.parts)
    positives = sum(part.positives for part in found.parts)
    features = tuple(
        (
            one.feature,
            "number" if not one.lookups else f"{one.values:,}",
            f"{one.nulls:.1%}",
            "" if not one.lookups else f"{one.rare:.1%}",
            "" if not one.lookups else f"{one.unseen:.1%}",
        )
        for one in found.features
    )
    tables = (
        _labels(found.parts),
        _drops(found.drops),
        Table(
            "The features",
            ("feature", "distinct", "null", "rare", "new in the last part"),
            features,
            "In the first rows of the training part and of the last one.",
        ),
    )
    facts = {"encoded in": found.folder, "data fingerprint": found.fingerprint}
    return _Page(
        f"{rows:,} rows, streamed. {_status(found.warnings)}",
        found.warnings,
        (),
        (("rows", _count(rows), ""), ("label 1", f"{positives / max(rows, 1):.2%}", "of the rows")),
        tuple(one for one in tables if one.rows),
        facts=facts,
    )


def _status(warnings: tuple[str, ...]) -> str:
    if not warnings:
        return "Nothing looks wrong, and training can begin."
    things = "One thing looks" if len(warnings) == 1 else f"{len(warnings):,} things look"
    return f"They can be read and trained on, and {things[0].lower()}{things[1:]} wrong:"


def _labels(parts: tuple[LabelledPart, ...]) -> Table:
    several = len({one.outcome for one in parts}) > 1
    rows = tuple(
        (
            f"{one.outcome}, {one.part}" if several else one.part,
            f"{one.rows:,}",
            f"{one.positives:,}",
            f"{one.share:.2%}",
        )
        for one in parts
        if one.rows
    )
    return Table("The labels", ("part", "rows", "label 1", "share"), rows)


def _drops(drops: tuple[Drop, ...]) -> Table:
    rows = tuple(
        (f"{one.table}.{one.column}: {one.reason}", one.policy, f"{one.rows:,}") for one in drops
    )
    return Table("What was left out or changed", ("what", "by", "rows"), rows)


def _count(value: int) -> str:
    """Return a count that fits a tile: 5.2 M."""
    return f"{value:,}" if value < 1_000_000 else f"{value / 1e6:,.1f} M"


def _percent(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else ""


_PAGES: Mapping[type, Callable[[Any], _Page]] = {Report: _of_tables, ClickReport: _of_clicks}
