"""Open an export by its own library and ask it, without the engine: a program for any environment.

    python ask_export.py FOLDER ASKED

ASKED is a Parquet file with the columns of an export's queries.parquet. The last line is JSON:
`load_s`, seconds until the store answers; `same_top_10`, the share of queries whose ten items are
those of `items`; `filtered_right`, likewise of `items_filtered` under the export's filter;
`ms`, milliseconds of a search (median).
"""

import json
import os
import runpy
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

Ids = list[Any]
Ask = Callable[[Any, bool], Ids]
"""Query (D,) and whether it is filtered -> ids of the ten best."""


def passing(folder: Path, facts: dict[str, Any]) -> Any:
    """Return the rows that meet the export's filter."""
    items = pq.read_table(folder / "items.parquet")
    calls = {"=": pc.equal, "<=": pc.less_equal}
    wanted = np.ones(len(items), bool)
    for one in facts["filter"]:
        met = calls[one["sign"]](items[one["column"]], one["value"])
        wanted &= met.fill_null(False).to_numpy(zero_copy_only=False)
    return np.flatnonzero(wanted)


def sql(facts: dict[str, Any]) -> str:
    """Return the export's filter as SQL."""
    terms = [f'"{x["column"]}" {x["sign"]} {literal(x["value"])}' for x in facts["filter"]]
    return " AND ".join(terms)


def literal(value: Any) -> str:
    return "'" + value.replace("'", "''") + "'" if isinstance(value, str) else repr(value)


def faiss(folder: Path, facts: dict[str, Any]) -> Ask:
    import faiss

    index = faiss.read_index(str(folder / "index.faiss"))
    ids = pq.read_table(folder / "ids.parquet")["item_id"].to_pylist()
    exact = by_vectors(folder, facts)

    def ask(query: Any, filtered: bool) -> Ids:
        if filtered:
            return exact(query, True)
        how = faiss.SearchParametersHNSW(efSearch=facts["ef"])
        found = index.search(query[None, : index.d], 10, params=how)[1][0]
        return [ids[row] for row in found if row >= 0]

    return ask


def usearch(folder: Path, facts: dict[str, Any]) -> Ask:
    from usearch.index import Index

    index = Index.restore(str(folder / "index.usearch"))
    index.expansion_search = facts["ef"]
    exact = by_vectors(folder, facts)
    ids = pq.read_table(folder / "ids.parquet")["item_id"].to_pylist()

    def ask(query: Any, filtered: bool) -> Ids:
        if filtered:
            return exact(query, True)
        return [ids[int(key)] for key in index.search(query[: index.ndim], 10).keys]

    return ask


def by_vectors(folder: Path, facts: dict[str, Any]) -> Ask:
    """Ask vectors.safetensors or vectors.parquet."""
    if (folder / "vectors.parquet").exists():
        table = pq.read_table(folder / "vectors.parquet")
        flat = table["vector"].combine_chunks().flatten().to_numpy()
        vectors, ids = flat.reshape(len(table), -1), table["item_id"].to_pylist()
    else:
        from safetensors.numpy import load_file

        vectors = load_file(folder / "vectors.safetensors")["vectors"]
        ids = pq.read_table(folder / "ids.parquet")["item_id"].to_pylist()
    rows = passing(folder, facts)

    def ask(query: Any, filtered: bool) -> Ids:
        scores = vectors @ query
        if filtered:
            return [ids[row] for row in rows[np.argsort(-scores[rows], kind="stable")[:10]]]
        return [ids[row] for row in np.argsort(-scores, kind="stable")[:10]]

    return ask


def lancedb(folder: Path, facts: dict[str, Any]) -> Ask:
    import lancedb

    table = lancedb.connect(str(folder)).open_table("items")
    kind = "l2" if facts["search_metric"] == "l2" else "dot"
    where, key = sql(facts), facts["key"]

    def ask(query: Any, filtered: bool) -> Ids:
        search = table.search(query[: facts["search_dim"]]).distance_type(kind)
        if "nprobe" in facts:
            search = search.nprobes(facts["nprobe"])
        search = search.where(where) if filtered else search
        found: Ids = search.select([key, "_distance"]).limit(10).to_arrow()[key].to_pylist()
        return found

    return ask


