"""What a bundle says of its model: written and read back, older and newer ones."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from recsys.bundle.directory import Bundle, write_bundle
from recsys.core.errors import ConfigError, IntegrityError, NotFoundError
from recsys.data.batch import FeatureLayout
from recsys.embeddings.table import TableConfig
from recsys.features.bundle.description import ModelDescription
from recsys.features.bundle.files import read_description, write_description
from recsys.features.bundle.rows import RowModel
from recsys.features.dataset.sessions import SessionConfig
from recsys.features.tables.sources import Policies
from recsys.models.rankers import RANKERS
from recsys.models.registry import MODELS, PIPELINES
from recsys.plain.registry import PLAIN
from recsys.serving.recommend.scorer import Scorer

LAYOUT = FeatureLayout((("item", 2),), (("tags", 1),), ("price",), ("sum",), (("tags", "item"),))


def of_sessions(kind: str) -> bool:
    return MODELS[kind].of_steps or kind == "markov"


def described(kind: str) -> ModelDescription:
    own = {"sources": [{"model": {"kind": "ease"}}]} if kind in PIPELINES else {}
    settings: Any = MODELS[kind].config.model_validate_json(json.dumps({"kind": kind, **own}))
    of_lists = kind not in RANKERS
    return ModelDescription(
        model=settings,
        embedding=None if kind in (*PLAIN, *PIPELINES) else TableConfig(num_rows=123, dim=8),
        policies=Policies(bad_ids="drop"),
        layouts=() if kind in PLAIN else (LAYOUT,),
        sessions=SessionConfig(inactivity_minutes=7.5) if of_sessions(kind) else None,
        filter_seen=not of_lists,
        space_id="space" if of_lists and kind not in (*PLAIN, *PIPELINES) else None,
    )


def bundled(folder: Path, described: ModelDescription, change: Callable[[Any], Any]) -> Bundle:
    def write(staging: Path) -> None:
        write_description(staging, described)
        path = staging / "model.json"
        path.write_text(json.dumps(change(json.loads(path.read_text()))))

    return Bundle.open(write_bundle(folder, write, facts={}))


@pytest.mark.parametrize("kind", MODELS)
def test_what_is_written_reads_back(kind: str, tmp_path: Path) -> None:
    wanted = described(kind)
    bundle = bundled(tmp_path, wanted, lambda raw: raw)
    raw = bundle.json("model.json")
    assert read_description(bundle) == wanted
    assert raw["answers"] == wanted.answers == ("rows" if kind in RANKERS else "lists")
    assert wanted.gives_rows == (kind in RANKERS)
    assert (raw["kind"], ("sessions" in raw)) == (kind, of_sessions(kind))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda raw: {**raw, "kind": "oracle"}, r"model\.json: KeyError\('oracle'\)"),
        (lambda raw: {n: v for n, v in raw.items() if n != "layouts"}, r"KeyError\('layouts'\)"),
        (
            lambda raw: {**raw, "model": {**raw["model"], "hiden": [3]}},
            r"unknown key 'hiden' \(did you mean 'hidden'\?\)",
        ),
        (lambda raw: {**raw, "embedding": 7}, r"model\.json: expected a mapping of keys, got int"),
        (lambda raw: [raw], r"model\.json: TypeError"),
    ],
)
def test_what_another_engine_described_is_refused_in_words(
    change: Callable[[Any], Any], message: str, tmp_path: Path
) -> None:
    bundle = bundled(tmp_path, described("two_tower"), change)
    with pytest.raises(IntegrityError, match=message) as told:
        read_description(bundle)
    assert "written by version" in str(told.value)
    assert "open it with that version, or train it again" in str(told.value)


def test_an_older_description_of_a_two_tower_has_sessions_that_mean_nothing(tmp_path: Path) -> None:
    wanted = replace(described("two_tower"), filter_seen=True)

    def older(raw: dict[str, Any]) -> dict[str, Any]:
        left = {n: v for n, v in raw.items() if n not in ("answers", "evaluation")}
        return {**left, "sessions": {"inactivity_minutes": 3.0}}

    assert read_description(bundled(tmp_path, wanted, older)) == wanted


def test_a_bundle_without_a_model_is_named(tmp_path: Path) -> None:
    def write(folder: Path) -> None:
        (folder / "notes.txt").write_text("nothing")

    bundle = Bundle.open(write_bundle(tmp_path, write, facts={}))
    with pytest.raises(NotFoundError, match=r"the bundle holds no 'model\.json'"):
        read_description(bundle)


def test_a_model_is_asked_for_what_it_gives(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not a ranker; it answers requests, not labelled rows"):
        RowModel.open(trained)
    with pytest.raises(ConfigError, match="k must be at least 1, got 0"):
        Scorer.open(trained, k=0)
