"""A last training sees every row, and takes over what the run before it chose; no row is held out.

Walks through a catalogue, split leave-one-out; models of every family, trained for real.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

import recsys
from recsys.bundle.calibration import Calibrator
from recsys.bundle.directory import Bundle
from recsys.bundle.pair_calibration import InteractionProbability
from recsys.bundle.weights import load_tensors
from recsys.core.errors import ConfigError, UserError
from recsys.core.events import Event, PointLogged
from recsys.features.bundle.files import (
    TRAIN_COUNT,
    read_calibration,
    read_items,
    read_memory,
    read_weights,
    source_folders,
)
from recsys.features.bundle.measured import Kept
from recsys.features.bundle.model_bundle import ModelBundle
from recsys.plain.kind import Counted
from recsys.plain.registry import PLAIN, fit_plain
from recsys.plain.saved import arrays_of
from recsys.training.families.chosen import as_chosen
from recsys.training.jobs.final import final_config
from recsys.training.jobs.opening import open_model

NUM_ITEMS, NUM_USERS, DAY = 30, 260, 24 * 3600


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write walks through the catalogue, each item followed by the next one, and clicks."""
    folder = tmp_path_factory.mktemp("final")
    rng = np.random.default_rng(0)
    rows = []
    for user in range(NUM_USERS):
        clock = 1_700_000_000 + user
        for _visit in range(2):
            item = int(rng.integers(NUM_ITEMS))
            for _step in range(int(rng.integers(3, 6))):
                rows.append((f"u{user:03}", f"i{item:02}", clock))
                item, clock = (item + 1) % NUM_ITEMS, clock + int(rng.integers(5, 60))
            clock += DAY
    log = pd.DataFrame(rows, columns=["user", "item", "at"])
    log["shelf"] = log.item.str[1]
    chance = np.where(log["shelf"].astype(int) == log.user.str[3].astype(int) % 3, 0.8, 0.2)
    log["click"] = (rng.random(len(log)) < chance).astype(np.int8)
    log.drop(columns="shelf").to_parquet(folder / "log.parquet")
    log.sort_values("at")[["shelf", "item", "user", "click"]].to_parquet(folder / "stream.parquet")
    items = pd.DataFrame({"item": [f"i{row:02}" for row in range(NUM_ITEMS)]})
    items["shelf"] = items.item.str[1]
    items.to_parquet(folder / "items.parquet")
    return folder


KEYS: dict[str, Any] = {
    "data": {"interactions": "log.parquet", "items": "items.parquet"},
    "schema": {
        "interactions": {"user": "user", "item": "item", "time": {"column": "at", "unit": "s"}},
        "items": {"key": "item"},
        "features": [
            {"name": "item", "table": "items", "kind": "categorical"},
            {"name": "shelf", "table": "items", "kind": "categorical"},
        ],
    },
    "split": {"kind": "leave_one_out"},
    "tracking": {"enabled": False},
}
LISTS = {"ks": [5], "bootstrap_samples": 10, "baselines": ["popularity"]}
SMALL = {"dim": 8, "hidden": [8], "history_length": 6}
TABLE = {"num_rows": 256, "dim": 4, "backend": "torch"}
LEARNING = {"batch_size": 128, "metric": "ndcg_at_5", "precision": "float32"}
FEW_LISTS: dict[str, Any] = {"evaluation": LISTS, "training": {"metric": "ndcg_at_5"}}
TOWERS: dict[str, Any] = {
    "model": {"kind": "two_tower", **SMALL, "memory": "pairs"},
    "embedding": TABLE,
    "training": {**LEARNING, "epochs": 4, "patience": 1, "uniform_negatives": 16},
    "evaluation": LISTS,
}
SESSIONS: dict[str, Any] = {
    "model": {"kind": "session", **SMALL, "memory": "pairs"},
    "sessions": {"inactivity_minutes": 60},
    "embedding": TABLE,
    "training": {**LEARNING, "epochs": 2},
    "evaluation": {**LISTS, "baselines": ["session_items"]},
}
RANKER: dict[str, Any] = {
    "schema": {
        "interactions": {**KEYS["schema"]["interactions"], "label": {"column": "click"}},
        "features": [
            {"name": "user", "table": "users", "kind": "categorical"},
            {"name": "item", "table": "items", "kind": "categorical"},
        ],
    },
    "data": {"interactions": "log.parquet"},
    "policies": {"duplicate_events": "keep"},
    "split": {"kind": "time", "validation": 0.2, "test": 0.2},
    "model": {"kind": "fm"},
    "embedding": TABLE,
    "training": {"batch_size": 64, "epochs": 4, "patience": 1, "precision": "float32"},
    "evaluation": {"rankers": [], "bootstrap_samples": 10},
}
STREAM: dict[str, Any] = {
    **RANKER,
    "data": {"interactions": "stream.parquet", "stream": True},
    "schema": {
        "interactions": {"label": {"column": "click"}},
        "features": [
            {"name": name, "table": "interactions", "kind": "categorical"}
            for name in ("user", "item", "shelf")
        ],
    },
}
PIPELINE: dict[str, Any] = {
    "model": {
        "kind": "pipeline",
        "sources": [
            {
                "model": {"kind": "two_tower", **SMALL, "memory": "pairs"},
                "embedding": TABLE,
                "training": {"epochs": 3, "batch_size": 64, "precision": "float32"},
                "take": 10,
            },
            {"model": {"kind": "item_knn"}, "take": 10},
        ],
    },
    **FEW_LISTS,
}

