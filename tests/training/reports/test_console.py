"""Tables as they come out: whole in a file, and on terminals of any width nothing of a cell cut."""

import io
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from recsys.training.evaluation.results import ColdItems, Evaluation, RankerResult
from recsys.training.reports.console import Column, TextTable, print_table
from recsys.training.reports.evaluation_table import evaluation_table

FIELDS = ("two_tower", "popularity_recent", "session_items", "best_reachable")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


Shown = Callable[[int, Callable[[], Any]], list[str]]


@pytest.fixture
def on_terminal(monkeypatch: pytest.MonkeyPatch) -> Shown:
    """What a terminal of so many columns shows, without its colours."""

    def shown(columns: int, show: Callable[[], Any]) -> list[str]:
        screen = Terminal()
        with monkeypatch.context() as patch:
            patch.setenv("COLUMNS", str(columns))
            patch.setenv("TERM", "xterm")
            patch.setattr("sys.stdout", screen)
            show()
        lines = re.sub(r"\x1b\[[\d;]*m", "", screen.getvalue()).splitlines()
        return [line.rstrip() for line in lines]

    return shown


def evaluation(metric: str) -> Evaluation:
    names = ("recall_at_20", "ndcg_at_20", "ndcg_at_10", "coverage_at_20")
    results = {}
    for place, field in enumerate(FIELDS):
        values = {name: (place + 1) / 8 + number / 100 for number, name in enumerate(names)}
        intervals = {name: (value - 0.051, value + 0.052) for name, value in values.items()}
        results[field] = RankerResult(field, np.zeros((1, 1), np.int32), {}, values, intervals, {})
    return Evaluation(
        protocol={"split": "global time split", "queries": "1,234 users with test rows, of 5,678"},
        ks=(10, 20),
        query_users=np.zeros(1, np.int32),
        relevant_values=np.zeros(1, np.int64),
        relevant_offsets=np.array([0, 1]),
        results=results,
        train_counts=np.ones(3, np.int64),
        metric=metric,
    )


@pytest.mark.parametrize("columns", ["20", "80", "500"])
def test_a_file_gets_the_whole_table_whatever_the_terminal(
    columns: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    long = "an_attribute_with_a_name_of_its_own" * 4
    rows = ((long, ("0.9655", "[0.9633, 0.9677]"), "1"),)
    columns_of = (Column("field", text=True), Column("auc"), Column("coverage"))
    print_table(TextTable(columns_of, rows, "a title " * 20))
    out = capsys.readouterr().out
    assert f"│ {long} │ 0.9655 [0.9633, 0.9677] │        1 │" in out
    assert "…" not in out
    assert "not shown" not in out


@pytest.mark.parametrize("columns", [80, 120])
def test_a_usual_terminal_shows_every_number(columns: int, on_terminal: Shown) -> None:
    found = evaluation("ndcg_at_10")
    lines = on_terminal(columns, lambda: evaluation_table(found))
    assert max(map(len, lines)) <= columns
    text = " ".join(" ".join(lines).split())
    assert "…" not in text
    for field, result in found.results.items():
        assert field in text
        for name in ("ndcg_at_10", "recall_at_20", "ndcg_at_20"):
            low, high = result.intervals[name]
            assert f"{result.metrics[name]:.3f}" in text
            assert f"[{low:.3f}, {high:.3f}]" in text
        assert f"{result.metrics['coverage_at_20']:.3f}" in text
    assert "not shown" not in text


def test_a_terminal_too_narrow_names_the_columns_it_leaves_out(on_terminal: Shown) -> None:
    lines = on_terminal(60, lambda: evaluation_table(evaluation("ndcg_at_10")))
    assert max(map(len, lines[:-3])) <= 60
    text = " ".join(" ".join(lines).split())
    assert "not shown on 60 columns: ndcg_at_20, coverage (a wider terminal or a file shows" in text
    assert "[0.094, 0.197]" in text  # ndcg_at_10 and its interval are whole
    assert "…" not in text


def test_one_column_too_wide_for_the_terminal_is_folded(on_terminal: Shown) -> None:
    name = "x" * 50
    table = TextTable((Column("field", text=True), Column("auc")), ((name, "0.5"),))
    lines = on_terminal(30, lambda: print_table(table))
    assert max(map(len, lines)) <= 30
    assert "".join(lines).count("x") == 50
    assert "0.5" in "".join(lines)


def test_free_text_wraps_before_a_number_is_left_out(on_terminal: Shown) -> None:
    words = "a title of many words, which goes on and on for longer than a terminal is wide, alas"
    columns = (Column("field", text=True), Column("value", text=True, free=True), Column("logit"))
    lines = on_terminal(50, lambda: print_table(TextTable(columns, (("title", words, "+0.125"),))))
    assert max(map(len, lines)) <= 50
    assert "+0.125" in "".join(lines)
    seen = re.findall(r"[a-z,]+", " ".join(lines))
    assert [word for word in words.split() if word not in seen] == []


@pytest.mark.parametrize(
    ("metric", "header"),
    [
        ("ndcg_at_10", ["ndcg_at_10 *", "recall_at_20", "ndcg_at_20"]),
        ("ndcg_at_20", ["ndcg_at_20 *", "recall_at_20"]),
        ("mrr_at_5", ["recall_at_20", "ndcg_at_20"]),  # evaluated again with other ks
        ("", ["recall_at_20", "ndcg_at_20"]),
    ],
)
def test_the_metric_that_decides_comes_first_and_is_marked(
    metric: str, header: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    evaluation_table(evaluation(metric))
    out = capsys.readouterr().out
    cells = [cell.strip() for cell in out.split("ranker")[1].split("coverage")[0].split("┃")]
    assert [cell for cell in cells if cell] == header
    assert ("*: the metric that decides (training.metric)" in out) is ("*" in out)


def test_values_that_look_like_markup_stay_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(TextTable((Column("[b]"),), (("[red]x[/red]",),), "[i]t"))
    out = capsys.readouterr().out
    for text in ("[b]", "[red]x[/red]", "[i]t"):
        assert text in out


def test_cold_items_have_whole_cells_on_a_narrow_terminal(on_terminal: Shown) -> None:
    names = [f"{place}_recall_at_20" for place in ("cold", "cold_alone")]
    base = evaluation("")
    results = {
        field: replace(
            result,
            metrics={**result.metrics, **dict.fromkeys(names, 0.25)},
            intervals={**result.intervals, **dict.fromkeys(names, (0.125, 0.375))},
        )
        for field, result in base.results.items()
    }
    found = replace(base, results=results, cold=ColdItems(60, 12, trained=False))
    lines = on_terminal(80, lambda: evaluation_table(found))
    assert "".join(lines).count("[0.1250, 0.3750]") == 2 * len(FIELDS)
