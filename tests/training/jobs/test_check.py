"""`recsys check`: what training refuses is said before it, where that is known."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from recsys.core.errors import ConfigError, UserError
from recsys.training.config.experiment import ExperimentConfig
from recsys.training.families.load import parse_config
from recsys.training.jobs.check import preflight
from recsys.training.jobs.train import train
from tests.training.jobs.odd_experiments import KINDS, odd_experiments


def outcome(job: Callable[[], Any]) -> str:
    """Return what a job was refused with; "" where it ran."""
    try:
        job()
    except UserError as error:
        return f"{type(error).__name__}: {error}"
    return ""


def test_what_check_accepts_trains_and_what_training_refuses_check_refuses(tmp_path: Path) -> None:
    """In the same words, on odd little logs of every family."""
    said: dict[str, list[str]] = {kind: [] for kind in KINDS}
    for odd in odd_experiments(tmp_path, 42):
        config = parse_config(odd.keys, source=odd.name)
        checked = outcome(lambda config=config: preflight(config))  # type: ignore[misc]
        trained = outcome(lambda config=config: train(config, report=False))  # type: ignore[misc]
        assert checked == trained, f"{odd.name}: {odd.keys}"
        said[odd.kind].append(checked)
    for kind, answers in said.items():
        assert "" in answers, f"no {kind} was trained: {answers}"
        assert any(answers), f"no {kind} was refused"


def test_settings_that_do_not_go_together_are_refused_before_the_data_are_read(
    config: ExperimentConfig,
) -> None:
    nowhere = config.data.model_copy(update={"interactions": "missing.parquet"})
    training = config.training.model_copy(update={"logq_correction": "streaming"})
    smoothing = config.model.smoothing.model_copy(update={"rounds": 1})  # type: ignore[attr-defined]
    model = config.model.model_copy(update={"smoothing": smoothing})
    asked = {"data": nowhere, "training": training, "model": model}
    with pytest.raises(ConfigError, match="streaming is about sampled candidates"):
        preflight(config.model_copy(update=asked))


def test_a_table_that_is_too_large_for_this_machine_is_said(config: ExperimentConfig) -> None:
    """Not refused: several machines may share it."""
    table = config.embedding.model_copy(update={"max_memory_mib": 1, "num_rows": 10**6})  # type: ignore[attr-defined]
    found = preflight(config.model_copy(update={"embedding": table}))
    (said,) = [line for line in found.warnings if "embedding table" in line]  # type: ignore[attr-defined]
    assert "training is refused here: the embedding table needs" in said
    assert "set embedding.num_rows to" in said
    assert not any("embedding table" in one for one in preflight(config).warnings)  # type: ignore[attr-defined]
