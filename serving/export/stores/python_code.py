"""Code of README.md for files that Python searches itself: NumPy, faiss, usearch.

The code of an index is chosen by the files that its kind writes and by the facts of its search, so
that a further kind of a library that is known here needs nothing.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from recsys.retrieval.index.build import VECTORS_FILE
from recsys.retrieval.index.reduced import REDUCTION_FILE, WHOLE_FILE
from recsys.serving.export.payload import VECTOR
from recsys.serving.export.stores.protocol import PROBE_FILE, Content

IDS_FILE, ITEMS_FILE, VECTORS_TABLE = "ids.parquet", "items.parquet", "vectors.parquet"
_IMPORTS = (
    "import numpy as np\nimport pyarrow.parquet as pq\nfrom safetensors.numpy import load_file"
)
_EXACTLY = """\
# An index takes no condition on columns: the vectors of the items that pass are compared.
vectors = load_file("{file}")["vectors"][passing]
best = passing[np.argsort(-(vectors @ queries[0]), kind="stable")[:10]]
filtered = [ids[row].as_py() for row in best.tolist()]"""
_COMPARED = {"=": "equal", "<=": "less_equal"}


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
        **dict.fromkeys(
            (VECTORS_FILE, WHOLE_FILE),
            (
                "from safetensors.numpy import load_file\n",
                f'vectors = load_file("{file}")["vectors"]\n'
                f'ids = pq.read_table("{IDS_FILE}")["item_id"]',
            ),
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


def _exactly(facts: Mapping[str, Any]) -> str:
    return _EXACTLY.format(file=_exact_file(facts))


def _faiss(facts: Mapping[str, Any]) -> Way:
    """Asked as it was measured: with the breadth, or the number of lists, of its facts."""
    load = f'index = faiss.read_index("index.faiss")\nids = pq.read_table("{IDS_FILE}")["item_id"]'
    how = "faiss.SearchParameters()"
    if "ef" in facts:
        how = f"faiss.SearchParametersHNSW(efSearch={facts['ef']})"
    if "nprobe" in facts:
        load += f"\nfaiss.extract_index_ivf(index).nprobe = {facts['nprobe']}"
    ask = f"{_query(_whole_dim(facts))}{_asked(facts)}"
    depth = facts.get("rerank", 1) * facts.get("reduction", {"depth": 10})["depth"]
    given = "" if "nprobe" in facts else f", params={how}"
    ask += f"rows = index.search(asked, {depth}{given})[1][0]\nrows = rows[rows >= 0]\n"
    if "rerank" in facts or "reduction" in facts:  # put in order by the exact vectors
        load += f'\nwhole = load_file("{_exact_file(facts)}")["vectors"]'
        ask += "rows = rows[np.argsort(-(whole[rows] @ query[0]), kind='stable')[:10]]\n"
    return Way(
        title="an index of faiss",
        load=f"import faiss\n{_IMPORTS}\n\n{load}",
        ask=f"{ask}found = [ids[row].as_py() for row in rows.tolist()]",
        filter=_exactly(facts),
        notes="A selector (`faiss.IDSelectorBatch`) makes the index itself filter, but it then "
        "looks only\nwhere it would have looked without, and where one item in ten passes most "
        "of the ten best\nare missed.",
    )


def _usearch(facts: Mapping[str, Any]) -> Way:
    if "reduction" in facts:
        return _by_vectors(facts)
    return Way(
        title="an index of usearch",
        load=f"{_IMPORTS}\nfrom usearch.index import Index\n\n"
        f'index = Index.restore("index.usearch")\nindex.expansion_search = {facts.get("ef", 64)}\n'
        f'ids = pq.read_table("{IDS_FILE}")["item_id"]',
        ask=f"{_query(facts['dim'])}{_asked(facts)}rows = index.search(asked[0], 10).keys\n"
        "found = [ids[int(row)].as_py() for row in rows]",
        filter=_exactly(facts),
    )


def _by_vectors(facts: Mapping[str, Any]) -> Way:
    return product_way(_exact_file(facts), _whole_dim(facts))


def _exact_file(facts: Mapping[str, Any]) -> str:
    return WHOLE_FILE if "reduction" in facts else VECTORS_FILE


def _whole_dim(facts: Mapping[str, Any]) -> int:
    return int(facts["reduction"]["whole_dim"] if "reduction" in facts else facts["dim"])


def _asked(facts: Mapping[str, Any]) -> str:
    """Return the code that makes what the index is asked with of a query's vector."""
    if "reduction" in facts:
        return (
            f'short = load_file("{REDUCTION_FILE}")["queries"]\n'
            "asked = np.ascontiguousarray(query @ short.T)  # what short vectors are asked with\n"
        )
    width = facts.get("index_dim", facts.get("graph_dim", facts["dim"]))
    if width == facts["dim"]:
        return "asked = query\n"
    return f"asked = np.ascontiguousarray(query[:, :{width}])  # the point, searched by distance\n"


def _query(dim: int) -> str:
    return (
        f'queries = np.array(pq.read_table("{PROBE_FILE}")["{VECTOR}"].to_pylist(), np.float32)\n'
        f"query = queries[:1]  # (1, {dim}): the vector of a query, made by the model\n"
    )


_LIBRARIES: dict[str, Callable[[Mapping[str, Any]], Way]] = {
    **dict.fromkeys(("faiss", "flat", "ivf", "ivf_pq", "rabitq", "sq8"), _faiss),
    "usearch": _usearch,
}
