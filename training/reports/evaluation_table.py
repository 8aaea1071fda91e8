"""An evaluation as tables that a person reads on a terminal."""

from recsys.training.evaluation.results import BEST_REACHABLE, Evaluation
from recsys.training.families.ranker.evaluation import RankingEvaluation
from recsys.training.reports.console import Cell, Column, TextTable, print_line, print_table

_DECIDES = "*: the metric that decides (training.metric)"


def evaluation_table(evaluation: Evaluation) -> None:
    """Print every ranker's main metrics with their 95 % intervals, and what finds cold items."""
    k = 20 if 20 in evaluation.ks else evaluation.ks[0]
    model = next(iter(evaluation.results.values()))
    shown = dict.fromkeys([evaluation.metric, f"recall_at_{k}", f"ndcg_at_{k}"])
    names = [name for name in shown if name in model.metrics]
    rows = []
    for ranker, result in evaluation.results.items():
        cells = [_cell(result.metrics[name], *result.intervals[name], ".3f") for name in names]
        rows.append((ranker, *cells, f"{result.metrics[f'coverage_at_{k}']:.3f}"))
    print_table(
        TextTable(
            _columns("ranker", *_marked(names, evaluation.metric), "coverage"),
            tuple(rows),
            f"{evaluation.part}: {evaluation.protocol['split']}, {evaluation.protocol['queries']}",
        )
    )
    if evaluation.metric in names:
        print_line(_DECIDES)
    if evaluation.cold is not None:
        print_table(_cold_table(evaluation, k))
    if evaluation.fell_back:
        print_line(evaluation.fallback_words())
    for name, why in evaluation.left_out.items():
        print_line(f"left out: {name}: {why}")
    best = evaluation.results.get(BEST_REACHABLE)
    if best is not None:
        name = f"recall_at_{k}"
        share = model.metrics[name] / max(best.metrics[name], 1e-12)
        print_line(f"{name}: {share:.0%} of the best reachable")


def _cold_table(evaluation: Evaluation, k: int) -> TextTable:
    cold, k = evaluation.cold, evaluation.cold_k(k)
    assert cold is not None
    rows = []
    for ranker, result in evaluation.results.items():
        names = (f"{place}_recall_at_{k}" for place in ("cold", "cold_alone"))
        cells = (_cell(result.metrics[name], *result.intervals[name], ".4f") for name in names)
        rows.append((ranker, *cells))
    return TextTable(
        _columns("ranker", "among all items", "they alone ranked"),
        tuple(rows),
        f"recall_at_{k} of the {cold.items:,} cold items, which {cold.queries:,} "
        f"{evaluation.asked} interacted with",
    )


def ranking_table(evaluation: RankingEvaluation) -> None:
    """Print every ranker's AUC and log loss with their 95 % intervals, and its other metrics."""
    known = ("auc", "log_loss", "gauc", "ndcg_at_10")
    names = [name for name in known if name in evaluation.own.metrics]
    rows = []
    for ranker, result in evaluation.results.items():
        cells: list[Cell] = []
        for name in names:
            one = result.metrics[name]
            if name in ("auc", "log_loss"):
                cells.append(_cell(one.value, one.low, one.high, ".4f"))
            else:
                cells.append(f"{one.value:.4f}")
        rows.append((ranker, *cells, f"{result.calibration.error:.4f}"))
    print_table(
        TextTable(
            _columns("ranker", *_marked(names, evaluation.metric), "calibration"),
            tuple(rows),
            f"{evaluation.part}: {evaluation.protocol['split']}; "
            f"{evaluation.protocol[f'{evaluation.part} rows']}",
        )
    )
    if evaluation.metric in names:
        print_line(_DECIDES)
    if evaluation.own.outcomes:
        print_table(_outcomes_table(evaluation))
    base_rate, loss = evaluation.base_rate, evaluation.own.metrics["log_loss"].value
    print_line(
        f"the model's log loss, {loss:.4f}, is {loss_compared(loss, base_rate)} that of always "
        f"predicting the mean, {base_rate:.4f}"
    )


def _outcomes_table(evaluation: RankingEvaluation) -> TextTable:
    rows = []
    for ranker, result in evaluation.results.items():
        for name, one in result.outcomes.items():
            auc, loss = one.metrics["auc"], one.metrics["log_loss"]
            cells = [_cell(each.value, each.low, each.high, ".4f") for each in (auc, loss)]
            rows.append(
                (name, ranker, *cells, f"{one.base_rate:.4f}", f"{one.calibration.error:.4f}")
            )
    numbers = ("auc", "log_loss", "of the mean", "calibration")
    first = (Column("outcome", text=True), Column("ranker", text=True))
    return TextTable(
        (*first, *(Column(name) for name in numbers)),
        tuple(rows),
        f"further outcomes, of the {evaluation.part} rows in which each is known",
    )


def loss_compared(loss: float, base_rate: float) -> str:
    """Return how a log loss compares with that of the base rate: "2.0% worse (higher) than"."""
    gain = 1 - loss / base_rate
    if abs(gain) < 0.0005:
        return "the same as"
    return f"{abs(gain):.1%} {'better (lower)' if gain > 0 else 'worse (higher)'} than"


def _columns(first: str, *numbers: str) -> tuple[Column, ...]:
    return (Column(first, text=True), *(Column(name) for name in numbers))


def _marked(names: list[str], metric: str) -> list[str]:
    return [f"{name} *" if name == metric else name for name in names]


def _cell(value: float, low: float, high: float, form: str) -> Cell:
    return f"{value:{form}}", f"[{low:{form}}, {high:{form}}]"
