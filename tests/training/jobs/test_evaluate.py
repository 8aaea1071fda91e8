"""A bundle evaluated again: as in training, or with other settings of the evaluation alone."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from recsys.app.cli import main
from recsys.core.errors import ConfigError, DataError
from recsys.features.world.world import RetailWorld
from recsys.training.config.retrieval import RetrievalEvaluationConfig
from recsys.training.evaluation.results import Evaluation
from recsys.training.jobs.evaluate import evaluate_bundle
from recsys.training.jobs.opening import open_model


def evaluate(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["evaluate", *map(str, arguments)])


def test_other_settings_of_the_evaluation_are_used_and_written_down(
    trained: Path, tmp_path: Path
) -> None:
    report = tmp_path / "again.html"
    settings = ("evaluation.ks=[3, 7]", "evaluation.baselines=[popularity]")
    options = [part for one in settings for part in ("--set", one)]
    result = evaluate(trained, "--out", report, *options, "--keep-seen", "--json")
    assert result.exit_code == 0, result.output
    metrics = json.loads(result.stdout)["metrics"]
    assert set(metrics) == {"two_tower", "popularity"}
    assert {name.rpartition("_at_")[2] for name in metrics["two_tower"]} == {"3", "7"}
    text = report.read_text()
    assert "<dt>seen items</dt><dd>kept</dd>" in text
    assert "filter_seen: false" in text


def test_seen_items_are_hidden_or_kept_as_asked(trained: Path, tmp_path: Path) -> None:
    quick = {"evaluation.baselines": [], "evaluation.bootstrap_samples": 10}
    found = {}
    for seen in (None, True, False):
        settings = quick if seen is None else {**quick, "evaluation.filter_seen": seen}
        found[seen] = evaluate_bundle(trained, tmp_path / "r.html", settings=settings)
    for one in found.values():
        assert isinstance(one, Evaluation)
    tops = {seen: one.results["two_tower"].top.tolist() for seen, one in found.items()}
    assert tops[None] == tops[True]
    assert tops[True] != tops[False]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"training.epochs": 5}, r"training.epochs: this two_tower is trained; what"),
        ({"split.kind": "time"}, r"split.kind: this two_tower is trained; what"),
        ({"evaluation.kss": [5]}, r"evaluation.kss: .* of its evaluation is .*evaluation.ks, "),
        ({"evaluation": {"ks": [5]}}, r"evaluation: this two_tower is trained; what"),
        ({"evaluation.rankers": ["fm"]}, r"evaluation.rankers: this two_tower is trained"),
        ({"evaluation.ks": [0]}, r"evaluate: evaluation.ks.0: "),
        ({"evaluation.baselines": ["slim"]}, r"evaluate: evaluation.baselines.0: "),
        ({"evaluation.baselines": ["markov"]}, r"evaluation.baselines: markov"),
    ],
)
def test_what_cannot_be_set_of_a_trained_model_is_refused(
    trained: Path, tmp_path: Path, settings: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        evaluate_bundle(trained, tmp_path / "r.html", settings=settings)
    assert not list(tmp_path.iterdir())


def test_each_key_of_the_section_can_be_set_but_what_trains_other_models(
    trained: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as refused:
        evaluate_bundle(trained, tmp_path / "r.html", settings={"x": 1})
    named = re.findall(r"evaluation\.(\w+)", str(refused.value))
    assert named == [name for name in RetrievalEvaluationConfig.model_fields]


def test_who_evaluates_again_is_told_of_no_policy_to_set(
    trained: Path, world: RetailWorld, tmp_path: Path
) -> None:
    log = world.interactions.slice(0, 50)
    nobody = pa.array([None, *log["user_id"].to_pylist()[1:]])
    path = tmp_path / "log.parquet"
    pq.write_table(log.set_column(0, "user_id", nobody), path)
    opened = open_model(trained)
    sources = opened.config.data.model_copy(update={"interactions": str(path)})
    changed = replace(opened, config=opened.config.model_copy(update={"data": sources}))
    with pytest.raises(DataError, match="row 1, column 'user_id': the id is null") as refused:
        changed.data()
    assert "policies" not in str(refused.value)
