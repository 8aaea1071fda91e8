"""Every option of every kind of feature changes what a model reads, or is refused.

Each kind is declared once, then once more for every other value of each of its options. What a
ranker reads of the feature, rows of the embedding table with fixed initial weights beside the
dense columns, must be another one for any two values of an option.
"""

import json
from collections.abc import Iterator
from importlib.util import module_from_spec, spec_from_file_location
from itertools import combinations
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from recsys.core.errors import DataError
from recsys.embeddings.backend import build_table
from recsys.embeddings.plan import EmbeddingPlan
from recsys.embeddings.table import TableConfig
from recsys.embeddings.unified import UnifiedEmbedding
from recsys.features.batches.rows import RankingLoader
from recsys.features.dataset.dataset import prepare
from recsys.features.dataset.split import TRAIN, SplitConfig
from recsys.features.kinds.registry import KINDS
from recsys.features.schema import Schema
from recsys.features.tables.sources import Policies, Sources

ROWS, ITEMS, USERS, START = 400, 30, 12, 1_700_000_000
Json = dict[str, Any]
IDS: list[Json] = [
    {"name": "item", "table": "items", "kind": "categorical"},
    {"name": "user", "table": "users", "kind": "categorical"},
]


def _cases() -> dict[str, Json]:
    """Return `CASE` of the test file of each kind.

    base: one declaration of the kind. values: option -> values to compare, where its type does not
    list them. needs: option -> other options, where it goes with these alone. columns: makes the
    columns that the features of the kind read.
    """
    found = {}
    for kind in KINDS:
        path = Path(__file__).with_name(f"test_{kind}.py")
        spec = spec_from_file_location(f"case_of_{kind}", path)
        assert spec is not None
        assert spec.loader is not None, path
        module = module_from_spec(spec)
        spec.loader.exec_module(module)
        found[kind] = module.CASE
    return found


CASES = _cases()
BASES = {kind: case["base"] for kind, case in CASES.items()}


def options() -> Iterator[tuple[str, str]]:
    for kind, declared in KINDS.items():
        for option, field in declared.model_fields.items():
            if get_origin(field.annotation) is not Literal or len(get_args(field.annotation)) > 1:
                yield kind, option  # what can have one value alone is no option


def values_of(kind: str, option: str) -> list[Any]:
    """Return the values of an option: those that its type lists, else those of the kind's case."""
    if option in ("name", "table"):
        return {"name": [BASES[kind]["name"], "renamed"], "table": ["items", "interactions"]}[
            option
        ]
    annotation = KINDS[kind].model_fields[option].annotation
    if get_origin(annotation) is Literal:
        return list(get_args(annotation))
    return list(CASES[kind]["values"][option])


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Sources:
    """Write a small log with labels, which has the columns of its items too."""
    folder, rng = tmp_path_factory.mktemp("shop"), np.random.default_rng(0)

    def described(count: int) -> Json:
        found = {}
        for case in CASES.values():
            if "columns" in case:  # drawn anew: another kind changes nothing for this one
                found |= case["columns"](np.random.default_rng(count), count)
        return found

    log = {
        "user": rng.integers(0, USERS, ROWS),
        "item": rng.integers(0, ITEMS, ROWS),
        "time": START + np.arange(ROWS) * 60,
        "click": rng.integers(0, 2, ROWS),
    }
    pq.write_table(pa.table(log | described(ROWS)), folder / "log.parquet")
    pq.write_table(
        pa.table({"item": np.arange(ITEMS)} | described(ITEMS)), folder / "items.parquet"
    )
    return Sources(interactions=str(folder / "log.parquet"), items=str(folder / "items.parquet"))


def read_by_a_model(feature: Json, sources: Sources) -> tuple[tuple[str, ...], Tensor]:
    """Return names and numbers of what a ranker reads of `feature`, (N, width)."""
    others = [
        one
        for one in [*IDS, BASES["categorical"], BASES["multi_categorical"]]
        if one["name"] != feature["name"]
    ]
    raw = {
        "interactions": {
            "user": "user", "item": "item", "label": {"column": "click"},
            "time": {"column": "time", "unit": "s"},
        },
        "items": {"key": "item"},
        "features": [feature, *others],
    }  # fmt: skip
    schema = Schema.model_validate_json(json.dumps(raw))
    lookups = 3 if feature.get("multiplicity") == "auto" else None
    data = prepare(schema, sources, Policies(), SplitConfig(), lookups=lookups)
    loader = RankingLoader(data, batch_size=ROWS, seed=0)
    (batch,) = loader.ordered(TRAIN, ROWS)
    config = TableConfig(num_rows=1 << 12, dim=4, backend="torch")
    plan = EmbeddingPlan.of(config, (loader.layout,))
    table = build_table(config, device=torch.device("cpu"), seed=0)
    (embedded,) = UnifiedEmbedding(plan, table)([batch.features])
    names, start, kept = [], 0, []
    own = feature["name"]
    widths = [(name, multiplicity * plan.dim) for name, multiplicity in loader.layout.features]
    for name, width in [*widths, *((name, 1) for name in loader.layout.dense)]:
        if name == own or name.startswith(f"{own}."):
            names.append(name)
            kept.append(embedded[:, start : start + width])
        start += width
    return tuple(names), torch.cat(kept, dim=1).detach()


def seen(kind: str, option: str, value: Any, sources: Sources) -> Any:
    """Return what a model reads, or the message that refuses the option."""
    feature = {**BASES[kind], **CASES[kind].get("needs", {}).get(option, {}), option: value}
    if option == "table":
        feature["name"] = "moved"
        feature["column"] = BASES[kind]["name"]
    try:
        return read_by_a_model(feature, sources)
    except (ValidationError, DataError) as error:
        return str(error)


def test_every_option_of_every_kind_has_values() -> None:
    for kind, option in options():
        values = values_of(kind, option)
        assert len(values) > 1, f"{kind}.{option}"
        assert len({json.dumps(value) for value in values}) == len(values)


@pytest.mark.parametrize("key", list(options()), ids=".".join)
def test_an_option_changes_what_a_model_reads(key: tuple[str, str], shop: Sources) -> None:
    kind, option = key
    values = values_of(kind, option)
    found = [seen(kind, option, value, shop) for value in values]
    assert not isinstance(found[0], str), found[0]
    for (one, first), (other, second) in combinations(zip(values, found, strict=True), 2):
        where = f"{kind}.{option}: {one!r} and {other!r}"
        if isinstance(first, str) or isinstance(second, str):
            assert first != second, where  # one is refused, or each for its own value
        elif option == "name":
            assert first[0] != second[0], where
        else:
            same = first[1].shape == second[1].shape and torch.equal(first[1], second[1])
            assert not same, where
