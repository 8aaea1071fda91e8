"""The cache: what comes back is what was built; a stale or broken entry never does."""

import random
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from recsys.features.batches.pairs import LoaderConfig, PairLoader
from recsys.features.dataset.cache import cached
from recsys.features.dataset.dataset import Dataset, prepare
from recsys.features.dataset.queries import build_queries
from recsys.features.dataset.split import TEST
from recsys.features.world.world import RetailWorld
from recsys.training.config.experiment import ExperimentConfig
from recsys.training.families.load import load_config

SETTINGS = LoaderConfig(
    batch_size=64,
    uniform_negatives=8,
    history_length=5,
    id_dropout=0.1,
    context_dropout=0.1,
    seed=1,
)


class Counter:
    """Builds the data set of a configuration and counts how often."""

    def __init__(self, config: ExperimentConfig) -> None:
        self.config = config
        self.calls = 0

    def __call__(self) -> Dataset:
        self.calls += 1
        c = self.config
        return prepare(c.schema_, c.data, c.policies, c.split)

    def get(self, folder: Path) -> Dataset:
        c = self.config
        return cached(folder, self, c.schema_, c.data, c.policies, c.split)


def test_the_second_reading_maps_the_same_rows(
    config: ExperimentConfig, dataset: Dataset, tmp_path: Path
) -> None:
    counter = Counter(config)
    counter.get(tmp_path)
    again = counter.get(tmp_path)
    assert counter.calls == 1
    assert again.tables.fingerprint == dataset.tables.fingerprint
    assert again.tables.items.equals(dataset.tables.items)
    for name in ("user_row", "time", "session"):
        assert np.array_equal(
            getattr(again.tables.events, name), getattr(dataset.tables.events, name)
        )
    one, two = (PairLoader(data, SETTINGS).batch(2, 1) for data in (dataset, again))
    assert torch.equal(one.items.single, two.items.single)
    assert torch.equal(one.query.single, two.query.single)
    assert torch.equal(one.history.values, two.history.values)
    asked = [
        build_queries(d, TEST, history_length=5, filter_seen=True, limit=50, seed=0)
        for d in (dataset, again)
    ]
    assert torch.equal(asked[0].relevant.values, asked[1].relevant.values)
    assert torch.equal(asked[0].block.dense, asked[1].block.dense)


def test_another_byte_or_another_setting_is_another_entry(tmp_path: Path) -> None:
    files = RetailWorld.create(seed=3, users=60, items=40, events=900).write(tmp_path / "data")
    path = files.folder / "recsys.yaml"
    path.write_text(RetailWorld.create(seed=3, users=60, items=40, events=900).config_text(files))
    counter = Counter(load_config(path))
    counter.get(tmp_path / "cache")
    RetailWorld.create(seed=4, users=60, items=40, events=900).write(tmp_path / "data")
    counter.get(tmp_path / "cache")
    assert counter.calls == 2
    other = Counter(load_config(path, ("split.test=0.2",)))
    other.get(tmp_path / "cache")
    assert other.calls == 1
    for change in ("policies.duplicate_events=drop", "schema.features.0.multiplicity=7"):
        raw = yaml.safe_load(path.read_text())
        where, value = change.split("=")
        *parents, last = where.split(".")
        node = raw
        for key in parents:
            node = node[int(key)] if isinstance(node, list) else node.setdefault(key, {})
        node[last] = yaml.safe_load(value)
        changed = path.with_name(f"{last}.yaml")
        changed.write_text(yaml.safe_dump(raw))
        assert load_config(changed) != load_config(path)
        again = Counter(load_config(changed))
        again.get(tmp_path / "cache")
        assert again.calls == 1, change


def test_an_entry_with_a_flipped_bit_or_a_cut_is_built_again(
    config: ExperimentConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    counter = Counter(config)
    counter.get(tmp_path)
    rng = random.Random(0)
    names = [one.relative_to(tmp_path) for one in tmp_path.rglob("*") if one.is_file()]
    assert {"rows.safetensors", "items.arrow", "facts.json", "files.json"} <= {
        n.name for n in names
    }
    for name in names:
        whole = (tmp_path / name).read_bytes()
        flipped = bytearray(whole)
        flipped[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
        for data in (bytes(flipped), whole[:-1]):
            (tmp_path / name).write_bytes(data)
            calls = counter.calls
            counter.get(tmp_path)
            assert counter.calls == calls + 1, name
            assert "encoding the tables again" in caplog.text
            assert (tmp_path / name).read_bytes() == whole


def test_a_split_column_that_knows_its_validation_rows_is_kept(tmp_path: Path) -> None:
    parts = ["train", "train", "validation", "test"]
    rows = {"user": [1, 2] * 4, "item": [3, 4, 5, 6] * 2, "part": parts * 2}
    pd.DataFrame(rows).to_parquet(tmp_path / "log.parquet")
    settings = {
        "data": {"interactions": "log.parquet"},
        "schema": {
            "interactions": {"user": "user", "item": "item"},
            "features": [{"name": "item", "table": "items", "kind": "categorical"}],
        },
        "split": {"kind": "column", "column": "part"},
        "policies": {"duplicate_events": "keep"},
    }
    (tmp_path / "recsys.yaml").write_text(yaml.safe_dump(settings))
    counter = Counter(load_config(tmp_path / "recsys.yaml"))
    first, again = counter.get(tmp_path / "cache"), counter.get(tmp_path / "cache")
    assert counter.calls == 1
    np.testing.assert_array_equal(first.part, again.part)
    assert sorted(set(again.part.tolist())) == [0, 1, 2]
