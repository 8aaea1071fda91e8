"""A pipeline end to end: trained, evaluated stage by stage, served, explained, continued."""

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from click.testing import CliRunner

import recsys
from recsys.app.cli import main
from recsys.bundle.directory import Bundle
from recsys.core.errors import ConfigError, NotFoundError, UserError
from recsys.features.bundle.files import read_request_probe, source_folders
from recsys.features.bundle.lists import ListModel
from recsys.features.dataset.split import TEST, VALIDATION
from recsys.features.pipeline.searching import PipelineSearch
from recsys.serving.recommend.scorer import Scorer
from recsys.training.evaluation.evaluate import ranking_metrics
from recsys.training.families.family import Given
from recsys.training.families.load import load_config
from recsys.training.families.pipeline import learning
from recsys.training.families.pipeline.all_rows import trained_on_all
from recsys.training.families.pipeline.asking import (
    Asking,
    StageRanker,
    candidates_with_hits,
    one_source,
)
from recsys.training.families.pipeline.job import (
    open_pipeline,
    queries_of,
    search_of,
)
from recsys.training.families.pipeline.sources import TrainedSources
from recsys.training.families.pipeline.tuning import TunedApartError
from recsys.training.jobs.check import preflight
from recsys.training.jobs.runs import TrainResult
from recsys.training.jobs.train import train, train_below
from recsys.training.tracking.journal import line_of

