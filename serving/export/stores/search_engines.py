"""OpenSearch and Elasticsearch: an index's mapping, and documents for the bulk API.

mapping.json         settings and mapping: create the index with it
bulk-00000.ndjson    documents, at most `PART_BYTES` a file: send each to /items/_bulk
ask.json             a search by the first query of queries.parquet
ask_filtered.json    the same under the example's filter
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from recsys.core.errors import ConfigError
from recsys.serving.export.conditions import Condition
from recsys.serving.export.payload import VECTOR
from recsys.serving.export.stores.protocol import Content, Page
from recsys.serving.export.stores.texts import vector_texts

MAPPING_FILE, ASK_FILE, FILTERED_FILE = "mapping.json", "ask.json", "ask_filtered.json"
LINKS, EF_CONSTRUCTION, BREADTH = 32, 200, 200
PART_BYTES = 20 << 20
_ROWS = 5_000
_TYPES = {"string": "keyword", "bool": "boolean", "int64": "long", "double": "double"}
Json = dict[str, Any]


@dataclass(frozen=True)
class SearchEngine:
    """A target of this kind; see `Target`.

    title: of the engine. settings: of an index. field: metric and width -> mapping of the vector.
    ask: query, number of results and filter (None: everything) -> body of a search. most: numbers
    of a vector.
    """

    title: str
    settings: Json
    field: Callable[[str, int], Json]
    ask: Callable[[list[float], int, Json | None], Json]
    score: Mapping[str, str]
    most: int

    def require(self) -> None:
        """Need nothing."""

    def write(self, folder: Path, content: Content) -> dict[str, Any]:
        """Write mapping, documents and bodies of searches.

        Raises:
            ConfigError: the engine holds no vectors as long, or a column's name means another
                thing to it.
        """
        metric, width = "l2" if content.by_distance else "inner_product", content.point_dim
        if width > self.most:
            raise ConfigError(
                f"vectors of {width:,} numbers: {self.title} holds at most {self.most:,}; export a "
                "narrower model, or to another store"
            )
        for name in content.items.column_names:
            if "." in name or name.startswith("_"):
                raise ConfigError(
                    f"column '{name}': {self.title} reads a dot as an object's part and keeps "
                    "names with _ for itself; name the columns to export without it, --columns A,B"
                )
        fields = {one.name: {"type": _type_of(one.type)} for one in content.items.schema}
        fields[VECTOR] = self.field(metric, width)
        mapping = {"dynamic": "strict", "properties": fields}
        body = {"settings": self.settings, "mappings": mapping}
        (folder / MAPPING_FILE).write_text(json.dumps(body, indent=1))
        parts = _write_parts(folder, content)
        query = content.probe.queries[0, :width].tolist()
        (folder / ASK_FILE).write_text(json.dumps(self.ask(query, 10, None)))
        if content.example:
            asked = self.ask(query, 10, _filter(content.example))
            (folder / FILTERED_FILE).write_text(json.dumps(asked))
        return content.facts() | {"search_metric": metric, "search_dim": width, "parts": parts}

    def page(self, content: Content, facts: Mapping[str, Any]) -> Page:
        """Return how curl sends the files."""
        post = 'curl -s -X POST -H "Content-Type: application/json"'
        search = '"$SERVER/items/_search?_source_excludes=vector" --data-binary'
        asked = content.probe.queries[0, :2].tolist()
        shown = json.dumps(self.ask(asked, 10, _filter(content.example)), indent=1)
        holds = {
            MAPPING_FILE: "settings and mapping of the index",
            "bulk-*.ndjson": f"documents, in {facts['parts']} files",
            ASK_FILE: "a search by the first query of queries.parquet",
        }
        if content.example:
            holds[FILTERED_FILE] = "the same under the filter"
        return Page(
            title=f"an index for {self.title}",
            holds=holds,
            load=f"""\
```bash
SERVER=http://localhost:9200
curl -s -X PUT -H "Content-Type: application/json" "$SERVER/items" --data-binary @{MAPPING_FILE}
for part in bulk-*.ndjson; do
  curl -s -X POST -H "Content-Type: application/x-ndjson" --data-binary "@$part" \\
    "$SERVER/items/_bulk?filter_path=errors"
done
{post} "$SERVER/items/_refresh"
```

Each bulk has to answer `{{"errors":false}}`.""",
            ask=f"""\
```bash
{post} {search} @{ASK_FILE}
```

`_score` is {self.score[facts["search_metric"]]}.""",
            filter=f"""\
