"""What a training of a pipeline refuses, `recsys check` refuses: before a source is trained."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from recsys.core.errors import ConfigError
from recsys.features.dataset.queries import users_to_ask
from recsys.features.dataset.split import TEST, VALIDATION
from recsys.training.families.family import Given
from recsys.training.families.load import load_config
from recsys.training.families.pipeline.job import open_pipeline, queries_of
from recsys.training.jobs.check import preflight
from recsys.training.jobs.train import train

POPULAR = {"model": {"kind": "popularity"}}
TINY: dict[str, Any] = {"embedding": {"num_rows": 64, "dim": 8}}
SESSION = {"model": {"kind": "session", "dim": 8}, **TINY}
NO_CUDA = {"training": {"device": "cuda:99"}}
ONE = {"metric": "ndcg_at_5", "max_validation_queries": 1}
SETTINGS: dict[str, Any] = {
    "data": {"interactions": "log.parquet", "items": "items.parquet"},
    "schema": {
        "interactions": {"user": "user", "item": "item", "time": {"column": "at", "unit": "s"}},
        "items": {"key": "item"},
        "features": [{"name": "item", "table": "items", "kind": "categorical"}],
    },
    "split": {"kind": "leave_one_out"},
    "model": {"kind": "pipeline", "sources": [POPULAR]},
    "evaluation": {"ks": [5], "baselines": [], "bootstrap_samples": 20},
    "training": {"metric": "ndcg_at_5"},
    "tracking": {"enabled": False},
}
SESSIONS = {"inactivity_minutes": 0.5}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write logs of 40 users: of single steps, of one item each, and of two long users alone."""
    folder = tmp_path_factory.mktemp("enough")
    rng = np.random.default_rng(0)
    rows = [
        (f"u{user:02}", f"i{rng.integers(12):02}", 1_700_000_000 + user + 100_000 * step)
        for user in range(40)
        for step in range(6)
    ]
    log = pd.DataFrame(rows, columns=["user", "item", "at"])
    log.to_parquet(folder / "log.parquet")
    log.assign(item="i" + log.user.str[1:]).to_parquet(folder / "same.parquet")
    first = log.groupby("user").cumcount() == 0
    log[first | (log.user < "u02")].to_parquet(folder / "few.parquet")
    pd.DataFrame({"item": [f"i{row:02}" for row in range(40)]}).to_parquet(folder / "items.parquet")
    return folder


def config_of(folder: Path, log: str = "log", **sections: Any) -> Any:
    model = {**SETTINGS["model"], **sections.pop("model", {})}
    data = {**SETTINGS["data"], "interactions": f"{log}.parquet"}
    keys = {**SETTINGS, **sections, "model": model, "data": data, "output": str(folder / "runs")}
    path = folder / "pipeline.yaml"
    path.write_text(yaml.safe_dump(keys))
    return load_config(path)


@pytest.mark.parametrize(
    ("log", "sections", "said"),
    [
        ("same", {}, r"no user has a validation item .*\(evaluation\.filter_seen: false\)"),
        ("log", {"split": {"kind": "time", "validation": 0.001}}, "no user has a validation item"),
        (
            "log",
            {"split": {"kind": "time", "validation": 0.2, "test": 0.001}},
            "no user has a test item",
        ),
        ("log", {"model": {"rank": "fm"}, "training": ONE}, "rank: 1 validation requests are too"),
        ("few", {"model": {"rank": "fm"}}, "model.rank: .* too few"),
        ("few", {"model": {"rank": "gbdt"}}, "model.rank: gbdt: too few validation requests"),
        ("log", {"model": {"rank": "gbdt", "filter": "item == 'i39'"}}, "gbdt: too few"),
        ("log", {"model": {"rank": "fm", "filter": "item == 'i39'"}}, "rank: too few"),
        (
            "log",
            {"model": {"sources": [{**SESSION, "sessions": SESSIONS}]}},
            "sources: session: none of 160 sessions has two training rows",
        ),
        ("log", {"model": {"sources": [{**SESSION, **NO_CUDA}]}}, "sources: session: .*device"),
        ("log", {"model": {"rank": {"kind": "fm", **NO_CUDA}}}, "model.rank: training.device"),
        (
            "log",
            {"model": {"rank": {"kind": "fm", "embedding": {"max_memory_mib": 1}}}},
            "model.rank: the embedding table needs",
        ),
    ],
)
def test_a_check_refuses_what_a_training_refuses(
    log: str, sections: dict[str, Any], said: str, folder: Path
) -> None:
    if "gbdt" in said:
        pytest.importorskip("lightgbm")
    messages = []
    for job in (preflight, train):
        with pytest.raises(ConfigError, match=said) as caught:
            job(config_of(folder, log, **sections))
        messages.append(str(caught.value))
    assert messages[0] == messages[1]
    assert not (folder / "runs").exists()


def test_trees_without_their_library_are_refused_before_anything_is_trained(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "lightgbm", None)
    for job in (preflight, train):
        with pytest.raises(ConfigError, match="the package lightgbm is not installed"):
            job(config_of(folder, model={"rank": "gbdt"}))


@pytest.mark.parametrize("filter_seen", [True, False])
def test_who_is_asked_is_known_without_encoding(filter_seen: bool, folder: Path) -> None:
    evaluation = {**SETTINGS["evaluation"], "filter_seen": filter_seen}
    split = {"kind": "time", "validation": 0.3, "test": 0.3}
    config = config_of(folder, evaluation=evaluation, split=split)
    data = open_pipeline(config, Given()).data
    for part in (VALIDATION, TEST):
        asked = queries_of(config, data, part, 1000)
        found = users_to_ask(config.schema_, data.tables, data.part, part, filter_seen=filter_seen)
        assert np.array_equal(found, asked.users)
        # A few items alone.
        right = asked.relevant.owners().numpy()[asked.relevant.values.numpy() < 3]
        few = np.arange(data.num_items) < 3
        some = users_to_ask(
            config.schema_, data.tables, data.part, part, filter_seen=filter_seen, passes=few
        )
        assert some.tolist() == sorted({*asked.users[right].tolist()})
        assert 0 < len(some) < len(found)
