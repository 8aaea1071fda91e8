"""`recsys prepare --engine spark`: the bytes that this process writes."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from click.testing import CliRunner

import recsys
from recsys.app.cli import main

pytest.importorskip("pyspark", reason="pyspark is not installed")
if shutil.which("java") is None and "JAVA_HOME" not in os.environ:
    pytest.skip("Spark needs Java", allow_module_level=True)

pytestmark = pytest.mark.filterwarnings("ignore:PySpark does not yet fully:FutureWarning")


def log_of(folder: Path, rows: int = 600) -> None:
    """Write three files of clicks: nulls, ties in time, rare values, and new ones in the end."""
    rng = np.random.default_rng(0)
    site = rng.choice(["a", "b", "c", None], rows, p=[0.5, 0.3, 0.1, 0.1]).astype(object)
    site[int(0.8 * rows) :: 3] = "new"
    log = pd.DataFrame(
        {
            "user": rng.integers(0, 40, rows),
            "item": [f"i{one}" for one in rng.integers(0, 30, rows)],
            "at": 1_700_000_000 + 60 * (np.arange(rows) // 5),
            "click": rng.integers(0, 2, rows),
            "site": site,
            "tags": rng.choice(["x|y", "y", "", None], rows),
            "price": np.where(rng.random(rows) < 0.1, np.nan, rng.normal(size=rows)),
        }
    )
    log.loc[rng.random(rows) < 0.05, "item"] = None
    folder.mkdir()
    for number, cut in enumerate(np.array_split(np.arange(rows), 3)):
        part = log.iloc[cut[0] : cut[-1] + 1]
        part.to_parquet(folder / f"part-{number}.parquet", index=False, row_group_size=90)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ranker on the log, beside it."""
    folder = tmp_path_factory.mktemp("clicks")
    log_of(folder / "log")
    features = [
        {"name": "user", "kind": "categorical"},
        {"name": "item", "kind": "categorical", "min_count": 3},
        {"name": "site", "kind": "categorical", "min_count": 2},
        {"name": "tags", "kind": "multi_categorical", "separator": "|"},
        {"name": "price", "kind": "numeric"},
    ]
    roles = {"user": "user", "item": "item", "label": {"column": "click"}}
    roles["time"] = {"column": "at", "unit": "s"}  # type: ignore[assignment]
    settings = {
        "data": {"interactions": str(folder / "log"), "stream": True},
        "policies": {"bad_ids": "drop"},
        "schema": {
            "interactions": roles,
            "features": [
                *({"table": "interactions", **one} for one in features),
                {"name": "rate", "kind": "rate", "of": ["site"], "rows": "folds"},
            ],
        },
        "split": {"validation": 0.1, "test": 0.2},
        "model": {"kind": "logistic"},
        "tracking": {"enabled": False},
    }
    path = folder / "recsys.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


def test_spark_writes_the_bytes_of_one_process(
    spark: Any, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from recsys.features.clicks import by_pieces

    one = recsys.prepare(config, output=tmp_path / "one", quiet=True)
    monkeypatch.setattr(by_pieces, "PIECE_ROWS", 100)  # seven pieces
    asked = ["prepare", str(config), "--output", str(tmp_path / "many"), "--engine", "spark"]
    done = CliRunner().invoke(main, [*asked, "--master", "local[2]", "--json"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert (told["rows"], told["bytes"], told["was_there"]) == (one.rows, one.bytes, False)
    assert told["drops"] == list(one.drops)
    assert one.drops[0].startswith("bad_ids: drop")
    (mine,), (theirs,) = one.paths, told["paths"]
    files = sorted(path.relative_to(mine) for path in mine.rglob("*") if path.is_file())
    assert len(files) > 20
    for name in files:
        assert (Path(theirs) / name).read_bytes() == (mine / name).read_bytes(), name
    again = recsys.prepare(config, output=tmp_path / "many", quiet=True)
    assert again.was_there


def test_what_a_worker_cannot_read_is_said_as_by_one_process(
    spark: Any, config: Path, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    shutil.copytree(config.parent / "log", log)
    last = pd.read_parquet(log / "part-2.parquet")
    last.loc[5, "price"] = np.inf
    last.to_parquet(log / "part-2.parquet", index=False)
    given = yaml.safe_load(config.read_text())
    given["data"]["interactions"] = str(log)
    said = []
    for engine in ("local", "spark"):
        with pytest.raises(
            recsys.DataError, match=r"part-2.parquet row 6, column 'price'"
        ) as error:
            recsys.prepare(given, output=tmp_path / engine, engine=engine, quiet=True)  # type: ignore[arg-type]
        said.append(str(error.value))
    assert said[0] == said[1]


def test_spark_is_refused_for_tables_in_memory_and_a_master_without_it(
    world_config: Path, tmp_path: Path
) -> None:
    with pytest.raises(recsys.ConfigError, match=r"with data.stream: true.*leave it out"):
        recsys.prepare(world_config, output=tmp_path, engine="spark")
    with pytest.raises(recsys.ConfigError, match="add --engine spark, or leave it out"):
        recsys.prepare(world_config, output=tmp_path, master="local[2]")
