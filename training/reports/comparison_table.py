"""A comparison as tables that a person reads on a terminal."""

import math

from recsys.training.evaluation.comparison import ALL, ComparedModel, Comparison, Measured
from recsys.training.reports.comparison import beaten_words, verdicts
from recsys.training.reports.console import Cell, Column, TextTable, print_line, print_table


def comparison_table(comparison: Comparison) -> None:
    """Print the models' main metrics with their differences to the first, and those by slice."""
    decides, *others = comparison.headline
    columns = [Column("model", text=True), Column(f"{decides} *")]
    columns += [Column(f"minus {comparison.first.name}"), *(Column(name) for name in others)]
    rows = []
    for model in comparison.models:
        found = model.metrics[decides]
        cells = [_value(found), _less(found), *(_value(model.metrics[one]) for one in others)]
        rows.append((_named(model), *cells))
    protocol = comparison.protocol
    asked = protocol.get("queries") or protocol.get("test rows") or ""
    title = f"{protocol['data']}: {protocol['split']}, {asked}"
    print_table(TextTable(tuple(columns), tuple(rows), title))
    print_line("*: the metric that decides; !: a plain model is better; -: a plain model")
    if len(comparison.first.slices) > 1:
        print_table(_slices(comparison))
    for line in (*verdicts(comparison), *beaten_words(comparison)):
        print_line(line)
    for warning in comparison.warnings:
        print_line(f"warning: {warning}")
    for name, why in comparison.left_out.items():
        print_line(f"left out: {name}: {why}")


def _named(model: ComparedModel) -> str:
    if model.is_plain:
        return f"- {model.name}"
    return f"! {model.name}" if model.beaten_by else model.name


def _slices(comparison: Comparison) -> TextTable:
    """Return how the models differ from the first within slices."""
    first, *others = comparison.trained
    names = [name for name in first.slices if name != ALL]
    own = first.slices[names[0]]
    metric = comparison.metric if comparison.metric in own else next(iter(own))
    columns = (
        Column("slice", text=True),
        Column(comparison.asked),
        Column(first.name),
        *(Column(f"{one.name} minus {first.name}") for one in others),
    )
    rows = []
    for name in names:
        one = first.slices[name].get(metric)
        if one is not None:
            less = (_less(other.slices.get(name, {}).get(metric)) for other in others)
            rows.append((name, f"{one.queries:,}", f"{one.value.value:.4f}", *less))
    return TextTable(columns, tuple(rows), f"{metric} by slice")


def _value(one: Measured) -> Cell:
    value = one.value
    if math.isnan(value.low):
        return f"{value.value:.4f}"
    return f"{value.value:.4f}", f"[{value.low:.4f}, {value.high:.4f}]"


def _less(one: Measured | None) -> Cell:
    if one is None or one.less is None:
        return ""
    less = one.less
    if math.isnan(less.low):
        return f"{less.mean:+.4f}"
    return f"{less.mean:+.4f}", f"[{less.low:+.4f}, {less.high:+.4f}]"
