"""An explanation as tables that a person reads on a terminal."""

import math

from rich.console import Console
from rich.table import Table

from recsys.explain.attention_maps import AttentionMaps
from recsys.explain.explanations import Agreement, Interactions
from recsys.training.explain.explanation import Explanation, RowExplanation

SHOWN_PAIRS = 5


def explanation_table(found: Explanation) -> None:
    """Print the fields by what it costs to lose them, and the pairs that work together."""
    console, importance = Console(), found.importance
    table = Table(
        title=f"{found.kind}: {found.num_rows:,} test rows, AUC {importance.auc:.4f}, "
        f"log loss {importance.log_loss:.4f}"
    )
    _columns(table, ["field", "AUC falls by", "log loss rises by"], found.attention)
    for name in importance.ranking:
        field = importance.names.index(name)
        cells = [
            f"{importance.auc_fall[field]:.4f} +- {importance.auc_deviation[field]:.4f}",
            f"{importance.log_loss_rise[field]:.4f}",
        ]
        table.add_row(name, *cells, *_share(found.attention, name))
    console.print(table)
    console.print(_pair_table(found.interactions, found.attention, "logits together", ".3f"))
    for what, one in (("fields", found.field_agreement), ("pairs", found.pair_agreement)):
        if one is not None:
            console.print(f"attention of {what}: {agreement_words(one)}", highlight=False)


def row_table(found: RowExplanation) -> None:
    """Print the fields of a row by how far they move its logit, and the pairs."""
    console, parts = Console(), found.contributions
    label = "" if found.label is None else f", label {found.label:g}"
    table = Table(
        title=f"{found.title}: logit {parts.logit:.3f}, probability {parts.probability:.3f}{label}"
    )
    _columns(table, ["field", "value", "logit by it", "probability without"], found.attention)
    for field in found.ranking:
        cells = [
            f"{parts.change[field]:+.3f} +- {parts.error[field]:.3f}",
            f"{parts.otherwise[field]:.3f}",
        ]
        name = parts.names[field]
        table.add_row(name, found.values[field], *cells, *_share(found.attention, name))
    console.print(table)
    console.print(_pair_table(found.interactions, found.attention, "logit together", "+.3f"))
    for note in found.notes:
        console.print(note, highlight=False)


def agreement_words(one: Agreement) -> str:
    """Return in words how far two orders agree."""
    if math.isnan(one.correlation):
        return "it prefers none, so there is nothing to compare"
    text = f"Spearman's rank correlation with what the model loses {one.correlation:.2f}"
    text += f" over {one.count}, where unrelated orders spread by {one.chance:.2f}"
    agrees = one.correlation > 2 * one.chance
    return f"{text}: {'they agree' if agrees else 'too little to rely on attention'}"


def _columns(table: Table, names: list[str], attention: AttentionMaps | None) -> None:
    for number, name in enumerate([*names, *([] if attention is None else ["attention"])]):
        text = number == 0 or name == "value"
        table.add_column(name, justify="left" if text else "right", no_wrap=name != "value")


def _share(attention: AttentionMaps | None, name: str) -> list[str]:
    if attention is None:
        return []
    return [f"{attention.received[attention.names.index(name)]:.1%}"]


def _pair_table(
    found: Interactions, attention: AttentionMaps | None, unit: str, form: str
) -> Table:
    table = Table()
    _columns(table, ["pair", unit], attention)
    for pair, logits in found.strongest(SHOWN_PAIRS):
        looks = [] if attention is None else [f"{attention.between(*pair):.1%}"]
        table.add_row(" x ".join(pair), format(logits, form), *looks)
    return table
