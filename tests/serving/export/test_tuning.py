"""A tuned index: the cheapest that finds enough and fits, shown with all that was tried."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from click.testing import CliRunner
from torch.nn import functional as F

import recsys
from recsys.app.cli import main
from recsys.core.errors import ConfigError, UserError
from recsys.retrieval.index.approximate import ApproximateBackend, Package
from recsys.retrieval.index.build import load_index
from recsys.retrieval.index.exact import ExactVectors
from recsys.retrieval.index.protocol import IndexRequest
from recsys.retrieval.index.recall import recall_against_exact
from recsys.retrieval.index.registry import BACKENDS
from recsys.serving.export import tuning
from recsys.serving.export.tuning import Tuning, tuned_index

ITEMS, WIDTH = 1500, 16
EXACT_BYTES = ITEMS * WIDTH * 4


@pytest.fixture(scope="module")
def request_() -> IndexRequest:
    generator = torch.Generator().manual_seed(0)
    vectors = F.normalize(torch.randn(ITEMS, WIDTH, generator=generator), dim=1)
    queries = F.normalize(torch.randn(300, WIDTH, generator=generator), dim=1)
    return IndexRequest(vectors, "sphere", queries, "space", "ids", "auto", 0.9)


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three kinds, one run each, by a clock that makes exact search the dearest."""
    kinds = {name: BACKENDS[name] for name in ("exact", "ivf", "sq8")}
    monkeypatch.setattr(tuning, "BACKENDS", kinds)

    def cost(index: Any, queries: Any) -> float:
        return (
            99.0 if isinstance(index, ExactVectors) else index.effort.breadth + index.effort.rerank
        )

    monkeypatch.setattr(tuning, "_cost", cost)


@pytest.mark.usefixtures("few")
def test_the_cheapest_that_finds_enough_is_written(request_: IndexRequest, tmp_path: Path) -> None:
    facts = tuned_index(tmp_path, request_, Tuning())
    tried = facts["tuning"]["tried"]
    enough = [one for one in tried if one["recall_at_10"] >= 0.9]
    assert {one["kind"] for one in tried} == {"exact", "ivf", "sq8"}
    assert [one["enough"] for one in tried] == [one in enough for one in tried]
    chosen = facts["tuning"]["chosen"]
    assert chosen["cpu_us"] == min(one["cpu_us"] for one in enough)
    assert facts["kind"] == chosen["kind"] != "exact"
    assert {name: facts[name] for name in chosen["parameters"]} == chosen["parameters"]
    assert facts["recall_at_10"] == chosen["recall_at_10"]
    assert facts["memory_bytes"] == chosen["memory_bytes"]
    assert json.loads((tmp_path / "index.json").read_text()) == facts
    assert (tmp_path / "tuning.png").read_bytes().startswith(b"\x89PNG")
    index, vectors = load_index(
        lambda name: (tmp_path / name).read_bytes(), expected_space_id="space", source=tmp_path
    )
    assert recall_against_exact(index, request_.queries, vectors, 10) >= 0.85


