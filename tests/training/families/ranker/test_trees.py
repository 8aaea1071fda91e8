"""Boosted trees on the encoded rows of a ranker, next to rankers of the engine."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from recsys.data.batch import FeatureBlock, FeatureLayout, Jagged
from recsys.features.dataset.split import TEST
from recsys.metrics.classification import auc
from recsys.training.engine.ranks import World
from recsys.training.families.family import Given
from recsys.training.families.load import load_config
from recsys.training.families.ranker import trees
from recsys.training.families.ranker.evaluation import RankingEvaluation
from recsys.training.families.ranker.job import open_ranking
from recsys.training.families.ranker.rows import RankingRows, open_rows
from recsys.training.families.ranker.trees import Codes, TreeInputs, TreeModel

LAYOUT = FeatureLayout(
    (("user", 2), ("city", 1)), (("recent", 1),), ("price", "price.null", "x.0", "x.1", "x.null")
)
CONFIG = """
data: {interactions: log.parquet, stream: true}
schema:
  interactions: {label: {column: clicked}, weight: weight}
  features:
    - {name: user, table: interactions, kind: categorical}
    - {name: item, table: interactions, kind: categorical}
    - {name: price, table: interactions, kind: numeric}
model: {kind: logistic}
embedding: {num_rows: 512, dim: 4, backend: torch}
training: {batch_size: 256, epochs: 1}
evaluation: {rankers: [lightgbm], bootstrap_samples: 20}
tracking: {enabled: false}
"""
ROWS = 4000


def block() -> FeatureBlock:
    offsets = torch.tensor([0, 2, 2, 3])
    return FeatureBlock(
        torch.tensor([[7, -3], [9, -3], [7, 5]]),
        (Jagged(torch.tensor([4, 6, 4]), offsets),),
        torch.tensor([[0.5, 0, 1, 2, 0], [0, 1, 3, 4, 0], [2, 0, 0, 0, 1]]),
    )


def log(folder: Path, **changes: Any) -> Path:
    """Write a log of which the chance of a click is by an interaction and a price."""
    rng = np.random.default_rng(0)
    user, item, price = rng.integers(0, 30, ROWS), rng.integers(0, 20, ROWS), rng.random(ROWS)
    chance = 1 / (1 + np.exp(-(2.0 * np.where((user % 2) == (item % 2), 1, -1) + 4 * price - 3)))
    columns = {
        "user": user,
        "item": item,
        "price": np.where(rng.random(ROWS) < 0.1, np.nan, price),
        "clicked": (rng.random(ROWS) < chance).astype(np.int8),
        "weight": np.ones(ROWS),
    }
    folder.mkdir(exist_ok=True)
    pq.write_table(pa.table({**columns, **changes}), folder / "log.parquet")
    (folder / "recsys.yaml").write_text(CONFIG)
    return folder / "recsys.yaml"


def opened(path: Path, *overrides: str) -> tuple[Any, RankingRows]:
    config: Any = load_config(path, (f"output={path.parent / 'runs'}", *overrides))
    return config, open_rows(config, World())


def test_the_commonest_values_have_codes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trees, "MOST_VALUES", 2)
    codes = Codes()
    codes.fit(np.array([5, -9, 5, 3, 3, 7]))
    assert codes.of(np.array([3, 5, 7, -9, 100])).tolist() == [1, 2, 0, 0, 0]


def test_rows_are_a_value_a_feature_and_numbers_without_indicators() -> None:
    inputs = TreeInputs(LAYOUT)
    nan = np.nan
    expected = [[1, 1, 2, 0.5, 1, 2], [2, 1, nan, nan, 3, 4], [1, 2, 1, 2, nan, nan]]
    np.testing.assert_array_equal(inputs.fit([block()]), np.array(expected, np.float32))
    assert inputs.num_categories == 3
    other = replace(block(), single=torch.tensor([[8, 5]] * 3))
    assert inputs.matrix(other)[:, :2].tolist() == [[0, 2]] * 3


def test_numbers_alone_are_rows_too() -> None:
    numbers = FeatureBlock(torch.zeros(3, 0, dtype=torch.int64), (), block().dense)
    found = TreeInputs(FeatureLayout((), (), LAYOUT.dense)).fit([numbers])
    assert found.shape == (3, 3)


def test_finds_interactions_and_says_the_same_again(tmp_path: Path) -> None:
    config, rows = opened(log(tmp_path))
    first, second = (TreeModel.fit(config, rows).predictions(rows, TEST) for _ in range(2))
    assert auc(first.logit, first.label, first.weight) > 0.85
    np.testing.assert_array_equal(first.logit, second.logit)
    assert len(first.label) == rows.rows[TEST]


def test_rows_of_no_weight_teach_nothing(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    clicked = pq.read_table(log(tmp_path / "plain").parent / "log.parquet")["clicked"].to_numpy()
    wrong = rng.random(ROWS) < 0.5
    flipped = {"clicked": np.where(wrong, 1 - clicked, clicked).astype(np.int8)}
    aucs = []
    for name, weight in (("even", np.ones(ROWS)), ("weighted", np.where(wrong, 0.0, 1.0))):
        config, rows = opened(log(tmp_path / name, **flipped, weight=weight))
        found = TreeModel.fit(config, rows).predictions(rows, TEST)
        tested = [batch.examples.numpy() for batch in rows.loader.ordered(TEST, 100)]
        right = ~wrong[np.concatenate(tested)]
        assert right.sum() > 100
        aucs.append(auc(found.logit[right], found.label[right], np.ones(right.sum())))
    assert aucs[0] < 0.7
    assert aucs[1] > 0.8


def test_probabilities_undo_the_weight_of_positives(tmp_path: Path) -> None:
    noise = (np.random.default_rng(2).random(ROWS) < 0.3).astype(np.int8)
    config, rows = opened(log(tmp_path, clicked=noise), "training.positive_weight=5")
    found = TreeModel.fit(config, rows).predictions(rows, TEST)
    assert found.probability.mean() == pytest.approx(0.3, abs=0.03)
    weighted = 5 * 0.3 / (5 * 0.3 + 0.7)
    assert (1 / (1 + np.exp(-found.logit))).mean() == pytest.approx(weighted, abs=0.03)


def test_trains_on_some_rows_of_a_large_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, rows = opened(log(tmp_path))
    batches: list[int] = []

    class Counting:
        def epoch(self, epoch: int) -> Iterator[Any]:
            for batch in rows.loader.epoch(epoch):
                batches.append(len(batch))
                yield batch

        def ordered(self, part: int, size: int) -> Iterator[Any]:
            return rows.loader.ordered(part, size)

    monkeypatch.setattr(trees, "MOST_ROWS", 600)
    TreeModel.fit(config, replace(rows, loader=Counting()))  # type: ignore[arg-type]
    assert batches == [256, 256, 256]


def test_a_report_without_the_package_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, _ = opened(log(tmp_path))
    monkeypatch.setattr(trees, "find_spec", lambda name: None)
    job = open_ranking(config, Given())
    done = job.finish(tmp_path, job.task().trained.model, [], None)
    assert isinstance(done.evaluation, RankingEvaluation)
    assert list(done.evaluation.results) == ["logistic"]
    assert "the package lightgbm is not installed" in done.evaluation.protocol["lightgbm"]