NUM_ITEMS, DAY = 40, 24 * 3600


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write visits: a user walks from item to item, and comes back to a shelf that they like."""
    folder = tmp_path_factory.mktemp("pipeline")
    rng = np.random.default_rng(0)
    rows = []
    for user in range(300):
        clock, liked = 1_700_000_000 + user, int(rng.integers(4))
        for _visit in range(4):
            item = min(int(rng.integers(10)) + 10 * liked, NUM_ITEMS - 2)
            for _step in range(int(rng.integers(2, 5))):
                rows.append((f"u{user:03}", f"i{item:02}", clock))
                walk = (item + 1) % (NUM_ITEMS - 1)
                item = walk if rng.random() < 0.7 else int(rng.integers(NUM_ITEMS - 1))
                clock += int(rng.integers(5, 60))
            clock += DAY
    log = pd.DataFrame(rows, columns=["user", "item", "at"])
    log.to_parquet(folder / "log.parquet")
    items = pd.DataFrame({"item": [f"i{row:02}" for row in range(NUM_ITEMS)]})
    items["shelf"] = items.item.str[1]
    items["price"] = np.arange(NUM_ITEMS) * 1.5
    items.to_parquet(folder / "items.parquet")
    (folder / "towers.yaml").write_text(
        yaml.safe_dump(
            {
                "data": {"interactions": "elsewhere.parquet"},
                "model": {"dim": 8, "hidden": [8], "history_length": 10},
                "embedding": {"num_rows": 256, "dim": 8},
                "training": {"epochs": 3, "batch_size": 64, "precision": "float32"},
            }
        )
    )
    return folder


SETTINGS: dict[str, Any] = {
    "data": {"interactions": "log.parquet", "items": "items.parquet"},
    "schema": {
        "interactions": {"user": "user", "item": "item", "time": {"column": "at", "unit": "s"}},
        "items": {"key": "item"},
        "features": [
            {"name": "item", "table": "items", "kind": "categorical"},
            {"name": "shelf", "table": "items", "kind": "categorical"},
            {"name": "price", "table": "items", "kind": "numeric"},
        ],
    },
    "split": {"kind": "leave_one_out"},
    "model": {
        "kind": "pipeline",
        "sources": [
            {"model": {"kind": "markov"}, "sessions": {"inactivity_minutes": 60}, "take": 20},
            {"model": {"kind": "item_knn"}, "take": 15},
        ],
    },
    "evaluation": {"ks": [5], "baselines": ["popularity", "item_knn"], "bootstrap_samples": 20},
    "training": {"metric": "ndcg_at_5"},
    "tracking": {"enabled": False},
}


def config_of(folder: Path, model: dict[str, Any] | None = None, **sections: Any) -> Any:
    settings = {**SETTINGS, **sections, "model": {**SETTINGS["model"], **(model or {})}}
    path = folder / "pipeline.yaml"
    path.write_text(yaml.safe_dump({**settings, "output": str(folder / "runs")}))
    return load_config(path)


def trained(folder: Path, model: dict[str, Any] | None = None, **sections: Any) -> TrainResult:
    result = train(config_of(folder, model, **sections))
    assert result is not None
    return result


@pytest.fixture(scope="module")
def result(folder: Path) -> TrainResult:
    return trained(folder)


def test_it_is_better_than_its_parts_and_says_what_each_finds(result: TrainResult) -> None:
    evaluation: Any = result.evaluation
    names = list(evaluation.results)
    assert names[:3] == ["pipeline", "source: markov", "source: item_knn"]
    own = {name: one.metrics["ndcg_at_5"] for name, one in evaluation.results.items()}
    assert own["pipeline"] > max(own["source: item_knn"], own["popularity"])
    assert own["pipeline"] > 0.9 * own["source: markov"]
    said = evaluation.protocol["candidates"]
    assert said.startswith("markov ")
    assert "% of the relevant items in 20" in said
    assert "fitted on training and validation rows" in evaluation.protocol["split"]
    assert "Pipeline" in result.report.read_text()


def test_a_source_is_evaluated_as_it_is_by_itself(result: TrainResult, folder: Path) -> None:
    """The same as a model that was trained on training and validation rows alone."""
    config = config_of(folder)
    keys = config.of_source(1, last=True) | {"output": str(folder / "alone")}
    alone = recsys.train({**keys, "evaluation": {**keys["evaluation"], "max_queries": 50_000}})
    evaluation: Any = result.evaluation
    found = alone.evaluation.results["item_knn"]  # type: ignore[union-attr]
    assert (evaluation.results["source: item_knn"].top == found.top).all()
    assert "item_knn" not in evaluation.results  # the baseline of that name is the source


def test_what_is_served_is_what_was_evaluated(result: TrainResult, folder: Path) -> None:
    config = config_of(folder)
    job = open_pipeline(config, Given())
    queries = queries_of(config, job.data, TEST, 1000)
    log = pd.read_parquet(folder / "log.parquet")
    before = log[log.duplicated("user", keep="last")]
    users = job.data.tables.users.column("user").to_pylist()
    asked = [users[row] for row in queries.users]
    lists = recsys.load(result.bundle).recommend(asked, history=before, k=5)
    ids = Scorer.open(result.bundle).item_ids.to_pylist()
    evaluation: Any = result.evaluation
    wanted = [
        (user, ids[row])
        for user, top in zip(asked, evaluation.results["pipeline"].top.tolist(), strict=True)
        for row in top
        if row >= 0
    ]
    assert list(zip(lists.user, lists.item, strict=True)) == wanted


def test_joining_learns_on_rows_that_no_source_has_seen(folder: Path) -> None:
    """The naive way, on rows that sources counted, would look far better than it is."""
    config = config_of(folder)
    job = open_pipeline(config, Given(train=train_below))
    first = [folder / "leak" / str(number) for number in range(2)]
    bundles = [train_below(config.of_source(n), place) for n, place in enumerate(first)]
    models = tuple(ListModel.open(bundle) for bundle in bundles)
    search = search_of(config, job.data, TrainedSources(tuple(bundles), models))
    queries = queries_of(config, job.data, VALIDATION, 1000)
    honest = candidates_with_hits(Asking.before(config, job.data, VALIDATION), search, queries)
    later = [
        train_below(config.of_source(n, last=True), place / "last") for n, place in enumerate(first)
    ]
    seen = search_of(
        config,
        job.data,
        TrainedSources(tuple(later), tuple(ListModel.open(bundle) for bundle in later)),
    )
    naive = candidates_with_hits(Asking.before(config, job.data, VALIDATION), seen, queries)

    def mean_rank(one: Any) -> float:
        named = one.candidates.rank[one.hit > 0]
        return float(np.where(named > 0, named, 40).mean())

    assert honest.hit.sum() > 50
    assert mean_rank(naive) < mean_rank(honest)
    keys = [config.of_source(n) for n in range(2)]
    assert not any(one["split"]["join_validation"] for one in keys)
    counts = trained_on_all(job.data).train_counts
    assert counts.sum() == (job.data.part < TEST).sum()


def test_every_way_of_joining_and_ranking_is_trained_and_served(folder: Path) -> None:
    pytest.importorskip("lightgbm")
    for model in (
        {"fuse": "calibrated"},
        {"fuse": {"kind": "reciprocal_rank", "constant": 10.0}},
        {"fuse": "round_robin"},
        {"rank": {"kind": "gbdt", "trees": 20, "least_rows": 5, "leaves": 4}},
    ):
        found = trained(folder, model)
        again = recsys.evaluate(found.bundle)
        assert again.to_frame().equals(found.evaluation.to_frame())


def test_a_source_that_is_better_alone_keeps_its_order(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    names = config_of(folder).model.names
    values = {f"source: {names[0]}": 0.1, f"source: {names[1]}": 0.3, "fused": 0.2}
    of_each = {name: {f"ndcg_at_{k}": one for k in (5, 20)} for name, one in values.items()}
    monkeypatch.setattr(learning, "_compared", lambda *_: (of_each, None))
    caplog.set_level("INFO")
    evaluation: Any = trained(folder).evaluation
    assert "validation ndcg_at_5: 0.3000" in caplog.text
    assert f"source: {names[1]} alone is better than all of them joined" in caplog.text
    own, alone = (evaluation.results[name] for name in ("pipeline", f"source: {names[1]}"))
    assert own.per_query["ndcg_at_5"].tolist() == alone.per_query["ndcg_at_5"].tolist()


@pytest.mark.parametrize("count", [1, 2, 7, 300, 9000, 12_000])
def test_each_fifth_is_held_out_in_turn_until_they_are_enough(count: int, folder: Path) -> None:
    parts = np.array(learning.held_out_requests(config_of(folder), count)).reshape(-1, count)
    assert (parts.sum(0) <= 1).all()
    assert all(0 < one.sum() < count for one in parts)
    if count < 9000:
        assert parts.sum() in {0, count}
    else:
        assert parts.sum() >= learning.ENOUGH > parts[:-1].sum()
    ranked = learning.held_out_requests(config_of(folder, {"rank": "fm"}), count)
    assert len(ranked) == min(1, len(parts))  # it is trained once
    assert all((one == parts[0]).all() for one in ranked)


def test_what_is_compared_is_the_mean_of_all_requests_that_were_held_out(folder: Path) -> None:
    config = config_of(folder)
    job = open_pipeline(config, Given(train=train_below))
    bundles = [
        train_below(config.of_source(number), folder / "compared" / str(number))
        for number in range(2)
    ]
    search = search_of(config, job.data, TrainedSources.of(bundles))
    queries = queries_of(config, job.data, VALIDATION, 1000)
    asking = Asking.before(config, job.data, VALIDATION)
    labelled = candidates_with_hits(asking, search, queries)
    held = learning.held_out_requests(config, len(queries))
    found, _ = learning._compared(config, job.data, labelled, queries, held, lambda *_: None)  # type: ignore[arg-type, return-value]
    # A source learns nothing from them, and so is the same on all requests at once; below the 15
    # places that both name, after which comes what only the others do.
    for number, name in enumerate(config.model.names):
        top = StageRanker(asking, search, one_source(number))(queries, 5)
        of_source = ranking_metrics(top, queries.relevant, (5,))
        for metric, values in of_source.items():
            assert found[f"source: {name}"][metric] == pytest.approx(values.mean())
    # What is learnt is learnt on the others.
    first = labelled.of(held[0])
    one = learning._fitted(config, job.data, labelled.of(~held[0]), with_trees=False)
    rows = one.fused(first.candidates, 20).rows
    relevant = queries.relevant.take(torch.from_numpy(np.flatnonzero(held[0])))
    alone, _ = learning._compared(config, job.data, labelled, queries, held[:1], lambda *_: None)  # type: ignore[arg-type, return-value]
    wanted = ranking_metrics(rows, relevant, (5, 20))
    assert alone["fused"] == {name: pytest.approx(of.mean()) for name, of in wanted.items()}


@pytest.mark.parametrize(
    ("fuse", "fused", "alone", "ranked", "kept"),
    [
        ("learned", 0.3, 0.2, None, "fused"),
        ("learned", 0.2, 0.3, None, "source: item_knn"),
        ("learned", 0.2, 0.2, 0.2, "fused"),
        ("learned", 0.2, 0.3, 0.25, "source: item_knn"),
        ("learned", 0.2, 0.3, 0.35, "ranked"),
        ("learned", 0.3, 0.2, 0.25, "fused"),
        ("round_robin", 0.2, 0.3, 0.25, "ranked"),  # the order of one source is none of its
        ("round_robin", 0.2, 0.3, None, "fused"),
    ],
)
def test_what_is_best_on_held_out_requests_is_kept(
    fuse: str,
    fused: float,
    alone: float,
    ranked: float | None,
    kept: str,
    folder: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    found = {"source: markov": 0.1, "source: item_knn": alone, "fused": fused}
    found |= {} if ranked is None else {"ranked": ranked}
    assert learning._kept(config_of(folder, {"fuse": fuse}), found) == kept
    assert ("order stays" in caplog.text) == (kept.startswith("source"))
    assert ("no better than the order before" in caplog.text) == (
        ranked is not None and kept != "ranked"
    )


def test_lists_are_as_long_as_the_pipeline_says_where_nobody_else_does(
    folder: Path, tmp_path: Path
) -> None:
    found = trained(folder, k=3)
    model = recsys.load(found.bundle)
    log = folder / "log.parquet"
    assert len(model.recommend(["u001"])) == 3
    assert len(model.recommend(["u001"], k=2)) == 2
    recsys.score(found.bundle, tmp_path / "lists", history=log)
    lists = pd.read_parquet(tmp_path / "lists")
    assert set(lists["items"].map(len)) == {3}
    assert Scorer.open(found.bundle).description.k == 3


def test_the_probe_is_recorded_as_it_is_replayed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By exact search: an approximate index of a source may name other items."""
    asked: list[tuple[int, bool]] = []
    answer = PipelineSearch.__call__

    def recorded(search: PipelineSearch, requests: Any, k: int, **how: Any) -> Any:
        asked.append((len(requests), how.get("exact", False)))
        return answer(search, requests, k, **how)

    monkeypatch.setattr(PipelineSearch, "__call__", recorded)
    bundle = trained(folder).bundle
    probe = read_request_probe(Bundle.open(bundle)).num_rows
    asked_to_record = [exact for size, exact in asked if size == probe]
    ListModel.open(bundle)
    replayed = [exact for size, exact in asked if size == probe][len(asked_to_record) :]
    assert asked_to_record == replayed == [True]


