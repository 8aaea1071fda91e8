"""`recsys init` on labelled logs: a file that trains as it is written, doubts said aloud."""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
import yaml

from recsys.core.errors import ConfigError
from recsys.features.clicks.inspect import ClickReport
from recsys.features.dataset.dataset import prepare
from recsys.features.propose.tables import Inference, infer
from recsys.training.config.experiment import ExperimentConfig
from recsys.training.families.load import load_config, parse_config
from recsys.training.jobs.check import preflight
from recsys.training.jobs.train import train

ROWS = 3_000
DATA = Path(os.environ.get("RECSYS_DATA", Path(__file__).parents[4] / "shared" / "data"))
CRITEO = DATA / "criteo-sample" / "criteo_10k.parquet"
Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write_table(file: str, /, **columns: Any) -> Path:
        path = tmp_path / file
        table = pa.table(columns)
        if path.suffix == ".csv":
            pyarrow.csv.write_csv(table, path)
        else:
            pq.write_table(table, path)
        return path

    return write_table


def loaded(found: Inference, folder: Path, *more: str) -> ExperimentConfig:
    """The file as the strict models read it."""
    path = folder / "recsys.yaml"
    path.write_text(found.yaml)
    return load_config(path, (f"output={folder / 'runs'}", "tracking.enabled=false", *more))


def kinds(config: ExperimentConfig) -> dict[str, tuple[Any, ...]]:
    return {
        f.name: (f.kind, getattr(f, "transform", None) or getattr(f, "multiplicity", None))
        for f in config.schema_.column_features
    }


def often(rng: np.random.Generator, values: Any, exponent: float = 1.3) -> Any:
    """Draw values as codes of a click log come: a few often, many seldom."""
    return np.asarray(values)[np.minimum(rng.zipf(exponent, ROWS), len(values)) - 1]


def clicks(rng: np.random.Generator) -> dict[str, Any]:
    """A log as ad exchanges hand it out: names that do not speak, codes, counts, hashes."""
    hour = np.sort(rng.integers(0, 96, ROWS))
    return {
        "id": [f"1000016{7919 * k:013}" for k in rng.permutation(ROWS)],
        "click": (rng.random(ROWS) < 0.2).astype(int),
        "hour": 14_102_100 + hour // 24 * 100 + hour % 24,
        "C1": often(rng, [1005, 1002, 1010, 1012]),
        "banner_pos": often(rng, [0, 1, 2, 7]),
        "device_id": often(rng, [f"{k * 2654435761 % 2**32:08x}" for k in range(900)]),
        "C14": often(rng, 375 + 37 * rng.permutation(640)),
        "C20": np.where(rng.random(ROWS) < 0.6, -1, 100_000 + rng.integers(0, 170, ROWS)),
        "seen": np.floor(rng.lognormal(1, 2, ROWS)).astype(int) - 1,
        "price": np.round(rng.lognormal(3, 0.3, ROWS)).astype(int) + 12,
        "score": rng.normal(size=ROWS),
    }


def test_an_exchange_log_is_understood(write: Write, tmp_path: Path) -> None:
    found = infer([write("log.parquet", **clicks(np.random.default_rng(0)))])
    config = loaded(found, tmp_path)
    roles = config.schema_.interactions
    assert (roles.user, roles.item, roles.time) == ("", "", None)
    assert roles.label is not None
    assert (roles.label.column, roles.label.at_least) == ("click", None)
    assert kinds(config) == {
        "C1": ("categorical", "auto"),
        "banner_pos": ("categorical", "auto"),
        "device_id": ("categorical", "auto"),
        "C14": ("categorical", "auto"),
        "C20": ("categorical", "auto"),
        "seen": ("numeric", "log1p"),
        "price": ("numeric", "standardise"),
    }
    assert config.model.kind == "autoint"
    assert config.data.stream
    assert config.split.kind == "time"
    assert (config.training.batch_size, config.training.metric) == (256, "auc")
    for line in (
        "# - {name: id, table: interactions, kind: categorical}   # another value in every row",
        "# - {name: hour, table: interactions, kind: categorical}   # hardly a value of its last",
        "# - {name: score, table: interactions, kind: numeric}",
    ):
        assert line in found.yaml
    assert re.search(
        r"device_id.*values; min_count: 10 would make the \d+ rare ones one", found.yaml
    )
    assert not re.search(r"banner_pos.*min_count", found.yaml)
    said = "\n".join(found.unsure)
    assert "'C14', 'C20': codes or amounts?" in said
    assert "'score': known only after the answer?" in said
    assert "features have many values of a few rows each: the min_count" in said
    assert "the log has no time: the last rows of the files are the test" in said
    assert "3,000 rows, label click" in found.summary[0]


