"""Load this export into Qdrant, and measure what a search there finds.

    pip install qdrant-client pyarrow numpy
    python load_qdrant.py --path ../qdrant_items            # a folder, without a server
    python load_qdrant.py --url http://localhost:6333       # a server
    python load_qdrant.py --url http://localhost:6333 --check

A point's id is the item's id where that is a whole number of at least 0, else its row; the payload
has the item's id as it is. The script needs nothing else of where the export came from.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from datetime import date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from qdrant_client import QdrantClient, models

HERE = Path(__file__).resolve().parent
FACTS = json.loads((HERE / "export.json").read_text())
COLLECTION, VECTOR, BATCH = "items", "vector", 1_000


def points(table: pa.Table, start: int) -> Iterator[models.PointStruct]:
    """Yield the points of some rows of items.parquet; start: number of the first."""
    vectors = table.column(VECTOR).combine_chunks().flatten().to_numpy().reshape(len(table), -1)
    rows = table.drop_columns([VECTOR]).to_pylist()
    for number, (row, vector) in enumerate(zip(rows, vectors.tolist(), strict=True)):
        payload = {name: as_json(value) for name, value in row.items() if value is not None}
        own = row[FACTS["key"]] if FACTS["point_id"] == FACTS["key"] else start + number
        yield models.PointStruct(id=own, vector=vector, payload=payload)


def as_json(value: Any) -> Any:
    """Return a value as Qdrant stores it: times as text of RFC 3339."""
    if isinstance(value, list):
        return [as_json(one) for one in value if one is not None]
    return value.isoformat() if isinstance(value, datetime | date) else value


def schema_of(kind: pa.DataType) -> models.PayloadSchemaType:
    """Return how Qdrant indexes a column, so that filters are quick."""
    kind = kind.value_type if pa.types.is_list(kind) else kind
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        return models.PayloadSchemaType.DATETIME
    kinds = {"int64": "INTEGER", "double": "FLOAT", "bool": "BOOL"}
    return models.PayloadSchemaType[kinds.get(str(kind), "KEYWORD")]


def load(client: QdrantClient, *, is_server: bool) -> int:
    """Make the collection and fill it; return the number of points."""
    file = pq.ParquetFile(HERE / "items.parquet")
    metric = {"inner_product": models.Distance.DOT, "l2": models.Distance.EUCLID}
    client.create_collection(
        COLLECTION,
        vectors_config=models.VectorParams(
            size=FACTS["search_dim"], distance=metric[FACTS["search_metric"]]
        ),
    )
    for field in file.schema_arrow if is_server else ():
        if field.name != VECTOR:
            key = field.name if field.name.replace("-", "_").isidentifier() else f'"{field.name}"'
            client.create_payload_index(COLLECTION, key, schema_of(field.type))
    start = 0
    for batch in file.iter_batches(BATCH):
        client.upsert(COLLECTION, list(points(pa.Table.from_batches([batch]), start)), wait=True)
        start += len(batch)
    return client.count(COLLECTION).count


def check(client: QdrantClient) -> float:
    """Return recall@10: the share of the exact answers in queries.parquet that Qdrant finds."""
    probe = pq.read_table(HERE / "queries.parquet").to_pylist()
    hits = wanted = 0
    for row in probe:
        query = row[VECTOR][: FACTS["search_dim"]]
        found = client.query_points(COLLECTION, query=query, limit=len(row["items"]))
        hits += len({one.payload[FACTS["key"]] for one in found.points} & set(row["items"]))
        wanted += len(row["items"])
    return hits / wanted


def main() -> None:
    """Load, or measure."""
    parser = argparse.ArgumentParser(description="Load this export into Qdrant.")
    place = parser.add_mutually_exclusive_group(required=True)
    place.add_argument("--path", help="folder of the local mode; it is made")
    place.add_argument("--url", help="address of a server")
    parser.add_argument("--api-key", help="of the server")
    parser.add_argument("--check", action="store_true", help="measure what was loaded before")
    given = parser.parse_args()
    if given.path:
        client = QdrantClient(path=given.path)
    else:
        client = QdrantClient(url=given.url, api_key=given.api_key)
    if client.collection_exists(COLLECTION) != given.check:
        client.close()
        sys.exit(
            f"there is no collection '{COLLECTION}': load it first, without --check"
            if given.check
            else f"there is a collection '{COLLECTION}' already: delete it, or measure with --check"
        )
    if given.check:
        print(f"recall@10 {check(client):.4f}")
    else:
        print(f"{load(client, is_server=bool(given.url)):,} items are in '{COLLECTION}'")
    client.close()


if __name__ == "__main__":
    main()
