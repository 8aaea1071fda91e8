"""The metrics that a bundle keeps: written and read again, by hand, and those of older bundles."""

import json
from pathlib import Path

import pytest

from recsys.bundle.directory import Bundle, write_bundle
from recsys.features.bundle.files import write_metrics
from recsys.features.bundle.measured import Kept
from recsys.serving.version_facts import MOST_METRICS, description_of

KEPT = Kept(
    test={"ndcg_at_20": 0.25, "recall_at_20": 0.5, "ndcg_at_10": 0.2, "rankme": 12.0},
    intervals={"ndcg_at_20": (0.2, 0.3), "recall_at_20": (0.4, 0.6), "ndcg_at_10": (0.1, 0.3)},
    baselines={"ease": {"ndcg_at_20": 0.24}, "popularity": {"ndcg_at_20": 0.1}},
    decides="ndcg_at_20",
    protocol={"split": "global time split"},
)


def bundle_of(metrics: object, folder: Path) -> Bundle:
    def write(inside: Path) -> None:
        write_metrics(inside, metrics)  # type: ignore[arg-type]
        (inside / "model.json").write_text("{}")

    return Bundle.open(write_bundle(folder, write, facts={"kind": "test"}))


def test_what_is_kept_comes_back(tmp_path: Path) -> None:
    plain = json.loads(json.dumps(KEPT.to_json()))
    assert Kept.of(bundle_of(plain, tmp_path)) == KEPT


def test_older_bundles_hold_the_models_own_metrics_alone(tmp_path: Path) -> None:
    kept = Kept.of(bundle_of({"test": {"auc": 0.7}}, tmp_path))
    assert kept == Kept(test={"auc": 0.7})
    assert kept.best_baseline is None
    assert kept.doubt is None
    assert kept.headline(5) == {"auc": 0.7}


@pytest.mark.parametrize(("own", "doubted"), [(0.25, False), (0.24, False), (0.23, True)])
def test_a_model_is_doubted_where_a_plain_one_is_better(own: float, doubted: bool) -> None:
    kept = Kept(**{**vars(KEPT), "test": {"ndcg_at_20": own}})
    assert kept.best_baseline == ("ease", 0.24)
    said = "on its test part the plain model ease was better: ndcg_at_20 0.2400, its own 0.2300"
    assert kept.doubt == (said if doubted else None)


def test_the_headline_begins_with_what_decides_and_its_length_of_list() -> None:
    assert list(KEPT.headline(9)) == ["ndcg_at_20", "recall_at_20", "ndcg_at_10", "rankme"]
    assert list(KEPT.headline(2)) == ["ndcg_at_20", "recall_at_20"]
    rows = Kept(test={"log_loss": 0.5, "ndcg_at_10": 0.3, "auc": 0.8}, decides="auc")
    assert list(rows.headline(2)) == ["auc", "log_loss"]


def test_a_trained_bundle_keeps_the_plain_models(trained: Path) -> None:
    bundle = Bundle.open(trained)
    kept = Kept.of(bundle)
    assert kept.decides == "ndcg_at_20"
    assert {"popularity", "item_knn", "ease", "gf_cf"} <= set(kept.baselines)
    assert set(kept.baselines["ease"]) == {n for n in kept.test if "_at_" in n}
    low, high = kept.intervals["recall_at_10"]
    assert low < kept.test["recall_at_10"] < high
    assert bundle.manifest["facts"]["metrics"] == {"test": kept.test}


def test_a_description_has_the_metrics_with_intervals_and_the_best_plain_model(
    trained: Path,
) -> None:
    bundle = Bundle.open(trained)
    kept, lines = Kept.of(bundle), description_of(bundle).splitlines()
    assert lines[0].startswith("**two_tower**, trained on `interactions` (data fingerprint `")
    assert "- split: global time split" in lines
    table = [line for line in lines if line.startswith("| ") and "_at_" in line]
    low, high = kept.intervals["ndcg_at_20"]
    value = kept.test["ndcg_at_20"]
    assert table[0] == f"| ndcg_at_20 (decides) | {value:.4f} | {low:.4f} to {high:.4f} |"
    assert len(table) <= MOST_METRICS
    best, found = kept.best_baseline or ("", 0.0)
    assert f"Best plain model: {best}, ndcg_at_20 {found:.4f}." in lines
    assert any(line.startswith("**Warning**: on its test") for line in lines) == (found > value)
