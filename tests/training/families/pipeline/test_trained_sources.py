"""Models that were trained before as sources of a pipeline, by path or registered."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

import recsys
from recsys.core.errors import ConfigError, NotFoundError
from recsys.serving.recommend.scorer import Scorer

KNN = {"kind": "item_knn"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a log in which each user goes on from item to item, and a model of it."""
    folder = tmp_path_factory.mktemp("trained")
    rows = [
        (f"u{user:02}", f"i{(user * 7 + step) % 20:02}", step)
        for user in range(60)
        for step in range(6)
    ]
    pd.DataFrame(rows, columns=["user", "item", "step"]).to_parquet(folder / "log.parquet")
    more = [*rows, ("u00", "i19", 9)]
    pd.DataFrame(more, columns=["user", "item", "step"]).to_parquet(folder / "more.parquet")
    return folder


def keys_of(folder: Path, model: dict[str, Any], **sections: Any) -> dict[str, Any]:
    return {
        "data": {"interactions": str(folder / "log.parquet")},
        "schema": {
            "interactions": {"user": "user", "item": "item", "order": "step"},
            "features": [{"name": "item", "table": "items", "kind": "categorical"}],
        },
        "split": {"kind": "leave_one_out"},
        "model": model,
        "evaluation": {"ks": [5], "baselines": [], "bootstrap_samples": 20},
        "training": {"metric": "ndcg_at_5"},
        "tracking": {"enabled": False},
        "output": str(folder / "runs"),
        **sections,
    }


def pipeline(folder: Path, source: Any, **sections: Any) -> dict[str, Any]:
    sources = [source, {"model": {"kind": "popularity"}, "take": 15}]
    return keys_of(folder, {"kind": "pipeline", "sources": sources}, **sections)


@pytest.fixture(scope="module")
def knn(folder: Path) -> Any:
    return recsys.train(keys_of(folder, KNN))


def test_it_is_used_as_it_is(folder: Path, knn: Any) -> None:
    run = recsys.train(pipeline(folder, {"model": str(knn.path), "take": 10, "name": "knn"}))
    opened: Any = Scorer.open(run.bundle).found_by
    assert opened.names == ("knn", "popularity")
    assert opened.sources[0].bundle.model_id == knn.bundle.name
    assert not (run.path / "sources" / "0-knn").exists()
    said = run.evaluation.protocol["split"]
    assert f"knn is model {knn.bundle.name}, as it was trained, on training rows" in said
    # It names what it names by itself.
    alone = recsys.evaluate(knn.bundle).results["item_knn"]
    assert (run.evaluation.results["source: knn"].top == alone.top).all()
    # Its folder is not needed any more.
    assert len(recsys.load(run.bundle).recommend(["u01"], k=3)) == 3


def test_it_may_be_registered(folder: Path, knn: Any, tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path / 'mlflow.db'}"
    recsys.register(knn.bundle, "neighbours", alias="champion", tracking_uri=store)
    tracking = {"enabled": False, "uri": store}
    source = {"model": "models:/neighbours@champion", "take": 10}
    keys = pipeline(folder, source, tracking=tracking)
    assert not recsys.check(keys).warnings
    run = recsys.train(keys)
    opened: Any = Scorer.open(run.bundle).found_by
    assert opened.names == ("neighbours", "popularity")
    assert opened.sources[0].bundle.model_id == knn.bundle.name
    source["model"] = "models:/neighbours@nobody"
    with pytest.raises(NotFoundError, match="has no alias 'nobody'"):
        recsys.check(pipeline(folder, source, tracking=tracking))


def test_a_final_training_keeps_it(folder: Path, knn: Any) -> None:
    run = recsys.train(pipeline(folder, {"model": str(knn.bundle), "take": 10}), final=True)
    opened: Any = Scorer.open(run.bundle).found_by
    assert opened.sources[0].bundle.model_id == knn.bundle.name
    assert opened.sources[1].bundle.model_id != knn.bundle.name


def test_what_may_have_seen_the_rows_that_joining_learns_on_is_refused(
    folder: Path, knn: Any
) -> None:
    source = {"model": str(knn.bundle), "take": 10}
    more = {"interactions": str(folder / "more.parquet")}
    joined = recsys.train(
        keys_of(folder, KNN, split={"kind": "leave_one_out", "join_validation": True})
    )
    cases: list[tuple[dict[str, Any], str]] = [
        (pipeline(folder, source, data=more), "trained on other data than these"),
        (
            pipeline(folder, source, split={"kind": "leave_one_out", "cold_items": {"share": 0.1}}),
            "split.cold_items differs",
        ),
        (
            pipeline(folder, {"model": str(joined.bundle)}),
            "split.join_validation differs",
        ),
    ]
    for keys, said in cases:
        for doing in (recsys.check, recsys.train):
            with pytest.raises(ConfigError, match=f"model.sources: .*{said}"):
                doing(keys)


def test_counts_of_all_rows_are_refused(folder: Path, knn: Any, tmp_path: Path) -> None:
    """A model that was counted anew may have counted the rows that joining learns on."""
    log = folder / "log.parquet"
    for rows, refused in (("training", False), ("all", True)):
        found = recsys.recount(knn.bundle, log, tmp_path / rows, rows=rows)  # type: ignore[arg-type]
        keys = pipeline(folder, {"model": str(found.bundle)})
        if not refused:
            recsys.check(keys)
            continue
        with pytest.raises(ConfigError, match="all rows were counted"):
            recsys.check(keys)


def test_what_would_change_nothing_or_is_no_source_is_refused(folder: Path, knn: Any) -> None:
    with pytest.raises(ConfigError, match="used as it is, and training would change nothing"):
        recsys.check(pipeline(folder, {"model": str(knn.bundle), "training": {"seed": 1}}))
    nested = recsys.train(pipeline(folder, {"model": KNN}))
    with pytest.raises(ConfigError, match="a pipeline is no source of another one"):
        recsys.check(pipeline(folder, {"model": str(nested.bundle)}))
    with pytest.raises(NotFoundError, match="nothing-here"):
        recsys.check(pipeline(folder, {"model": "nothing-here.yaml"}))


def test_a_configuration_names_it_relative_to_its_own_folder(folder: Path, knn: Any) -> None:
    path = folder / "pipeline.yaml"
    path.write_text(yaml.safe_dump(pipeline(folder, {"model": f"runs/{knn.path.name}"})))
    config = recsys.Config.open(path)
    source = config.experiment.model.sources[0]  # type: ignore[attr-defined]
    assert source.model == str(knn.bundle)
    assert source.name.startswith("item_knn_")
