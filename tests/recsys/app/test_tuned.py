"""From Python: a session model is tuned, trained, asked and evaluated; lookups of a ranker."""

from pathlib import Path

import pytest

import recsys
from recsys.core.events import PointLogged, StepDone

SMALL = {
    "model.dim": 16,
    "model.history_length": 10,
    "embedding.num_rows": 2048,
    "training.epochs": 1,
    "training.batch_size": 256,
    "evaluation.bootstrap_samples": 20,
    "evaluation.baselines": ["popularity"],
    "tracking.enabled": False,
}


@pytest.fixture
def sessions(world_config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> recsys.Config:
    monkeypatch.chdir(tmp_path)
    return recsys.Config.open(world_config).with_({"model.kind": "session", **SMALL})


def test_what_was_tuned_is_trained_and_asked(sessions: recsys.Config) -> None:
    rates = ("training.learning_rate", "embedding.learning_rate")
    slow = sessions.with_(dict.fromkeys(rates, 1e-7))  # learns nothing: the other trial is better
    tuned = recsys.tune(slow, trials=2, space={rate: [0.01] for rate in rates}, quiet=True)
    assert [tuned.config[rate] for rate in rates] == [0.01, 0.01]
    assert len(tuned.to_json()["trials"]) == 2
    assert "2 trials" in str(tuned)
    told: list[object] = []
    run = recsys.train(tuned.config, quiet=True, listener=told.append)
    steps = [event for event in told if isinstance(event, StepDone)]
    assert [event.global_step for event in steps] == list(range(1, len(steps) + 1))
    last = told[-1]
    assert isinstance(last, PointLogged)
    assert "epoch_loss" in last.values
    model = run.model
    lists = model.recommend(k=3)
    assert model.kind == "session"
    assert lists.groupby("user_id")["rank"].max().max() == 3
    assert not recsys.evaluate(model).to_frame().empty


def test_a_listener_ends_a_training(sessions: recsys.Config) -> None:
    def stop(event: object) -> None:
        if isinstance(event, StepDone):
            raise InterruptedError

    with pytest.raises(InterruptedError):
        recsys.train(sessions, quiet=True, listener=stop)
    with pytest.raises(recsys.ConfigError, match="several workers are processes of their own"):
        recsys.train(sessions, workers=2, listener=stop)
