"""Scoring on Spark: the lists, probabilities and counts of the job on one machine."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from click.testing import CliRunner

import recsys
from recsys.app.cli import main
from recsys.core.errors import ArgumentError, ConfigError, DataError
from recsys.training.families.load import load_config
from recsys.training.jobs.train import train

pytest.importorskip("pyspark", reason="pyspark is not installed")
if shutil.which("java") is None and "JAVA_HOME" not in os.environ:
    pytest.skip("Spark needs Java", allow_module_level=True)

import recsys.spark

pytestmark = pytest.mark.filterwarnings("ignore:PySpark does not yet fully:FutureWarning")
SIZE = 150


@pytest.fixture(scope="module")
def data(messy: Path) -> Path:
    """The folder of the messy log and its users."""
    return messy.parents[3]


@pytest.fixture(scope="module")
def requests(messy: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The requests of the messy log, as the job on one machine makes them, in a file."""
    from recsys.features.tables.sources import Sources
    from recsys.serving.engines.logged import logged_users
    from recsys.serving.recommend.scorer import Scorer

    sources = Sources(interactions=str(data / "log"), users=str(data / "users.parquet"))
    found = logged_users(Scorer.open(messy), sources)
    path = tmp_path_factory.mktemp("asked") / "requests.parquet"
    pq.write_table(found.requests(np.arange(found.tables.users.num_rows)), path)
    return path