@pytest.mark.parametrize("ending", ["parquet", "csv"])
def test_from_init_to_a_trained_model_without_editing(
    write: Write, tmp_path: Path, ending: str
) -> None:
    rng = np.random.default_rng(1)
    columns = clicks(rng)
    columns["seen"] = [None if k % 5 == 0 else int(v) for k, v in enumerate(columns["seen"])]
    taste = columns["banner_pos"] == 1
    columns["click"] = (rng.random(ROWS) < np.where(taste, 0.95, 0.05)).astype(int)
    config = loaded(
        infer([write(f"log.{ending}", **columns)]),
        tmp_path,
        "training.epochs=3",
        "evaluation.rankers=[]",
        "evaluation.bootstrap_samples=20",
    )
    report = preflight(config)
    assert isinstance(report, ClickReport)
    assert report.warnings == ()
    assert [part.rows for part in report.parts] == [2400, 300, 300]
    if ending == "parquet":
        result = train(config)
        assert result.evaluation.flat()["auc"] > 0.7


def test_rows_in_the_order_of_their_time(write: Write, tmp_path: Path) -> None:
    columns = {
        "ts": 1_600_000_000 + np.arange(ROWS) // 3,
        "site": [f"s{k % 7}" for k in range(ROWS)],
        "is_click": [k % 3 == 0 for k in range(ROWS)],
    }
    found = infer([write("sorted.parquet", **columns)])
    roles = loaded(found, tmp_path).schema_.interactions
    assert roles.time is not None
    assert (roles.time.column, roles.time.unit) == ("ts", "s")
    assert roles.label is not None
    assert roles.label.column == "is_click"
    assert kinds(loaded(found, tmp_path))["ts"] == ("timestamp", 1)
    assert found.unsure == ()
    preflight(loaded(found, tmp_path))
    columns["ts"] = columns["ts"][::-1].copy()
    mixed = infer([write("mixed.parquet", **columns)])
    assert loaded(mixed, tmp_path).schema_.interactions.time is None
    assert "# time: {column: ts, unit: s}   # the rows are not in its order" in mixed.yaml
    assert any("sort them by it" in sentence for sentence in mixed.unsure)
    preflight(loaded(mixed, tmp_path))


def test_labels_that_are_null_are_left_out(write: Write, tmp_path: Path) -> None:
    label = [None if k % 10 == 0 else k % 2 for k in range(ROWS)]
    found = infer([write("log.parquet", target=label, site=[k % 7 for k in range(ROWS)])])
    assert any("null in 300 rows; interactions.where leaves them" in one for one in found.unsure)
    report = preflight(loaded(found, tmp_path))
    assert isinstance(report, ClickReport)
    assert sum(part.rows for part in report.parts) == 2700