KNN: dict[str, Any] = {"model": {"kind": "item_knn"}, **FEW_LISTS}
FAMILIES: dict[str, dict[str, Any]] = {
    "plain": KNN,
    "two_tower": TOWERS,
    "session": SESSIONS,
    "ranker": RANKER,
    "pipeline": PIPELINE,
}
Written = Callable[..., Path]


@pytest.fixture
def written(folder: Path, tmp_path: Path) -> Written:
    """Write a configuration whose runs go to a folder of the test."""

    def write(keys: dict[str, Any], **sections: Any) -> Path:
        whole = {**KEYS, **keys, **sections, "output": str(tmp_path / "runs")}
        path = folder / f"{tmp_path.name}.yaml"
        path.write_text(yaml.safe_dump(whole))
        return path

    return write


def final(path: Path, **more: Any) -> recsys.Run:
    return recsys.train(path, final=True, quiet=True, **more)


@dataclass(frozen=True)
class Watched:
    """A final run, its epochs, and the validation metric of each epoch of the run that chose."""

    run: recsys.Run
    curve: list[float]
    epochs: int


Finals = Callable[[str], Watched]


@pytest.fixture(scope="module")
def finals(folder: Path) -> Finals:
    """Train a model of each family, and then finally, once for all tests."""

    @cache
    def of(name: str) -> Watched:
        path = folder / f"{name}.yaml"
        keys = {**KEYS, **FAMILIES[name], "output": str(folder / name)}
        path.write_text(yaml.safe_dump(keys))
        points: list[PointLogged] = []

        def watch(event: Event) -> None:
            if isinstance(event, PointLogged) and "epoch_loss" in event.values:
                points.append(event)

        run = final(path, listener=watch)
        metric = f"validation/{keys['training'].get('metric', 'auc')}"
        curve = [one.values[metric] for one in points if metric in one.values]
        return Watched(run, curve, len(points) - len(curve))

    return of


def opened(run: recsys.Run) -> ModelBundle:
    return ModelBundle.read(run.bundle)


def chosen_of(run: recsys.Run) -> ModelBundle:
    assert run.chosen is not None
    return opened(run.chosen)


def log_of(folder: Path) -> pd.DataFrame:
    return pd.read_parquet(folder / "log.parquet").sort_values(["user", "at"], kind="stable")


def check_counts(model: ModelBundle, folder: Path) -> None:
    """Each item has as many training rows as the log has of it."""
    items = read_items(model.bundle)
    counts = log_of(folder).item.value_counts()
    found = dict(zip(items["item"].to_pylist(), items[TRAIN_COUNT].to_pylist(), strict=True))
    assert found == {item: int(counts.get(item, 0)) for item in found}