def test_sources_may_be_files_new_items_and_models_that_learn(folder: Path) -> None:
    sources = [
        {"model": "towers.yaml", "take": 20},
        {"model": {"kind": "markov"}, "take": 20},
        {"new_items": {"days": 1.0}, "take": 5},
    ]
    config = config_of(folder, {"sources": sources})
    assert config.model.names == ("towers", "markov", "new_items")
    assert config.model.sources[0].training["epochs"] == 3
    found = trained(folder, {"sources": sources, "rules": [{"reserve": 2, "of": "new_items"}]})
    opened: Any = Scorer.open(found.bundle).found_by
    assert opened.only_new == (False, False, True)
    counts = {name: one.found_by for name, one in zip(opened.names, opened.sources, strict=True)}
    assert counts["towers"].vectors.shape == (NUM_ITEMS, 8)
    new = {Scorer.open(found.bundle).item_ids[int(row)].as_py() for row in opened.joined.new}
    assert "i39" in new  # which has no row at all
    lists = recsys.load(found.bundle).recommend(["u001", "u002", "u003"], k=6)
    assert len(new) == 1  # there is no second one to show
    assert (lists.item.isin(new).groupby(lists.user).sum() == 1).all()
    # Trained again for as many epochs as the validation rows chose.
    run_dir = found.run_dir / "sources" / "0-towers"
    chosen = yaml.safe_load((run_dir / "last" / "config.yaml").read_text())
    first = next((run_dir / "first" / "bundle").iterdir())
    epochs = int(Bundle.open(first).manifest["facts"]["best_epoch"])
    assert (chosen["training"]["epochs"], chosen["split"]["join_validation"]) == (epochs, True)
    evaluation: Any = found.evaluation
    assert set(evaluation.results["source: new_items"].top.ravel().tolist()) - {-1} <= set(
        opened.joined.new.tolist()
    )


