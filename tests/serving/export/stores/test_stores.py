"""What stores are given and refuse: columns and their types, an index of LanceDB, the registry."""

from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys.core.errors import ConfigError, DataError
from recsys.retrieval.index.registry import BACKENDS
from recsys.serving.export import payload
from recsys.serving.export.conditions import example_of
from recsys.serving.export.payload import Payload, payload_of
from recsys.serving.export.stores import registry
from recsys.serving.export.stores.lance import Lance
from recsys.serving.export.stores.protocol import Content


def payload_from(
    monkeypatch: pytest.MonkeyPatch, table: pa.Table, columns: list[str] | None = None
) -> Payload:
    """Return the payload of a catalogue whose key is `sku`."""
    monkeypatch.setattr(payload, "read_items", lambda bundle: table)
    schema = SimpleNamespace(item_key="sku", features_of=lambda where: [])
    ids = table["sku"].combine_chunks()
    scorer: Any = SimpleNamespace(schema=schema, bundle=None, item_ids=ids)
    return payload_of(scorer, columns)


def test_columns_have_the_types_of_stores(monkeypatch: pytest.MonkeyPatch) -> None:
    time = datetime(2026, 1, 1, 12, tzinfo=UTC)
    table = pa.table(
        {
            "sku": pa.array(["a", "b"], pa.large_string()),
            "kind": pa.array(["x", "y"]).dictionary_encode(),
            "count": pa.array([1, None], pa.uint8()),
            "price": pa.array([Decimal("1.50"), None], pa.decimal128(5, 2)),
            "rate": pa.array([float("nan"), float("inf")], pa.float32()),
            "when": pa.array([time, None], pa.timestamp("ms", tz="Europe/Berlin")),
            "local": pa.array([time.replace(tzinfo=None), None], pa.timestamp("s")),
            "tags": pa.array([["q"], None], pa.large_list(pa.large_string())),
            "photo": pa.array([b"\xff1", b"2"]),
            "deep": pa.array([[[1]], None]),
            "train_count": pa.array([5, 6]),
        }
    )
    found = payload_from(monkeypatch, table)
    assert found.table.to_pydict() == {
        "sku": ["a", "b"],
        "kind": ["x", "y"],
        "count": [1, None],
        "price": [1.5, None],
        "rate": [None, None],
        "when": [time, None],
        "local": [time, None],
        "tags": [["q"], None],
    }
    kinds = {field.name: str(field.type) for field in found.table.schema}
    assert kinds["sku"] == kinds["kind"] == "string"
    assert (kinds["count"], kinds["rate"]) == ("int64", "double")
    assert kinds["when"] == kinds["local"] == "timestamp[us, tz=UTC]"
    assert set(found.left_out) == {"photo", "deep"}
    assert payload_from(monkeypatch, table, ["tags", "kind"]).table.column_names == [
        *("sku", "tags", "kind")
    ]
    assert payload_from(monkeypatch, table, []).table.column_names == ["sku"]


def test_columns_that_cannot_go_along_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    table = pa.table({"sku": [1, 2], "photo": [b"\xff1", b"2"], "price": [1.0, 2.0]})
    with pytest.raises(ConfigError, match=r"no column 'prise' .*mean 'price'"):
        payload_from(monkeypatch, table, ["prise"])
    with pytest.raises(ConfigError, match="no store holds values of type large_binary; leave"):
        payload_from(monkeypatch, table, ["photo"])
    named = pa.table({"sku": [1], "vector": ["v"]})
    with pytest.raises(ConfigError, match="a column of the items is called 'vector'"):
        payload_from(monkeypatch, named)
    large = pa.table({"sku": [1], "big": pa.array([2**63], pa.uint64())})
    with pytest.raises(DataError, match="column 'big': values that no store holds"):
        payload_from(monkeypatch, large)


def test_an_example_needs_ten_items_that_meet_it() -> None:
    kinds = ["a"] * 6 + ["b"] * 6
    items = pa.table({"sku": range(12), "kind": kinds, "size": [*range(6), *[9] * 6]})
    assert [one.sign for one in example_of(items)] == []
    assert example_of(items.slice(0, 0)) == []
    many = pa.table({"sku": range(40), "kind": ["a"] * 20 + ["b"] * 20})
    assert [(one.column, one.value) for one in example_of(many)] == [("kind", "a")]


def test_lancedb_has_an_index_from_some_size_on(made: Any, tmp_path: Path) -> None:
    content = made("ball")
    indexed = Lance(indexed_from=100)
    facts = indexed.write(tmp_path / "a", content)
    assert facts["lists"] == 24
    assert facts["recall_at_10"] >= 0.9
    assert facts["recall_at_100"] > 0.5
    assert (facts["search_metric"], facts["search_dim"]) == ("l2", 8)
    page = indexed.page(content, facts)
    assert f".nprobes({facts['nprobe']})" in page.ask
    assert "recall@10" in page.recall
    wanted = content.request.__class__(**{**vars(content.request), "min_recall": 0.99})
    every = Lance(indexed_from=100).write(tmp_path / "b", Content(wanted, content.payload))
    assert every["recall_at_10"] >= 0.99
    assert every["nprobe"] > facts["nprobe"]


def test_a_further_kind_of_index_is_a_target_by_itself(
    made: Any, written: Any, run_page: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the page knows nothing of is asked by its vectors."""

    class Other(type(BACKENDS["exact"])):  # type: ignore[misc]
        export_name = "other-flat"

        def build(self, folder: Path, request: Any) -> dict[str, Any]:
            (folder / "index.other").write_bytes(b"links")
            return {"recall_at_10": 0.97, "recall_at_100": 0.9, "recall_queries": 5}

    monkeypatch.setitem(BACKENDS, "other", Other())
    assert "other-flat" in registry.targets()
    folder = written(made(), "other-flat", tmp_path / "out")
    names = run_page(folder)
    first = pq.read_table(folder / "queries.parquet").slice(0, 1).to_pylist()[0]
    assert (names["found"], names["filtered"]) == (first["items"], first["items_filtered"])
    text = (folder / "README.md").read_text()
    assert "| `index.other` |" in text
    assert "recall@10 0.9700 and recall@100 0.9000 of exact search, over 5 queries" in text
    assert "Column `photo` is not here: no store holds binary." in text


@pytest.mark.parametrize(
    ("target", "name", "message"),
    [
        ("lancedb", "a.b", "LanceDB reads a dot as a part"),
        ("milvus", "a kind", "a field of Milvus is named by letters, digits and _"),
        ("qdrant", 'a "b"', "no filter of Qdrant can name a column with a quote"),
    ],
)
def test_names_that_a_store_cannot_hold(
    made: Any, tmp_path: Path, target: str, name: str, message: str
) -> None:
    content = made(size=20, plain_names=True)
    columns = [name if one == "a_kind" else one for one in content.items.column_names]
    renamed = Content(content.request, Payload(content.items.rename_columns(columns), "sku", {}))
    with pytest.raises(ConfigError, match=f"column '{name}': {message}"):
        registry.targets()[target].write(tmp_path, renamed)


def test_without_the_library_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'recsys-engine\[lancedb\]'"):
        Lance().require()
    for target in ("qdrant", "pgvector", "milvus", "opensearch", "elasticsearch"):
        registry.targets()[target].require()  # files, which need nothing