@pytest.mark.parametrize("kind", ["ease", "popularity", "item_knn"])
def test_a_plain_model_is_the_one_fitted_by_hand_on_all_rows(
    kind: str, folder: Path, written: Written
) -> None:
    run = final(written({"model": {"kind": kind}, **FEW_LISTS}))
    model = opened(run)
    check_counts(model, folder)
    log = log_of(folder)
    user = log.user.astype("category").cat.codes.to_numpy()
    rows = Counted(
        user=user.astype(np.int32),
        sequence=user.astype(np.int64),
        item=log.item.str[1:].astype(int).to_numpy().astype(np.int32),
        time=(log["at"] * 1_000_000).to_numpy(),
        num_items=NUM_ITEMS,
    )
    settings = PLAIN[kind].config.model_validate({"kind": kind})
    by_hand = arrays_of(fit_plain(settings, rows))
    found = arrays_of(model.plain_model().fitted)
    assert by_hand.keys() == found.keys()
    for name, values in by_hand.items():
        np.testing.assert_array_equal(found[name], values)
    before = arrays_of(chosen_of(run).plain_model().fitted)
    assert any(not np.array_equal(before[name], values) for name, values in by_hand.items())


def test_a_two_tower_trains_on_all_rows_for_as_many_epochs_as_were_best(
    folder: Path, finals: Finals, tmp_path: Path
) -> None:
    found = finals("two_tower")
    run, best = found.run, int(np.argmax(found.curve)) + 1
    assert found.epochs == best
    model, config = opened(run), open_model(run.bundle).config
    assert config.training.epochs == best
    check_counts(model, folder)
    # The same bits as a training of that many epochs on all rows that nobody chose for.
    alone = recsys.Config.of(config).with_({"final": None, "output": str(tmp_path)})
    again = opened(recsys.train(alone, quiet=True))
    ours, theirs = (load_tensors(read_weights(one.bundle)) for one in (model, again))
    assert torch.equal(ours[0], theirs[0])
    for name, weight in ours[1].items():
        assert torch.equal(weight, theirs[1][name])


def test_the_best_epoch_may_be_an_early_one(written: Written) -> None:
    """Of a model that hardly moves no epoch is better than the first."""
    still = {**TOWERS["training"], "learning_rate": 1e-12, "epochs": 5}
    table = {**TABLE, "learning_rate": 1e-12}
    run = final(written(TOWERS, training=still, embedding=table))
    assert chosen_of(run).bundle.manifest["facts"]["best_epoch"] == "1"
    assert recsys.load(run).config.training.epochs == 1  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["two_tower", "session"])
def test_the_weight_of_the_memory_is_that_of_the_run_that_chose(
    name: str, folder: Path, finals: Finals
) -> None:
    run = finals(name).run
    before, model = chosen_of(run), opened(run)
    weights = []
    for one in (before, model):
        memory = read_memory(one.bundle, NUM_ITEMS)
        temperature = float(one.retrieval_model().temperature.detach())
        weights.append(0.0 if memory is None else memory.gain / temperature)
    assert weights[0] == pytest.approx(weights[1], rel=1e-5)
    assert open_model(run.bundle).config.model.memory.weight == pytest.approx(weights[0], rel=1e-5)
    assert any("chosen" in key or "memory" in key for key in Kept.of(before.bundle).protocol)
    check_counts(model, folder)
    if weights[0]:
        more = read_memory(model.bundle, NUM_ITEMS)
        less = read_memory(before.bundle, NUM_ITEMS)
        assert more is not None
        assert less is not None
        assert more.shares.nnz >= less.shares.nnz


