"""Public data on loan, read in place: skipped, with a reason, where they are absent."""

import os
from pathlib import Path

import numpy as np
import pytest

from recsys.features.dataset.dataset import prepare
from recsys.features.dataset.queries import build_queries
from recsys.features.dataset.split import TEST, TRAIN
from recsys.features.propose.tables import infer
from recsys.training.config.retrieval import RetrievalEvaluationConfig
from recsys.training.evaluation.evaluate import ranking_metrics
from recsys.training.families.load import load_config
from recsys.training.families.plain.choose import baseline_rankers

DATA = Path(os.environ.get("RECSYS_DATA", Path(__file__).parents[2] / "shared" / "data"))
ML1M = DATA / "ml-1m"

pytestmark = pytest.mark.loaned


@pytest.mark.skipif(not ML1M.is_dir(), reason=f"MovieLens-1M is not in {DATA} (RECSYS_DATA)")
def test_movielens_from_init_to_baselines(tmp_path: Path) -> None:
    """`init` needs only the rating line; leave one out; popularity where it is known to be."""
    names = ("ratings.parquet", "movies.parquet", "users.parquet")
    found = infer([ML1M / name for name in names])
    path = tmp_path / "recsys.yaml"
    path.write_text(found.yaml.replace("# - {column: rating", "- {column: rating"))
    config = load_config(path)
    assert config.split.kind == "leave_one_out"
    data = prepare(config.schema_, config.data, config.policies, config.split)
    assert (data.num_users, data.num_items) == (6_040, 3_883)
    assert len(data.tables.events) == 575_066
    users, counts = np.unique(data.tables.events.user_row[data.part == TEST], return_counts=True)
    assert (len(users), counts.max()) == (6_035, 1)
    assert (data.part == TRAIN).sum() == 575_066 - 2 * 6_035
    queries = build_queries(data, TEST, history_length=1, filter_seen=True, limit=10_000, seed=0)
    settings = RetrievalEvaluationConfig(baselines=("popularity",))
    top = baseline_rankers(data, settings)[0]["popularity"](queries, 10)
    hit_rate = ranking_metrics(top, queries.relevant, (10,))["hit_rate_at_10"].mean()
    assert 0.03 < hit_rate < 0.06  # .037 is known for all ratings, .04 to .05 for high ones
