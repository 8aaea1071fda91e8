"""The page of each target: its code finds what exact search finds, with and without a filter."""

import subprocess
import sys
import warnings
from contextlib import closing, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from recsys.core.errors import ConfigError
from recsys.layers.geometry import Geometry
from recsys.retrieval.index.reduced import ReductionSize
from recsys.retrieval.index.registry import kinds_by_export
from recsys.serving.export.conditions import in_words, passing
from recsys.serving.export.manifest import open_export
from recsys.serving.export.short_vectors import build_short
from recsys.serving.export.stores.registry import target_of

GEOMETRIES: tuple[Geometry, ...] = ("sphere", "biased_sphere", "dot", "ball")


EXACT = ("exact", "flat", "parquet")


def check(folder: Path, names: dict[str, Any], *, exact: bool = True) -> None:
    """Compare what the code found with the engine's answers; others miss two of ten at most."""
    first = pq.read_table(folder / "queries.parquet").slice(0, 1).to_pylist()[0]
    assert len(first["items_filtered"]) == 10
    assert first["items"] != first["items_filtered"]
    assert [type(one) for one in names["found"]] == [type(one) for one in first["items"]]
    if exact:
        assert names["found"] == first["items"]
    else:
        right = [one for one in names["found"] if one in first["items"]]
        assert len(right) >= 8
        assert right == [one for one in first["items"] if one in right]  # in the same order
    assert names["filtered"] == first["items_filtered"]


def test_the_example_of_a_filter_is_one_of_the_columns(made: Any) -> None:
    content = made()
    assert in_words(content.example) == "\"a kind\" = 'it''s' and \"price\" <= 24.25"
    kinds, prices = content.items["a kind"].to_pylist(), content.items["price"].to_pylist()
    wanted = [
        kind == "it's" and price is not None and price <= 24.25
        for kind, price in zip(kinds, prices, strict=True)
    ]
    assert passing(content.example, content.items).tolist() == wanted


def test_the_answers_are_those_of_a_plain_loop(made: Any) -> None:
    content = made("ball")
    points, left = content.points.numpy(), passing(content.example, content.items)
    probe = content.probe
    first = [part[:20] for part in (probe.queries, probe.rows, probe.filtered)]
    for query, rows, few in zip(*first, strict=True):
        order = np.argsort(((points - query.numpy()[: points.shape[1]]) ** 2).sum(1)).tolist()
        assert rows.tolist() == order[:10]
        assert few.tolist() == [row for row in order if left[row]][:10]


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("target", [*kinds_by_export(), "parquet"])
def test_files_for_python(
    made: Any, written: Any, run_page: Any, tmp_path: Path, target: str, geometry: Geometry
) -> None:
    try:
        target_of(target).require()
    except ConfigError as error:
        pytest.skip(str(error))
    folder = written(made(geometry), target, tmp_path / "out")
    check(folder, run_page(folder), exact=target in EXACT)
    open_export(folder)  # reading changes nothing


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("target", ["exact", "faiss", "ivf", "ivf_pq", "usearch"])
def test_indexes_of_shorter_vectors(
    made: Any, written: Any, run_page: Any, tmp_path: Path, target: str, geometry: Geometry
) -> None:
    whole = made(geometry)
    size = ReductionSize("leanvec", 6)
    short = partial(build_short, size=size, queries=whole.request.queries)
    folder = written(replace(whole, build=short), target, tmp_path / "out")
    names = run_page(folder)
    check(folder, names, exact=False)
    assert "whole.safetensors" in (folder / "README.md").read_text()


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_lancedb(
    made: Any, written: Any, run_page: Any, tmp_path: Path, geometry: Geometry
) -> None:
    folder = written(made(geometry), "lancedb", tmp_path / "out")
    names = run_page(folder)
    check(folder, names)
    table = names["items"].to_arrow()
    assert table.drop_columns(["vector"]).equals(made().items)
    tagged = names["items"].search().where("array_has(tags, 'new')").to_arrow()
    assert tagged.num_rows == sum("new" in (one or []) for one in table["tags"].to_pylist())
    open_export(folder)


@pytest.mark.parametrize("numbered", [False, True])
@pytest.mark.parametrize("geometry", ["biased_sphere", "ball"])
def test_qdrant(
    made: Any, written: Any, run_page: Any, tmp_path: Path, geometry: Geometry, numbered: bool
) -> None:
    content = made(geometry, numbered=numbered)
    folder = written(content, "qdrant", tmp_path / "out")
    names = run_page(folder, shell=False)
    with closing(names["client"]) as client:
        check(folder, names)
        one = content.items.slice(9, 1).to_pylist()[0]
        (point,) = client.retrieve("items", [one["sku"] if numbered else 9])
        assert (
            point.payload["since"] == one["since"].isoformat() == "2026-01-01T09:00:00.000001+00:00"
        )
        held = {name: value for name, value in one.items() if name not in ("since", "day")}
        assert {name: point.payload.get(name) for name in held} == held
        assert "nothing" not in point.payload
        models = sys.modules["qdrant_client"].models
        late = models.DatetimeRange(gte="2026-01-20T00:00:00Z")
        for number, test in (
            (144, {"key": "since", "range": late}),
            (300, {"key": "tags", "match": models.MatchValue(value="new")}),
        ):
            wanted = models.Filter(must=[models.FieldCondition(**test)])
            assert client.count("items", count_filter=wanted).count == number
    open_export(folder)


def test_qdrant_in_a_folder_of_its_own(
    made: Any, written: Any, run_page: Any, tmp_path: Path
) -> None:
    """Qdrant's local mode writes point by point to the disk: a few of them."""
    folder = written(made(size=40), "qdrant", tmp_path / "out")
    names = run_page(folder)
    with closing(names["QdrantClient"](path=str(tmp_path / "qdrant_items"))) as client:
        assert names["runpy"].run_path("load_qdrant.py")["check"](client) == 1
    script = [sys.executable, "load_qdrant.py", "--path"]
    for more, said in (
        ([str(tmp_path / "none"), "--check"], "no collection 'items': load it first"),
        ([str(tmp_path / "qdrant_items")], "a collection 'items' already: delete it, or measure"),
    ):
        ended = subprocess.run([*script, *more], cwd=folder, capture_output=True, text=True)
        assert (ended.returncode, said in ended.stderr) == (1, True)
    open_export(folder)


def test_milvus(made: Any, written: Any, run_page: Any, tmp_path: Path) -> None:
    pytest.importorskip("pymilvus", reason="Milvus's client is not installed")
    pytest.importorskip("milvus_lite", reason="Milvus Lite is not installed")
    with warnings.catch_warnings(), suppress(DeprecationWarning):
        warnings.simplefilter("ignore")
        folder = written(made("ball", plain_names=True), "milvus", tmp_path / "out")
        names = run_page(folder)
    check(folder, names)
    names["client"].close()
    open_export(folder)


@pytest.mark.parametrize("target", ["exact", "lancedb", "qdrant"])
def test_a_filter_on_what_a_list_contains(
    made: Any, written: Any, run_page: Any, tmp_path: Path, target: str
) -> None:
    content = made(without=("a kind",))
    assert in_words(content.example).startswith("\"tags\" contains 'new'")
    folder = written(content, target, tmp_path / "out")
    check(folder, run_page(folder, shell=False))
