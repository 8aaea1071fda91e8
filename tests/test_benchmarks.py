"""Every benchmark runs: once, on a few made-up rows, in this process (`--smoke`)."""

import json
import os
import runpy
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import faiss
import pytest
from matplotlib.figure import Figure

FOLDER = Path(__file__).with_name("benchmarks")
NAMES = sorted(path.stem for path in FOLDER.glob("[a-z]*.py"))
# Figures against other libraries, of other sizes, or of further data sets.
NOT_IN_SMOKE = {
    "autoint_epoch": {"vs_fastest_peer"}
    | {f"vs_fastest_peer_{how}" for how in ("auto", "keeping_memory", "without_reading")},
    "autoint_ml1m": {"a", "new"},
    "cml_release": {f"random: {how}" for how in ("genres", "history mean", "metric", "softmax")},
    "graph_features": {"ml1m"},
    "interests": {"interests 4, seed 0", "interests 8, seed 0"},
    "losses": {"beauty"},
    "one_request": {"wide"},
    "pipeline": {"beauty", "gowalla", "ml1m", "shop", "sports", "world_dcn"},
    "pipeline_serving": {"wide"},
    "plain_fit": {"gowalla item_knn", "ml1m ease", "ml1m item_knn"},
    "retrieval_peers": {"gowalla"},
    "scale_plan": {"autoint", "session"},
    "session_cold": {"diginetica", "diginetica_of_each_seed", "diginetica_seeds", "sports_seeds"},
    "session_epoch": {"rectools", "sasrec_bce", "vs_fastest_peer"},
    "spark_scoring": {"daft", "spark"},
    "ssl_tail": {"ml1m"},
    "store_exports": {"milvus", "pgvector"},
    "two_processes": {"features_39"},
}
OTHER_WAYS = {
    "retrieval_peers": ("budget=0.01", "retrieval_peers_recall"),
    "ssl_curves": ("rates=0.5", "ssl_curves"),
    "ssl_tail": ("cost=true", "ssl_tail"),
}
"""An option that makes a benchmark do something else, and under which name it then prints."""


@pytest.fixture
def _as_it_was(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Set back what a benchmark sets for its whole process; no charts, which take half the time."""
    environment, threads = dict(os.environ), faiss.omp_get_max_threads()
    monkeypatch.setattr(Figure, "draw", lambda figure, renderer: None)
    yield
    os.environ.clear()
    os.environ.update(environment)
    faiss.omp_set_num_threads(threads)


def keys_of(name: str) -> set[str]:
    """Return the figures that the benchmark's saved results have."""
    saved = json.loads((FOLDER / "results" / f"{name}.json").read_text())
    return set(saved["figures"]) - NOT_IN_SMOKE.get(name, set())


@pytest.fixture
def figures_of(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], _as_it_was: None
) -> Callable[..., dict[str, Any]]:
    """Run a benchmark as a program; return its last line, which is one object in JSON."""

    def run(name: str, *options: str) -> dict[str, Any]:
        path = str(FOLDER / f"{name}.py")
        monkeypatch.setattr(sys, "argv", [path, "--smoke", *options])
        try:
            runpy.run_path(path, run_name="__main__")
        except SystemExit as end:
            if end.code:
                raise
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) > 1  # the table for readers
        found: dict[str, Any] = json.loads(lines[-1], parse_constant=pytest.fail)
        return found

    return run


@pytest.mark.parametrize("name", NAMES)
def test_a_benchmark_runs(name: str, figures_of: Callable[..., dict[str, Any]]) -> None:
    figures = figures_of(name)
    assert figures["benchmark"] == name
    assert keys_of(name) <= set(figures)


@pytest.mark.parametrize("name", OTHER_WAYS)
def test_what_an_option_asks_for_runs(name: str, figures_of: Callable[..., dict[str, Any]]) -> None:
    option, printed = OTHER_WAYS[name]
    assert figures_of(name, "--set", option)["benchmark"] == printed


def test_smoke_keeps_no_figures(figures_of: Callable[..., dict[str, Any]]) -> None:
    with pytest.raises(SystemExit) as ended:
        figures_of("encode_rows", "--save")
    assert ended.value.code == 2