def test_filter_and_rules_hold_for_every_list(folder: Path) -> None:
    rules = [
        {"at_most": 1, "of": "shelf"},
        {"boost": {"where": "price > 30", "by": 5.0}},
        {"pin": {"position": 2, "where": "price = 3"}},
    ]
    found = trained(folder, {"filter": "price < 55", "rules": rules})
    evaluation: Any = found.evaluation
    assert "without_rules" in evaluation.results
    assert evaluation.protocol["filter"].startswith("price < 55")
    lists = recsys.load(found.bundle).recommend(["u001", "u002", "u003"], k=4)
    items = pd.read_parquet(folder / "items.parquet").set_index("item")
    assert (items.price[lists.item] < 55).all()
    second = lists[lists["rank"] == 2]
    assert (items.price[second.item] == 3).all()
    rest = lists[lists["rank"] != 2]
    assert (
        rest.groupby("user")
        .apply(lambda one: items.shelf[one.item].is_unique, include_groups=False)
        .all()
    )
    cheap = recsys.load(found.bundle).recommend(["u001"], k=4, where="price < 15")
    assert (items.price[cheap.item] < 15).all()
    assert recsys.load(found.bundle).recommend(["u001"], k=4, where="price < -1").empty


def test_it_says_which_source_names_an_item(result: TrainResult) -> None:
    model = recsys.load(result.bundle)
    first = model.recommend(["u005"], k=1).item[0]
    why = model.explain(user="u005", item=first)
    assert why.rank == 1
    assert {one.item for one in why.because} == {"markov", "item_knn", "item"}
    assert "place" in why.because[0].title
    with pytest.raises(ConfigError, match="give a user and an item"):
        model.explain()
    with pytest.raises(NotFoundError, match="no item nothing"):
        model.explain(user="u005", item="nothing")
    similar = model.similar_items(["i03"], k=2)
    assert similar.pop("source").tolist() == ["markov", "markov"]
    source = recsys.load(source_folders(Bundle.open(model.path))[0])
    assert recsys.load(model.path / "sources" / "0").id == source.id
    with pytest.raises(ConfigError, match=r"\(pipeline\) gives no probabilities: a two-tower does"):
        model.recommend(["u005"], probability=True)
    with pytest.raises(ConfigError, match="source_reports"):
        model.evaluate(settings={"evaluation.source_reports": True})
    assert similar.equals(source.similar_items(["i03"], k=2))


