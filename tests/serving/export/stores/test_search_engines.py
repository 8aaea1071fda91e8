"""OpenSearch and Elasticsearch: mapping, documents and searches, read as the servers read them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recsys.core.errors import ConfigError
from recsys.serving.export.stores import search_engines
from recsys.serving.export.stores.search_engines import ELASTICSEARCH, OPENSEARCH


def documents_of(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the documents of all bulks by their ids."""
    found = {}
    for part in sorted(folder.glob("bulk-*.ndjson")):
        lines = part.read_text().split("\n")
        assert lines.pop() == ""  # a bulk ends with a new line
        for action, document in zip(lines[::2], lines[1::2], strict=True):
            found[json.loads(action)["index"]["_id"]] = json.loads(document)
    return found


@pytest.mark.parametrize("target", ["opensearch", "elasticsearch"])
@pytest.mark.parametrize("geometry", ["dot", "ball"])
def test_the_documents_answer_the_search(
    made: Any,
    written: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    target: str,
    geometry: str,
) -> None:
    """The body of the search, done by hand over the documents, gives the engine's answer."""
    monkeypatch.setattr(search_engines, "PART_BYTES", 50_000)
    content = made(geometry, numbered=True)
    folder = written(content, target, tmp_path / "out")
    documents = documents_of(folder)
    assert (
        len(list(folder.glob("bulk-*.ndjson")))
        == json.loads((folder / "export.json").read_text())["parts"]
    )
    assert len(list(folder.glob("bulk-*.ndjson"))) > 1
    assert max(part.stat().st_size for part in folder.glob("bulk-*.ndjson")) <= 50_000
    fields = json.loads((folder / "mapping.json").read_text())["mappings"]["properties"]
    assert all(set(one) <= set(fields) for one in documents.values())
    body = json.loads((folder / "ask_filtered.json").read_text())
    near = body["knn"] if "knn" in body else body["query"]["knn"]["vector"]
    query = np.array(near.get("vector", near.get("query_vector")), np.float32)
    left = [one for one in documents.values() if passes(one, near["filter"])]
    vectors = np.array([one["vector"] for one in left], np.float32)
    by_distance = geometry == "ball"
    scores = -((vectors - query) ** 2).sum(1) if by_distance else vectors @ query
    found = [left[row]["sku"] for row in np.argsort(-scores)[:10]]
    table = content.probe.table(content.items["sku"].combine_chunks())
    assert found == table["items_filtered"][0].as_py()


def passes(document: dict[str, Any], wanted: dict[str, Any]) -> bool:
    """Return whether a document meets a filter of these exports."""
    for term in wanted["bool"]["filter"]:
        ((kind, asked),) = term.items()
        ((column, value),) = asked.items()
        held = document.get(column)
        if held is None or not (held == value if kind == "term" else held <= value["lte"]):
            return False
    return True


def test_documents_hold_the_columns(made: Any, written: Any, tmp_path: Path) -> None:
    content = made()
    folder = written(content, "opensearch", tmp_path / "out")
    documents = documents_of(folder)
    for row in content.items.to_pylist():
        own = documents[row["sku"]]
        np.testing.assert_array_equal(
            np.float32(own.pop("vector")), content.points[int(row["sku"][2:])].numpy()
        )
        for name in ("since", "day"):
            row[name] = row[name].isoformat()
        assert own == {name: value for name, value in row.items() if value is not None}


def test_mappings_name_the_metric(made: Any, written: Any, tmp_path: Path) -> None:
    def field(target: str, geometry: str) -> dict[str, Any]:
        folder = written(made(geometry, size=20), target, tmp_path / f"{target}-{geometry}")
        body = json.loads((folder / "mapping.json").read_text())
        assert body["mappings"]["properties"]["since"] == {"type": "date"}
        assert body["mappings"]["properties"]["tags"] == {"type": "keyword"}
        found: dict[str, Any] = body["mappings"]["properties"]["vector"]
        return found

    assert field("opensearch", "sphere")["method"]["space_type"] == "innerproduct"
    assert field("opensearch", "ball")["method"]["space_type"] == "l2"
    assert field("elasticsearch", "dot")["similarity"] == "max_inner_product"
    assert field("elasticsearch", "ball")["similarity"] == "l2_norm"
    assert field("elasticsearch", "biased_sphere")["dims"] == 9


def test_what_the_engines_cannot_hold_is_refused(made: Any, tmp_path: Path) -> None:
    content = made(size=20)
    renamed = content.items.rename_columns(["_sku", *content.items.column_names[1:]])
    object.__setattr__(content.payload, "table", renamed)
    with pytest.raises(ConfigError, match="column '_sku': OpenSearch reads a dot as"):
        OPENSEARCH.write(tmp_path, content)
    narrow = type(ELASTICSEARCH)(**{**vars(ELASTICSEARCH), "most": 4})
    with pytest.raises(ConfigError, match="8 numbers: Elasticsearch holds at most 4; export a"):
        narrow.write(tmp_path, made(size=20))