@pytest.mark.usefixtures("few")
def test_what_does_not_fit_is_not_chosen(request_: IndexRequest, tmp_path: Path) -> None:
    """Lists hold the vectors and more; codes without re-ranking are the smallest."""
    facts = tuned_index(tmp_path, request_, Tuning(memory=EXACT_BYTES // 2))
    assert (facts["kind"], facts["rerank"]) == ("sq8", 1)
    assert facts["memory_bytes"] <= EXACT_BYTES // 2
    large = [one for one in facts["tuning"]["tried"] if one["memory_bytes"] > EXACT_BYTES // 2]
    assert {one["kind"] for one in large} == {"exact", "ivf", "sq8"}
    assert not any(one["enough"] for one in large)


@pytest.mark.usefixtures("few")
def test_exact_search_wins_where_nothing_is_cheaper(
    request_: IndexRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuning, "_cost", lambda index, queries: 1.0)
    facts = tuned_index(tmp_path, request_, Tuning(memory=EXACT_BYTES))
    assert (facts["kind"], facts["recall_at_10"]) == ("exact", 1.0)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"index.json", "tuning.png", "vectors.safetensors"}


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize(("other", "is_exact"), [(8.1, True), (7.9, False)])
def test_exact_search_is_left_for_a_fifth_of_its_cost(
    request_: IndexRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    other: float,
    is_exact: bool,
) -> None:
    def cost(index: Any, queries: Any) -> float:
        return 10.0 if isinstance(index, ExactVectors) else other

    monkeypatch.setattr(tuning, "_cost", cost)
    assert (tuned_index(tmp_path, request_, Tuning())["kind"] == "exact") == is_exact


@pytest.mark.usefixtures("few")
def test_where_nothing_is_enough_the_best_is_told(request_: IndexRequest, tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"reaches recall@10 0\.9 within 1\.0 KiB; the smallest"
    ) as e:
        tuned_index(tmp_path, request_, Tuning(memory=1024))
    assert "is sq8 (nprobe" in str(e.value)
    assert "give more memory or a lower recall" in str(e.value)
    small = replace(request_, min_recall=1.0)
    with pytest.raises(
        UserError, match=r"the best that fits is sq8 .* the smallest .* is exact: re"
    ):
        tuned_index(tmp_path, small, Tuning(memory=EXACT_BYTES // 2))


@pytest.mark.usefixtures("few")
def test_one_kind_alone(request_: IndexRequest, tmp_path: Path) -> None:
    facts = tuned_index(tmp_path, replace(request_, kind="ivf"), Tuning())
    assert {one["kind"] for one in facts["tuning"]["tried"]} == {"ivf"}


@pytest.fixture
def _one_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = BACKENDS["ivf"]
    assert isinstance(backend, ApproximateBackend)
    absent = Package("Other", "no_such_module", "other", "ann")
    monkeypatch.setattr(type(BACKENDS["scann"]), "package", absent)
    kinds = {name: BACKENDS[name] for name in ("exact", "scann")}
    monkeypatch.setattr(tuning, "BACKENDS", kinds)
    return


@pytest.mark.usefixtures("_one_is_missing")
def test_a_library_that_is_not_there_is_skipped_by_name(
    request_: IndexRequest, tmp_path: Path
) -> None:
    facts = tuned_index(tmp_path, request_, Tuning())
    assert list(facts["tuning"]["skipped"]) == ["scann"]
    assert "pip install 'recsys-engine[ann]'" in facts["tuning"]["skipped"]["scann"]
    with pytest.raises(ConfigError, match="by Other needs the package other"):
        tuned_index(tmp_path, replace(request_, kind="scann"), Tuning())


@pytest.mark.usefixtures("few")
def test_a_model_is_exported_so(trained: Path, tmp_path: Path) -> None:
    asked = ["export", str(trained), "--tune", "--min-recall", "0.9", "--memory", "1MiB"]
    done = CliRunner().invoke(main, [*asked, "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    assert "us a query" in done.output
    facts = json.loads((tmp_path / "out" / "export.json").read_text())
    assert facts["recall_at_10"] >= 0.9
    assert (facts["tuning"]["memory_bytes"], facts["tuning"]["min_recall"]) == (2**20, 0.9)
    assert facts["tuning"]["queries"] >= 1000
    ids = pq.read_table(tmp_path / "out" / "ids.parquet")
    assert ids.num_rows == facts["n"]
    with pytest.raises(UserError, match=r"within 100 B; .*the smallest"):
        recsys.export(str(trained), tmp_path / "no", tune=True, memory="100 B")
    assert not (tmp_path / "no").exists()


def test_what_does_not_go_together(trained: Path, tmp_path: Path) -> None:
    for how, said in (
        ({}, "--to, or --tune"),
        ({"to": "ivf", "memory": "1MiB"}, "--memory goes with --tune"),
        ({"to": "parquet", "tune": True}, "--to parquet has none"),
        ({"tune": True, "memory": "much"}, "a size as 200MiB or 1.5GB, got 'much'"),
    ):
        options: dict[str, Any] = how
        with pytest.raises(UserError, match=said):
            recsys.export(str(trained), tmp_path / "out", **options)