```bash
{post} {search} @{FILTERED_FILE}
```

The body, its vector cut short here:

```json
{shown}
```

The filter holds during the search, so that ten items are found where there are ten."""
            if content.example
            else "",
            recall="Depends on the server's graph and segments; the settings here find nearly all. "
            "Compare the\nanswers to the queries of `queries.parquet` with its `items`.",
        )


def _write_parts(folder: Path, content: Content) -> int:
    """Write the documents; return the number of files."""
    number, size, file = 0, PART_BYTES, None
    for start in range(0, len(content.vectors), _ROWS):
        for line in _documents(content.table(start, start + _ROWS), content.key):
            if size + len(line) > PART_BYTES:
                if file is not None:
                    file.close()
                file = (folder / f"bulk-{number:05}.ndjson").open("wb")
                number, size = number + 1, 0
            assert file is not None
            size += file.write(line)
    if file is not None:
        file.close()
    return number


def _documents(table: pa.Table, key: str) -> Iterator[bytes]:
    """Yield action and document of each row, two lines."""
    vectors = vector_texts(table.column(VECTOR).combine_chunks()).to_pylist()
    rows = table.drop_columns([VECTOR]).to_pylist()
    for row, vector in zip(rows, vectors, strict=True):
        action = json.dumps({"index": {"_id": str(row[key])}})
        held = {name: _as_json(value) for name, value in row.items() if value is not None}
        document = json.dumps(held, ensure_ascii=False)
        yield f'{action}\n{document[:-1]}, "{VECTOR}": {vector}}}\n'.encode()


def _as_json(value: Any) -> Any:
    if isinstance(value, list):
        return [_as_json(one) for one in value]
    return value.isoformat() if isinstance(value, datetime | date) else value


def _type_of(kind: pa.DataType) -> str:
    if pa.types.is_list(kind):
        return _type_of(kind.value_type)
    is_time = pa.types.is_timestamp(kind) or pa.types.is_date(kind)
    return "date" if is_time else _TYPES[str(kind)]


def _filter(conditions: Sequence[Condition]) -> Json | None:
    if not conditions:
        return None
    # A document meets a term by one of a list's values.
    terms = [
        {"range": {one.column: {"lte": one.value}}}
        if one.sign == "<="
        else {"term": {one.column: one.value}}
        for one in conditions
    ]
    return {"bool": {"filter": terms}}


def _opensearch_field(metric: str, width: int) -> Json:
    space = {"inner_product": "innerproduct", "l2": "l2"}[metric]
    sizes = {"m": LINKS, "ef_construction": EF_CONSTRUCTION}
    method = {"name": "hnsw", "engine": "faiss", "space_type": space, "parameters": sizes}
    return {"type": "knn_vector", "dimension": width, "method": method}


def _opensearch_ask(query: list[float], size: int, wanted: Json | None) -> Json:
    near: Json = {"vector": query, "k": size, "method_parameters": {"ef_search": BREADTH}}
    near |= {} if wanted is None else {"filter": wanted}
    return {"size": size, "query": {"knn": {VECTOR: near}}}


def _elasticsearch_field(metric: str, width: int) -> Json:
    similarity = {"inner_product": "max_inner_product", "l2": "l2_norm"}[metric]
    sizes = {"type": "hnsw", "m": LINKS, "ef_construction": EF_CONSTRUCTION}
    return {
        "type": "dense_vector",
        "dims": width,
        "index": True,
        "similarity": similarity,
        "index_options": sizes,
    }


def _elasticsearch_ask(query: list[float], size: int, wanted: Json | None) -> Json:
    near: Json = {"field": VECTOR, "query_vector": query, "k": size, "num_candidates": BREADTH}
    near |= {} if wanted is None else {"filter": wanted}
    return {"size": size, "knn": near}


_PRODUCT = "the product plus 1, and of a product p below 0 1 / (1 - p)"
_DISTANCE = "1 / (1 + the squared distance)"
OPENSEARCH = SearchEngine(
    title="OpenSearch",
    settings={"index": {"knn": True}},
    field=_opensearch_field,
    ask=_opensearch_ask,
    score={"inner_product": _PRODUCT, "l2": _DISTANCE},
    most=16_000,
)
ELASTICSEARCH = SearchEngine(
    title="Elasticsearch",
    settings={},
    field=_elasticsearch_field,
    ask=_elasticsearch_ask,
    score={"inner_product": _PRODUCT, "l2": _DISTANCE},
    most=4_096,
)
