"""Rows scored by a ranker: as training encodes them, each once, refusing what does not fit."""

import json
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from click.testing import CliRunner, Result
from safetensors.torch import load, save

from recsys.app.cli import main
from recsys.app.models import score
from recsys.bundle.calibration import Calibrator
from recsys.bundle.directory import Bundle, write_bundle
from recsys.bundle.probe import check_replay, read_probe, write_probe
from recsys.core.errors import ConfigError, DataError, IntegrityError
from recsys.core.events import Event, PartDone
from recsys.data.batch import FeatureBlock, FeatureLayout, Jagged
from recsys.embeddings.plan import EmbeddingPlan
from recsys.embeddings.table import TableConfig
from recsys.embeddings.torch_table import TorchTable
from recsys.embeddings.unified import UnifiedEmbedding
from recsys.features.bundle.files import ROW_PROBE
from recsys.features.bundle.rows import RowModel
from recsys.features.encoding.encoder import FeatureEncoder
from recsys.features.requests.origin import RequestOrigin
from recsys.features.requests.rows import RowEncoder
from recsys.features.schema import Schema
from recsys.features.tables.sources import Policies
from recsys.models.logistic import LogisticConfig
from recsys.models.rankers import build_ranker
from recsys.serving.answering.rows import Rows
from recsys.serving.engines.parts import SUCCESS
from recsys.serving.engines.rows import score_rows
from recsys.serving.export.manifest import open_export
from recsys.serving.export.onnx_export import OnnxRanker, export_onnx
from recsys.serving.recommend.rows import RowScorer
from recsys.serving.recommend.scorer import Scorer
from recsys.serving.registry import register
from recsys.training.config.experiment import ExperimentConfig
from recsys.training.engine.ranks import World
from recsys.training.families.load import load_config
from recsys.training.families.ranker.rows import RankingRows, open_rows
from recsys.training.jobs.train import train

ROWS, GROUP = 600, 100
GENRES = ["drama", "comedy", "noir"]
FEATURES: list[dict[str, Any]] = [
    {"name": "user", "table": "users", "column": "user_id", "kind": "categorical"},
    {"name": "age", "table": "users", "kind": "numeric"},
    {"name": "film", "table": "items", "column": "film_id", "kind": "categorical"},
    {"name": "genres", "table": "items", "kind": "multi_categorical", "multiplicity": 2},
    {"name": "made", "table": "items", "kind": "timestamp", "unit": "datetime"},
    {"name": "device", "table": "interactions", "kind": "categorical"},
    {"name": "price", "table": "interactions", "kind": "numeric", "transform": "log1p"},
    {"name": "place", "table": "interactions", "kind": "vector", "dim": 2},
    {"name": "device_genre", "kind": "cross", "of": ["device", "genres"]},
]


def tables() -> dict[str, pa.Table]:
    """40 users, 30 films and 600 labelled rows; some attributes are null."""
    rng = np.random.default_rng(3)
    age = rng.integers(18, 80, 40).astype(float)
    genres = [list(rng.choice(GENRES, rng.integers(0, 3), replace=False)) for _ in range(30)]
    return {
        "users": pa.table(
            {
                "user_id": [f"u{n}" for n in range(40)],
                "age": pa.array([None if n % 7 == 0 else a for n, a in enumerate(age)]),
            }
        ),
        "items": pa.table(
            {
                "film_id": pa.array(2**53 + np.arange(30)),
                "genres": pa.array(genres, pa.list_(pa.string())),
                "made": pa.array(rng.integers(0, 10**9, 30) * 10**6, pa.timestamp("us")),
            }
        ),
        "rows": pa.table(
            {
                "who": [f"u{n}" for n in rng.integers(0, 40, ROWS)],
                "film": pa.array(2**53 + rng.integers(0, 30, ROWS)),
                "device": rng.choice(["phone", "desk"], ROWS).tolist(),
                "price": rng.exponential(5, ROWS),
                "place": rng.normal(size=(ROWS, 2)).tolist(),
                "clicked": rng.integers(0, 2, ROWS),
            }
        ),
    }