def test_a_ranker_keeps_the_calibration_that_was_fitted_on_validation_rows(
    folder: Path, finals: Finals
) -> None:
    run = finals("ranker").run
    before, model = chosen_of(run), opened(run)
    fitted, carried = (read_calibration(one.bundle, Calibrator) for one in (before, model))
    assert fitted == carried
    assert fitted is not None
    assert fitted.kind == "beta"
    epochs = int(before.bundle.manifest["facts"]["best_epoch"])
    assert open_model(run.bundle).config.training.epochs == epochs
    log = log_of(folder)
    protocol = Kept.of(model.bundle).protocol
    assert protocol["rows"] == f"{len(log):,} training rows"
    # Its answers are its own logits through that calibration.
    shown = recsys.load(run).predict(log.head(50))
    assert shown["probability"].between(0, 1).all()
    assert recsys.explain(run).to_json()["part"] == "training"  # type: ignore[union-attr]


def test_offset_of_the_sampling_is_that_of_the_last_training(written: Written) -> None:
    sampled = {**RANKER["training"], "negative_rate": 0.5}
    run = final(written(RANKER, training=sampled))
    fitted, carried = (
        read_calibration(one.bundle, Calibrator) for one in (chosen_of(run), opened(run))
    )
    assert fitted is not None
    assert carried is not None
    assert carried.offset == pytest.approx(np.log(0.5), abs=0.01)
    assert carried.offset != fitted.offset
    assert replace(carried, offset=fitted.offset) == fitted


def test_a_streamed_log_is_trained_on_to_its_last_row(folder: Path, written: Written) -> None:
    run = final(written(STREAM))
    count = len(pd.read_parquet(folder / "stream.parquet"))
    assert Kept.of(opened(run).bundle).protocol["rows"] == f"{count:,} training rows"
    fitted, carried = (
        read_calibration(one.bundle, Calibrator) for one in (chosen_of(run), opened(run))
    )
    assert fitted == carried


def test_probabilities_of_a_two_tower_are_carried_over(written: Written) -> None:
    plain = {**TOWERS, "model": {"kind": "two_tower", **SMALL}, "calibration": "logistic"}
    run = final(written(plain))
    before, after = (
        read_calibration(one.bundle, InteractionProbability)
        for one in (chosen_of(run), opened(run))
    )
    assert before is not None
    assert before == after


def test_a_pipeline_keeps_how_it_joins_and_its_sources_train_on_all_rows(
    folder: Path, finals: Finals
) -> None:
    run = finals("pipeline").run
    before, model = chosen_of(run), opened(run)
    check_counts(model, folder)
    for source in source_folders(model.bundle):
        check_counts(ModelBundle.read(source), folder)
    joined = [arrays_of(one.joined_model().fusion) for one in (before, model)]
    assert joined[0].keys() == joined[1].keys()
    for name, values in joined[0].items():
        np.testing.assert_array_equal(joined[1][name], values)
    counts = log_of(folder).item.value_counts()
    expected = [int(counts.get(f"i{row:02}", 0)) for row in range(NUM_ITEMS)]
    assert model.joined_model().facts.counts.tolist() == expected
    first, last = (open_model(source_folders(one.bundle)[0]).config for one in (before, model))
    assert last.training.epochs == first.training.epochs
    assert last.model.memory.weight == first.model.memory.weight
    assert last.model.memory.weight != "auto"


@pytest.mark.parametrize("name", FAMILIES)
def test_a_final_model_claims_no_figures_of_its_own(name: str, finals: Finals) -> None:
    run = finals(name).run
    assert run.chosen is not None
    kept, before = Kept.of(Bundle.open(run.bundle)), Kept.of(Bundle.open(run.chosen.bundle))
    assert (kept.part, dict(kept.test), kept.intervals, kept.baselines) == (None, {}, {}, {})
    assert kept.chosen_by is not None
    assert (kept.chosen_by.model_id, kept.chosen_by.kept) == (run.chosen.bundle.name, before)
    assert kept.chosen_by.run == run.chosen.path.name
    facts = Bundle.open(run.bundle).manifest["facts"]
    assert (facts["final"], facts["chosen_by"]) == ("true", run.chosen.bundle.name)
    assert facts["metrics"] == {"test": {}}
    assert run.evaluation is not None
    assert run.evaluation.figures() == {}
    assert run.evaluation.tracked() == {}
    assert run.evaluation.to_frame().empty
    assert "there are no test figures of this model" in repr(run.evaluation)
    page = run.report.read_text()
    assert "Recall" not in page.split("The run that chose")[0]
    assert "These are its figures on its test part, not those of this model" in page
    assert "chose the settings on its validation rows" in page
    assert "nan" not in page.lower().replace("tenant", "")
    text = (run.bundle / "metrics.json").read_text()
    json.loads(text, parse_constant=lambda word: pytest.fail(word))
    with pytest.raises(ConfigError, match="trained on all rows of its data, and nothing is held"):
        recsys.evaluate(run)