def test_a_run_that_was_stopped_trains_no_source_again(folder: Path, tmp_path: Path) -> None:
    config = config_of(folder)
    run_dir = tmp_path / "run"
    bundle = train_below(config.of_source(0), run_dir / "sources" / "0-markov" / "first")
    written = (bundle / "manifest.json").stat().st_mtime_ns
    run_dir.joinpath("config.yaml").write_text((folder / "pipeline.yaml").read_text())
    found = train(config, resume=run_dir)
    assert found is not None
    assert (bundle / "manifest.json").stat().st_mtime_ns == written
    assert len(list(bundle.parent.iterdir())) == 1


def test_a_run_is_not_continued_on_other_data(folder: Path) -> None:
    result = trained(folder)
    journal = result.run_dir / "journal.jsonl"
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    known = [line for line in lines if line["kind"] == "dataset"]
    assert known
    known[-1]["fingerprint"] = "0" * 64
    records = [{name: one for name, one in line.items() if name != "check"} for line in lines]
    journal.write_bytes(b"".join(map(line_of, records)))
    with pytest.raises(ConfigError, match="not those that this run began with"):
        train(config_of(folder), resume=result.run_dir)


def test_the_same_training_gives_the_same_bundle(result: TrainResult, folder: Path) -> None:
    again = trained(folder)
    assert again.bundle.name == result.bundle.name
    assert again.run_dir != result.run_dir


