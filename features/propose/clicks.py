"""What `recsys init` proposes for a labelled log: the label, the split, a ranker, its features."""

import re

import numpy as np

from recsys.features.kinds.suggestion import Look
from recsys.features.propose.draft import Draft
from recsys.features.propose.number_signs import sign_lines
from recsys.features.propose.profile import ColumnProfile
from recsys.features.propose.roles import (
    is_known_afterwards,
    label_columns,
    split_column,
    weight_columns,
)
from recsys.features.propose.sizes import SMALL_LOG, ranker_sizes
from recsys.features.propose.suggest import suggest
from recsys.features.propose.time_columns import time_columns, unused_times
from recsys.features.propose.time_texts import TimeGuess, guessed_instants
from recsys.features.propose.yaml_text import flow, section

_MANY_ROWS = 1_000_000


def stream_lines(draft: Draft) -> tuple[list[str], list[str], set[str]]:
    """Return the lines of `schema.interactions` and of `split` for a log without users and items.

    The third is the columns that have a role.
    """
    log, used = draft.roles.log, {draft.roles.label}
    lines = [*sign_lines(log.written), *label_lines(draft)]
    clocks = time_columns(log, draft.latest)
    in_order = False
    if clocks:
        column, guess = clocks[0]
        in_order = _is_in_order(log.columns[column], guess)
        line = f"time: {flow({'column': column, **guess.options})}"
        if in_order:
            lines.append(f"{line}   # the rows are in its order")
            draft.check_clock(log.columns[column], guess)
        else:
            lines.append(f"# {line}   # the rows are not in its order")
            draft.unsure.append(
                f"the rows are not in the order of '{column}': sort them by it, so that the last "
                "rows, which are the test, are the latest"
            )
    draft.unsure += unused_times(log, draft.latest, used | {name for name, _ in clocks})
    where = null_label_lines(draft)
    lines += ["where:", *(f"  {line}" for line in where)] if where else []
    given = split_column(log)
    if given is not None:
        used.add(given)
        draft.unsure.append(f"the split is the one given in '{given}'")
        return lines, ["kind: column", f"column: {flow(given)}"], used
    if not clocks:
        draft.unsure.append(
            "the log has no time: the last rows of the files are the test, so they should be the "
            "latest"
        )
    return lines, [BY_ORDER_OF_ROWS], used


BY_ORDER_OF_ROWS = "kind: time   # by the order of the rows: the last tenth is the test"


def label_lines(draft: Draft) -> list[str]:
    """Return the line of the label, and say what other columns may be one or stand beside it."""
    roles = draft.roles
    positive = float(np.mean(roles.log.columns[roles.label].numbers))
    others = [name for name in label_columns(roles.log, perhaps=True) if name != roles.label]
    if others:
        draft.unsure.append(
            f"'{roles.label}' is used as the label; other candidates: {', '.join(others)}"
        )
    lines = [f"label: {flow({'column': roles.label})}   # 1 in {positive:.1%} of the rows"]
    if others:
        beside = flow(tuple({"name": _outcome_name(name), "column": name} for name in others))
        lines.append(f"# outcomes: {beside}   # predicted beside it; with model.kind: mmoe")
    return lines


def _outcome_name(column: str) -> str:
    """Return what an outcome may be called: letters, digits and '_' from a letter on."""
    return re.sub(r"[^A-Za-z0-9_]", "_", column).lstrip("_0123456789") or "outcome"


def null_label_lines(draft: Draft) -> list[str]:
    """Return the condition that leaves rows without a label out, if there are any."""
    nulls = draft.roles.log.columns[draft.roles.label].nulls
    if not nulls:
        return []
    draft.unsure.append(f"the label is null in {nulls:,} rows; interactions.where leaves them out")
    return [f"- {flow({'column': draft.roles.label, 'at_least': 0})}"]


def context_lines(draft: Draft, used: set[str]) -> list[str]:
    """Return the features of the log's other columns; doubtful ones are commented out."""
    log = draft.roles.log
    lines = [
        "# A column that is known only afterwards (a duration, a rating) would leak the answer:",
        "# put '#' before it.",
    ]
    late: list[str] = []
    codes: list[str] = []
    rare = 0
    for name, column in log.columns.items():
        if name in used:
            continue
        one = suggest(column, Look(draft.latest, of_clicks=True))
        active = not is_known_afterwards(name)
        if one.kind and not active:
            late.append(name)
        elif one.maybe_amounts:
            codes.append(name)
        if one.unsure:
            draft.unsure.append(one.unsure)
        if active:
            draft.check_numbers(log, column)
            rare += "min_count" in one.comment
        lines.append(draft.feature_line(name, "interactions", one, active=active))
    if late:
        draft.unsure.append(
            f"{_quoted(late)}: known only after the answer? Left out of the features"
        )
    if rare:
        draft.unsure.append(
            f"{rare} features have many values of a few rows each: the min_count in their comments "
            "makes these one value, and is worth a try"
        )
    if codes:
        draft.unsure.append(
            f"{_quoted(codes)}: codes or amounts? Categorical; for amounts write kind: numeric"
        )
    return lines


def sections(draft: Draft) -> list[str]:
    """Return the sections `model` and `training` of a ranker, and settle its table's lines.

    Sizes for few rows were tried on 10,000 rows of Criteo: one lookup a feature, not up to three,
    and then batches of 256 rows, not 1,024, had the better test AUC with both seeds.
    """
    log = draft.roles.log
    rows = log.rows if log.complete else max(log.rows, _MANY_ROWS)
    sizes = ranker_sizes(rows, draft.values)
    draft.table_rows = sizes.num_rows
    if rows < SMALL_LOG and draft.autos:
        line = f"lookups: {draft.autos}   # one an `auto` feature: more would overfit so few rows"
        draft.table_lines.append(line)
    counted = f"{'' if log.complete else 'at least '}{log.rows:,} rows"
    draft.table_lines.append(
        f"weight_decay: {sizes.weight_decay:g}   # L2 for {counted}; the first thing to tune "
        "(fm, logistic: leave it out)"
    )
    model = [
        "kind: autoint   # or dcn, mlp, finalmlp, masknet, fm, logistic",
        f"hidden: {flow(list(sizes.hidden))}   # with a perceptron beside it: AutoInt+",
        f"dropout: {sizes.dropout:g}",
    ]
    training = [
        f"batch_size: {sizes.batch_size}   # for {counted}",
        "epochs: 100   # at most: training ends after `patience` epochs without a better one,",
        "patience: 3   # and the best one on the validation rows is kept",
    ]
    return [section("model", model, "ranks by the label"), section("training", training)]


def weight_lines(draft: Draft) -> list[str]:
    """Return columns that may weigh a row, commented out."""
    names = weight_columns(draft.roles.log)
    return [f"# weight: {flow(name)}   # the importance of a row" for name in names]


def _is_in_order(column: ColumnProfile, guess: TimeGuess) -> bool:
    times = guessed_instants(column.values, guess)
    known = times.values[times.valid]
    return bool((known[1:] >= known[:-1]).all())


def _quoted(names: list[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)