def test_a_final_model_may_choose_for_the_next_one(finals: Finals, written: Written) -> None:
    """Retrained on newer rows it names the run that chose first, and keeps its settings."""
    first = finals("ranker").run
    again = recsys.train(written(RANKER), final=first, quiet=True)
    kept, before = (Kept.of(Bundle.open(one.bundle)) for one in (again, first))
    assert kept.chosen_by == before.chosen_by
    assert again.chosen is None
    assert recsys.load(again).config.training.epochs == recsys.load(first).config.training.epochs
    fitted = [read_calibration(Bundle.open(one.bundle), Calibrator) for one in (first, again)]
    assert fitted[0] == fitted[1]


@pytest.fixture(scope="module")
def knn(finals: Finals) -> recsys.Run:
    """A run that chose: of a plain model."""
    chosen = finals("plain").run.chosen
    assert chosen is not None
    return chosen


def test_newer_data_and_other_folders_may_be_given(
    knn: recsys.Run, folder: Path, written: Written, tmp_path: Path
) -> None:
    log = pd.read_parquet(folder / "log.parquet")
    newer = pd.DataFrame({"user": ["u000", "u999"], "item": ["i05", "i06"], "at": 1_750_000_000})
    pd.concat([log, newer]).to_parquet(tmp_path / "newer.parquet")
    data = {"interactions": str(tmp_path / "newer.parquet"), "items": "items.parquet"}
    path = written(KNN, data=data)
    run = recsys.train(path, final=knn, quiet=True)
    items = read_items(Bundle.open(run.bundle))
    assert sum(items[TRAIN_COUNT].to_pylist()) == len(log) + 2
    assert run.path.parent == tmp_path / "runs"


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"model": {"kind": "item_knn", "neighbours": 7}}, r"differ in model\.neighbours: "),
        ({"model": {"kind": "ease"}}, r"differ in model\.kind"),
        ({"evaluation": {**LISTS, "filter_seen": False}}, r"evaluation\.filter_seen"),
        ({"training": {"metric": "recall_at_5"}}, r"differ in training\.metric"),
    ],
)
def test_other_settings_than_were_chosen_for_are_refused(
    change: dict[str, Any], named: str, knn: recsys.Run, written: Written
) -> None:
    path = written({**KNN, **change})
    with pytest.raises(ConfigError, match=named):
        recsys.train(path, final=knn, quiet=True)


def test_what_cannot_be_is_refused_before_anything_is_trained(
    knn: recsys.Run, written: Written, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = KNN
    joined = written(plain, split={"kind": "time", "join_validation": True})
    with pytest.raises(ConfigError, match="join_validation leaves no validation rows to choose by"):
        final(joined)
    with pytest.raises(ConfigError, match="kind: none leaves no validation rows to choose by"):
        final(written(plain, split={"kind": "none"}))
    with pytest.raises(ConfigError, match="warm_start does not go with the model that chose"):
        recsys.train(written(TOWERS), final=knn, warm_start=knn, quiet=True)
    with pytest.raises(UserError, match="is no folder here"):
        recsys.train(written(plain), final=str(tmp_path / "nowhere"), quiet=True)
    with pytest.raises(ConfigError, match=r"calibration: beta is fitted on validation rows, and"):
        recsys.train(written(RANKER, split={"kind": "none"}), quiet=True)
    with pytest.raises(ConfigError, match="a pipeline learns to join and rank on the validation"):
        recsys.train(written(PIPELINE, split={"kind": "none"}), quiet=True)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="start them again with --final --from RUN"):
        final(written(plain))
    assert not (tmp_path / "runs").exists()