def qdrant(folder: Path, facts: dict[str, Any]) -> Ask:
    from qdrant_client import QdrantClient, models

    client = QdrantClient(":memory:")
    runpy.run_path(str(folder / "load_qdrant.py"))["load"](client, is_server=False)
    terms = [
        models.FieldCondition(key=one["column"], range=models.Range(lte=one["value"]))
        if one["sign"] == "<="
        else models.FieldCondition(key=one["column"], match=models.MatchValue(value=one["value"]))
        for one in facts["filter"]
    ]

    def ask(query: Any, filtered: bool) -> Ids:
        wanted = models.Filter(must=terms) if filtered else None
        asked = query[: facts["search_dim"]].tolist()
        found = client.query_points("items", query=asked, limit=10, query_filter=wanted)
        return [one.payload[facts["key"]] for one in found.points]

    return ask


def pgvector(folder: Path, facts: dict[str, Any]) -> Ask:
    """Ask the server that PGHOST and the like name; a table `items` there is replaced."""
    import psycopg

    connection = psycopg.connect("", autocommit=True)
    connection.execute("DROP TABLE IF EXISTS items")
    load = ["psql", "-q", "-v", "ON_ERROR_STOP=1", "-f", "load.sql"]
    subprocess.run(load, check=True, cwd=folder)
    connection.execute(f"SET hnsw.ef_search = {facts['ef']}")
    connection.execute("SET hnsw.iterative_scan = strict_order")
    sign = "<->" if facts["search_metric"] == "l2" else "<#>"
    order = f"ORDER BY vector {sign} %s::vector LIMIT 10"
    start = f'SELECT "{facts["key"]}" FROM items'
    where = sql(facts).replace("%", "%%")

    def ask(query: Any, filtered: bool) -> Ids:
        text = f"{start} WHERE {where} {order}" if filtered else f"{start} {order}"
        asked = (str(query[: facts["search_dim"]].tolist()),)
        return [row[0] for row in connection.execute(text, asked).fetchall()]

    return ask


def milvus(folder: Path, facts: dict[str, Any]) -> Ask:
    from pymilvus import MilvusClient

    client = MilvusClient(tempfile.mkdtemp() + "/items.db")
    runpy.run_path(str(folder / "load_milvus.py"))["load"](client, is_server=False)
    signs = {"=": "==", "<=": "<="}
    where = " and ".join(
        f"{x['column']} {signs[x['sign']]} {json.dumps(x['value'])}" for x in facts["filter"]
    )

    def ask(query: Any, filtered: bool) -> Ids:
        asked = [query[: facts["search_dim"]].tolist()]
        more = {"filter": where} if filtered else {}
        key = facts["key"]
        found = client.search("items", data=asked, limit=10, output_fields=[key], **more)
        return [one[key] for one in found[0]]

    return ask


OPENERS: dict[str, Callable[[Path, dict[str, Any]], Ask]] = {
    "exact": by_vectors,
    "faiss": faiss,
    "usearch": usearch,
    "parquet": by_vectors,
    "lancedb": lancedb,
    "qdrant": qdrant,
    "pgvector": pgvector,
    "milvus": milvus,
}


def asked(folder: Path, queries: Path) -> dict[str, float]:
    """Return what was measured."""
    facts = json.loads((folder / "export.json").read_text())
    started = time.perf_counter()
    ask = OPENERS[facts["target"]](folder, facts)
    load_s = time.perf_counter() - started
    table = pq.read_table(queries)
    vectors = np.array(table["vector"].to_pylist(), np.float32)
    shares, times = {}, []
    for name, filtered in (("items", False), ("items_filtered", True)):
        same = 0
        for query, wanted in zip(vectors, table[name].to_pylist(), strict=True):
            started = time.perf_counter()
            found = ask(query, filtered)
            times.append(time.perf_counter() - started)
            same += set(found) == set(wanted)
        shares[name] = same / len(vectors)
    return {
        "load_s": round(load_s, 3),
        "same_top_10": round(shares["items"], 4),
        "filtered_right": round(shares["items_filtered"], 4),
        "ms": round(1e3 * statistics.median(times), 3),
    }


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    print(json.dumps(asked(Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve())))
