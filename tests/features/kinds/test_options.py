"""Every option of every kind of feature changes what a model reads, or is refused.

Each kind is declared once, then once more for every other value of each of its options. What a
ranker reads of the feature, rows of the embedding table with fixed initial weights beside the
dense columns, must be another one for any two values of an option.
"""

import json
from collections.abc import Iterator
from itertools import combinations
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
TAGS = {"name": "tags", "table": "items", "kind": "multi_categorical", "separator": "|"}
BRAND = {"name": "brand", "table": "items", "kind": "categorical"}

BASES: dict[str, Json] = {
    "categorical": BRAND,
    "multi_categorical": TAGS,
    "text": {"name": "title", "table": "items", "kind": "text"},
    "numeric": {"name": "price", "table": "items", "kind": "numeric"},
    "vector": {"name": "look", "table": "items", "kind": "vector", "dim": 2},
    "timestamp": {"name": "born", "table": "items", "kind": "timestamp", "unit": "s"},
    "history": {"name": "f", "kind": "history", "of": "tags"},
    "count": {"name": "f", "kind": "count", "of": "item"},
    "elapsed": {"name": "f", "kind": "elapsed", "of": "item"},
    "cross": {"name": "f", "kind": "cross", "of": ["brand", "tags"]},
}
"""One declaration of each kind; options are changed one by one."""
COLUMNS: dict[str, str] = {
    "categorical": "maker",
    "multi_categorical": "genres",
    "text": "plot",
    "numeric": "cost",
    "vector": "sound",
    "timestamp": "sold",
}
"""Another column of the items that each kind can read."""
VALUES: dict[tuple[str, str], list[Any]] = {
    ("multi_categorical", "separator"): ["|", ";"],
    ("multi_categorical", "weights"): [None, "shares", "halves"],
    ("numeric", "bins"): [None, 3, 5, "log_squared"],
    ("vector", "dim"): [2, 3],
    ("history", "of"): ["tags", "brand", "item"],
    ("history", "last"): [1, 2, 50],
    ("cross", "of"): [["brand", "tags"], ["tags", "brand"], ["brand", "user"]],
}
"""Values of an option whose type does not list them."""
SHARED: dict[str, list[Any]] = {"multiplicity": [4, 5, "auto"], "min_count": [1, 40, 10_000]}
NEEDS: dict[tuple[str, str], Json] = {("numeric", "bins"): {"transform": "discretise"}}
"""Where an option is one of another option's values alone."""


def options() -> Iterator[tuple[str, str]]:
    for kind, declared in KINDS.items():
        yield from ((kind, option) for option in declared.model_fields if option != "kind")


def values_of(kind: str, option: str) -> list[Any]:
    """Return the values of an option: those that its type lists, else those named above."""
    if option in ("name", "table", "column"):
        # The same values under another name, at another table, of another column.
        second = {"name": "renamed", "table": "interactions", "column": COLUMNS.get(kind)}[option]
        return [BASES[kind].get(option, BASES[kind]["name"]), second]
    annotation = KINDS[kind].model_fields[option].annotation
    if get_origin(annotation) is Literal:
        return list(get_args(annotation))
    return VALUES.get((kind, option)) or SHARED[option]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Sources:
    """Write a small log with labels, whose items hold two columns of every type."""
    folder, rng = tmp_path_factory.mktemp("shop"), np.random.default_rng(0)

    def drawn(words: str, count: int) -> list[str]:
        """Words of which the first is common and the last one rare."""
        shares = 4.0 ** -np.arange(len(words.split()))
        return rng.choice(words.split(), count, p=shares / shares.sum()).tolist()

    def lists(words: str, count: int) -> list[list[str]]:
        return [drawn(words, rng.integers(1, 4)) for _ in range(count)]

    def described(count: int) -> Json:
        tags = lists("a b c d", count)
        text = ["|".join(one) + ";z" for one in tags]
        return {
            "brand": drawn("x y z", count),
            "maker": drawn("x y z", count),
            "tags": text,
            "genres": ["|".join(one) for one in lists("a b c d", count)],
            "shares": [rng.random(len(one)).tolist() for one in tags],
            "halves": [[0.5 * (place + 1) for place, _ in enumerate(one)] for one in tags],
            "title": [" ".join(drawn("red hat shoe", 3)) for _ in range(count)],
            "plot": [" ".join(drawn("red hat shoe", 3)) for _ in range(count)],
            "price": rng.lognormal(2, 1, count),
            "cost": rng.lognormal(2, 1, count),
            "look": rng.normal(size=(count, 2)).tolist(),
            "sound": rng.normal(size=(count, 2)).tolist(),
            "born": rng.integers(START - 10**8, START, count),
            "sold": rng.integers(START - 10**8, START, count),
        }

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
    others = [one for one in [*IDS, BRAND, TAGS] if one["name"] != feature["name"]]
    raw = {
        "interactions": {
            "user": "user", "item": "item", "label": {"column": "click"},
            "time": {"column": "time", "unit": "s"},
        },
        "items": {"key": "item"},
        "features": [feature, *others],
    }  # fmt: skip
    schema = Schema.model_validate_json(json.dumps(raw))
    data = prepare(schema, sources, Policies(), SplitConfig(), lookups=3)
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
    feature = {**BASES[kind], **NEEDS.get((kind, option), {}), option: value}
    if option == "table":
        feature["name"] = "moved"
        feature["column"] = BASES[kind]["name"]
    try:
        return read_by_a_model(feature, sources)
    except (ValidationError, DataError) as error:
        return str(error)


def test_each_kind_is_declared_and_every_option_has_values() -> None:
    assert set(BASES) == set(KINDS)
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
