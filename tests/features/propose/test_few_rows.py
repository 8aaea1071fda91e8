"""`recsys init` on a log of fewer rows than items: a loss on item features, commented out."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys.features.propose.tables import Inference, infer
from recsys.training.families.load import load_config
from recsys.training.families.two_tower.config import TwoTowerExperiment
from recsys.training.jobs.check import preflight

ITEMS = 300


def proposed(folder: Path, *, rows: int, features: int = 2) -> Inference:
    """What `recsys init` finds in a log of `rows` on a catalogue of `ITEMS` with `features`."""
    log = {
        "user_id": np.arange(rows) % 40,
        "item_id": np.arange(rows) * 7 % ITEMS,
        "at": 1_600_000_000 + 3_600 * np.arange(rows),
    }
    items: dict[str, object] = {"item_id": np.arange(ITEMS)}
    items |= {f"kind_{n}": [f"k{one % (5 + n)}" for one in range(ITEMS)] for n in range(features)}
    pq.write_table(pa.table(log), folder / "log.parquet")
    pq.write_table(pa.table(items), folder / "items.parquet")
    return infer([folder / "log.parquet", folder / "items.parquet"])


def config_in(path: Path) -> TwoTowerExperiment:
    config = load_config(path)
    assert isinstance(config, TwoTowerExperiment)
    return config


def test_features_are_learnt_from_where_rows_are_fewer_than_items(tmp_path: Path) -> None:
    found = proposed(tmp_path, rows=ITEMS - 1)
    path = tmp_path / "recsys.yaml"
    path.write_text(found.yaml)
    assert config_in(path).training.self_supervision.kind == "none"
    assert found.yaml.count("\n# training: {") == 1
    path.write_text(found.yaml.replace("\n# training: {", "\ntraining: {"))
    config = config_in(path)
    preflight(config)
    settings = config.training.self_supervision
    assert (settings.kind, settings.views, settings.masking) == ("contrastive", "item", "none")
    assert (settings.dropout, settings.weight, settings.temperature) == (0.3, 0.5, 0.1)
    assert "299 rows for 300 items" in found.yaml  # the reason is beside it


@pytest.mark.parametrize(
    ("rows", "features"), [(ITEMS, 2), (ITEMS - 1, 0)], ids=["a row an item", "the id alone"]
)
def test_elsewhere_nothing_is_proposed(tmp_path: Path, rows: int, features: int) -> None:
    assert "self_supervision" not in proposed(tmp_path, rows=rows, features=features).yaml
