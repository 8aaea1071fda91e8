"""Vectors of a two-tower that is trained on Gowalla, for benchmarks of searches."""

import sys
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from _harness import SMALL_MODEL, SMALL_TRAINING, Benchmark
from _loaned import loaned
from gowalla import config_of
from torch import Tensor

from recsys.features.tables.sources import Sources
from recsys.layers.geometry import Geometry
from recsys.serving.engines.batch import shards_of_log
from recsys.serving.export.query_encoding import query_vectors_of_requests
from recsys.serving.recommend.scorer import Scorer
from recsys.training.jobs.train import train

SETTINGS = (
    *("model.dim=64", "model.history_length=50", "model.smoothing={rounds: 0}"),
    *("embedding.dim=32", "embedding.num_rows=262144"),
    *("training.epochs=4", "training.positives=20"),
)
"""A lighter training than that of `gowalla`: of its vectors only the place counts."""

NOISE = 0.4
"""Norm of what is added to a copy; vectors have norms of about 1."""
_WIDTH = ("model.dim=63",)
"""63 numbers and a bias."""


def trained_vectors(
    benchmark: Benchmark, folder: Path, overrides: Sequence[str]
) -> tuple[Tensor, Tensor, Geometry]:
    """Return vectors of items and of some users, and where they live."""
    small = (*SMALL_MODEL, *SMALL_TRAINING) if benchmark.smoke else SETTINGS
    few = ("evaluation.baselines=[]", "evaluation.max_queries=1000", "split.join_validation=true")
    config = config_of(folder, (*few, *small, *overrides))
    result = train(config)
    assert result is not None
    scorer = Scorer.open(result.bundle)
    key, source = config.schema_.interactions.user, str(config.data.interactions)
    users = pq.read_table(source, columns=[key]).column(key).unique()
    generator = torch.Generator().manual_seed(0)
    chosen = torch.randperm(len(users), generator=generator)[: benchmark.sized(10_000, 2_000, 50)]
    asked = users.take(pa.array(chosen.numpy()))
    shards = shards_of_log(scorer, Sources(interactions=source), rows_per_part=2_000, users=asked)
    queries = [query_vectors_of_requests(scorer, shard.read()) for shard in shards.parts]
    return scorer.vectors.contiguous(), torch.cat(queries), scorer.model.config.geometry


def catalogue(benchmark: Benchmark, folder: Path, size: int) -> tuple[Tensor, Tensor]:
    """Return vectors (size, 64) of items and (Q, 64) of users, in an order of their own each."""
    loaned("gowalla")
    own = () if benchmark.smoke else _WIDTH
    items, queries, geometry = trained_vectors(benchmark, folder, (*own, *benchmark.overrides))
    if geometry != "biased_sphere":
        sys.exit(f"vectors of a biased sphere are wanted, got {geometry}")
    return widened(items, size), queries.contiguous()


def widened(items: Tensor, size: int) -> Tensor:
    """Return `size` items: the first are as they are, copies with noise follow."""
    generator = torch.Generator().manual_seed(0)
    parts, count = [items], len(items)
    while count < size:
        copies = items[torch.randperm(len(items), generator=generator)]
        noise = torch.randn(copies.shape, generator=generator)
        parts.append(copies + noise * NOISE / copies.shape[1] ** 0.5)
        count += len(copies)
    return torch.cat(parts)[:size].contiguous()
