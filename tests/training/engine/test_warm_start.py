"""A training that starts from an earlier model: the same answers at first, then newer rows."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from click.testing import CliRunner
from torch import Tensor

from recsys.app.cli import main
from recsys.bundle.directory import Bundle
from recsys.bundle.weights import load_ranker, load_retrieval
from recsys.core.errors import ConfigError, DataError
from recsys.data.batch import FeatureBlock, FeatureLayout
from recsys.features.dataset.split import TEST
from recsys.models.dcn import DCNConfig
from recsys.models.retrieval import catalogue_vectors
from recsys.training.config.experiment import ExperimentConfig
from recsys.training.engine.checkpoint import Checkpoints
from recsys.training.engine.ranks import World
from recsys.training.engine.warm_start import open_earlier, start_from
from recsys.training.families.family import Given
from recsys.training.families.load import load_config
from recsys.training.families.ranker.job import RankingJob, open_ranking
from recsys.training.families.ranker.task import predictions
from recsys.training.families.registry import family_of
from recsys.training.families.retrieval.job import RetrievalJob
from recsys.training.jobs.train import fit_in, train


def clicks(path: Path, rows: int, seed: int, *, first: int = 0) -> None:
    """A log whose label follows two columns; `price` lies in another range in another log."""
    rng = np.random.default_rng(seed)
    shop, price = rng.integers(0, 40, rows), rng.gamma(2.0, 5.0 * (1 + seed), rows)
    logit = np.sin(shop * 1.7) * 2 + 0.5 * np.log1p(price) - 1
    table = pa.table(
        {
            "label": (rng.random(rows) < 1 / (1 + np.exp(-logit))).astype(np.int32),
            "at": np.arange(first, first + rows),
            "user": rng.integers(0, 50, rows),
            "item": rng.integers(0, 50, rows),
            "shop": shop,
            "price": price,
            "colour": rng.integers(0, 5, rows),
        }
    )
    pq.write_table(table, path)


def settings(log: Path, output: Path, **changes: Any) -> Path:
    """Write the configuration of a small ranker."""
    features = [
        {"name": "shop", "table": "interactions", "kind": "categorical", "multiplicity": 2},
        {"name": "price", "table": "interactions", "kind": "numeric", "transform": "log1p"},
        *changes.pop("more", []),
    ]
    raw = {
        "data": {"interactions": str(log), **changes.pop("data", {})},
        "schema": {
            "interactions": {
                "user": "user",
                "item": "item",
                "label": {"column": "label"},
                "time": {"column": "at", "unit": "s"},
            },
            "features": features,
        },
        "model": {"kind": "dcn", "hidden": [16, 8], "dropout": 0.0},
        "embedding": {"num_rows": 64, "dim": 4, **changes.pop("embedding", {})},
        "training": {"epochs": 2, "batch_size": 128, **changes.pop("training", {})},
        "evaluation": {"bootstrap_samples": 20},
        "tracking": {"enabled": False},
        "output": str(output),
        **changes,
    }
    path = output.parent / f"{output.name}.yaml"
    path.write_text(yaml.safe_dump(raw))
    return path


@pytest.fixture(scope="module")
def ranker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of a ranker of an older log."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("ranker")
    clicks(folder / "old.parquet", 3_000, seed=0, first=1_700_000_000)
    config = load_config(settings(folder / "old.parquet", folder / "old"))
    result = train(config)
    assert result is not None
    return result.bundle


@pytest.mark.parametrize("stream", [False, True])
def test_a_larger_table_and_a_new_feature_answer_as_the_earlier_model(
    ranker: Path, tmp_path: Path, stream: bool
) -> None:
    clicks(tmp_path / "new.parquet", 1_000, seed=1, first=1_710_000_000)
    colour = {"name": "colour", "table": "interactions", "kind": "categorical"}
    path = settings(
        tmp_path / "new.parquet",
        tmp_path / "new",
        more=[colour],
        embedding={"num_rows": 192, "backend": "torch"},
        data={"stream": stream},
        warm_start=str(ranker),
    )
    config = load_config(path)
    earlier = open_earlier(config)
    assert earlier is not None
    job = open_ranking(config, Given(World(), earlier))
    task = job.task()
    model: Any = task.trained.model
    said = start_from(earlier, config, model, task.trained.table)
    assert any("64 shared rows become 192; nothing is lost" in line for line in said)
    assert any("new features: colour" in line for line in said)

    found = predictions(model, job.rows, TEST, 256, World())
    torch.testing.assert_close(torch.from_numpy(found.logit), answers_of(ranker, job))

    # The state of the table's optimizer came along: no row takes its first step again.
    state = task.trained.table.state
    assert float(state["exp_avg_sq"].max()) > 0
    assert float(state["step"]) == float(state["last"].max()) > 0


def test_decay_that_is_new_starts_from_now(ranker: Path, tmp_path: Path) -> None:
    """No row has missed any of it: without a clock of its rows all would be decayed at once."""
    clicks(tmp_path / "new.parquet", 1_000, seed=1, first=1_710_000_000)
    path = settings(tmp_path / "new.parquet", tmp_path / "new", warm_start=str(ranker))
    config = load_config(path)
    earlier = open_earlier(config)
    assert earlier is not None
    state = {name: tensor for name, tensor in earlier.table.items() if name != "last"}
    earlier = replace(earlier, table=state)
    task = open_ranking(config, Given(World(), earlier)).task()
    said = start_from(earlier, config, task.trained.model, task.trained.table)
    assert not any("first steps will be large" in line for line in said)
    now = task.trained.table.state
    assert torch.equal(now["last"], now["step"].expand(64))
    assert float(now["step"]) > 0


def answers_of(ranker: Path, job: RankingJob) -> Tensor:
    """What the earlier model, which knows `shop` and `price` alone, says of the test rows."""
    layout = FeatureLayout(job.rows.layout.single[:1], (), job.rows.layout.dense)
    config = load_config(ranker / "config.yaml")
    assert isinstance(config.model, DCNConfig)
    weights = Bundle.open(ranker).read("weights.safetensors")
    model = load_ranker(weights, config.model, config.embedding, layout)
    blocks = [batch.features for batch in job.rows.loader.ordered(TEST, 256)]
    logits = [model(FeatureBlock(one.single[:, :1], (), one.dense)) for one in blocks]
    return torch.cat(logits).detach()


def test_numbers_keep_their_scale(ranker: Path, tmp_path: Path) -> None:
    """The newer log's prices are twice as high: scaled anew they would look the same as ever."""
    clicks(tmp_path / "new.parquet", 1_000, seed=1, first=1_710_000_000)
    config = load_config(settings(tmp_path / "new.parquet", tmp_path / "new"))
    warm = config.model_copy(update={"warm_start": str(ranker)})
    means = []
    for one in (config, warm):
        job = open_ranking(one, Given(World(), open_earlier(one)))
        batches = job.rows.loader.ordered(TEST, 256)
        means.append(float(torch.cat([batch.features.dense[:, 0] for batch in batches]).mean()))
    assert means[1] > means[0] + 0.4