def test_a_given_split_of_clicks(write: Write, tmp_path: Path) -> None:
    fold = np.array(["train", "valid", "test"])[np.arange(ROWS) % 3]
    path = write("log.csv", label=np.arange(ROWS) // 3 % 2, fold=fold, code=np.arange(ROWS) % 50)
    found = infer([path])
    config = loaded(found, tmp_path)
    assert (config.split.kind, config.split.column) == ("column", "fold")
    assert list(kinds(config)) == ["code"]
    preflight(config)


def test_users_items_and_clicks_make_a_ranker_in_memory(write: Write, tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    log = {
        "user": rng.integers(0, 60, ROWS),
        "item": rng.integers(0, 40, ROWS),
        "clicked": rng.integers(0, 2, ROWS),
        "timestamp": 1_600_000_000 + rng.integers(0, 10**6, ROWS),
        "device": rng.choice(["phone", "desk"], ROWS),
        "rating": rng.integers(1, 6, ROWS),
        "purchased": rng.integers(0, 2, ROWS),
    }
    goods = {"item": np.arange(40), "brand": [f"b{k % 5}" for k in range(40)]}
    found = infer([write("log.parquet", **log), write("goods.parquet", **goods)])
    config = loaded(found, tmp_path, "training.epochs=1")
    roles = config.schema_.interactions
    assert (roles.user, roles.item, config.model.kind) == ("user", "item", "autoint")
    assert roles.label is not None
    assert roles.label.column == "clicked"
    assert roles.where == ()
    assert roles.time is not None
    assert not config.data.stream
    tables = {f.name: f.table for f in config.schema_.column_features}
    assert tables == {"item": "items", "brand": "items", "user": "users", "device": "interactions"}
    said = "\n".join(found.unsure)
    assert "'rating', 'purchased': known only after the answer?" in said
    assert "'clicked' is used as the label; other candidates: purchased" in said
    beside = "    # outcomes: [{name: purchased, column: purchased}]"
    assert beside in found.yaml
    both = found.yaml.replace(beside, beside.replace("# ", "")).replace("autoint  ", "mmoe  ")
    parsed = parse_config(yaml.safe_load(both), source="both")
    assert parsed.schema_.interactions.outcome_names == ("purchased",)
    assert set(prepare(config.schema_, config.data, config.policies, config.split).part) == {
        0,
        1,
        2,
    }


def test_a_position_beside_a_label_is_a_place_on_the_page(write: Write, tmp_path: Path) -> None:
    columns = {
        "user": np.arange(ROWS) % 61,
        "item": np.arange(ROWS) % 43,
        "position": np.arange(ROWS) % 7,
        "clicked": np.arange(ROWS) % 2,
    }
    found = infer([write("log.parquet", **columns)])
    config = loaded(found, tmp_path)
    assert config.schema_.interactions.order is None
    assert kinds(config)["position"] == ("categorical", "auto")
    assert config.split.kind == "time"
    assert "rows count in the order of the file" in "\n".join(found.unsure)
    part = prepare(config.schema_, config.data, config.policies, config.split).part
    assert np.bincount(part).tolist() == [2400, 300, 300]


def test_a_log_of_what_was_liked_stays_a_log_of_what_was_taken(
    write: Write, tmp_path: Path
) -> None:
    columns = {
        "user": np.arange(ROWS) % 61,
        "item": np.arange(ROWS) % 43,
        "purchased": np.arange(ROWS) % 2,
    }
    found = infer([write("log.parquet", **columns)])
    config = loaded(found, tmp_path)
    assert config.model.kind == "two_tower"
    assert config.schema_.interactions.label is None
    (doubt,) = [one for one in found.unsure if one.startswith("'purchased' holds 0 and 1")]
    assert "interactions.label: {column: purchased} and model: {kind: autoint}" in doubt
    # A click that is always 1 tells nothing apart: no label.
    columns["clicked"] = np.ones(ROWS, np.int64)
    assert loaded(infer([write("more.parquet", **columns)]), tmp_path).model.kind == "two_tower"


def test_a_label_without_a_name_is_said_to_be_a_guess(write: Write, tmp_path: Path) -> None:
    codes = {"a": np.arange(ROWS) % 9, "b": np.arange(ROWS) % 5}
    first = infer(
        [write("first.parquet", x0=np.arange(ROWS) % 2, flag=np.arange(ROWS) // 2 % 2, **codes)]
    )
    label = loaded(first, tmp_path).schema_.interactions.label
    assert label is not None
    assert label.column == "x0"
    assert any("'x0', which holds 0 and 1, is used" in one for one in first.unsure)
    only = infer([write("only.parquet", **codes, flag=np.arange(ROWS) % 2)])
    label = loaded(only, tmp_path).schema_.interactions.label
    assert label is not None
    assert label.column == "flag"
    for values in (np.arange(ROWS) % 2 + 1, np.arange(ROWS) % 3):
        with pytest.raises(ConfigError, match="no table holds both a user and an item"):
            infer([write("other.parquet", **codes, label=values)])
    two = write("two.parquet", **codes, f=np.arange(ROWS) % 2, g=np.arange(ROWS) // 2 % 2)
    with pytest.raises(ConfigError, match=r"name the column of 0 and 1 that it learns.*'label'"):
        infer([two])


@pytest.mark.loaned
@pytest.mark.skipif(not CRITEO.is_file(), reason=f"no {CRITEO} (RECSYS_DATA)")
def test_the_first_rows_of_criteo(tmp_path: Path) -> None:
    found = infer([CRITEO])
    config = loaded(found, tmp_path)
    read = kinds(config)
    assert set(read) == {f"I{k}" for k in range(1, 14)} | {f"C{k}" for k in range(1, 27)}
    assert {read[f"C{k}"] for k in range(1, 27)} == {("categorical", "auto")}
    assert {read[f"I{k}"] for k in range(1, 10)} == {("numeric", "log1p")}
    report = preflight(config)
    assert isinstance(report, ClickReport)
    assert report.warnings == ()
    assert {feature.lookups for feature in report.features} == {0, 1}


def test_the_largest_labelled_table_is_the_log(write: Write) -> None:
    paths = [
        write("ads.parquet", shop=["a", "b"] * 50, label=[0, 1, 1, 0] * 25),
        write("log.parquet", site=["a", "b"] * 500, label=[0, 1, 1, 0] * 250),
    ]
    found = infer(paths)
    assert yaml.safe_load(found.yaml)["data"]["interactions"] == str(paths[1])
    assert any("ads.parquet is not used: a log without user" in one for one in found.unsure)