def trained(folder: Path, raw: dict[str, Any]) -> tuple[ExperimentConfig, Path]:
    shared = {
        "model": {"kind": "dcn", "hidden": [8]},
        "embedding": {"num_rows": 256, "dim": 4, "init_scale": 0.5, "backend": "torch"},
        "training": {"epochs": 1, "batch_size": 64, "positive_weight": 3.0},
        "evaluation": {"bootstrap_samples": 5, "rankers": []},
        "calibration": "temperature",
        "tracking": {"enabled": False},
        "output": str(folder / "runs"),
    }
    (folder / "recsys.yaml").write_text(yaml.safe_dump({**shared, **raw}))
    config = load_config(folder / "recsys.yaml")
    result = train(config)
    assert result is not None
    return config, result.bundle


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("films")
    for name, table in tables().items():
        pq.write_table(table, folder / f"{name}.parquet", row_group_size=GROUP)
    return folder


@pytest.fixture(scope="module")
def films(world: Path) -> tuple[ExperimentConfig, Path]:
    """A ranker over three tables."""
    torch.set_num_threads(1)
    return trained(
        world,
        {
            "data": {
                "interactions": str(world / "rows.parquet"),
                "items": str(world / "items.parquet"),
                "users": str(world / "users.parquet"),
            },
            "schema": {
                "interactions": {"user": "who", "item": "film", "label": {"column": "clicked"}},
                "items": {"key": "film_id"},
                "users": {"key": "user_id"},
                "features": FEATURES,
            },
            "split": {"kind": "leave_one_out"},
        },
    )


@pytest.fixture(scope="module")
def bundle(films: tuple[ExperimentConfig, Path]) -> Path:
    return films[1]


@pytest.fixture(scope="module")
def scorer(world: Path, bundle: Path) -> RowScorer:
    return RowScorer.open(bundle, paths(world))


@pytest.fixture(scope="module")
def expected(films: tuple[ExperimentConfig, Path]) -> np.ndarray[Any, Any]:
    """What the model says of every row of the log as training encodes it, in file order."""
    config, bundle = films
    rows = open_rows(config, World())
    return scored_by_training(rows, bundle, np.argsort(rows.loader.data.tables.events.row))  # type: ignore[attr-defined]


def scored_by_training(rows: RankingRows, bundle: Path, numbers: Any) -> np.ndarray[Any, Any]:
    ranker = RowModel.open(bundle)
    features = rows.loader.rows(numbers).features  # type: ignore[attr-defined]
    return ranker.calibrator.probability(ranker.logits(features))


def paths(world: Path) -> dict[str, str]:
    return {name: str(world / f"{name}.parquet") for name in ("users", "items")}


def plain_rows() -> pa.Table:
    """The log with all attributes written into its rows."""
    parts = tables()
    rows = parts["rows"].drop(["clicked"])
    for name, key, own in (("users", "user_id", "who"), ("items", "film_id", "film")):
        side = parts[name]
        at = pc.index_in(rows.column(own), side.column(key).combine_chunks())
        for column in side.drop([key]).column_names:
            rows = rows.append_column(column, side.column(column).take(at))
    return rows


def test_rows_are_scored_as_training_encodes_them(
    world: Path, scorer: RowScorer, expected: np.ndarray[Any, Any], tmp_path: Path
) -> None:
    assert scorer.ranker.calibrator.offset == pytest.approx(-np.log(3))
    assert expected.std() > 0.01
    summary = score_rows(scorer, str(world / "rows.parquet"), tmp_path / "out")
    files = sorted((tmp_path / "out").glob("*.parquet"))
    assert len(files) == summary.parts == ROWS // GROUP
    found = pa.concat_tables([pq.read_table(file) for file in files])
    assert found.column_names == ["who", "film", "row", "probability"]
    assert found.select(["who", "film"]).equals(tables()["rows"].select(["who", "film"]))
    assert found.column("row").to_pylist() == list(range(ROWS))
    np.testing.assert_allclose(found.column("probability"), expected, rtol=0, atol=1e-7)
    assert summary.rows == ROWS
    assert summary.mean_probability == pytest.approx(expected.mean())
    assert json.loads((tmp_path / "out" / SUCCESS).read_text())["rows"] == ROWS


