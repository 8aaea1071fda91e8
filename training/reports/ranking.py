"""The report of a ranker: one HTML file that needs no network, no script and no second file."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from recsys.core.atomic import whole_file
from recsys.embeddings.diagnostics import Diagnosis
from recsys.features.bundle.measured import TEST
from recsys.metrics.classification import Interval
from recsys.training.explain.explanation import Explanation
from recsys.training.families.ranker.evaluation import RankerResult, RankingEvaluation
from recsys.training.reports.embedding import embedding_section
from recsys.training.reports.evaluation_table import loss_compared
from recsys.training.reports.explanation_plots import explanation_section
from recsys.training.reports.ranking_plots import calibrated, compared, ranking_curves

TEMPLATE = Path(__file__).with_name("ranking_report.html")


def write_ranking_report(
    path: Path,
    *,
    title: str,
    config_text: str,
    evaluation: RankingEvaluation,
    history: Sequence[Mapping[str, float]],
    facts: Mapping[str, str],
    embedding: Diagnosis | None,
    explanation: Explanation | None = None,
) -> None:
    """Write the report to `path`.

    Args:
        path: the HTML file; replaced as a whole.
        title: the heading.
        config_text: the configuration, as YAML.
        evaluation: of the model, and of the others, on the same held-out rows.
        history: what the loop logged; may be empty.
        facts: lines about data and protocol.
        embedding: diagnostics of the table.
        explanation: what the model looks at.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATE.parent), autoescape=True
    )
    own, base_rate = evaluation.own, evaluation.base_rate
    auc, loss = own.metrics["auc"], own.metrics["log_loss"]
    html = environment.get_template(TEMPLATE.name).render(
        title=title,
        part=evaluation.part,
        verdict=_verdict(auc, loss, base_rate, evaluation.part),
        comparison=_compared(evaluation),
        tiles=[
            ("AUC", f"{auc.value:.4f}", f"{auc.low:.4f} to {auc.high:.4f}"),
            ("log loss", f"{loss.value:.4f}", f"{loss.low:.4f} to {loss.high:.4f}"),
            ("log loss of the base rate", f"{base_rate:.4f}", "predicts the mean, always"),
            ("calibration error", f"{own.calibration.error:.4f}", _mended(own)),
        ],
        columns=[_WORDS[name] for name in _WORDS if name in own.metrics],
        table=_table(evaluation),
        compared=compared(evaluation) if len(evaluation.results) > 1 else None,
        outcomes=[cell for result in evaluation.results.values() for cell in _outcome_rows(result)],
        curves=ranking_curves(history),
        calibrated=calibrated(own.calibration, own.calibration_before),
        explanation=None if explanation is None else explanation_section(explanation),
        embedding=None if embedding is None else embedding_section(embedding),
        facts=facts,
        config_text=config_text,
    )
    with whole_file(path) as staging:
        staging.write_text(html, encoding="utf-8")


_TOO_GOOD = "these are the rows by which the model was chosen, and its figures are too good"
_WORDS = {
    "auc": "AUC",
    "log_loss": "log loss",
    "relative_information_gain": "information gain",
    "gauc": "AUC within users",
    "ndcg_at_10": "NDCG@10 within users",
}
_OF_OUTCOMES = dict(list(_WORDS.items())[:3])
"""Metrics of further outcomes."""


def _table(evaluation: RankingEvaluation) -> list[dict[str, Any]]:
    """Return a row a ranker: its name and (value, interval, whether it is the best) a metric."""
    names = [name for name in _WORDS if name in evaluation.own.metrics]
    found = {
        name: [result.metrics[name].value for result in evaluation.results.values()]
        for name in names
    }
    best = {n: min(values) if n == "log_loss" else max(values) for n, values in found.items()}
    rows = []
    for ranker, result in evaluation.results.items():
        cells = []
        for name in names:
            one = result.metrics[name]
            shown = f"{one.low:.4f} to {one.high:.4f}"
            cells.append((f"{one.value:.4f}", shown, one.value == best[name]))
        rows.append({"name": ranker, "cells": cells, "error": f"{result.calibration.error:.4f}"})
    return rows


def _outcome_rows(result: RankerResult) -> list[dict[str, Any]]:
    """Return a row a further outcome that the ranker predicts."""
    rows = []
    for name, one in result.outcomes.items():
        cells = []
        for metric, words in _OF_OUTCOMES.items():
            found = one.metrics[metric]
            cells.append((words, f"{found.value:.4f}", f"{found.low:.4f} to {found.high:.4f}"))
        known = f"{one.rows:,} rows, {one.share:.1%} positive"
        cells.append(("calibration error", f"{one.calibration.error:.4f}", known))
        rows.append({"name": name, "ranker": result.name, "cells": cells})
    return rows


def _compared(evaluation: RankingEvaluation) -> str:
    """Describe which of the others the model is better than, on the same rows."""
    apart: dict[str, list[str]] = {"better than": [], "no different from": [], "worse than": []}
    for name, result in evaluation.results.items():
        less = result.less_auc
        if less is None:
            continue
        key = "better than" if less.low > 0 else "worse than" if less.high < 0 else ""
        shown = f"{name} ({less.value:+.4f} [{less.low:+.4f}, {less.high:+.4f}])"
        apart[key or "no different from"].append(shown)
    said = [f"{words} {', '.join(names)}" for words, names in apart.items() if names]
    own = evaluation.own.name
    return f"By AUC {own} is {'; '.join(said)}." if said else ""


def _mended(own: RankerResult) -> str:
    before = own.calibration_before
    if before is None:
        return "0 is right on average"
    return f"{before.error:.4f} before calibration"


def _verdict(auc: Interval, loss: Interval, base_rate: float, part: str = TEST) -> str:
    if part != TEST:
        return f"{_of_part(auc, loss, base_rate, part)} There is no test part: {_TOO_GOOD}."
    return _of_part(auc, loss, base_rate, part)


def _of_part(auc: Interval, loss: Interval, base_rate: float, part: str) -> str:
    if auc.low <= 0.5:
        return (
            f"On the {part} rows the ranker does not separate positives from negatives better than "
            "chance does."
        )
    text = f"Of a positive and a negative row, the ranker puts the positive first {auc.value:.1%} "
    return f"{text}of the time. {_loss_words(loss, base_rate)}"


def _loss_words(loss: Interval, base_rate: float) -> str:
    """Say whether the log loss is better (lower) or worse than that of the plain mean."""
    sure = not loss.low <= base_rate <= loss.high
    better = loss.value < base_rate
    text = f"Its log loss is {loss_compared(loss.value, base_rate)} the base rate's"
    if not sure:
        return f"{text}: the difference is within the error of measurement."
    if better:
        return f"{text}."
    return f"{text}: its probabilities are not calibrated."