def test_a_bundle_that_does_not_say_its_best_epoch_is_refused(
    written: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As those of rankers of earlier engines do not."""
    from recsys.training.families.ranker import job

    monkeypatch.setattr(job, "best_epoch", lambda history, metric: {})
    run = recsys.train(written(RANKER), quiet=True)
    with pytest.raises(ConfigError, match="does not say which epoch was the best"):
        final_config(None, run.bundle)


def test_a_weight_that_was_configured_stays_as_it_is(written: Written) -> None:
    memory = {"kind": "pairs", "weight": 0.123456789}
    model = {"kind": "two_tower", **SMALL, "memory": memory}
    training = {**TOWERS["training"], "epochs": 1}
    run = recsys.train(written(TOWERS, model=model, training=training), quiet=True)
    keys = as_chosen({"model": model, "training": {}}, opened(run))
    assert keys["model"]["memory"]["weight"] == 0.123456789
    assert keys["training"] == {"epochs": 1}


PARTS = [
    (KNN, {"kind": "leave_one_out", "test": 0}),
    (TOWERS, {"kind": "time", "validation": 0.2, "test": 0}),
    (SESSIONS, {"kind": "leave_one_out", "test": 0}),
    (RANKER, {"kind": "time", "validation": 0.2, "test": 0}),
    (STREAM, {"kind": "time", "validation": 0.2, "test": 0}),
]


@pytest.mark.parametrize(
    ("keys", "split"), PARTS, ids=["plain", "two_tower", "session", "ranker", "streamed"]
)
def test_without_a_test_part_figures_are_those_of_validation_and_called_so(
    keys: dict[str, Any], split: dict[str, Any], written: Written
) -> None:
    path = written(keys, split=split)
    assert recsys.check(path).lines()
    run = recsys.train(path, quiet=True)
    kept = Kept.of(Bundle.open(run.bundle))
    assert (kept.part, dict(kept.test)) == ("validation", {})
    assert kept.validation
    assert kept.decides in kept.validation
    assert np.isfinite([*kept.validation.values()]).all()
    assert "no test part: evaluated on the validation rows" in kept.protocol["split"]
    assert run.evaluation is not None
    assert all(name.startswith("validation_at_end/") for name in run.evaluation.tracked())
    page = run.report.read_text()
    assert "There is no test part" in page
    if keys is not STREAM:
        again = recsys.evaluate(run)
        assert again.tracked() == pytest.approx(run.evaluation.tracked(), nan_ok=True)


def test_without_a_test_part_nothing_can_be_compared(
    knn: recsys.Run, finals: Finals, written: Written
) -> None:
    without = recsys.train(written(KNN, split={"kind": "leave_one_out", "test": 0}), quiet=True)
    with pytest.raises(ConfigError, match=r"split\.test: 0 leaves no test part to compare on"):
        recsys.compare([without, knn])
    run = finals("plain").run
    with pytest.raises(ConfigError, match=f"or compare run {knn.path.name}") as refused:
        recsys.compare([run, knn])
    assert "split.kind: none leaves no test part to compare on" in str(refused.value)
    found = recsys.compare([knn, run])
    assert any("its figures here are too good" in one for one in found.warnings)


def test_a_pipeline_without_a_test_part_has_the_figures_of_its_validation_requests(
    folder: Path, written: Written
) -> None:
    run = recsys.train(written(PIPELINE, split={"kind": "leave_one_out", "test": 0}), quiet=True)
    kept = Kept.of(Bundle.open(run.bundle))
    assert (kept.part, kept.decides) == ("validation", "ndcg_at_5")
    assert kept.chosen_by is None
    check_counts(opened(run), folder)
    assert "They are no test figures" in run.report.read_text()
    with pytest.raises(ConfigError, match="nothing is held out"):
        recsys.evaluate(run)
