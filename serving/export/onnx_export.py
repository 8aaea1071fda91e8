"""A ranker's ONNX graph in ONNX Runtime: opened, checked against the bundle's probe, and timed."""

import json
import statistics
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from recsys.bundle.probe import PROBE_TOLERANCE, check_replay, read_probe
from recsys.core.atomic import publish, staged_folder
from recsys.core.errors import ConfigError, IntegrityError
from recsys.core.folders import check_folder
from recsys.data.batch import FeatureBlock, FeatureLayout
from recsys.features.bundle.files import ROW_PROBE, read_row_probe
from recsys.features.bundle.rows import RowModel
from recsys.serving.export.manifest import EXPORT_FILE, write_manifest
from recsys.serving.export.onnx_graph import OPSET, graph_inputs, libraries, write_onnx
from recsys.serving.export.page import write_graph_page

MODEL_FILE, FACTS_FILE = "model.onnx", "onnx.json"
ONNX = "onnx"
"""What `recsys export --to` calls it."""
_MANY_ROWS = 4_096
_USE = f"""\
```bash
pip install onnxruntime numpy
```

```python
import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession("{MODEL_FILE}", providers=["CPUExecutionProvider"])
kinds = {{"tensor(int64)": np.int64, "tensor(float)": np.float32}}
one_row = {{}}
for part in session.get_inputs():
    shape = [size if isinstance(size, int) else 1 for size in part.shape]
    one_row[part.name] = np.zeros(shape, kinds[part.type])
logit, probability = session.run(None, one_row)
```

Inputs are encoded rows: 64-bit hashes of values and scaled numbers, as the engine's encoder makes
them. `{FACTS_FILE}` has the columns of each input in order, and of the outputs where there are
several; the graph was replayed against rows that the model keeps."""


class OnnxRanker:
    """An exported graph in ONNX Runtime; answers encoded rows as the model does."""

    def __init__(self, path: Path, layout: FeatureLayout, *, threads: int = 1) -> None:
        """Open the file.

        Raises:
            ConfigError: ONNX Runtime is not installed.
        """
        runtime = libraries()
        options = runtime.SessionOptions()
        options.intra_op_num_threads = threads
        self._session = runtime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
        self.layout = layout

    def __call__(self, features: FeatureBlock) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return logits and probabilities, (B,) each, or (B, T) of T outcomes."""
        logit, probability = self.run(graph_inputs(features, self.layout))
        return logit, probability

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> list[NDArray[np.float32]]:
        """Return the same of what `graph_inputs` made."""
        found: list[NDArray[np.float32]] = self._session.run(None, dict(inputs))
        return found


def export_onnx(bundle: Path, out: Path) -> dict[str, Any]:
    """Write the graph of the ranker in `bundle` to the folder `out`, checked and timed.

    `out` gets `model.onnx` (with `model.onnx.data` above 2 GB), `onnx.json`, which says what the
    columns of each input are, and of the outputs where there are several outcomes, `README.md` and
    `export.json` (`recsys.serving.export.manifest`). The bundle's probe is replayed through ONNX
    Runtime.

    Raises:
        ConfigError: `out` exists or is named as a file, the bundle has no probe, or the
            libraries are not installed.
        IntegrityError: the bundle is not what was written, or the graph computes other numbers.
    """
    libraries()
    check_folder(out, f"{MODEL_FILE} and onnx.json")
    if out.exists():
        raise ConfigError(f"{out} exists; choose another --out, an export is never overwritten")
    ranker = RowModel.open(bundle)
    probe = read_row_probe(ranker.bundle)
    if probe is None:
        raise ConfigError(f"{bundle}: no {ROW_PROBE} to check an export with; train it again")
    features, expected = read_probe(probe)
    layout = ranker.layout
    with staged_folder(out.resolve().parent, out.name) as staging:
        write_onnx(staging / MODEL_FILE, ranker.model, layout, ranker.calibrator)
        exported = OnnxRanker(staging / MODEL_FILE, layout)
        logit, probability = exported(features)
        difference = check_replay(torch.from_numpy(logit), expected, str(out / MODEL_FILE))
        wanted_T = list(ranker.calibrator.by_outcome(logit).values())
        wanted = np.stack(wanted_T, axis=1).reshape(probability.shape)
        if not np.abs(probability - wanted).max() <= PROBE_TOLERANCE:
            raise IntegrityError(f"{out / MODEL_FILE}: calibrates differently from the bundle")
        facts = {
            "model_id": ranker.bundle.model_id,
            "size_mib": round(sum(p.stat().st_size for p in staging.iterdir()) / 2**20, 3),
            "opset": OPSET,
            "largest_difference": difference,
            **_timed(exported, features),
        }
        columns = {
            "single": [name for name, _ in layout.single],
            "multi": [name for name, _ in layout.multi],
            "dense": list(layout.dense),
        }
        if ranker.calibrator.others:
            columns["outcomes"] = ["label", *ranker.calibrator.others]
        (staging / FACTS_FILE).write_text(json.dumps({**facts, "columns": columns}, indent=1))
        write_graph_page(staging, "an ONNX graph", _USE, facts | {"holds": _holds(staging)})
        write_manifest(staging, ONNX, facts)
        publish(staging, out.resolve(), EXPORT_FILE)
    return {"out": str(out), **facts}


def _holds(folder: Path) -> dict[str, str]:
    graph = {path.name: "the graph" for path in sorted(folder.glob(f"{MODEL_FILE}*"))}
    return {**graph, FACTS_FILE: "columns of the inputs, size and speed"}


def _timed(exported: OnnxRanker, features: FeatureBlock) -> dict[str, float]:
    """Return milliseconds for one row (median) and rows a second in large batches, one thread."""
    one = graph_inputs(features.take(torch.zeros(1, dtype=torch.int64)), exported.layout)
    many = graph_inputs(features.take(torch.arange(_MANY_ROWS) % len(features)), exported.layout)

    def seconds(inputs: Mapping[str, NDArray[Any]], repeats: int) -> float:
        found = []
        for _ in range(repeats + 1):  # the first is a warm-up
            start = time.perf_counter()
            exported.run(inputs)
            found.append(time.perf_counter() - start)
        return statistics.median(found[1:])

    return {
        "one_row_p50_ms": round(1e3 * seconds(one, 50), 4),
        f"rows_per_second_at_{_MANY_ROWS}": round(_MANY_ROWS / seconds(many, 3)),
    }