@pytest.fixture(scope="module")
def ranker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A logistic regression over rows, whose items have a table."""
    folder, rng = tmp_path_factory.mktemp("ranker"), np.random.default_rng(0)
    rows = pd.DataFrame(
        {
            "user": [f"u{n}" for n in rng.integers(0, 9, SIZE)],
            "item": rng.integers(0, 12, SIZE),
            "hour": rng.integers(0, 24, SIZE).astype(float),
            "click": rng.integers(0, 2, SIZE),
            "at": pd.date_range("2026-01-01", periods=SIZE, freq="h").astype("datetime64[us]"),
        }
    )
    (folder / "rows").mkdir()
    for part, name in enumerate(("b", "a-1", "a")):
        rows.iloc[part::3].to_parquet(folder / "rows" / f"{name}.parquet", row_group_size=20)
    items = pd.DataFrame({"item": np.arange(12), "price": rng.exponential(5, 12)})
    items.to_parquet(folder / "items.parquet")
    settings = {
        "data": {
            "interactions": str(folder / "rows"),
            "items": str(folder / "items.parquet"),
        },
        "schema": {
            "interactions": {
                "user": "user",
                "item": "item",
                "label": {"column": "click"},
                "time": {"column": "at", "unit": "datetime"},
            },
            "items": {"key": "item"},
            "features": [
                {"name": "item", "table": "items", "kind": "categorical"},
                {"name": "price", "table": "items", "kind": "numeric"},
                {"name": "hour", "table": "interactions", "kind": "numeric"},
            ],
        },
        "split": {"kind": "time", "validation": 0.2, "test": 0.2},
        "embedding": {"num_rows": 64, "dim": 4},
        "model": {"kind": "logistic"},
        "training": {"batch_size": 64, "epochs": 1},
        "evaluation": {"bootstrap_samples": 5, "rankers": []},
        "tracking": {"enabled": False},
        "output": str(folder / "runs"),
    }
    (folder / "recsys.yaml").write_text(yaml.safe_dump(settings))
    result = train(load_config(folder / "recsys.yaml"))
    assert result is not None
    return result.bundle


def assert_same(found: pa.Table, expected: pa.Table) -> None:
    """The same rows in any order; scores are those of another batch, and may be rounded apart."""
    assert found.column_names == expected.column_names
    names = [field.name for field in expected.schema if not has_floats(field.type)]

    def by_row(table: pa.Table) -> list[dict[str, Any]]:
        return sorted(table.to_pylist(), key=lambda row: str([row[name] for name in names]))

    for one, other in zip(by_row(found), by_row(expected), strict=True):
        for name, value in other.items():
            assert one[name] == (value if name in names else pytest.approx(value, abs=1e-5)), one


def has_floats(kind: pa.DataType) -> bool:
    return pa.types.is_floating(getattr(kind, "value_type", kind))


def run(*arguments: object) -> Any:
    result = CliRunner().invoke(main, list(map(str, arguments)))
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_a_log_is_scored_as_on_one_machine(
    spark: Any, messy: Path, data: Path, tmp_path: Path
) -> None:
    """Histories, last sessions and seen items of the messy log, filters, counts, and the schema."""
    (tmp_path / "no.txt").write_text("i03\nnone\n")
    block = pd.DataFrame({"user": ["U1", "u2"], "item": ["i01", "i02"]})
    block.to_parquet(tmp_path / "block.parquet")
    options = ["score", messy, "--interactions", data / "log", "--users", data / "users.parquet"]
    options += ["--exclude", tmp_path / "no.txt", "--block", tmp_path / "block.parquet"]
    options += ["--where", "item != 'i04'", "--hide-seen", "--k", 14, "--json"]
    found = {
        name: run(*options, "--output", tmp_path / name, "--engine", name)
        for name in ("local", "spark")
    }
    tables = {name: pq.read_table(tmp_path / name) for name in found}
    assert (tmp_path / "spark" / "_SUCCESS").is_file()
    assert_same(tables["spark"], tables["local"])
    assert tables["spark"].num_rows == 70
    assert tables["spark"].column_names == tables["local"].column_names
    named = {"output", "parts"}
    assert {n: v for n, v in found["spark"].items() if n not in named} == {
        n: v for n, v in found["local"].items() if n not in named
    }
    assert found["local"]["short_lists"] > 0
    assert found["local"]["lists_short_by_filters"] > 0
    assert found["local"]["unknown_listed_items"] == 1
    again = CliRunner().invoke(
        main, [*map(str, options), "--output", str(tmp_path / "spark"), "--engine", "spark"]
    )
    assert (again.exit_code, "holds files already" in again.stdout) == (2, True)


def test_requests_are_those_of_the_log(spark: Any, messy: Path, data: Path, requests: Path) -> None:
    """In an order of the rows that the caller names; one user's rows are in many partitions."""
    from pyspark.sql import functions

    log = spark.read.parquet(str(data / "log"))
    log = log.withColumn("file", functions.col("_metadata.file_path"))
    log = log.withColumn("row", functions.col("_metadata.row_index")).repartition(3, "price")
    users = spark.read.parquet(str(data / "users.parquet"))
    position = functions.struct("file", "row")
    found = recsys.spark.requests_from(
        log, str(messy), users=users, position=position, piece_rows=100
    )
    table, expected = found.toArrow(), pq.read_table(requests)
    assert table.column_names == expected.column_names
    assert_same(table, expected)
    with pytest.raises(ConfigError, match="no table 'shops' of users"):
        recsys.spark.requests_from(log, str(messy), users=users, others={"shops": users})
    with pytest.raises(DataError, match=r"users, column 'user'.*no such column; it has town"):
        recsys.spark.requests_from(log, str(messy), users=users.select("town"))


def test_options_do_what_they_do_without_spark(spark: Any, messy: Path, requests: Path) -> None:
    """With the model in an archive, and with columns and counts that go along."""
    asked: dict[str, Any] = {"k": 4, "filter_seen": False, "allow": [f"i{n:02}" for n in range(9)]}
    asked |= {"where": "item != 'i02'", "exclude": pd.DataFrame({"item": ["i01", "i05"]})}
    batches = pq.read_table(requests).to_batches(25)
    expected = list(recsys.batch_function(str(messy), **asked)(batches))
    counts = recsys.spark.counts(spark)
    frame = spark.read.parquet(str(requests))
    lists = recsys.spark.recommend(
        str(messy), frame, **asked, keep=["town"], counts=counts, ship=True
    )
    found = lists.toArrow()
    assert_same(found.drop_columns(["town"]), pa.Table.from_batches(expected))
    towns = {row["user"]: row["town"] for row in pq.read_table(requests).to_pylist()}
    assert {row["user"]: row["town"] for row in found.to_pylist()} == towns
    assert counts.value.users == 70


