"""A model with several interests, from training to its lists, and its exports to an index."""

import json
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from click.testing import CliRunner

from recsys.app.cli import main
from recsys.core.errors import ConfigError, IntegrityError, NotFoundError
from recsys.features.dataset.dataset import Dataset
from recsys.features.requests.table import request_table
from recsys.features.tables.sources import Sources
from recsys.retrieval.index.registry import BACKENDS
from recsys.retrieval.muvera import FixedDimensionalEncoding
from recsys.serving.engines.audience import read_new_items, score_new_items
from recsys.serving.engines.batch import score_to_parquet, shards_of_log
from recsys.serving.export.manifest import write_manifest
from recsys.serving.export.query_encoding import (
    EncodingSize,
    interest_recall,
    more_like,
    query_encodings,
    query_vectors_of_requests,
    read_encoding,
)
from recsys.serving.export.retrieval import export_index
from recsys.serving.recommend.scorer import Scorer
from recsys.training.config.experiment import ExperimentConfig
from recsys.training.families.load import load_config
from recsys.training.jobs.evaluate import evaluate_bundle
from recsys.training.jobs.runs import TrainResult
from recsys.training.jobs.train import train


def trained_with(world_config: Path, output: Path, **changes: object) -> TrainResult:
    """Return a two-tower of three interests, trained briefly."""
    torch.set_num_threads(1)
    keys = {
        "model.interests": 3,
        "model.dim": 16,
        "model.history_length": 10,
        "training.examples": "users",
        "training.positives": 5,
        "training.batch_size": 64,
        "embedding.num_rows": 2048,
        "evaluation.bootstrap_samples": 20,
        "evaluation.baselines": "[]",
        "tracking.enabled": "false",
        "output": output,
        **changes,
    }
    config = load_config(world_config, tuple(f"{key}={value}" for key, value in keys.items()))
    found = train(config)
    assert found is not None
    return found


