"""What the ranker of a bundle looks at, from the command line: tables, JSON, pictures, report."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from click.testing import CliRunner, Result

from recsys.app.cli import main
from recsys.bundle.calibration import Calibrator
from recsys.core.errors import ConfigError
from recsys.explanation.attention_maps import AttentionMaps
from recsys.explanation.explanations import Agreement, Importance, Interactions
from recsys.features.dataset.split import TEST
from recsys.training.explain.explanation import Explanation, explain_row, explain_rows, sampled
from recsys.training.explain.rankers import open_ranker
from recsys.training.families.load import load_config
from recsys.training.jobs.explain import explain_log_row, explain_model, explain_pair
from recsys.training.jobs.opening import open_model
from recsys.training.jobs.train import train
from recsys.training.reports.explanation_plots import explanation_section
from recsys.training.reports.explanation_table import agreement_words
from tests.training.reports.test_report import EVIL, Page

TITLES = ("plain", "striped")


def write_world(folder: Path) -> None:
    """Users with a taste, items with a look: taken where both are alike, and in some shops."""
    rng = np.random.default_rng(0)
    users, items = np.arange(1, 61), [f"i{number:02}" for number in range(40)]
    taste, look = rng.integers(0, 2, 61), rng.integers(0, 2, 40)
    # The last user and the last item are in no row of the log.
    user, item = rng.integers(1, 60, 4000), rng.integers(0, 39, 4000)
    shop = rng.integers(0, 3, 4000)
    logit = 2.5 * np.where(taste[user] == look[item], 1, -1) + 1.5 * (shop - 1)
    log = {
        "user": user,
        "item": [items[one] for one in item],
        "label": (rng.random(4000) < 1 / (1 + np.exp(-logit))).astype(np.int32),
        "at": 1_700_000_000 + np.arange(4000),
        "shop": [f"shop {one}" for one in shop],
        "price": rng.gamma(2.0, 5.0, 4000),
    }
    titles = [f"{TITLES[one]} shirt {number}" for number, one in enumerate(look)]
    catalogue = {"item": items, "look": look, "title": titles}
    pq.write_table(pa.table(log), folder / "log.parquet")
    pq.write_table(pa.table({"user": users, "taste": taste[1:]}), folder / "users.parquet")
    pq.write_table(pa.table(catalogue), folder / "items.parquet")


def settings(folder: Path, output: Path, **changes: Any) -> Path:
    features = [
        {"name": "taste", "table": "users", "kind": "categorical"},
        {"name": "user_id", "table": "users", "kind": "categorical", "column": "user"},
        {"name": "look", "table": "items", "kind": "categorical"},
        {"name": "title", "table": "items", "kind": "text"},
        {"name": "shop", "table": "interactions", "kind": "categorical"},
        {"name": "price", "table": "interactions", "kind": "numeric"},
        {"name": "at", "table": "interactions", "kind": "timestamp", "unit": "s"},
        {"name": "both", "kind": "cross", "of": ["shop", "user_id"]},
        {"name": "shown", "kind": "history", "of": "look", "last": 5, "rows": "all"},
        {"name": "times", "kind": "count", "of": "item"},
    ]
    roles = {"user": "user", "item": "item", "label": {"column": "label"}}
    raw = {
        "data": {
            name: str(folder / f"{file}.parquet")
            for name, file in (("interactions", "log"), ("users", "users"), ("items", "items"))
        },
        "schema": {
            "interactions": {**roles, "time": {"column": "at", "unit": "s"}},
            "items": {"key": "item", "title": "title"},
            "users": {"key": "user"},
            "features": features,
        },
        "model": {"kind": "autoint", "layers": 1, "head_dim": 8, "field_dim": 8},
        "embedding": {"num_rows": 256, "dim": 8, "learning_rate": 0.1, "backend": "torch"},
        "training": {"epochs": 4, "batch_size": 128, "learning_rate": 0.01},
        "evaluation": {"bootstrap_samples": 20, "rankers": []},
        "tracking": {"enabled": False},
        "output": str(output),
        **changes,
    }
    path = output.parent / f"{output.name}.yaml"
    path.write_text(yaml.safe_dump(raw))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shirts")
    write_world(folder)
    return folder


@pytest.fixture(scope="module")
def ranker(folder: Path) -> Path:
    """The bundle of an AutoInt of the world."""
    torch.set_num_threads(1)
    result = train(load_config(settings(folder, folder / "runs")))
    assert result is not None
    return result.bundle


@pytest.fixture
def explain(ranker: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def call(*arguments: str) -> Result:
        return CliRunner().invoke(main, ["explain", str(ranker), *arguments])

    return call


def test_the_whole_model_by_what_it_loses(explain: Any, tmp_path: Path) -> None:
    said = explain("--rows", "300", "--json", "--out", "all.svg")
    assert said.exit_code == 0, said.output
    found = json.loads(said.stdout)
    assert found["kind"] == "autoint"
    assert found["rows"] == 300
    first = {one["field"] for one in found["fields"][:2]}
    assert first in ({"taste", "look"}, {"taste", "title"})  # a title says the look, too
    assert set(found["pairs"][0]["fields"]) in ({"taste", "look"}, {"taste", "title"})
    assert sum(one["attention"] for one in found["fields"]) == pytest.approx(1)
    falls = [one["auc_fall"] for one in found["fields"]]
    assert falls == sorted(falls, reverse=True)
    assert len(found["pairs"]) == 15
    assert (tmp_path / found["picture"]).read_text().startswith("<?xml")
    shown = explain("--rows", "300")
    assert shown.exit_code == 0, shown.output
    assert re.search(r"taste\s+\W\s+[0-9.]+ \+- [0-9.]+", shown.output)
    assert "attention of fields: Spearman" in shown.output
    (picture,) = tmp_path.glob("explanation-*.png")
    assert picture.read_bytes()[:4] == b"\x89PNG"


def log_of(folder: Path, row: int) -> dict[str, Any]:
    return dict(pq.read_table(folder / "log.parquet").slice(row - 1, 1).to_pylist()[0])


def test_one_row_with_its_values_as_they_were_written(
    explain: Any, folder: Path, ranker: Path
) -> None:
    said = explain("--row", "3900", "--json")
    assert said.exit_code == 0, said.output
    found, log = json.loads(said.stdout), log_of(folder, 3900)
    values = {one["field"]: one["value"] for one in found["fields"]}
    assert values["shop"] == log["shop"]
    assert values["price"] == f"{log['price']:g}"
    assert values["user_id"] == str(log["user"])
    assert values["title"].endswith(f" shirt {int(log['item'][1:])}")
    assert values["at"] == values["at.hour"] == values["at.weekday"] == str(log["at"])
    assert values["both"] == f"{log['shop']} x {log['user']}"
    assert values["shown"] == "5 values"
    assert re.fullmatch(r"-?\d\.\d\d after scaling", values["times"])
    assert found["row"] == f"user {log['user']}, item {log['item']} ({values['title']})"
    assert found["notes"] == ["row 3,900 of the log, a test row"]
    assert found["label"] == log["label"]
    first = explain_log_row(ranker, 1)
    values = dict(zip(first.contributions.names, first.values, strict=True))
    assert values["shown"] == values["times"] == "null"
    opened = open_ranker(open_model(ranker))
    batch = sampled(opened.rows, TEST, 10**6, 0)
    assert opened.data is not None
    at = opened.data.tables.events.row[batch.examples] == 3899
    with torch.no_grad():
        logit = opened.model(batch.features)[torch.from_numpy(at)]
    assert found["logit"] == pytest.approx(float(logit), abs=1e-5)
    calibrator = opened.calibrator
    assert calibrator.kind == "beta"
    probability = calibrator.probability(logit.numpy())
    assert found["probability"] == pytest.approx(float(probability[0]), abs=1e-5)


def test_a_pair_of_the_log_is_its_latest_row(explain: Any, folder: Path) -> None:
    log = pq.read_table(folder / "log.parquet").to_pylist()
    pair = (log[0]["user"], log[0]["item"])
    latest = max(row for row, one in enumerate(log, 1) if (one["user"], one["item"]) == pair)
    said = explain("--user", str(pair[0]), "--item", pair[1], "--out", "pair.png")
    assert said.exit_code == 0, said.output
    assert f"row {latest:,} of the log" in said.output
    assert f"user {pair[0]}, item {pair[1]} (" in said.output
    assert f"label {log[latest - 1]['label']}" in said.output
    assert Path("pair.png").exists()


def test_a_pair_without_a_row_takes_the_users_latest_request(ranker: Path, folder: Path) -> None:
    log = pq.read_table(folder / "log.parquet").to_pylist()
    latest = max(row for row, one in enumerate(log) if one["user"] == 7)
    found = explain_pair(ranker, "7", "i39")
    (note,) = found.notes
    assert (
        f"the log has no row of both: this is the user's latest request, row {latest + 1:,}" in note
    )
    assert f"with item i39 in place of {log[latest]['item']} (" in note
    assert found.label is None
    values = dict(zip(found.contributions.names, found.values, strict=True))
    assert values["shop"] == log[latest]["shop"]
    items = pq.read_table(folder / "items.parquet")
    assert values["look"] == str(items["look"][39].as_py())
    assert values["title"] == items["title"][39].as_py()


def test_what_is_not_there_is_named(explain: Any, ranker: Path, trained: Path) -> None:
    for arguments, code, message in (
        (("--user", "77", "--item", "i01"), 4, "no user 77 in 'user', which holds 1, 2, 3"),
        (("--user", "7", "--item", "x"), 4, "no item x in 'item', which holds i00, i01, i02"),
        (("--user", "7a", "--item", "i01"), 2, "user ids in 'user' are whole numbers, such as 1,"),
        (("--user", "60", "--item", "i01"), 4, "user 60 has no row in the log"),
        (("--row", "4001"), 4, "row 4,001 is not among the 4,000 rows of the log that count"),
        (("--user", "7"), 2, "give --user and --item, or --row, or none of them"),
        (("--user", "7", "--item", "i01", "--row", "2"), 2, "or --row, or none of them"),
        (("--out", "why.pdf"), 2, "a picture is a .png or a .svg"),
        (("--out", "no/where.png"), 2, "there is no folder"),
    ):
        said = explain(*arguments)
        assert said.exit_code == code, said.output
        assert message in said.output
    with pytest.raises(
        ConfigError, match="of kind two_tower gives lists, which are explained one item"
    ):
        explain_model(trained, max_rows=100)
    with pytest.raises(ConfigError, match="at least 1 row is needed to explain a model, got 0"):
        explain_model(trained, max_rows=0)


def test_a_streamed_log_is_explained_as_a_whole(folder: Path, tmp_path: Path) -> None:
    features = [
        {"name": "shop", "table": "interactions", "kind": "categorical"},
        {"name": "price", "table": "interactions", "kind": "numeric"},
    ]
    roles = {"label": {"column": "label"}, "time": {"column": "at", "unit": "s"}}
    path = settings(
        folder,
        tmp_path / "streamed",
        data={"interactions": str(folder / "log.parquet"), "stream": True},
        schema={"interactions": roles, "features": features},
        model={"kind": "dcn", "hidden": [8]},
        training={"epochs": 1, "batch_size": 128, "learning_rate": 0.01},
    )
    result = train(load_config(path))
    assert result is not None
    found = explain_model(result.bundle, max_rows=200)
    assert found.num_rows == 200
    assert found.importance.ranking == ("shop", "price")
    assert found.attention is None
    assert "attention" not in json.dumps(found.to_json()["fields"])
    assert "What it looks at" in result.report.read_text()
    assert "Attention" not in explanation_section(found)
    with pytest.raises(ConfigError, match="of a streamed log explain the model as a whole"):
        explain_log_row(result.bundle, 1)
    (log := tmp_path / "streamed" / "encoded").rename(tmp_path / "elsewhere")
    assert explain_model(result.bundle, max_rows=200).to_json() == found.to_json()
    assert log.is_dir()


def test_the_report_has_the_section_beside_the_rest(ranker: Path) -> None:
    text = (ranker.parents[1] / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert "What it looks at" in page.text
    assert "logits together" in page.text
    charts = re.findall(r"<svg .*?</svg>", text, flags=re.S)
    assert any("AUC lost without the field" in chart for chart in charts)
    assert re.findall(r"#[0-9a-f]{6}\b", " ".join(charts)) == []


def test_the_rows_are_a_sample_that_follows_the_seed(ranker: Path) -> None:
    opened = open_ranker(open_model(ranker))
    first, again, other = (sampled(opened.rows, TEST, 50, seed).examples for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert len(first.unique()) == 50
    assert len(sampled(opened.rows, TEST, 10**6, 0)) == opened.rows.rows[TEST]
    model = opened.model.train()
    explain_rows(opened.config, opened.rows, model, opened.calibrator, max_rows=50)
    assert model.training


def made_up(attention: np.ndarray[Any, Any] | None = None) -> Explanation:
    names = ("quiet", EVIL)
    importance = Importance(
        names, 0.8, 0.4, np.array([[0.0, 0.25], [0.0, 0.15]]), np.array([[0.0, 0.1], [0.0, 0.1]])
    )
    maps = None if attention is None else AttentionMaps(names, attention[None, None], attention)
    return Explanation("fm", 1234, importance, Interactions((names,), np.array([0.5])), maps)


def test_names_are_escaped_and_figures_stand_as_they_are() -> None:
    html = explanation_section(made_up(np.array([[0.9, 0.1], [0.7, 0.3]])))
    assert "<script" not in html
    assert "1,234 test rows" in html
    bars = re.findall(r">(\d\.\d{4})<", re.sub(r"\s", "", html))
    assert bars == 2 * ["0.2000", "0.0000"]  # a page of either width; the most important first
    assert "<td>0.500</td><td>40.0%</td>" in html
    assert ">90%<" in re.sub(r"\s", "", html)
    assert "it prefers none, so there is nothing to compare" in html  # one pair has no order
    assert "attention between" not in explanation_section(made_up())


def test_agreement_is_put_into_words_by_what_chance_would_do() -> None:
    assert agreement_words(Agreement(0.9, 0.38, 8)).endswith("spread by 0.38: they agree")
    assert "too little to rely on" in agreement_words(Agreement(0.6, 0.38, 8))


def test_probabilities_are_the_calibrated_ones(ranker: Path) -> None:
    opened = open_ranker(open_model(ranker))
    row = sampled(opened.rows, TEST, 1, 0).features
    with torch.no_grad():
        raw = float(opened.model(row))
    calibrator = Calibrator("temperature", offset=1.0, temperature=2.0)
    found, _, _ = explain_row(opened.config, opened.rows, opened.model, calibrator, row)
    assert found.logit == pytest.approx(raw + 1, abs=1e-5)
    assert found.probability == pytest.approx(1 / (1 + np.exp(-(raw + 1) / 2)), abs=1e-5)
    plain, flat = (
        explain_rows(opened.config, opened.rows, opened.model, one, max_rows=200).importance
        for one in (Calibrator(), Calibrator("temperature", temperature=1e6))
    )
    assert flat.log_loss == pytest.approx(np.log(2), abs=1e-4)  # all are one half
    assert flat.auc == plain.auc
    np.testing.assert_array_equal(flat.auc_falls, plain.auc_falls)