def test_rows_are_scored_as_on_one_machine(spark: Any, ranker: Path, tmp_path: Path) -> None:
    """Their numbers count over all files, in the order in which one machine reads them."""
    folder = ranker.parents[3]
    options = ["score", ranker, "--input", folder / "rows", "--items", folder / "items.parquet"]
    found = {
        name: run(*options, "--json", "--output", tmp_path / name, "--engine", name)
        for name in ("local", "spark")
    }
    tables = {name: pq.read_table(tmp_path / name) for name in found}
    assert tables["spark"].column_names == tables["local"].column_names
    assert_same(tables["spark"], tables["local"])
    assert found["spark"]["rows"] == SIZE
    assert found["spark"]["mean_probability"] == pytest.approx(found["local"]["mean_probability"])
    frame = spark.read.parquet(str(folder / "rows"))
    tables = {"items": spark.read.parquet(str(folder / "items.parquet"))}
    chances = recsys.spark.predict(str(ranker), frame, tables=tables, keep=["hour"])
    assert chances.columns == ["user", "item", "probability", "hour"]
    with pytest.raises(ConfigError, match="a ranker and scores rows: use predict"):
        recsys.spark.recommend(str(ranker), frame)
    with pytest.raises(ConfigError, match="is a ranker and answers rows: k, "):
        recsys.spark.recommend(str(ranker), frame, k=3)


def test_what_does_not_fit_is_refused_before_a_job_runs(
    spark: Any, messy: Path, requests: Path
) -> None:
    frame = spark.read.parquet(str(requests))
    for change, error, words in (
        ({"keep": ["twn"]}, ConfigError, "no column 'twn'.*'town'"),
        ({"keep": ["user"]}, ConfigError, "the answers have a column 'user' themselves"),
        ({"k": "3"}, ArgumentError, "'k'"),
        ({"where": "cost < 3"}, ConfigError, "cost"),
    ):
        with pytest.raises(error, match=words):
            recsys.spark.recommend(str(messy), frame, **change)
    with pytest.raises(DataError, match="column 'history'"):
        recsys.spark.recommend(str(messy), frame.drop("history"))
    with pytest.raises(ConfigError, match="ranks items for users and scores no rows"):
        recsys.spark.predict(str(messy), frame)


def test_errors_of_workers_are_said_as_the_engine_says_them(
    spark: Any, messy: Path, requests: Path, tmp_path: Path
) -> None:
    table = pq.read_table(requests)
    lost = table.to_pandas()
    lost.loc[3, "user"] = None
    lost.to_parquet(tmp_path / "lost.parquet")
    twice = pa.concat_tables([table, table.slice(2, 1)])
    pq.write_table(twice, tmp_path / "twice.parquet")
    (tmp_path / "asked.csv").write_text("user,history\n")
    for name, code, words in (
        ("lost.parquet", 3, "partition 0 row 4"),
        ("twice.parquet", 3, f"user '{twice.column('user')[2]}' is in 2 rows"),
        ("none.parquet", 4, "no such requests table"),
        ("asked.csv", 3, "read as Parquet or Delta; convert it, or score with --engine local"),
    ):
        options = ["--input", tmp_path / name, "--output", tmp_path / "out", "--engine", "spark"]
        result = CliRunner().invoke(main, ["score", str(messy), *map(str, options)])
        assert (result.exit_code, words in result.output) == (code, True), result.output
    shutil.rmtree(tmp_path / "out", ignore_errors=True)
    for options, words in (
        (["--input", requests, "--master", "local[1]"], "--master is of Spark"),
        (["--interactions", requests, "--new-items", requests, "--engine", "spark"], "one machine"),
    ):
        arguments = ["score", messy, *options, "--output", tmp_path / "out"]
        result = CliRunner().invoke(main, list(map(str, arguments)))
        assert (result.exit_code, words in result.output) == (2, True), result.output
