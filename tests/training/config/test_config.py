"""Configuration: strict, with the nearest right key named, and complete when written back."""

from pathlib import Path

import pytest
import yaml

from recsys.core.errors import ConfigError, NotFoundError
from recsys.training.config.file import dump_config
from recsys.training.families.load import load_config

MINIMAL = """
data: {interactions: log.parquet}
schema:
  interactions: {user: user, item: item}
  features:
    - {name: item, table: items, kind: categorical}
"""


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "recsys.yaml"
    path.write_text(text)
    return path


def test_written_back_it_reads_the_same_with_every_default(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, MINIMAL))
    text = dump_config(config)
    assert load_config(write(tmp_path, text)) == config
    shown = yaml.safe_load(text)
    assert shown["training"]["batch_size"] == config.training.batch_size
    assert shown["policies"]["unknown_items"] == "error"


@pytest.mark.parametrize("text", ["1e-3", "1E-3", "1.0e-3", "0.001", "+1e-3"])
def test_a_number_may_be_written_as_people_write_it(tmp_path: Path, text: str) -> None:
    config = load_config(write(tmp_path, MINIMAL), (f"training.learning_rate={text}",))
    assert config.training.learning_rate == 0.001


def test_paths_are_beside_the_file_and_overrides_win(tmp_path: Path) -> None:
    config = load_config(
        write(tmp_path, MINIMAL), ("training.epochs=3", "model.hidden=[8, 4]", "evaluation.ks=[5]")
    )
    assert config.data.interactions == str(tmp_path.resolve() / "log.parquet")
    assert (config.training.epochs, config.model.hidden, config.evaluation.ks) == (3, (8, 4), (5,))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("traning: {epochs: 3}", r"unknown key 'traning' \(did you mean 'training'\?\)"),
        ("training: {epoch: 3}", r"unknown key 'training.epoch' \(did you mean 'epochs'\?\)"),
        ("training: {epochs: 0}", r"training.epochs: .* greater than or equal to 1 \(got 0\)"),
        ("training: {learning_rate: .inf}", r"learning_rate: .* a finite number \(got inf\)"),
        ("training: {seed: -1}", r"training\.seed: .* greater than or equal to 0 \(got -1\)"),
        ("training: {epochs: three}", r"training.epochs: .* integer"),
        ("split: {kind: random}", "split.kind: .*'time', 'leave_one_out', 'column' or 'none'"),
        ("policies: {bad_ids: ignore}", "policies.bad_ids"),
        ("model: {kind: session, readout: foo}", r"yaml: model\.readout: .*'last' or 'items'"),
        (
            "model: {kind: session, history_lenght: 3}",
            r"unknown key 'model\.history_lenght' .*gth'",
        ),
        ("model: {kind: session, dim: 33}", r"yaml: model: a width of 33 .* multiple of 2$"),
        ("model: {kind: autoint, hiden: [3]}", r"'model\.hiden' \(did you mean 'hidden'"),
        ("model: {kind: sesion}", r"model: kind 'sesion' is none of .*did you mean 'session'"),
        ("training: {loss: {kind: metric, margin: 0}}", r"yaml: training\.loss\.margin: "),
        ("index: {kind: usearhc}", r"index\.kind: should be one of auto, .* mean 'usearch'"),
        ("training: {loss: bcee}", r"training\.loss: kind 'bcee' is none of .*mean 'bce'"),
    ],
)
def test_wrong_keys_and_values_are_named(tmp_path: Path, change: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(write(tmp_path, MINIMAL + change))


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ("[{name: x, table: itms, kind: numeric}]", r"table 'itms'.*did you mean 'items'"),
        ("[{name: x, table: items, kind: numerc}]", "features.0"),
        ("[{name: x, table: items, kind: numeric}]", "needs a table 'items', .* not declared"),
        ("[{name: user, table: users, kind: categorical}]", "at least one feature of the items"),
        ("[{name: item, table: items, kind: categorical, dim: 3}]", r"'schema\.features\.0\.dim'"),
        ("[{name: x, table: items, kind: vector}]", r"missing key 'schema\.features\.0\.dim'"),
        ("[{name: x, kind: history}]", r"missing key 'schema\.features\.0\.of'"),
        ("[{name: x, table: items}]", r"missing key 'schema\.features\.0\.kind'"),
    ],
)
def test_wrong_features_are_named(tmp_path: Path, features: str, message: str) -> None:
    text = MINIMAL.split("  features:")[0] + f"  features: {features}\n"
    with pytest.raises(ConfigError, match=message):
        load_config(write(tmp_path, text))


def test_what_is_no_configuration_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no such configuration; `recsys init` writes one"):
        load_config(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="not valid YAML"):
        load_config(write(tmp_path, "a: [1"))
    with pytest.raises(ConfigError, match="expected a mapping"):
        load_config(write(tmp_path, "- 1"))
    with pytest.raises(ConfigError, match="expected key=value"):
        load_config(write(tmp_path, MINIMAL), ("training.epochs",))


def test_a_log_without_users_and_items_has_to_be_streamed(tmp_path: Path) -> None:
    path = tmp_path / "recsys.yaml"
    path.write_text(
        """
data: {interactions: clicks.parquet}
model: {kind: dcn}
schema:
  interactions: {label: {column: clicked}}
  features: [{name: shop, table: interactions, kind: categorical}]
"""
    )
    with pytest.raises(ConfigError, match=r"'user' and 'item' is read as a stream: set data.stre"):
        load_config(path)
    assert load_config(path, ("data.stream=true",)).data.stream


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model.dim", 10**6),
        ("model.history_length", 10**9),
        ("embedding.dim", 10**6),
        ("training.uniform_negatives", 10**9),
        ("evaluation.bootstrap_samples", 10**9),
        ("model.hidden", [10**9]),
    ],
)
def test_a_size_that_no_machine_holds_is_refused_with_its_key(
    tmp_path: Path, key: str, value: object
) -> None:
    with pytest.raises(ConfigError, match=rf"{key}.*less than or equal to"):
        load_config(write(tmp_path, MINIMAL), (f"{key}={value}",))
