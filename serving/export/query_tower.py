"""Query towers as ONNX: the graph, what asks it with dictionaries, and a page that says how.

    query_tower.onnx   raw requests in, vectors out (with query_tower.onnx.data above 2 GB)
    queries.py         asks it: numpy and onnxruntime, nothing else
    export.json        whose vectors they are, the inputs, what was measured
    README.md          how to install, ask and search

The bundle's probe requests are asked through the files that were written before they are kept.
"""

import statistics
import time
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from recsys.bundle.probe import PROBE_TOLERANCE
from recsys.core.atomic import publish, staged_folder
from recsys.core.errors import ConfigError, IntegrityError
from recsys.core.folders import check_folder
from recsys.features.bundle.files import index_files, read_request_probe
from recsys.features.bundle.request_probe import without_answers
from recsys.retrieval.index.build import read_facts
from recsys.serving.export.manifest import EXPORT_FILE, write_manifest
from recsys.serving.export.onnx_export import ONNX
from recsys.serving.export.onnx_graph import OPSET, libraries
from recsys.serving.export.query_encoding import how_to_ask
from recsys.serving.export.query_tower_graph import write_query_tower
from recsys.serving.export.query_tower_page import page_of
from recsys.serving.export.query_vectors import GAIN, NO_MEMORY, VECTOR, vectors_and_gains
from recsys.serving.recommend.scorer import Scorer

if TYPE_CHECKING:
    from recsys.serving.export.queries import QueryTower

TOWER_FILE, ASKING_FILE, PAGE_FILE = "query_tower.onnx", "queries.py", "README.md"
_REPEATED = 50


def export_query_tower(bundle: Path, out: Path) -> dict[str, Any]:
    """Write the query tower of the retrieval model in `bundle` to the folder `out`.

    Returns what was written and measured.

    Raises:
        ConfigError: `out` exists or is named as a file, the model has no vectors, a feature cannot
            be written as a graph, or the libraries are not installed.
        IntegrityError: the bundle is not what was written, or the graph computes other vectors.
    """
    libraries()
    from recsys.serving.export import queries  # as it leaves: it imports onnxruntime at once

    check_folder(out, f"{TOWER_FILE}, {ASKING_FILE} and {EXPORT_FILE}")
    if out.exists():
        raise ConfigError(f"{out} exists; choose another --out, an export is never overwritten")
    scorer = Scorer.open(bundle)
    assert scorer.by_vectors  # refuses a model without any
    probe = without_answers(read_request_probe(scorer.bundle))
    with staged_folder(out.resolve().parent, out.name) as staging:
        columns = write_query_tower(staging / TOWER_FILE, scorer)
        (staging / ASKING_FILE).write_text(Path(queries.__file__).read_text())
        tower = queries.QueryTower(staging)
        facts = {
            "model_id": scorer.bundle.model_id,
            **_geometry(scorer),
            "size_mib": round(sum(p.stat().st_size for p in staging.iterdir()) / 2**20, 3),
            "opset": OPSET,
            "onnxruntime": version("onnxruntime"),
            "largest_difference": _replayed(tower, scorer, probe, out / TOWER_FILE),
            "one_row_p50_ms": _timed(tower, probe.slice(0, 1)),
        }
        how = {"queries": how_to_ask(scorer, None), **facts, "columns": columns}
        how |= {"outputs": tower.names}
        how |= {} if scorer.memory is None else {"memory": NO_MEMORY}
        (staging / PAGE_FILE).write_text(page_of(scorer, columns, facts, probe.slice(0, 1)))
        write_manifest(staging, ONNX, how)
        publish(staging, out.resolve(), EXPORT_FILE)
    return {"out": str(out), **facts}


def _geometry(scorer: Scorer) -> dict[str, Any]:
    stored = read_facts(index_files(scorer.bundle))
    names = ("space_id", "dim", "metric", "geometry", "normalised")
    found = {name: stored[name] for name in names if name in stored}
    return {**found, "interests": scorer.model.config.interests}


def _replayed(tower: "QueryTower", scorer: Scorer, probe: pa.Table, path: Path) -> float:
    """Return by how much the tower differs from the engine on the probe's requests.

    Raises:
        IntegrityError: by more than rounding.
    """
    got = tower(probe.to_pylist())
    wanted = vectors_and_gains(scorer, scorer.encode(probe))
    worst = 0.0
    for name, one in zip((VECTOR, GAIN), wanted, strict=True):
        if one is None:
            continue
        made, expected = got[name], one.numpy()
        off = np.abs(made - expected).reshape(len(expected), -1).max(1, initial=0.0)
        row = int(off.argmax()) if len(off) else 0
        if len(off) and not off[row] <= PROBE_TOLERANCE:
            user = probe.column(scorer.schema.user_key)[row].as_py()
            raise IntegrityError(
                f"{path}: the graph gives the request of user {user!r} a vector that differs by "
                f"{off[row]:.2g} from the model's: please report this"
            )
        worst = max(worst, float(off.max(initial=0.0)))
    return worst


def _timed(tower: "QueryTower", requests: pa.Table) -> float:
    """Return milliseconds for one request, dictionary to vector: the median, one thread."""
    rows, found = requests.to_pylist(), []
    for _ in range(_REPEATED + 1):  # the first is a warm-up
        start = time.perf_counter()
        tower(rows)
        found.append(time.perf_counter() - start)
    return round(1e3 * statistics.median(found[1:]), 4)