@pytest.fixture(scope="module")
def result(world_config: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainResult:
    """Calibrated, with biases and smoothing."""
    changes = {
        "model.geometry": "biased_sphere",
        "model.smoothing.rounds": 1,
        "training.epochs": 2,
        "calibration": "logistic",
    }
    return trained_with(world_config, tmp_path_factory.mktemp("runs"), **changes)


@pytest.fixture(scope="module")
def scorer(result: TrainResult) -> Scorer:
    return Scorer.open(result.bundle, k=7)


@pytest.fixture(scope="module")
def requests(dataset: Dataset) -> pa.Table:
    users = np.arange(dataset.num_users)
    return request_table(dataset.schema, dataset.tables, dataset.histories((0, 1, 2)), users)


def best_scores(scorer: Scorer, requests: pa.Table) -> torch.Tensor:
    """Return the best score over the interests of every item, (B, N), by definition."""
    queries = query_vectors_of_requests(scorer, requests)
    assert queries.shape[1:] == (3, 17)
    return torch.einsum("bie,ne->bin", queries, scorer.vectors).amax(1)


def test_lists_hold_the_items_of_the_best_interest(scorer: Scorer, requests: pa.Table) -> None:
    answer, best = scorer.score(requests), best_scores(scorer, requests)
    ids = scorer.item_ids.to_pylist()
    for row in (0, 17, 101, 199):
        seen = set(requests.column("history")[row].as_py())
        order = best[row].argsort(descending=True, stable=True).tolist()
        wanted = [item for item in order if ids[item] not in seen][:7]
        assert answer.column("items")[row].as_py() == [ids[item] for item in wanted]
        scores = torch.tensor(answer.column("scores")[row].as_py())
        torch.testing.assert_close(scores, best[row][wanted])


def test_a_user_without_a_history_has_one_interest(scorer: Scorer) -> None:
    table = pa.table({"user_id": ["nobody"], "history": pa.array([[]], pa.list_(pa.string()))})
    (interests,) = query_vectors_of_requests(scorer, table)
    torch.testing.assert_close(interests, interests[:1].expand(3, -1))
    assert torch.isfinite(interests).all()
    assert len(scorer.score(table).column("items")[0]) == 7


def test_a_bundle_evaluates_again_as_it_did_at_the_end_of_training(
    result: TrainResult, tmp_path: Path
) -> None:
    """The graph that smooths is not in the bundle: it is made again from the data."""
    again = evaluate_bundle(result.bundle, tmp_path / "report.html")
    first = result.evaluation
    assert again.results["two_tower"].metrics == first.results["two_tower"].metrics  # type: ignore[union-attr]
    assert again.representation == pytest.approx(first.representation, abs=1e-5)  # type: ignore[union-attr]
    assert (tmp_path / "report.html").stat().st_size > 10_000
    assert result.report.is_file()


def test_batch_scores_and_the_mlflow_model_agree(
    result: TrainResult,
    scorer: Scorer,
    config: ExperimentConfig,
    requests: pa.Table,
    tmp_path: Path,
) -> None:
    sources = Sources(interactions=config.data.interactions, users=config.data.users)
    score_to_parquet(scorer, shards_of_log(scorer, sources, rows_per_part=64), tmp_path / "out")
    written = pq.read_table(tmp_path / "out").sort_by("user_id")
    assert written.equals(scorer.score(requests).sort_by("user_id").cast(written.schema))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # MLflow, of the class itself
        from recsys.serving.pyfunc import BundleModel

    model = BundleModel()
    model.load_context(SimpleNamespace(artifacts={"bundle": str(result.bundle)}))
    frame = requests.slice(0, 5).to_pandas()
    answer = model.predict(None, frame, {"k": 7, "probability": True})
    wanted = scorer.score(requests.slice(0, 5)).column("items")
    assert answer["items"].tolist() == wanted.to_pylist()
    for row in answer["probabilities"]:
        assert all(0 < value < 1 for value in row)


def test_an_audience_is_asked_with_the_best_interest(
    scorer: Scorer, config: ExperimentConfig, requests: pa.Table, tmp_path: Path
) -> None:
    """New items encode by themselves, without neighbours, and need no training row."""
    assert config.data.items is not None
    rows = pq.read_table(config.data.items).slice(0, 9)
    ids = pa.array([f"new-{number}" for number in range(9)])
    pq.write_table(rows.set_column(0, "item_id", ids), tmp_path / "new.parquet")
    new = read_new_items(scorer, {"items": str(tmp_path / "new.parquet")})
    sources = Sources(interactions=config.data.interactions, users=config.data.users)
    shards = shards_of_log(scorer, sources, rows_per_part=64)
    score_new_items(scorer, new, shards, tmp_path / "out", top_customers=3)
    part = pq.read_table(tmp_path / "out" / "customers").sort_by("user_id")
    wanted = requests.sort_by("user_id")
    queries = query_vectors_of_requests(scorer, wanted)
    best = torch.einsum("bie,ne->bin", queries, new.vectors).amax(1)
    for row in (0, 77, 199):
        scores = dict(zip(part["items"][row].as_py(), part["scores"][row].as_py(), strict=True))
        own = torch.tensor([scores[f"new-{number}"] for number in range(9)])
        torch.testing.assert_close(own, best[row])


def test_vectors_are_exported_with_a_word_on_merging(scorer: Scorer, tmp_path: Path) -> None:
    facts = export_index(scorer.bundle.path, "faiss", tmp_path / "index", min_recall=0.9)
    how = json.loads((tmp_path / "index" / "export.json").read_text())
    assert (how["interests"], facts["interests"], how["dim"]) == (3, 3, 17)
    assert "search with each" in how["queries"]
    assert "encoding" not in how
    with pytest.raises(NotFoundError, match="recsys export --encoding fde"):
        read_encoding(tmp_path / "index")
    for wrong in (-0.1, 1.1, float("nan")):
        with pytest.raises(ConfigError, match=f"min_recall is a share from 0 to 1, got {wrong}"):
            export_index(scorer.bundle.path, "exact", tmp_path / "no", min_recall=wrong)
    export_index(scorer.bundle.path, "parquet", tmp_path / "plain", min_recall=0)
    plain = json.loads((tmp_path / "plain" / "export.json").read_text())
    assert plain["queries"] == how["queries"]
    table = pq.read_table(tmp_path / "plain" / "vectors.parquet")
    torch.testing.assert_close(torch.tensor(table["vector"].to_pylist()), scorer.vectors)


def test_encodings_are_searched_with_one_vector_a_user(
    scorer: Scorer, requests: pa.Table, tmp_path: Path
) -> None:
    """From the files alone: items of the export, hyperplanes of the export, products between."""
    size = EncodingSize(bits=2, repetitions=6, seed=3)
    path = scorer.bundle.path
    facts = export_index(path, "parquet", tmp_path / "a", min_recall=0, encoded=size)
    assert facts["dim"] == 6 * 4 * 17
    assert (facts["encoding"], facts["bits"], facts["repetitions"], facts["seed"]) == (
        "fde",
        2,
        6,
        3,
    )
    items = torch.tensor(pq.read_table(tmp_path / "a/vectors.parquet")["vector"].to_pylist())
    encoding = read_encoding(tmp_path / "a")
    asked = query_encodings(scorer, encoding, requests)
    assert asked.shape == (requests.num_rows, facts["dim"])
    best = best_scores(scorer, requests)
    products = asked @ items.T
    assert bool((products <= best + 1e-5).all())
    exact = FixedDimensionalEncoding(17, bits=2, repetitions=6, seed=3, cell_dim=16)
    assert torch.equal(exact.planes, encoding.planes)
    assert not exact.planes[:, 16:].any()  # an item's bias is no direction
    top, wanted = products.topk(10, dim=1).indices, best.topk(10, dim=1).indices
    found = (wanted.unsqueeze(2) == top.unsqueeze(1)).any(2).float().mean()
    assert float(found) > 0.6


def test_a_graph_of_encodings_is_measured_on_encoded_queries(
    scorer: Scorer, requests: pa.Table, tmp_path: Path
) -> None:
    size, path = EncodingSize(bits=1, repetitions=4), scorer.bundle.path
    facts = export_index(path, "faiss", tmp_path / "a", min_recall=0.9, encoded=size)
    assert json.loads((tmp_path / "a" / "index.json").read_text())["n"] == len(scorer.item_ids)
    assert facts["recall_at_10"] >= 0.9
    assert (facts["geometry"], facts["normalised"]) == ("biased_sphere", False)
    recalls = facts["interest_recall_at_10"]
    assert set(recalls) == {
        "encoded",
        "encoded, ten times as many rescored",
        "mean of the interests",
        "one interest",
    }
    assert recalls["encoded"] <= recalls["encoded, ten times as many rescored"]
    encoding = read_encoding(tmp_path / "a")
    items = encoding.items(scorer.vectors)
    graph = BACKENDS["hnsw"].open(lambda name: (tmp_path / "a" / name).read_bytes(), facts, items)
    asked = query_encodings(scorer, encoding, requests)
    rows = graph.search(asked, 10)[1]
    exact = (asked @ items.T).topk(10, dim=1).indices
    assert float((exact.unsqueeze(2) == rows.unsqueeze(1)).any(2).float().mean()) > 0.9


def test_encodings_on_the_sphere_are_no_unit_vectors(world_config: Path, tmp_path: Path) -> None:
    keys = {"training.epochs": 1, "evaluation.bootstrap_samples": 2}
    path = trained_with(world_config, tmp_path / "runs", **keys).bundle
    size = EncodingSize(bits=1, repetitions=4)
    for target in ("parquet", "exact"):
        plain = export_index(path, target, tmp_path / f"{target} plain", min_recall=0)
        assert (plain["dim"], plain["normalised"]) == (16, True)
        out = tmp_path / target
        facts = export_index(path, target, out, min_recall=0, encoded=size)
        assert (facts["dim"], facts["normalised"], facts["geometry"]) == (128, False, "sphere")
        stored = json.loads((out / "index.json").read_text())
        assert (stored["dim"], stored["normalised"]) == (128, False)


def test_recall_of_one_vector_by_hand() -> None:
    """Two interests at right angles; the mean finds neither's own items first."""
    items = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.7, 0.7], [-1.0, 0.0]])
    queries = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    # All interests: items 0 and 1, 1.0 each. The mean: item 2, then 0. One interest: 0, then 2.
    planes = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    found = interest_recall(FixedDimensionalEncoding.of_planes(planes), items, queries, 2)
    assert found["mean of the interests"] == 0.5
    assert found["one interest"] == 0.5
    # Cells: x > 0, y > 0. Each interest stands in its own, so both are met; item 2's cell is one
    # plane from either and holds the first.
    assert found["encoded"] == 1.0
    assert found["encoded, ten times as many rescored"] == 1.0
    # Without a plane the encoding is the mean, and rescoring finds what it lacks.
    found = interest_recall(
        FixedDimensionalEncoding.of_planes(torch.zeros(1, 2, 0)), items, queries, 2
    )
    assert (found["encoded"], found["encoded, ten times as many rescored"]) == (0.5, 1.0)
    # Items 0 and 2 are the best; the first interest has them, the second has 2 and 1.
    queries = torch.tensor([[[1.0, 0.0], [0.6, 0.8]]])
    found = interest_recall(FixedDimensionalEncoding.of_planes(planes), items, queries, 2)
    assert found["one interest"] == 1.0


