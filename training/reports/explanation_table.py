"""An explanation as tables that a person reads on a terminal."""

import math

from recsys.explanation.attention_maps import AttentionMaps
from recsys.explanation.explanations import Agreement, Interactions
from recsys.training.explain.explanation import Explanation, RowExplanation
from recsys.training.reports.console import Cell, Column, TextTable, print_line, print_table

SHOWN_PAIRS = 5


def explanation_table(found: Explanation) -> None:
    """Print the fields by what it costs to lose them, and the pairs that work together."""
    importance = found.importance
    rows = []
    for name in importance.ranking:
        field = importance.names.index(name)
        fall, deviation = importance.auc_fall[field], importance.auc_deviation[field]
        rise = f"{importance.log_loss_rise[field]:.4f}"
        cells: list[Cell] = [(f"{fall:.4f}", f"+- {deviation:.4f}"), rise]
        rows.append((name, *cells, *_share(found.attention, name)))
    numbers = ("AUC falls by", "log loss rises by", *_attention(found.attention))
    print_table(
        TextTable(
            (Column("field", text=True), *(Column(name) for name in numbers)),
            tuple(rows),
            f"{found.kind}: {found.num_rows:,} {found.part} rows, AUC {importance.auc:.4f}, "
            f"log loss {importance.log_loss:.4f}",
        )
    )
    print_table(_pair_table(found.interactions, found.attention, "logits together", ".3f"))
    for what, one in (("fields", found.field_agreement), ("pairs", found.pair_agreement)):
        if one is not None:
            print_line(f"attention of {what}: {agreement_words(one)}")


def row_table(found: RowExplanation) -> None:
    """Print the fields of a row by how far they move its logit, and the pairs."""
    parts = found.contributions
    label = "" if found.label is None else f", label {found.label:g}"
    rows = []
    for field in found.ranking:
        name = parts.names[field]
        cells: list[Cell] = [
            found.values[field],
            (f"{parts.change[field]:+.3f}", f"+- {parts.error[field]:.3f}"),
            f"{parts.otherwise[field]:.3f}",
        ]
        rows.append((name, *cells, *_share(found.attention, name)))
    numbers = ("logit by it", "probability without", *_attention(found.attention))
    texts = (Column("field", text=True), Column("value", text=True, free=True))
    print_table(
        TextTable(
            (*texts, *(Column(name) for name in numbers)),
            tuple(rows),
            f"{found.title}: logit {parts.logit:.3f}, probability {parts.probability:.3f}{label}",
        )
    )
    print_table(_pair_table(found.interactions, found.attention, "logit together", "+.3f"))
    for note in found.notes:
        print_line(note)


def agreement_words(one: Agreement) -> str:
    """Describe how far two orders agree."""
    if math.isnan(one.correlation):
        return "it prefers none, so there is nothing to compare"
    text = f"Spearman's rank correlation with what the model loses {one.correlation:.2f}"
    text += f" over {one.count}, where unrelated orders spread by {one.chance:.2f}"
    agrees = one.correlation > 2 * one.chance
    return f"{text}: {'they agree' if agrees else 'too little to rely on attention'}"


def _attention(attention: AttentionMaps | None) -> list[str]:
    return [] if attention is None else ["attention"]


def _share(attention: AttentionMaps | None, name: str) -> list[str]:
    if attention is None:
        return []
    return [f"{attention.received[attention.names.index(name)]:.1%}"]


def _pair_table(
    found: Interactions, attention: AttentionMaps | None, unit: str, form: str
) -> TextTable:
    rows = []
    for pair, logits in found.strongest(SHOWN_PAIRS):
        looks = [] if attention is None else [f"{attention.between(*pair):.1%}"]
        rows.append((" x ".join(pair), format(logits, form), *looks))
    numbers = (unit, *_attention(attention))
    columns = (Column("pair", text=True, free=True), *(Column(name) for name in numbers))
    return TextTable(columns, tuple(rows))