@pytest.mark.parametrize(
    ("model", "sections", "message"),
    [
        ({"sources": []}, {}, "sources"),
        ({"sources": [{"take": 3}]}, {}, "give model or new_items"),
        ({"sources": [{"model": {"kind": "eese"}}]}, {}, "model.sources: eese: .*'ease'"),
        (
            {"sources": [{"model": {"kind": "ease", "l3": 1}}]},
            {},
            r"unknown key 'model\.sources\.0\.model\.l3' \(did you mean 'l2'",
        ),
        (
            {"sources": [{"model": "towers.yaml", "training": {"epocs": 1}}]},
            {},
            r"unknown key 'model\.sources\.0\.training\.epocs'",
        ),
        (
            {"sources": [{"model": {"kind": "dcn"}}]},
            {},
            "^model.sources: dcn: dcn is a ranker, which scores rows and names no items: [^\\n]*$",
        ),
        ({"sources": [{"model": "nowhere.yaml"}]}, {}, "no such configuration"),
        ({"sources": [{"model": "ease"}]}, {}, "'ease' is a kind .* no file: write .kind: ease."),
        ({"sources": [{"kind": "ease"}]}, {}, r"sources\.0: .* below 'model', as in .*kind: ease"),
        ({"sources": ["ease"]}, {}, r"^\S+pipeline.yaml: model\.sources\.0: a source [^\n]*$"),
        ({"sources": [SETTINGS["model"]["sources"][1]] * 2}, {}, "two are called 'item_knn'"),
        (
            {"sources": [{"model": {"kind": "ease", "max_items": 5}}]},
            {},
            "model.sources: ease: model.kind: ease: .*max_items is 5",
        ),
        (
            {
                "sources": [
                    {
                        "model": {"kind": "two_tower"},
                        "embedding": {"num_rows": 10**9, "max_memory_mib": 1},
                    }
                ]
            },
            {},
            "model.sources: two_tower: the embedding table needs",
        ),
        (
            {"sources": [{"model": {"kind": "attributes"}}]},
            {"schema": {**SETTINGS["schema"], "features": SETTINGS["schema"]["features"][:1]}},
            "model.sources: attributes: .*no categorical feature",
        ),
        ({"filter": "prise < 3"}, {}, "no column 'prise'"),
        ({"filter": "item = 'none'"}, {}, "no item passes"),
        ({"rules": [{"diversify": {"by": "vectors", "lambda": 0.3}}]}, {}, "no source has vectors"),
        (
            {
                "sources": [
                    {"model": {"kind": "pipeline", "sources": [{"model": {"kind": "ease"}}]}}
                ]
            },
            {},
            "a pipeline is no source of another one",
        ),
        ({"sources": [{"model": {"kind": "ease"}, "name": "../x"}]}, {}, "name"),
        ({"kind": ["ease"]}, {}, "is none of"),
        ({"rules": [{"at_most": 2, "of": "shelv"}]}, {}, "shelv"),
        ({"fuse": "lerned"}, {}, "learned"),
        ({}, {"split": {"join_validation": True}}, "leave it out"),
        ({}, {"training": {"metric": "auc"}}, "'auc' is not computed"),
    ],
)
@pytest.mark.parametrize("job", [preflight, train])
def test_what_does_not_fit_is_refused_before_anything_is_trained(
    job: Callable[[Any], Any],
    model: dict[str, Any],
    sections: dict[str, Any],
    message: str,
    folder: Path,
    tmp_path: Path,
) -> None:
    def attempt() -> None:
        config = config_of(folder, model, **sections)
        job(config.model_copy(update={"output": str(tmp_path)}))

    with pytest.raises(UserError, match=message):
        attempt()
    assert not list(tmp_path.rglob("bundle"))