def test_more_queries_lie_near_those_given() -> None:
    torch.manual_seed(5)
    queries = torch.nn.functional.normalize(torch.randn(300, 3, 8), dim=2)
    more = more_like(queries, "sphere")
    assert more.shape == (1200, 3, 8)
    assert torch.equal(more[:300], queries)
    cosine = (more[300:600] * queries).sum(2)
    assert float(cosine.min()) > 0.6
    assert not torch.isclose(more[300:600], queries).all(2).any()
    assert len(more_like(queries.repeat(4, 1, 1), "sphere")) == 1200


def test_what_cannot_be_encoded_is_refused(trained: Path, scorer: Scorer, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"has one a query already \(model.interests: 1\)"):
        export_index(trained, "exact", tmp_path / "a", min_recall=0, encoded=EncodingSize())
    assert not (tmp_path / "a").exists()
    one = export_index(trained, "exact", tmp_path / "b", min_recall=0)
    assert one["interests"] == 1
    assert "one vector" in json.loads((tmp_path / "b/export.json").read_text())["queries"]
    path = scorer.bundle.path
    export_index(path, "exact", tmp_path / "c", min_recall=0, encoded=EncodingSize(bits=1))
    facts = json.loads((tmp_path / "c/export.json").read_text())
    (tmp_path / "c/export.json").write_text(json.dumps({**facts, "bits": 2}))
    with pytest.raises(IntegrityError, match=r"export.json: .* it says .*: the file was changed"):
        read_encoding(tmp_path / "c")
    (tmp_path / "c/export.json").unlink()
    write_manifest(tmp_path / "c", "exact", {**facts, "bits": 2})
    with pytest.raises(IntegrityError, match=r"\(8, 17, 1\), export.json says \(8, 17, 2\)"):
        read_encoding(tmp_path / "c")


def test_the_command_line(scorer: Scorer, trained: Path, tmp_path: Path) -> None:
    def run(model: Path, *arguments: str) -> str:
        out = ("--out", str(tmp_path / "out"))
        found = CliRunner().invoke(main, ["export", str(model), "--to", "exact", *out, *arguments])
        return f"{found.exit_code}: {found.output}"

    path = scorer.bundle.path
    assert "go with --encoding fde" in run(path, "--fde-bits", "2")
    assert run(trained, "--encoding", "fde").startswith("2: ")
    answer = run(path, "--encoding", "fde", "--fde-bits", "0", "--fde-repetitions", "2", "--json")
    assert json.loads(answer.partition(": ")[2])["dim"] == 2 * 17
    encoding = read_encoding(tmp_path / "out")
    assert (encoding.bits, encoding.repetitions) == (0, 2)
