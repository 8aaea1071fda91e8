"""The remedies that a refused table of a scoring job names can be followed: `score --set`."""

from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

import recsys
from recsys.app.cli import main
from recsys.training.config.experiment import ExperimentConfig

DROP = {"policies.bad_ids": "drop"}


@pytest.fixture
def log(config: ExperimentConfig) -> pd.DataFrame:
    """The log of the training with an item id lost in its first row."""
    log = pq.read_table(config.data.interactions).to_pandas()
    log.loc[0, "item_id"] = None
    return log


def test_a_row_that_is_refused_can_be_dropped(
    trained: Path, config: ExperimentConfig, log: pd.DataFrame, tmp_path: Path
) -> None:
    today, scores = tmp_path / "today.parquet", tmp_path / "scores"
    log.to_parquet(today)
    command = ["score", str(trained), "--interactions", str(today), "--output", str(scores)]
    command += ["--users", str(config.data.users)]

    def said(*options: str) -> tuple[int, str]:
        done = CliRunner().invoke(main, [*command, *options])
        return done.exit_code, done.output

    code, words = said()
    assert code == 3
    assert "or set policies.bad_ids: drop to leave such rows out" in words
    assert said("--set", "policies.bad_ids=drop")[0] == 0
    assert pq.read_table(scores).num_rows == 200
    code, words = said("--set", "policies.bad_ids=drop", "--set", "policies.bad_times=drop")
    assert code == 2
    assert "the scores of another job (model, requests, policies, filters, k or" in words
    code, words = said("--set", "policies.bad_ids=ignore")
    assert code == 2
    assert "policies: bad_ids: Input should be 'error' or 'drop'" in words
    code, words = said("--set", "policies.bad_id=drop")
    assert code == 2
    assert "policies.bad_id: the model is trained (did you mean 'policies.bad_ids'?)" in words
    code, words = said("--set", "policies.unknown_items=drop")
    assert code == 2
    assert "policies.unknown_items: items of a history that the model's catalogue lacks" in words


def test_a_model_in_python_follows_the_same_settings(
    trained: Path, config: ExperimentConfig, log: pd.DataFrame, tmp_path: Path
) -> None:
    with pytest.raises(recsys.DataError, match=r"policies\.bad_ids: drop"):
        recsys.load(trained).recommend(["u000001"], history=log)
    strict = recsys.load(trained)
    model = recsys.load(strict, settings=DROP)
    assert len(model.recommend(["u000001"], history=log, k=3)) == 3
    tables = {"history": log, "users": config.data.users}
    summary = recsys.score(strict, tmp_path / "out", **tables, settings=DROP)
    assert summary["users"] == 200
    with pytest.raises(recsys.ConfigError, match=r"policies\.ids: the model is trained"):
        recsys.load(trained, settings={"policies.ids": "drop"})
