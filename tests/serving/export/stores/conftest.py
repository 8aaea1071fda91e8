"""Made-up items with columns of all types, and the code of a page, run in the export's folder."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from recsys.layers.geometry import Geometry, candidate_vectors, query_vectors_of, tower_width
from recsys.retrieval.index.protocol import IndexRequest
from recsys.serving.export.manifest import open_export, write_manifest
from recsys.serving.export.page import write_page
from recsys.serving.export.payload import Payload
from recsys.serving.export.stores.protocol import Content, write_probe
from recsys.serving.export.stores.registry import targets

ITEMS, DIM = 600, 8
Made = Callable[..., Content]
Written = Callable[..., Path]
Run = Callable[..., dict[str, Any]]


def columns_of(numbers: np.ndarray) -> dict[str, pa.Array]:
    """Return columns of every type that a store holds, with nulls and awkward texts."""
    start = datetime(2026, 1, 1, tzinfo=UTC)
    texts = ["plain", 'a "quoted", one', "it's\nlong", "50 % off \\ {x}", "caf\u00e9", ""]
    tags = [["new", 'a "b", c'], ["new"], [], None, ["old", "new"], ["x\\y", "{1}"]]
    size = len(numbers)
    return {
        "title": pa.array([None if n % 7 == 6 else texts[n % 6] for n in numbers], pa.string()),
        "a kind": pa.array(["other" if n % 2 else "it's" for n in numbers]),
        "price": pa.array([None if n % 11 == 10 else n % 50 + 0.25 for n in numbers], pa.float64()),
        "stock": pa.array([int(n) * 10**12 for n in numbers], pa.int64()),
        "fresh": pa.array([bool(n % 3) for n in numbers]),
        "tags": pa.array([tags[n % 6] for n in numbers], pa.list_(pa.string())),
        "sizes": pa.array([[n, n + 1] for n in numbers.tolist()], pa.list_(pa.int64())),
        "since": pa.array(
            [start + timedelta(hours=int(n), microseconds=1) for n in numbers],
            pa.timestamp("us", tz="UTC"),
        ),
        "day": pa.array([date(2026, 1, 1 + n % 28) for n in numbers]),
    } | {"nothing": pa.nulls(size, pa.string())}


@pytest.fixture(scope="session")
def made() -> Made:
    """Make content: `ITEMS` items in a geometry, with text or whole numbers as ids."""

    def make(
        geometry: Geometry = "sphere",
        *,
        numbered: bool = False,
        plain_names: bool = False,
        without: tuple[str, ...] = (),
        size: int = ITEMS,
    ) -> Content:
        generator = torch.Generator().manual_seed(3)
        raw = torch.randn(size, tower_width(DIM, geometry), generator=generator)
        asked = torch.randn(40, DIM, generator=generator)
        request = IndexRequest(
            vectors=candidate_vectors(raw, geometry),
            geometry=geometry,
            queries=query_vectors_of(asked, geometry),
            space_id="space",
            item_ids_sha256="ids",
            kind="auto",
            min_recall=0.9,
        )
        numbers = np.arange(size)
        ids = pa.array(numbers * 7 + 2**40 if numbered else [f"i {n}" for n in numbers])
        table = pa.table({"sku": ids, **columns_of(numbers)}).drop_columns(list(without))
        if plain_names:
            names = [name.replace(" ", "_") for name in table.column_names]
            table = table.rename_columns(names)
        return Content(request, Payload(table, "sku", {"photo": "no store holds binary"}))

    return make


@pytest.fixture(scope="session")
def written() -> Written:
    """Write content for a target, as an export does."""

    def write(content: Content, target: str, folder: Path) -> Path:
        folder.mkdir()
        writer = targets()[target]
        facts = writer.write(folder, content)
        write_probe(folder, content)
        how = {"model_id": "0123456789abcdef", "queries": "A query is one vector.", "key": "sku"}
        write_page(folder, writer.page(content, facts), content, how | facts)
        write_manifest(folder, target, how | facts)
        open_export(folder)
        return folder

    return write


@pytest.fixture
def run_page(monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run all code of README.md in its folder, top to bottom; return the names it leaves.

    What installs packages is left out, and shell commands where `shell` is false.
    """

    def run(folder: Path, *, shell: bool = True) -> dict[str, Any]:
        monkeypatch.chdir(folder)
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        blocks = re.findall(r"```(\w+)\n(.*?)\n```", (folder / "README.md").read_text(), re.S)
        names: dict[str, Any] = {}
        for language, code in blocks:
            if language == "bash" and shell:
                lines = [one for one in code.splitlines() if not one.startswith("pip install")]
                command = ["bash", "-euc", "\n".join(lines)]
                subprocess.run(command, check=True, env={**os.environ, "PATH": path})
            if language == "python":
                exec(compile(code, "README.md", "exec"), names)
        return names

    return run