def test_attributes_in_the_rows_do_as_well_as_tables(
    world: Path, bundle: Path, expected: np.ndarray[Any, Any]
) -> None:
    found = RowScorer.open(bundle).score(plain_rows())
    np.testing.assert_allclose(found.column("probability"), expected, rtol=0, atol=1e-7)
    # One side from a table, the other from the rows.
    users = {"users": paths(world)["users"]}
    found = RowScorer.open(bundle, users).score(plain_rows().drop(["age"]))
    np.testing.assert_allclose(found.column("probability"), expected, rtol=0, atol=1e-7)


def test_a_stranger_is_scored_without_attributes_as_an_unknown_id(
    world: Path, bundle: Path, scorer: RowScorer
) -> None:
    row = tables()["rows"].slice(5, 1)
    stranger = row.set_column(0, "who", pa.array(["nobody"]))
    nulls = plain_rows().slice(5, 1).set_column(0, "who", pa.array(["someone else"]))
    nulls = nulls.set_column(nulls.column_names.index("age"), "age", pa.nulls(1, pa.float64()))
    (found,) = scorer.score(stranger).column("probability").to_pylist()
    (wanted,) = RowScorer.open(bundle).score(nulls).column("probability").to_pylist()
    assert found == pytest.approx(wanted, abs=1e-7)
    assert found != pytest.approx(scorer.score(row).column("probability")[0].as_py(), abs=1e-4)


