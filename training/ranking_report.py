"""The report of a ranker: one HTML file that needs no network, no script and no second file."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import jinja2

from recsys.atomic import whole_file
from recsys.embeddings.diagnostics import Diagnosis
from recsys.metrics.classification import Calibration, Interval
from training.embedding_report import embedding_section
from training.ranking_plots import calibrated, ranking_curves

TEMPLATE = Path(__file__).with_name("ranking_report.html")


def write_ranking_report(
    path: Path,
    *,
    title: str,
    config_text: str,
    metrics: Mapping[str, Interval],
    base_rate: float,
    calibration: Calibration,
    history: Sequence[Mapping[str, float]],
    facts: Mapping[str, str],
    embedding: Diagnosis | None,
) -> None:
    """Write the report to `path`.

    Args:
        path: the HTML file; replaced as a whole.
        title: the heading.
        config_text: the configuration, as YAML.
        metrics: "auc" and "log_loss" on the test rows.
        base_rate: log loss of always predicting the share of positives.
        calibration: of the test rows.
        history: what the loop logged; may be empty.
        facts: lines about data and protocol.
        embedding: diagnostics of the table.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATE.parent), autoescape=True
    )
    auc, loss = metrics["auc"], metrics["log_loss"]
    html = environment.get_template(TEMPLATE.name).render(
        title=title,
        verdict=_verdict(auc, loss, base_rate),
        tiles=[
            ("AUC", f"{auc.value:.4f}", f"{auc.low:.4f} to {auc.high:.4f}"),
            ("log loss", f"{loss.value:.4f}", f"{loss.low:.4f} to {loss.high:.4f}"),
            ("log loss of the base rate", f"{base_rate:.4f}", "predicts the mean, always"),
            ("calibration error", f"{calibration.error:.4f}", "0 is right on average"),
        ],
        curves=ranking_curves(history),
        calibrated=calibrated(calibration),
        embedding=None if embedding is None else embedding_section(embedding),
        facts=facts,
        config_text=config_text,
    )
    with whole_file(path) as staging:
        staging.write_text(html, encoding="utf-8")


def _verdict(auc: Interval, loss: Interval, base_rate: float) -> str:
    if auc.low <= 0.5:
        return (
            "On the test rows the ranker does not tell positives from negatives better than "
            "chance does."
        )
    text = f"Of a positive and a negative row, the ranker puts the positive first {auc.value:.1%} "
    text += "of the time."
    if loss.low > base_rate:
        return f"{text} Its probabilities are worse than the plain mean: they are not calibrated."
    return f"{text} Its log loss is {1 - loss.value / base_rate:.1%} below the base rate's."
