"""Load this export into Milvus, and measure what a search there finds.

    pip install pymilvus pyarrow numpy                       # and milvus-lite for a folder
    python load_milvus.py --uri ../milvus_items.db           # Milvus Lite, without a server
    python load_milvus.py --uri http://localhost:19530       # a server
    python load_milvus.py --uri http://localhost:19530 --check

Times and dates are text in UTC, which compares as they do. The script needs nothing else of where
the export came from. For a bulk import, `items.parquet` has the fields of the collection.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pymilvus import CollectionSchema, DataType, MilvusClient

HERE = Path(__file__).resolve().parent
FACTS = json.loads((HERE / "export.json").read_text())
COLLECTION, VECTOR, BATCH = "items", "vector", 1_000
LONGEST = 65_535
METRIC = {"inner_product": "IP", "l2": "L2"}[FACTS["search_metric"]]


def scalar_of(kind: pa.DataType) -> DataType:
    """Return the type of a field that holds single values."""
    kinds = {"int64": DataType.INT64, "double": DataType.DOUBLE, "bool": DataType.BOOL}
    return kinds.get(str(kind), DataType.VARCHAR)


def schema_of(file: pq.ParquetFile, capacities: dict[str, int]) -> CollectionSchema:
    """Return the collection's schema; capacities: of lists, the longest."""
    schema = MilvusClient.create_schema(auto_id=False)
    for field in file.schema_arrow:
        if field.name == VECTOR:
            schema.add_field(VECTOR, DataType.FLOAT_VECTOR, dim=FACTS["search_dim"])
            continue
        is_list = pa.types.is_list(field.type)
        kind = scalar_of(field.type.value_type if is_list else field.type)
        more: dict[str, Any] = {"max_length": LONGEST} if kind == DataType.VARCHAR else {}
        if is_list:
            more |= {"element_type": kind, "max_capacity": max(1, capacities[field.name])}
        own = {"is_primary": True} if field.name == FACTS["key"] else {"nullable": True}
        schema.add_field(field.name, DataType.ARRAY if is_list else kind, **own, **more)
    return schema


def rows_of(batch: pa.RecordBatch) -> Iterator[dict[str, Any]]:
    """Yield rows as Milvus takes them."""
    for row in batch.to_pylist():
        yield {name: plain(value) for name, value in row.items()}


def plain(value: Any) -> Any:
    """Return a value as Milvus holds it: times as text, lists without nulls."""
    if isinstance(value, list):
        return [plain(one) for one in value if one is not None]
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(timespec="microseconds")
    return value.isoformat() if isinstance(value, date) else value


def load(client: MilvusClient, *, is_server: bool) -> int:
    """Make the collection and fill it; return the number of items."""
    file = pq.ParquetFile(HERE / "items.parquet")
    lists = [one.name for one in file.schema_arrow if pa.types.is_list(one.type)]
    longest = {
        name: pc.max(pc.list_value_length(file.read([name]).column(0))).as_py() or 1
        for name in lists
    }
    index = client.prepare_index_params()
    kind, params = ("HNSW", {"M": 32, "efConstruction": 200}) if is_server else ("FLAT", {})
    index.add_index(VECTOR, index_type=kind, metric_type=METRIC, params=params)
    client.create_collection(COLLECTION, schema=schema_of(file, longest), index_params=index)
    count = 0
    for batch in file.iter_batches(BATCH):
        client.insert(COLLECTION, list(rows_of(batch)))
        count += len(batch)
    client.load_collection(COLLECTION)
    return count


def check(client: MilvusClient) -> float:
    """Return recall@10: the share of the exact answers in queries.parquet that Milvus finds."""
    client.load_collection(COLLECTION)
    key, hits, wanted = FACTS["key"], 0, 0
    for row in pq.read_table(HERE / "queries.parquet").to_pylist():
        query = row[VECTOR][: FACTS["search_dim"]]
        found = client.search(
            COLLECTION, data=[query], limit=len(row["items"]), output_fields=[key]
        )
        hits += len({one[key] for one in found[0]} & set(row["items"]))
        wanted += len(row["items"])
    return hits / wanted


def main() -> None:
    """Load, or measure."""
    parser = argparse.ArgumentParser(description="Load this export into Milvus.")
    parser.add_argument("--uri", required=True, help="a path for Milvus Lite, or a server")
    parser.add_argument("--token", default="", help="of the server")
    parser.add_argument("--check", action="store_true", help="measure what was loaded before")
    given = parser.parse_args()
    client = MilvusClient(given.uri, token=given.token)
    if client.has_collection(COLLECTION) != given.check:
        client.close()
        sys.exit(
            f"there is no collection '{COLLECTION}': load it first, without --check"
            if given.check
            else f"there is a collection '{COLLECTION}' already: delete it, or measure with --check"
        )
    if given.check:
        print(f"recall@10 {check(client):.4f}")
    else:
        number = load(client, is_server="://" in given.uri)
        print(f"{number:,} items are in '{COLLECTION}'")
    client.close()


if __name__ == "__main__":
    main()