def test_its_sources_are_tuned_one_by_one_by_the_commands_that_are_said(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = [
        {"model": {"kind": "markov"}, "sessions": {"inactivity_minutes": 60}},
        {"model": {"kind": "item_knn"}, "name": "neighbours"},
        {"model": "towers.yaml"},
        {"new_items": {"days": 1.0}},
    ]
    config = config_of(folder, {"sources": sources})
    monkeypatch.chdir(tmp_path)
    path = str(folder / "pipeline.yaml")
    told = CliRunner().invoke(main, ["tune", path, "--trials", "2"])
    assert told.exit_code == 2
    commands = [line.strip() for line in told.stderr.splitlines() if "recsys tune" in line]
    assert [line.split()[line.split().index("--name") + 1] for line in commands] == [
        "markov",
        "neighbours",
        "towers",
    ]
    assert "--set 'model.hidden=[8]'" in commands[2]
    for command in commands[:2]:
        done = CliRunner().invoke(main, [*shlex.split(command)[1:], "--trials", "1"])
        assert done.exit_code == 0, done.stderr
    found = load_config(tmp_path / "markov.yaml")
    assert (found.model.kind, found.sessions.inactivity_minutes) == ("markov", 60)  # type: ignore[attr-defined]
    shown = CliRunner().invoke(main, [*shlex.split(commands[2])[1:], "--show-space"])
    assert shown.exit_code == 0, shown.stderr
    with pytest.raises(TunedApartError, match=r"recsys tune CONFIG --set model.kind=") as error:
        recsys.tune(config, trials=1)
    assert error.value.sources["neighbours"] == ("model.kind=item_knn",)


def test_vectors_are_those_of_sources_which_are_named(result: TrainResult, folder: Path) -> None:
    with pytest.raises(ConfigError, match="nor has a source: markov and item_knn score by what"):
        recsys.export(result.bundle, folder / "index", to="exact")
    sources = [{"model": "towers.yaml", "take": 20}, {"model": {"kind": "markov"}, "take": 20}]
    found = trained(folder, {"sources": sources})
    with pytest.raises(ConfigError, match="no vectors of its own") as told:
        recsys.export(found.bundle, folder / "index", to="exact")
    path = str(told.value).split("towers in ")[1]
    assert recsys.export(path, folder / "index", to="exact")["n"] == NUM_ITEMS
    with pytest.raises(ConfigError, match="no vectors of its own"):
        recsys.load(found.bundle).query_vectors(["u001"])


def test_sources_say_who_they_are_and_draw_no_reports_unless_asked(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "recsys")
    found = trained(folder)
    lines = caplog.messages
    assert not list(found.run_dir.rglob("sources/**/report.html"))
    assert sum(line.startswith("data fingerprint") for line in lines) == 1
    assert not any("fingerprint" in line for line in lines if ": " in line[:12])
    for name in ("markov", "item_knn"):
        assert sum(line.startswith(f"{name}: validation ndcg_at_5") for line in lines) == 1
    assert any(line.startswith("validation ndcg_at_5") for line in lines)  # of the pipeline itself
    sections = {"evaluation": {**SETTINGS["evaluation"], "source_reports": True}}
    drawn = list(trained(folder, **sections).run_dir.rglob("sources/**/report.html"))
    assert len(drawn) == 4


def test_an_explained_item_has_the_place_of_a_filtered_list(
    result: TrainResult, folder: Path, tmp_path: Path
) -> None:
    model = recsys.load(result.bundle)
    filters: dict[str, Any] = {"where": "price > 10", "exclude": ["i20", "i21"]}
    filtered = model.recommend(["u005"], k=8, **filters)
    whole = model.recommend(["u005"], k=8)
    assert filtered.item.tolist() != whole.item.tolist()
    for row in filtered.itertuples():
        why = model.explain(user="u005", item=row.item, **filters)
        assert (why.rank, why.score) == (row.rank, pytest.approx(row.score))
    few = filtered.item[2:4].tolist()
    assert model.explain(user="u005", item=few[1], allow=few).rank == 2
    with pytest.raises(ConfigError, match="item i20 does not pass the filters"):
        recsys.explain(model, user="u005", item="i20", **filters)
    with pytest.raises(ConfigError, match="no column 'prise'"):
        model.explain(user="u005", item="i30", where="prise > 1")
    with pytest.raises(ConfigError, match="give user and item with them"):
        model.explain(where="price > 1")
    with pytest.raises(recsys.ArgumentError, match=r"no argument 'wher' \(did you mean 'where'"):
        model.explain(user="u005", item="i30", wher="price > 1")
    (tmp_path / "out.txt").write_text("i20\ni21\n")
    asked = ["explain", str(model.path), "--user", "u005", "--json", "--item", filtered.item[3]]
    asked += ["--where", "price > 10", "--exclude", str(tmp_path / "out.txt")]
    assert json.loads(CliRunner().invoke(main, asked).output)["rank"] == 4


def test_sources_may_be_configurations(folder: Path) -> None:
    plain = {name: one for name, one in SETTINGS.items() if name != "model"}
    tower = recsys.Config(
        {**plain, "model": {"dim": 8}, "embedding": {"num_rows": 256}}, folder=folder
    )
    chain = tower.with_({"model.kind": "markov", "sessions": {"inactivity_minutes": 60}})
    sources = [tower, {"model": chain.experiment, "take": 7, "name": "steps"}, {"new_items": {}}]
    found = tower.with_({"model.kind": "pipeline", "model.sources": sources})
    one, two, _ = found.experiment.model.sources  # type: ignore[attr-defined]
    assert (one.model, one.embedding) == ({"kind": "two_tower", "dim": 8}, {"num_rows": 256})
    assert (two.model["kind"], two.take, two.name) == ("markov", 7, "steps")
    assert two.sessions == {"inactivity_minutes": 60.0}
    again = recsys.Config(yaml.safe_load(found.to_yaml()), folder=folder)
    assert again["model.sources"] == found["model.sources"]
    assert "data" not in found["model.sources"][0]
    own = {"training": {"epochs": 2}, "model": tower}
    (kept,) = tower.with_({"model.kind": "pipeline", "model.sources": [own]})["model.sources"]
    assert kept["training"] == {"epochs": 2}
    with pytest.raises(ConfigError, match="a pipeline is no source of another one"):
        recsys.check(tower.with_({"model.kind": "pipeline", "model.sources": [found]}))


def test_a_boost_after_a_diversify_is_doubted(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    boost = {"boost": {"where": "price > 30", "by": 1.2}}
    diversify = {"diversify": {"by": "shelf", "lambda": 0.3}}
    said = "rule 2 (boost) sorts by score, which undoes rule 1 (diversify): write boosts first"
    for rules, doubted in (([diversify, boost], True), ([boost, diversify], False)):
        config = config_of(folder, {"rules": rules})
        found = preflight(config)
        lines = [line for line in found.warnings if "undoes" in line]  # type: ignore[attr-defined]
        assert [said in line for line in lines] == [True] * doubted
        caplog.clear()
        open_pipeline(config, Given())
        assert (said in caplog.text) == doubted


def test_a_source_is_not_advised_on_queries_that_are_the_pipelines(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    alone = {"model": {"kind": "markov"}, "sessions": {"inactivity_minutes": 0.01}}
    train(config_of(folder, {"sources": [alone]}))
    assert "start of a session" not in caplog.text


def test_it_is_compared_on_a_newer_log_with_other_items_as_it_is_served(
    result: TrainResult, folder: Path
) -> None:
    """Items that are new to it are no part of histories, and are not found."""
    log, items = (pd.read_parquet(folder / f"{name}.parquet") for name in ("log", "items"))
    ends = log.groupby("user").tail(1)
    found_last = ends[ends.user < "u050"].assign(item="a0", at=ends["at"] + DAY)
    found_first = log.drop_duplicates("user").assign(item="a1", at=log["at"].min() - 1)
    newer = pd.concat([found_first[found_first.user > "u200"], log, found_last])
    newer.to_parquet(folder / "newer.parquet")
    added = items[:2].assign(item=["a0", "a1"])
    pd.concat([items[items.item != "i39"], added]).to_parquet(folder / "newer_items.parquet")
    data = {"interactions": "newer.parquet", "items": "newer_items.parquet"}
    config = config_of(folder, data=data, evaluation={**SETTINGS["evaluation"], "baselines": []})
    knn = train_below(config_of(folder).of_source(1), folder / "alone")
    compared = recsys.compare([result.bundle, knn], on=config, metric="recall_at_5")
    table = compared.to_frame()
    own = table[(table["slice"] == "all") & (table.metric == "recall_at_5")].iloc[0]

    is_last = ~newer.duplicated("user", keep="last")
    is_new = ~newer.duplicated(["user", "item"])
    asked = newer[is_last & is_new]
    lists = recsys.load(result.bundle).recommend([*asked.user], history=newer[~is_last], k=5)
    hits = lists.merge(asked, on=["user", "item"])
    assert own.value == pytest.approx(len(hits) / len(asked))
    assert len(asked[asked.item == "a0"]) == 50
    assert len(hits) > 50
