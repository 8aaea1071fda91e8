"""An alias is moved at once, or if a version is better: on MLflow's own registry, real models."""

import json
import logging
import math
import re
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

import recsys
from recsys.app.cli import main
from recsys.app.promoting import _check_better
from recsys.bundle.directory import Bundle
from recsys.core.errors import ConfigError, NotBetterError, NotFoundError
from recsys.features.bundle.measured import Kept
from recsys.metrics.intervals import Difference
from recsys.serving.registry import holder_of

METRIC = "ndcg_at_10"


@pytest.fixture(scope="module")
def registered(
    trained: Path,
    untrained: Path,
    mlflow_template: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A database whose model `shop` has the versions 1, untrained, and 2, trained."""
    path = tmp_path_factory.mktemp("registry") / "mlflow.db"
    shutil.copy(mlflow_template, path)
    for bundle in (untrained, trained):
        recsys.register(bundle, "shop", tracking_uri=f"sqlite:///{path}")
    return path


@pytest.fixture
def store(registered: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """The same for every test: nobody holds an alias."""
    shutil.copytree(registered.parent, tmp_path / "project")
    monkeypatch.chdir(tmp_path / "project")
    uri = f"sqlite:///{tmp_path / 'project' / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    return uri


def promote(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["promote", "shop", *map(str, arguments)])


def test_a_better_version_takes_the_alias_and_a_worse_one_does_not(
    store: str, trained: Path, untrained: Path
) -> None:
    first = recsys.promote("shop", 1, if_better=METRIC)
    assert (first.before, first.comparison, holder_of("shop", "champion")) == (None, None, 1)
    done = recsys.promote("shop", 2, if_better=METRIC)
    assert (done.before, done.version, holder_of("shop", "champion")) == (1, 2, 2)
    assert done.gain is not None
    assert done.comparison is not None
    assert done.comparison.protocol["data"] == "the data of shop/2"
    again = recsys.compare([untrained, trained], metric=METRIC)
    assert vars(done.gain) == pytest.approx(vars(again.gain(again.trained[1].name)))
    with pytest.raises(NotBetterError, match="not promoted: its gain over version 2") as refused:
        recsys.promote("shop", 1, if_better=METRIC)
    assert holder_of("shop", "champion") == 2
    error = refused.value
    found = (-error.gain, error.high and -error.high, error.low and -error.low)
    assert found == pytest.approx((done.gain.mean, done.gain.low, done.gain.high))


def test_the_command_says_so_with_a_code_of_its_own(store: str) -> None:
    alone = promote(1, "--if-better", METRIC)
    assert "no version of shop holds @champion: promoted without a comparison" in alone.stderr
    assert alone.stdout == "models:/shop@champion is now version 1\n"
    done = promote(2, "--if-better", METRIC)
    assert done.exit_code == 0
    assert f"{METRIC}: +0." in done.output
    assert "over version 1\nmodels:/shop@champion is now version 2\n" in done.output
    refused = promote(1, "--if-better", METRIC, "--json")
    assert refused.exit_code == NotBetterError.exit_code == 6
    fields = json.loads(refused.stdout)
    assert (fields["error"], fields["metric"]) == ("NotBetterError", METRIC)
    assert fields["low"] < fields["gain"] < fields["high"] < 0
    assert json.loads(promote(2, "--json").stdout)["before"] == 2


def test_a_margin_is_the_least_gain(store: str) -> None:
    recsys.promote("shop", 1, alias="prod", if_better=METRIC)
    better = {"alias": "prod", "if_better": METRIC}
    with pytest.raises(NotBetterError, match=r"has to be 0\.99 or more") as refused:
        recsys.promote("shop", 2, margin=0.99, **better)  # type: ignore[arg-type]
    gain = refused.value.gain
    with pytest.raises(NotBetterError):
        recsys.promote("shop", 2, margin=gain + 1e-6, **better)  # type: ignore[arg-type]
    assert recsys.promote("shop", 2, margin=gain - 1e-6, **better).before == 1  # type: ignore[arg-type]


@given(st.floats(-1, 1), st.floats(0, 1), st.floats(0, 1), st.floats(-1, 1))
def test_what_is_promoted_is_better_by_the_margin_and_surely(
    mean: float, below: float, above: float, margin: float
) -> None:
    gain = Difference(mean, mean - below, mean + above)
    if mean - below > margin if margin < 0 else (mean >= margin and mean - below > 0):
        _check_better("shop", 2, 1, gain, METRIC, margin)
    else:
        with pytest.raises(NotBetterError, match=re.escape(f"{mean:+.4f}")):
            _check_better("shop", 2, 1, gain, METRIC, margin)


def test_a_margin_below_zero_is_the_most_that_may_be_lost(store: str) -> None:
    recsys.promote("shop", 2, alias="daily")
    lost = {"alias": "daily", "if_better": METRIC}
    with pytest.raises(NotBetterError, match=r"and its interval is not above -0\.001") as refused:
        recsys.promote("shop", 1, margin=-0.001, **lost)  # type: ignore[arg-type]
    assert refused.value.low is not None
    with pytest.raises(NotBetterError):
        recsys.promote("shop", 1, margin=refused.value.gain, **lost)  # type: ignore[arg-type]
    margin = refused.value.low - 1e-6
    done = promote(1, "--alias", "daily", "--if-better", METRIC, "--margin", margin)
    assert done.exit_code == 0, done.output
    assert holder_of("shop", "daily") == 1


def test_what_is_not_measured_is_not_better() -> None:
    with pytest.raises(NotBetterError):
        _check_better("shop", 2, 1, Difference(math.nan, math.nan, math.nan), METRIC, 0.0)


def test_the_same_model_again_is_not_better(store: str, trained: Path) -> None:
    recsys.promote("shop", 2)
    assert recsys.register(trained, "shop") == 3
    with pytest.raises(NotBetterError, match="is the same model as version 2"):
        recsys.promote("shop", 3, if_better=METRIC)
    kept = recsys.promote("shop", 2, if_better=METRIC)  # it holds the alias already
    assert (kept.before, kept.gain) == (2, None)


def test_a_model_that_a_plain_one_beat_is_warned_of(
    store: str, untrained: Path, trained: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for version, bundle in ((1, untrained), (2, trained)):
        caplog.clear()
        with caplog.at_level(logging.WARNING, logger="recsys"):
            recsys.promote("shop", version)
        doubt = Kept.of(Bundle.open(bundle)).doubt
        said = [record.getMessage() for record in caplog.records]
        assert said == ([] if doubt is None else [f"models:/shop/{version}: {doubt}"])
        assert holder_of("shop", "champion") == version
    kept = Kept.of(Bundle.open(untrained))
    best = max(one["ndcg_at_20"] for one in kept.baselines.values())
    assert f"{best:.4f}, its own {kept.test['ndcg_at_20']:.4f}" in str(kept.doubt)


def test_other_data_are_given_by_a_configuration(store: str, world_config: Path) -> None:
    recsys.promote("shop", 1)
    done = recsys.promote("shop", 2, if_better=METRIC, on=world_config)
    assert done.comparison is not None
    assert done.comparison.protocol["data"] == str(world_config)


def test_what_cannot_be_promoted_is_refused_before_the_alias_moves(store: str) -> None:
    with pytest.raises(ConfigError, match="margin and on go with if_better"):
        recsys.promote("shop", 1, margin=0.1)
    with pytest.raises(NotFoundError, match="there is no version '7'"):
        recsys.promote("shop", 7, if_better=METRIC)
    with pytest.raises(recsys.ArgumentError, match="'margin'"):
        recsys.promote("shop", 1, if_better=METRIC, margin=float("nan"))
    recsys.promote("shop", 1)
    with pytest.raises(ConfigError, match="metric 'auc' is none of lists"):
        recsys.promote("shop", 2, if_better="auc")
    assert promote(2, "--if-better", METRIC, "--on", "nowhere.yaml").exit_code == 4
    assert promote(2, "--margin", "nan").exit_code == 2
    assert holder_of("shop", "champion") == 1
