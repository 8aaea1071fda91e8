"""`--set`: values by the type of their key, and text as it was written where the key holds text."""

from pathlib import Path
from typing import Any

import pytest

from recsys.core.errors import ConfigError
from recsys.training.families.load import load_config
from recsys.training.families.overrides import typed_override

CONFIG = """
data: {interactions: log.parquet}
split: {kind: leave_one_out}
schema:
  interactions: {user: user, item: item, time: {column: at, unit: s}}
  features: [{name: "no", table: items, kind: categorical}]
"""


@pytest.mark.parametrize(
    ("given", "value"),
    [
        ("data.items=007", "007"),
        ("data.items=1e3", "1e3"),
        ("data.items=null", None),
        ("schema.interactions.item=no", "no"),
        ("schema.interactions.item=on", "on"),
        ("schema.interactions.user=12", "12"),
        ("schema.interactions.user='12'", "12"),
        ("policies.latest_time=2024-05-31", "2024-05-31"),
        ("policies.latest_time=2024", "2024"),
        ("data.others.brands=0x1F", "0x1F"),
        ("training.epochs=5", 5),
        ("training.learning_rate=1e-3", 1e-3),
        ("evaluation.filter_seen=no", False),
        ("evaluation.ks=[5, 10]", [5, 10]),
        ("training.epochs=five", "five"),
        ("no.such.key=007", 7),
    ],
)
def test_values_are_of_the_type_of_their_key(given: str, value: Any) -> None:
    key, found = typed_override(given)
    assert key == given.partition("=")[0]
    assert (found, type(found)) == (value, type(value))


def test_a_column_may_be_called_no(tmp_path: Path) -> None:
    path = tmp_path / "recsys.yaml"
    path.write_text(CONFIG)
    config = load_config(path, ("schema.interactions.item=no", "data.items=007"))
    assert config.schema_.interactions.item == "no"
    assert config.data.items == str(tmp_path / "007")


def test_what_is_no_pair_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"--set training\.epochs: expected key=value"):
        typed_override("training.epochs")
