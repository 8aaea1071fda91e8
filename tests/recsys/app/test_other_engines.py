"""The page's lines for other engines run as they are written, where the engine is installed."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import recsys
from recsys.features.tables.sources import Sources
from recsys.serving.engines.logged import logged_users
from recsys.serving.recommend.scorer import Scorer

PAGE = Path(__file__).parents[3] / "docs" / "spark.md"


def code_of(engine: str) -> list[str]:
    """Return the page's blocks for an engine."""
    return re.findall(rf"^```python {engine}\n(.+?)^```", PAGE.read_text(), re.M | re.S)


def test_daft_runs_the_page(messy: Path, tmp_path: Path) -> None:
    pytest.importorskip("daft", reason="Daft is not installed")
    data = messy.parents[3]
    sources = Sources(interactions=str(data / "log"), users=str(data / "users.parquet"))
    users = logged_users(Scorer.open(messy), sources)
    asked = users.requests(np.arange(users.tables.users.num_rows))
    pq.write_table(asked, tmp_path / "requests.parquet")
    expected = pa.Table.from_batches(recsys.batch_function(messy, k=20)(asked.to_batches()))
    known: dict[str, Any] = {"model": str(messy), "requests": str(tmp_path / "requests.parquet")}
    blocks = code_of("daft")
    assert len(blocks) == 2
    for block in blocks:
        exec(block, known)
        found = known.pop("lists").sort_by("user")
        assert found.column_names == expected.column_names
        for name in ("user", "items", "reason"):
            assert found.column(name).to_pylist() == expected.column(name).to_pylist()
