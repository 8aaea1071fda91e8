"""Rates that `recsys init` proposes: where a pair of values says what neither says alone."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from recsys.features.dataset.dataset import prepare
from recsys.features.propose.profile import profile_table
from recsys.features.propose.rates import rates_that_pay
from recsys.features.propose.tables import infer
from recsys.features.schema import Schema
from recsys.features.tables.reading import open_table
from recsys.features.tables.sources import Policies, Sources
from recsys.training.families.load import load_config

ROWS = 6_000


def log(*, tastes: bool, streamed: bool = False) -> dict[str, Any]:
    """Rows whose label each user has a taste for, by item, or which both decide one by one."""
    rng = np.random.default_rng(3)
    user, item = rng.integers(0, 40, ROWS), rng.integers(0, 30, ROWS)
    logit = rng.normal(0, 2.5, (40, 30)) if tastes else rng.normal(size=(40, 1)) * 2
    taste = np.broadcast_to(logit, (40, 30))[user, item] + rng.normal(size=30)[item]
    names = ("site", "advert") if streamed else ("user_id", "item_id")
    return {
        names[0]: [f"s{one}" for one in user],
        names[1]: item,
        "device": rng.choice(["phone", "desk", "pad"], ROWS),
        "click": (rng.random(ROWS) < 1 / (1 + np.exp(-taste))).astype(int),
    }


def written(folder: Path, columns: dict[str, Any]) -> Path:
    path = folder / "log.parquet"
    pq.write_table(pa.table(columns), path)
    return path


@pytest.mark.parametrize("streamed", [False, True])
def test_a_pair_that_pays_is_proposed_with_what_was_measured(
    tmp_path: Path, *, streamed: bool
) -> None:
    path = written(tmp_path, log(tastes=True, streamed=streamed))
    found = infer([path])
    schema = Schema.model_validate_json(json.dumps(yaml.safe_load(found.yaml)["schema"]))
    (rate,) = schema.label_features
    assert set(rate.parts) == ({"site", "advert"} if streamed else {"user_id", "item_id"})
    (line,) = (line for line in found.yaml.splitlines() if "kind: rate" in line)
    before, after = (float(word) for word in line.split("# ")[1].split(", with it "))
    assert after < 0.9 * before
    assert f"rows held out of {ROWS:,}" in found.yaml
    (tmp_path / "recsys.yaml").write_text(found.yaml)
    load_config(tmp_path / "recsys.yaml")
    if not streamed:
        data = prepare(schema, Sources(interactions=str(path)), Policies(), split_of(found.yaml))
        assert rate.name in data.encoder.label_tables


def split_of(text: str) -> Any:
    from recsys.features.dataset.split import SplitConfig

    return SplitConfig.model_validate(yaml.safe_load(text)["split"])


@pytest.mark.parametrize("streamed", [False, True])
def test_values_that_decide_one_by_one_need_no_rate_of_pairs(
    tmp_path: Path, *, streamed: bool
) -> None:
    found = infer([written(tmp_path, log(tastes=False, streamed=streamed))])
    assert "kind: rate" not in found.yaml


def test_a_pair_is_held_out_in_the_order_of_time(tmp_path: Path) -> None:
    """Tastes that end say nothing about later rows, although they do about rows at random."""
    columns = log(tastes=True)
    late = np.arange(ROWS) >= 0.8 * ROWS
    columns["click"] = np.where(late, np.arange(ROWS) % 2, columns["click"])
    profile = profile_table(open_table(str(written(tmp_path, columns)), "log"), "log")
    asked = {name: profile.columns[name] for name in ("user_id", "item_id")}
    label = profile.columns["click"]
    assert rates_that_pay(asked, label)
    assert not rates_that_pay(asked, label, np.arange(ROWS, dtype=np.float64))


def test_few_rows_or_positives_say_nothing(tmp_path: Path) -> None:
    columns = log(tastes=True)
    few = {name: values[:1500] for name, values in columns.items()}
    assert "kind: rate" not in infer([written(tmp_path, few)]).yaml
    columns["click"] = columns["click"] * (np.arange(ROWS) % 100 == 0)
    assert "kind: rate" not in infer([written(tmp_path, columns)]).yaml


def test_rows_without_a_label_are_left_out(tmp_path: Path) -> None:
    columns = log(tastes=True)
    columns["click"] = [None if k % 7 == 0 else int(v) for k, v in enumerate(columns["click"])]
    assert "kind: rate" in infer([written(tmp_path, columns)]).yaml