def test_the_command_line_on_newer_rows(ranker: Path, tmp_path: Path) -> None:
    clicks(tmp_path / "new.parquet", 1_000, seed=0, first=1_710_000_000)
    path = settings(tmp_path / "new.parquet", tmp_path / "new", training={"epochs": 1})
    arguments = ["train", str(path), "--warm-start", str(ranker), "--json", "--no-report"]
    done = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["report"] is None
    assert not list((tmp_path / "new").rglob("report.html"))
    (bundle,) = (tmp_path / "new").glob("dcn-*/bundle/*")
    assert Bundle.open(bundle).manifest["facts"]["parent"] == ranker.name
    config = load_config(next(iter((tmp_path / "new").glob("dcn-*/config.yaml"))))
    assert config.warm_start == str(ranker.resolve())


def test_a_resumed_run_does_not_start_over(
    ranker: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clicks(tmp_path / "new.parquet", 1_000, seed=0, first=1_710_000_000)
    path = settings(tmp_path / "new.parquet", tmp_path / "new", warm_start=str(ranker))
    config = load_config(path)
    earlier = open_earlier(config)
    weights, told = [], []
    caplog.set_level("INFO", logger="recsys")
    for _ in range(2):  # the second finds the checkpoints of the first
        caplog.clear()
        job = open_ranking(config, Given(World(), earlier))
        model, state = fit_in(World(), job, config, tmp_path / "run", ())
        assert state.finished
        weights.append(model.embedding.table.weight.clone())  # type: ignore[union-attr]
        told.append(any(line.startswith("warm start:") for line in caplog.messages))
        assert Checkpoints.of_run(tmp_path / "run").steps()
    assert torch.equal(*weights)
    assert told == [True, False]


def test_a_two_tower_with_a_larger_table_has_the_same_vectors(
    config: ExperimentConfig, trained: Path
) -> None:
    table = config.embedding.model_copy(update={"num_rows": 3 * config.embedding.num_rows})
    larger = config.model_copy(update={"embedding": table, "warm_start": str(trained)})
    earlier = open_earlier(larger)
    assert earlier is not None
    job = family_of(larger).open(larger, Given(World(), earlier))
    assert isinstance(job, RetrievalJob)
    items = job.reading.data.items
    task = job.task()
    model: Any = task.trained.model
    start_from(earlier, larger, model, task.trained.table)
    old = load_retrieval(
        Bundle.open(trained).read("weights.safetensors"),
        config.model,
        config.embedding,
        job.layouts,  # type: ignore[arg-type]
    )
    torch.testing.assert_close(catalogue_vectors(model, items), catalogue_vectors(old, items))


def test_what_cannot_be_started_from_is_named(
    config: ExperimentConfig, trained: Path, ranker: Path, tmp_path: Path
) -> None:
    def opened(base: ExperimentConfig, path: Path, **changes: Any) -> None:
        open_earlier(base.model_copy(update={"warm_start": str(path), **changes}))

    with pytest.raises(ConfigError, match=r"is of kind dcn, model\.kind is two_tower"):
        opened(config, ranker)
    narrow = config.embedding.model_copy(update={"dim": 8})
    with pytest.raises(ConfigError, match=r"16 wide, embedding.dim is 8: set it to 16"):
        opened(config, trained, embedding=narrow)
    clicks(tmp_path / "new.parquet", 500, seed=0, first=1_710_000_000)
    table = pq.read_table(tmp_path / "new.parquet")
    words = pa.array([f"s{one}" for one in table["shop"].to_pylist()])
    place = table.column_names.index("shop")
    pq.write_table(table.set_column(place, "shop", words), tmp_path / "new.parquet")
    path = settings(tmp_path / "new.parquet", tmp_path / "new", warm_start=str(ranker))
    other = load_config(path)
    with pytest.raises(DataError, match="'shop' holds string values, the earlier model was tr"):
        open_ranking(other, Given(World(), open_earlier(other)))


def test_without_its_optimizer_state_the_user_is_told(ranker: Path, tmp_path: Path) -> None:
    clicks(tmp_path / "new.parquet", 500, seed=0, first=1_710_000_000)
    path = settings(
        tmp_path / "new.parquet",
        tmp_path / "new",
        warm_start=str(ranker),
        embedding={"optimizer": "sgd", "backend": "torch"},
    )
    sgd, adagrad = load_config(path), load_config(path, ("embedding.optimizer=adagrad",))
    for config, told in ((sgd, False), (adagrad, True)):
        earlier = open_earlier(config)
        assert earlier is not None
        task = open_ranking(config, Given(World(), earlier)).task()
        said = start_from(earlier, config, task.trained.model, task.trained.table)
        assert any("first steps will be large" in line for line in said) == told
