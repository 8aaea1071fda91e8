"""A ranker with windows over further tables, from training to a served answer."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from click.testing import CliRunner

import recsys
from recsys.app.cli import main
from recsys.core.errors import ConfigError, DataError
from recsys.features.bundle.rows import RowModel
from recsys.features.dataset.split import TEST
from recsys.serving.recommend.rows import RowScorer
from recsys.training.engine.ranks import World
from recsys.training.families.load import load_config
from recsys.training.families.ranker.rows import open_rows
from recsys.training.jobs.check import preflight
from recsys.training.jobs.explain import explain_model
from recsys.training.jobs.train import train

ROWS, USERS, ITEMS, START, DAY = 1500, 30, 12, 1_700_000_000, 86_400
WINDOWS: list[dict[str, Any]] = [
    {"name": "bought", "kind": "window", "of": "lines", "by": "pair", "window": "20d"},
    {"name": "orders_30d", "kind": "window", "of": "orders", "by": "user", "window": "30d"},
    {"name": "rows_before", "kind": "window", "of": "interactions", "by": "user"},
]


def write(folder: Path) -> dict[str, str]:
    """Write a log whose rows are positive where the user ordered the item in 20 days before."""
    rng = np.random.default_rng(5)
    orders = {
        "no": np.arange(900),
        "customer": rng.integers(0, USERS, 900),
        "at": START + rng.integers(0, 100 * DAY, 900),
    }
    lines = {"order": np.repeat(np.arange(900), 2), "article": rng.integers(0, ITEMS, 1800)}
    user, item = rng.integers(0, USERS, ROWS), rng.integers(0, ITEMS, ROWS)
    time = START + np.sort(rng.choice(100 * DAY, ROWS, replace=False))
    buyer, at = orders["customer"][lines["order"]], orders["at"][lines["order"]]
    mine = (buyer == user[:, None]) & (lines["article"] == item[:, None])
    recent = (at < time[:, None]) & (at >= time[:, None] - 20 * DAY)
    click = (rng.random(ROWS) < np.where((mine & recent).any(1), 0.9, 0.1)).astype(int)
    log = {"user": user, "item": item, "time": time, "click": click}
    paths = {}
    for name, rows in {"orders": orders, "lines": lines, "interactions": log}.items():
        paths[name] = str(folder / f"{name}.parquet")
        pq.write_table(pa.table(rows), paths[name])
    return paths


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, dict[str, str]]:
    """Return the configuration, the bundle and the paths of the tables."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("relations")
    paths = write(folder)
    raw = {
        "data": {
            "interactions": paths["interactions"],
            "others": {name: paths[name] for name in ("orders", "lines")},
        },
        "schema": {
            "interactions": {
                "user": "user", "item": "item", "label": {"column": "click"},
                "time": {"column": "time", "unit": "s"},
            },
            "relations": {
                "orders": {
                    "keys": {"customer": "users"}, "time": {"column": "at", "unit": "s"}, "id": "no"
                },
                "lines": {"keys": {"order": "orders", "article": "items"}},
            },
            "features": [
                {"name": "item", "table": "items", "kind": "categorical"},
                *WINDOWS,
            ],
        },
        "model": {"kind": "mlp", "hidden": [16]},
        "embedding": {"num_rows": 256, "dim": 4, "backend": "torch"},
        "training": {"epochs": 4, "batch_size": 64},
        "evaluation": {"bootstrap_samples": 5, "rankers": []},
        "tracking": {"enabled": False},
        "output": str(folder / "runs"),
    }  # fmt: skip
    (folder / "recsys.yaml").write_text(yaml.safe_dump(raw))
    result = train(load_config(folder / "recsys.yaml"))
    assert result is not None
    return folder / "recsys.yaml", result.bundle, paths


def wanted(config: Path, bundle: Path) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return the numbers of the test rows in the log, and what the evaluation gives them."""
    rows, ranker = open_rows(load_config(config), World()), RowModel.open(bundle)  # type: ignore[arg-type]
    (batch,) = rows.loader.ordered(TEST, ROWS)
    data = rows.loader.data  # type: ignore[attr-defined]
    numbers = data.tables.events.row[batch.examples.numpy()]
    return numbers, ranker.calibrator.probability(ranker.logits(batch.features))


def test_only_the_join_sees_what_decides(model: tuple[Path, Path, dict[str, str]]) -> None:
    config, bundle, _ = model
    assert explain_model(bundle, max_rows=500).importance.ranking[0] == "bought"
    said = str(preflight(load_config(config)))
    assert "note: relation 'lines': 1,800 rows, 100.0% of a known user, 100.0% of a known" in said


def test_rows_are_scored_with_relations_given_anew(
    model: tuple[Path, Path, dict[str, str]], tmp_path: Path
) -> None:
    config, bundle, paths = model
    numbers, probability = wanted(config, bundle)
    others = [f"--other={name}={paths[name]}" for name in ("orders", "lines")]
    command = ["score", str(bundle), "--input", paths["interactions"], *others]
    command += ["--interactions", paths["interactions"], "--output", str(tmp_path / "out")]
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 0, done.output
    found = np.asarray(pq.read_table(tmp_path / "out").sort_by("row").column("probability"))
    np.testing.assert_allclose(found[numbers], probability, rtol=0, atol=1e-6)
    # Chunks of rows, and later rows of the relations, change nothing.
    scorer = RowScorer.open(bundle, paths)
    some = pq.read_table(paths["interactions"]).slice(100, 3)
    answers = scorer.score(some).column("probability")
    np.testing.assert_allclose(answers, found[100:103], rtol=0, atol=1e-6)


def test_rows_may_bring_the_values(model: tuple[Path, Path, dict[str, str]]) -> None:
    config, bundle, paths = model
    numbers, probability = wanted(config, bundle)
    tables = open_rows(load_config(config), World()).loader.data.tables  # type: ignore[arg-type,attr-defined]
    place = np.argsort(tables.events.row)
    rows = pq.read_table(paths["interactions"])
    for name in ("bought", "orders_30d", "rows_before"):
        rows = rows.append_column(name, tables.events.context.column(name).take(pa.array(place)))
    answers = recsys.load(bundle).predict(rows.to_pandas())
    np.testing.assert_allclose(
        np.asarray(answers["probability"])[numbers], probability, rtol=0, atol=1e-6
    )


def test_what_is_not_given_is_named(model: tuple[Path, Path, dict[str, str]]) -> None:
    _, bundle, paths = model
    rows = pq.read_table(paths["interactions"])
    with pytest.raises(DataError, match=r"'bought'.*\(--other lines=PATH\), or write it into"):
        RowScorer.open(bundle).score(rows)
    with pytest.raises(ConfigError, match="keys or times of 'orders': give --other orders=PATH"):
        RowScorer.open(bundle, {"lines": paths["lines"]})
    with pytest.raises(
        ConfigError, match=r"--other visits: .* it has users, items, lines, orders,"
    ):
        RowScorer.open(bundle, {"visits": paths["lines"]})
    late = rows.set_column(2, "time", pa.array([None] * ROWS, pa.int64()))
    with pytest.raises(DataError, match="column 'time': the time is null"):
        RowScorer.open(bundle, paths).score(late)
