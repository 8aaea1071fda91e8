"""Code of README.md for files that Python searches itself: NumPy, faiss, usearch.

The code of an index is chosen by the files that its kind writes and by the facts of its search, so
that a further kind of a library that is known here needs nothing.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from recsys.retrieval.index.build import VECTORS_FILE
from recsys.serving.export.payload import VECTOR
from recsys.serving.export.stores.protocol import PROBE_FILE, Content

IDS_FILE, ITEMS_FILE, VECTORS_TABLE = "ids.parquet", "items.parquet", "vectors.parquet"
_IMPORTS = (
    "import numpy as np\nimport pyarrow.parquet as pq\nfrom safetensors.numpy import load_file"
)
_EXACTLY = f"""\
# An index takes no condition on columns: the vectors of the items that pass are compared.
vectors = load_file("{VECTORS_FILE}")["vectors"][passing]
best = passing[np.argsort(-(vectors @ queries[0]), kind="stable")[:10]]
filtered = [ids[row].as_py() for row in best.tolist()]"""
_COMPARED = {"=": "equal", "<=": "less_equal"}
_SEARCHED = {
    "ef": ("SearchParametersHNSW", "efSearch"),
    "nprobe": ("SearchParametersIVF", "nprobe"),
}
"""Fact of an index of faiss -> what takes the number, and its name there."""


@dataclass(frozen=True)
class Way:
    """How files are searched: code that loads, asks, and asks among the rows `passing`."""

    title: str
    load: str
    ask: str
    filter: str
    notes: str = ""


def way_of(facts: Mapping[str, Any], library: str) -> Way:
    """Return the code for an index with these facts, of the library that `--to` names."""
    library = library.partition("-")[0]
    return _LIBRARIES.get(library, _by_vectors)(facts)


def product_way(file: str, dim: int) -> Way:
    """Return the code for products with all vectors of width `dim`, of a file of either form."""
    reads = {
        VECTORS_FILE: (
            "from safetensors.numpy import load_file\n",
            f'vectors = load_file("{VECTORS_FILE}")["vectors"]\n'
            f'ids = pq.read_table("{IDS_FILE}")["item_id"]',
        ),
        VECTORS_TABLE: (
            "",
            f'table = pq.read_table("{VECTORS_TABLE}")\n'
            'ids, vectors = table["item_id"], np.array(table["vector"].to_pylist(), np.float32)',
        ),
    }
    imports, load = reads[file]
    return Way(
        title="vectors, searched exactly",
        load=f"import numpy as np\nimport pyarrow.parquet as pq\n{imports}\n{load}",
        ask=f"{_query(dim)}scores = vectors @ query[0]\n"
        "found = [ids[row].as_py() for row in np.argsort(-scores, kind='stable')[:10].tolist()]",
        filter="best = passing[np.argsort(-scores[passing], kind='stable')[:10]]\n"
        "filtered = [ids[row].as_py() for row in best.tolist()]",
    )


def passing_rows(content: Content) -> str:
    """Return code that leaves the rows that meet the example in `passing`."""
    lines = ["import pyarrow.compute as pc", "", f'items = pq.read_table("{ITEMS_FILE}")']
    for number, one in enumerate(content.example):
        column = f"items[{one.column!r}]"
        if one.sign in _COMPARED:
            term = f"pc.{_COMPARED[one.sign]}({column}, {one.value!r})"
        else:
            lines.append(f"several = {column}.combine_chunks()")
            lines.append(f"held = pc.equal(several.flatten(), {one.value!r})")
            lines.append("rows = pc.list_parent_indices(several).filter(held)")
            term = "pc.is_in(pa.array(range(len(items))), rows)"
            lines[0] = "import pyarrow as pa\nimport pyarrow.compute as pc"
        lines.append(f"wanted = {f'pc.and_(wanted, {term})' if number else term}")
    read = "wanted.fill_null(False).to_numpy(zero_copy_only=False)"
    return "\n".join([*lines, f"passing = np.flatnonzero({read})"])


def _faiss(facts: Mapping[str, Any]) -> Way:
    """Asked as it was measured: with the breadth, or the number of lists, of its facts."""
    name = next((one for one in _SEARCHED if one in facts), None)
    maker, setting = ("SearchParameters", "") if name is None else _SEARCHED[name]
    number = "" if name is None else f"{setting}={facts[name]}"
    return Way(
        title="an index of faiss",
        load=f"import faiss\n{_IMPORTS}\n\n"
        f'index = faiss.read_index("index.faiss")\nids = pq.read_table("{IDS_FILE}")["item_id"]',
        ask=f"{_query(facts['dim'])}{_points(facts)}how = faiss.{maker}({number})\n"
        "scores, rows = index.search(query, 10, params=how)\n"
        "found = [ids[row].as_py() for row in rows[0].tolist() if row >= 0]",
        filter=_EXACTLY,
        notes="A selector (`faiss.IDSelectorBatch`) makes the index itself filter, but it then "
        "looks only\nwhere it would have looked without, and where one item in ten passes most "
        "of the ten best\nare missed.",
    )


def _usearch(facts: Mapping[str, Any]) -> Way:
    return Way(
        title="an index of usearch",
        load=f"{_IMPORTS}\nfrom usearch.index import Index\n\n"
        f'index = Index.restore("index.usearch")\nindex.expansion_search = {facts.get("ef", 64)}\n'
        f'ids = pq.read_table("{IDS_FILE}")["item_id"]',
        ask=f"{_query(facts['dim'])}{_points(facts)}rows = index.search(query[0], 10).keys\n"
        "found = [ids[int(row)].as_py() for row in rows]",
        filter=_EXACTLY,
    )


def _by_vectors(facts: Mapping[str, Any]) -> Way:
    return product_way(VECTORS_FILE, facts["dim"])


def _points(facts: Mapping[str, Any]) -> str:
    """Return the code that makes what a graph by distance is asked with; empty for products."""
    width = facts.get("graph_dim", facts["dim"])
    if width == facts["dim"]:
        return ""
    return f"query = np.ascontiguousarray(query[:, :{width}])  # the point, searched by distance\n"


def _query(dim: int) -> str:
    return (
        f'queries = np.array(pq.read_table("{PROBE_FILE}")["{VECTOR}"].to_pylist(), np.float32)\n'
        f"query = queries[:1]  # (1, {dim}): the vector of a query, made by the model\n"
    )


_LIBRARIES: dict[str, Callable[[Mapping[str, Any]], Way]] = {"faiss": _faiss, "usearch": _usearch}