def test_several_files_are_numbered_on_and_empty_ones_do_no_harm(
    scorer: RowScorer,
    expected: np.ndarray[Any, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("recsys.serving.recommend.rows._CHUNK_ROWS", 100)
    monkeypatch.setattr("recsys.serving.recommend.rows._BATCH_ROWS", 30)
    rows = tables()["rows"]
    (tmp_path / "in").mkdir()
    for number, part in enumerate((rows.slice(0, 70), rows.slice(0, 0), rows.slice(70))):
        pq.write_table(part, tmp_path / "in" / f"{number}.parquet")
    summary = score_rows(scorer, str(tmp_path / "in"), tmp_path / "out")
    found = pq.read_table(tmp_path / "out").sort_by("row")
    assert found.column("row").to_pylist() == list(range(ROWS))
    assert summary.rows == ROWS
    np.testing.assert_allclose(found.column("probability"), expected, rtol=0, atol=1e-7)


def test_a_job_that_was_killed_goes_on_and_another_is_refused(
    world: Path, bundle: Path, scorer: RowScorer, tmp_path: Path
) -> None:
    given, out = str(world / "rows.parquet"), tmp_path / "out"

    def killed(event: Event) -> None:
        if isinstance(event, PartDone) and event.done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        score_rows(scorer, given, out, listener=killed)
    assert not (out / SUCCESS).exists()
    before = {path.name: path.stat().st_mtime_ns for path in out.glob("*.parquet")}
    summary = score_rows(scorer, given, out)
    assert (summary.parts_already_there, summary.rows) == (4, ROWS)
    assert {name: (out / name).stat().st_mtime_ns for name in before} == before
    other = with_column("price", pa.array([2.0] * ROWS))(tables()["rows"])
    pq.write_table(other, tmp_path / "other.parquet", row_group_size=GROUP)
    with pytest.raises(ConfigError, match=r"out: holds the scores of another job"):
        score_rows(scorer, str(tmp_path / "other.parquet"), out)
    # The same rows with other attributes are another job.
    shutil.copy(world / "items.parquet", tmp_path / "items.parquet")
    pq.write_table(tables()["users"].slice(1), tmp_path / "users.parquet")
    fewer = RowScorer.open(bundle, paths(tmp_path))
    with pytest.raises(ConfigError, match=r"out: holds the scores of another job"):
        score_rows(fewer, given, out)


def test_two_processes_write_the_same_parts(world: Path, bundle: Path, tmp_path: Path) -> None:
    given: dict[str, Any] = {**paths(world), "requests": str(world / "rows.parquet")}
    score(bundle, tmp_path / "one", **given)

    def wait(event: Event) -> None:
        """Let the worker write a part before this process goes on."""
        while event == PartDone(1, 6) and len(list((tmp_path / "two").glob("part-*"))) < 2:
            time.sleep(0.01)

    summary = score(bundle, tmp_path / "two", workers=2, listener=wait, **given)
    assert summary["rows"] == ROWS
    names = sorted(file.name for file in (tmp_path / "one").glob("part-*"))
    assert len(names) == 6
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def with_column(name: str, values: pa.Array) -> Callable[[pa.Table], pa.Table]:
    return lambda rows: rows.set_column(rows.column_names.index(name), name, values)


BAD = {
    "a missing column": (
        lambda rows: rows.rename_columns([n.replace("price", "prise") for n in rows.column_names]),
        r"bad\.parquet, column 'price': the rows table has no such column.*did you mean 'prise'",
    ),
    "a missing key": (
        lambda rows: rows.drop(["film"]),
        r"bad\.parquet, column 'film': the rows .* no such column.*of items: rows need the key",
    ),
    "text for a number": (
        with_column("price", pa.array(["1.5"] * 5 + ["dear"] * (ROWS - 5))),
        r"bad\.parquet row 6, column 'price': 'dear', where a number is expected",
    ),
    "an infinity": (
        with_column("price", pa.array([1.0] * 150 + [np.inf] + [1.0] * (ROWS - 151))),
        r"bad\.parquet row 151, column 'price': the number is infinite",
    ),
    "a null key": (
        with_column("who", pa.array(["u1"] * 333 + [None] + ["u2"] * (ROWS - 334))),
        r"bad\.parquet row 334, column 'who': the id is null",
    ),
    "an unknown film": (
        with_column("film", pa.array([2**53] * 7 + [12] + [2**53] * (ROWS - 8))),
        r"bad\.parquet row 8, column 'film': the table of items has no such key, 12",
    ),
    "ids of another type": (
        with_column("film", pa.array(["x"] * ROWS)),
        r"bad\.parquet row 1, column 'film': 'x', where a whole number is expected",
    ),
    "categories of another type": (
        with_column("device", pa.array([1] * ROWS)),
        r"bad\.parquet row 1, column 'device': holds integer values.*cast the column",
    ),
    "a short vector": (
        with_column("place", pa.array([[0.5, 0.5]] * 205 + [[1.0]] + [[0.5, 0.5]] * (ROWS - 206))),
        r"bad\.parquet row 206, column 'place': a vector of 1 numbers where dim: 2",
    ),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_rows_are_named_with_file_column_and_row(
    what: str, scorer: RowScorer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recsys.serving.recommend.rows._CHUNK_ROWS", 32)
    spoil, message = BAD[what]
    path = tmp_path / "bad.parquet"
    pq.write_table(spoil(tables()["rows"]), path, row_group_size=GROUP)
    with pytest.raises(DataError, match=message):
        score_rows(scorer, str(path), tmp_path / "out")
    assert not (tmp_path / "out" / SUCCESS).exists()


def test_a_number_that_is_refused_can_be_made_null(world: Path, bundle: Path) -> None:
    spoil, _ = BAD["an infinity"]
    lenient = {"policies.infinite_numbers": "null"}
    scorer = RowScorer.open(bundle, paths(world), lenient)
    null = with_column("price", pa.array([1.0] * 150 + [None] + [1.0] * (ROWS - 151)))
    rows = tables()["rows"]
    assert scorer.score(spoil(rows)).equals(scorer.score(null(rows)))


def test_what_a_table_should_bring_is_said(world: Path, bundle: Path, tmp_path: Path) -> None:
    rows = tables()["rows"]
    with pytest.raises(
        DataError, match=r"rows, column 'age': the .* no such column.*or give the table of users"
    ):
        RowScorer.open(bundle).score(rows)
    with pytest.raises(ConfigError, match=r"--other plots: the model has no such table"):
        RowScorer.open(bundle, {"plots": "plots.parquet"})
    rows.slice(0, 9).to_pandas().drop(columns="place").to_csv(tmp_path / "rows.csv")
    with pytest.raises(DataError, match=r"rows\.csv: rows are read as Parquet"):
        score_rows(RowScorer.open(bundle), str(tmp_path / "rows.csv"), tmp_path / "out")


def encoder_of(raw: dict[str, Any]) -> FeatureEncoder:
    return FeatureEncoder(Schema.model_validate_json(json.dumps(raw)), {}, {}, {}, 0)


def test_what_rows_cannot_tell_is_refused() -> None:
    roles = {"user": "user", "item": "item", "order": "n", "label": {"column": "y"}}
    item = {"name": "item", "table": "items", "kind": "categorical"}
    history = {"name": "last", "kind": "history", "of": "item"}
    raw = {"interactions": roles, "features": [item, history]}
    with pytest.raises(ConfigError, match=r"'last' is of kind history: it comes from the rows"):
        RowEncoder(encoder_of(raw), Policies())
    sides: dict[str, Any] = {"users": {"key": "user"}, "items": {"key": "item"}}
    name = {"column": "name", "kind": "categorical"}
    both = [{"name": "a", "table": "users", **name}, {"name": "b", "table": "items", **name}]
    raw = {"interactions": roles, **sides, "features": both}
    with pytest.raises(ConfigError, match=r"'name' is read of the user and of the item"):
        RowEncoder(encoder_of(raw), Policies())
    found = RowEncoder(encoder_of(raw), Policies(), {"items": pa.table({"item": ["x"]})})
    assert found.columns == ("name", "item")


def test_a_streamed_model_scores_plain_rows_without_keys(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    log = pa.table(
        {
            "shop": rng.integers(0, 50, ROWS),
            "tags": [rng.choice(GENRES, rng.integers(0, 3)).tolist() for _ in range(ROWS)],
            "price": np.where(rng.random(ROWS) < 0.1, np.nan, rng.normal(size=ROWS)),
            "clicked": rng.integers(0, 2, ROWS),
        }
    )
    pq.write_table(log, tmp_path / "log.parquet")
    features = [
        {"name": "shop", "table": "interactions", "kind": "categorical"},
        {"name": "tags", "table": "interactions", "kind": "multi_categorical"},
        {"name": "price", "table": "interactions", "kind": "numeric"},
    ]
    schema = {"interactions": {"label": {"column": "clicked"}}, "features": features}
    data = {"interactions": str(tmp_path / "log.parquet"), "stream": True}
    config, bundle = trained(tmp_path, {"data": data, "schema": schema})
    summary = score_rows(RowScorer.open(bundle), data["interactions"], tmp_path / "out")
    found = pq.read_table(tmp_path / "out")
    assert found.column_names == ["row", "probability"]
    assert summary.rows == ROWS
    rows, ranker = open_rows(config, World()), RowModel.open(bundle)
    for part in range(3):  # a streamed log is parted in the order of its rows
        for batch in rows.loader.ordered(part, 64):
            wanted = ranker.calibrator.probability(ranker.logits(batch.features))
            got = np.asarray(found.column("probability"))[batch.examples.numpy()]
            np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-7)


def changed(bundle: Path, parent: Path, name: str, content: bytes | None) -> Path:
    """Write the bundle anew with one file another, or without it."""

    def write(folder: Path) -> None:
        for file in Bundle.open(bundle).names():
            (folder / file).parent.mkdir(exist_ok=True)
            shutil.copy(bundle / file, folder / file)
        if content is None:
            (folder / name).unlink()
        else:
            (folder / name).write_bytes(content)

    return write_bundle(parent, write, facts=Bundle.open(bundle).manifest["facts"])


def test_the_probe_is_replayed_at_load(bundle: Path, tmp_path: Path) -> None:
    tensors = load((bundle / ROW_PROBE).read_bytes())
    tensors["logit"][3] += 2e-4
    other = changed(bundle, tmp_path, ROW_PROBE, save(tensors))
    with pytest.raises(IntegrityError, match=rf"{other}: row 4 of the probe has logit .* recorded"):
        RowScorer.open(other)
    without = changed(bundle, tmp_path, ROW_PROBE, None)
    assert RowScorer.open(without).ranker.layout.dense
    with pytest.raises(ConfigError, match=rf"{without}: no probe\.safetensors"):
        export_onnx(without, tmp_path / "onnx")
    weights = load((bundle / "weights.safetensors").read_bytes())
    weights["table.weight"] += 0.5
    other = changed(bundle, tmp_path, "weights.safetensors", save(weights))
    with pytest.raises(IntegrityError, match="of the probe has logit"):
        RowScorer.open(other)


def test_a_probe_comes_back_and_not_a_number_never_passes(bundle: Path) -> None:
    ranker = RowModel.open(bundle)
    features, logits = read_probe((bundle / ROW_PROBE).read_bytes())
    assert len(features) == len(logits) == 16
    assert len(features.multi) == 2
    again, same = read_probe(write_probe(ranker.model, features))
    for name in ("single", "dense"):
        assert torch.equal(getattr(again, name), getattr(features, name))
    for got, wanted in zip(again.multi, features.multi, strict=True):
        assert torch.equal(got.values, wanted.values)
        assert torch.equal(got.offsets, wanted.offsets)
    torch.testing.assert_close(same, logits, rtol=0, atol=1e-6)
    assert check_replay(logits + 5e-5, logits, "x") == pytest.approx(5e-5, rel=0.01)
    spoilt = logits.clone()
    spoilt[2] = torch.nan
    with pytest.raises(IntegrityError, match="x: row 3 of the probe has logit nan"):
        check_replay(spoilt, logits, "x")


def test_a_probe_keeps_the_weights_of_values() -> None:
    table = TableConfig(num_rows=20, dim=4, backend="torch")
    layout = FeatureLayout((), (("tags", 1),), ())
    embedding = UnifiedEmbedding(
        EmbeddingPlan.of(table, (layout,)), TorchTable(table, torch.device("cpu"))
    )
    tags = Jagged(torch.arange(3), torch.tensor([0, 2, 3]), torch.tensor([0.5, 2.0, 1.0]))
    nothing = torch.zeros(2, 0)
    features = FeatureBlock(nothing.long(), (tags,), nothing)
    again, _ = read_probe(write_probe(build_ranker(LogisticConfig(), embedding), features))
    assert again.multi[0].weights is not None
    assert again.multi[0].weights.tolist() == [0.5, 2.0, 1.0]


def test_a_model_of_another_layout_than_its_encoders_is_refused(
    bundle: Path, tmp_path: Path
) -> None:
    facts = json.loads((bundle / "model.json").read_text())
    facts["layouts"][0]["single"].reverse()
    other = changed(bundle, tmp_path, "model.json", json.dumps(facts).encode())
    with pytest.raises(IntegrityError, match=r"the encoder lays out .* the model was trained on"):
        RowModel.open(other)


def test_a_ranker_is_asked_for_no_lists(bundle: Path) -> None:
    with pytest.raises(ConfigError, match="a dcn gives a probability for each row, and no lists"):
        Scorer.open(bundle)


@pytest.mark.parametrize("name", ["where", "exclude", "allow", "block"])
def test_lists_of_a_ranker_cannot_be_filtered(bundle: Path, tmp_path: Path, name: str) -> None:
    rows = plain_rows().to_pandas()
    given = rows if name == "block" else "price < 3"
    with pytest.raises(
        ConfigError, match="where, exclude, allow, block and since are for lists of"
    ):
        score(bundle, tmp_path / "out", requests=rows, **{name: given})
    with pytest.raises(ConfigError, match=f"a ranker has no parameters, got '{name}'"):
        Rows().server(bundle).answer(plain_rows(), {name: "x"}, RequestOrigin("rows"))


def test_an_older_bundle_without_a_calibrator_has_the_sigmoid(bundle: Path, tmp_path: Path) -> None:
    ranker = RowModel.open(changed(bundle, tmp_path, "calibrator.json", None))
    assert ranker.calibrator == Calibrator()


def recsys(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_the_command_line_scores_and_exports_rankers(
    world: Path, bundle: Path, expected: np.ndarray[Any, Any], tmp_path: Path
) -> None:
    given = ("--users", paths(world)["users"], "--items", paths(world)["items"])
    rows = ("--input", world / "rows.parquet", "--output", tmp_path / "out")
    result = recsys("score", bundle, *rows, *given, "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["rows"] == ROWS
    found = pq.read_table(tmp_path / "out").sort_by("row").column("probability")
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-7)
    shown = recsys("score", bundle, *rows, *given).output
    assert f"\nmean probability: {expected.mean():.4g}\n" in shown
    assert "\nparts already there: 6\n" in shown
    filters = [(option, "x", *rows) for option in ("--where", "--exclude", "--allow", "--block")]
    log = ("--interactions", "x", "--output", tmp_path / "no")
    for wrong in (("--k", "3", *rows), log, *filters):
        result = recsys("score", bundle, *wrong)
        assert result.exit_code == 2
        assert "the model is a ranker: give --input" in result.output
    result = recsys("export", bundle, "--to", "faiss", "--out", tmp_path / "index")
    assert (result.exit_code, "give --to onnx" in result.output) == (2, True)

    result = recsys("export", bundle, "--to", "onnx", "--out", tmp_path / "onnx", "--json")
    assert result.exit_code == 0, result.output
    facts = json.loads(result.stdout)
    assert facts["largest_difference"] < 1e-5
    assert facts["opset"] == 18
    described = json.loads((tmp_path / "onnx" / "onnx.json").read_text())
    assert described["columns"]["multi"] == ["genres", "device_genre"]
    ranker = RowModel.open(bundle)
    features, logits = read_probe((bundle / ROW_PROBE).read_bytes())
    logit, probability = OnnxRanker(tmp_path / "onnx" / "model.onnx", ranker.layout)(features)
    np.testing.assert_allclose(logit, logits, rtol=0, atol=1e-5)
    wanted = ranker.calibrator.probability(logits.numpy())
    np.testing.assert_allclose(probability, wanted, rtol=0, atol=1e-5)
    with pytest.raises(ConfigError, match="onnx exists; choose another --out"):
        export_onnx(bundle, tmp_path / "onnx")
    check_manifest(tmp_path / "onnx", bundle.name)


def check_manifest(folder: Path, model_id: str) -> None:
    """Run the code of an exported graph's page; flip and cut every file of the export."""
    export = open_export(folder)
    assert (export.facts["target"], export.facts["model_id"]) == ("onnx", model_id)
    assert export.names() == ["README.md", "model.onnx", "onnx.json"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        code = re.findall(r"```python\n(.*?)\n```", export.read("README.md").decode(), re.S)
        names: dict[str, Any] = {}
        exec(compile(code[0], "README.md", "exec"), names)
    assert 0 < names["probability"][0] < 1
    for name in [*export.names(), "export.json"]:
        whole = (folder / name).read_bytes()
        middle = len(whole) // 2
        flipped = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
        for wrong in (flipped, whole[:-1]):
            (folder / name).write_bytes(wrong)
            with pytest.raises(IntegrityError, match=f"{name}: "):
                open_export(folder)
        (folder / name).write_bytes(whole)


def test_mlflow_answers_with_probabilities(
    world: Path,
    bundle: Path,
    expected: np.ndarray[Any, Any],
    mlflow_template: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shutil.copy(mlflow_template, tmp_path / "mlflow.db")
    monkeypatch.chdir(tmp_path)
    store = f"sqlite:///{tmp_path / 'mlflow.db'}"
    register(Bundle.open(bundle), "clicks", uri=store, alias="champion")
    model = mlflow.pyfunc.load_model("models:/clicks@champion")
    frame = plain_rows().to_pandas()
    answer = model.predict(frame)
    assert list(answer.columns) == ["who", "film", "probability"]
    np.testing.assert_allclose(answer["probability"], expected, rtol=0, atol=1e-7)
    assert answer["film"].tolist() == tables()["rows"].column("film").to_pylist()
    with pytest.raises(DataError, match="the model input row 1, column 'price': 'dear'"):
        model.predict(frame.assign(price="dear"))
