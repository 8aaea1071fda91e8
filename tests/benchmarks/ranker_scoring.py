"""Rows that rankers score a CPU second, and the latency of one row: PyTorch and ONNX Runtime.

AutoInt, AutoInt+ and DCN on 8 and on 39 single-valued features of one lookup each, width 16, a
table of a million rows, default sizes, values drawn near Zipf's law, encoded already: hashing,
lookups, layers and calibration are timed, reading and encoding raw columns are not. One thread.

    eager     the model in PyTorch, without gradients
    compiled  the same through torch.compile, in inference mode
    onnx      the exported graph (`recsys export --to onnx`) in ONNX Runtime

In turn, medians; logits of all three are compared before anything is timed.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from _harness import Benchmark, Timing, alternated
from torch import Tensor, nn

from recsys.bundle.calibration import Calibrator
from recsys.data.batch import FeatureBlock, FeatureLayout
from recsys.embeddings.backend import build_table
from recsys.embeddings.plan import EmbeddingPlan
from recsys.embeddings.table import TableConfig
from recsys.embeddings.unified import UnifiedEmbedding
from recsys.models.autoint import AutoIntConfig
from recsys.models.dcn import DCNConfig
from recsys.models.rankers import RankerConfig, build_ranker
from recsys.serving.export.onnx_export import OnnxRanker
from recsys.serving.export.onnx_graph import PaddedRanker, graph_inputs, write_onnx

MODELS: dict[str, RankerConfig] = {
    "autoint": AutoIntConfig(),
    "autoint+": AutoIntConfig(hidden=(128, 64)),
    "dcn": DCNConfig(),
}
BATCH = 4_096


def ranker(config: RankerConfig, layout: FeatureLayout, num_rows: int) -> nn.Module:
    table = TableConfig(num_rows=num_rows, dim=16, backend="torch")
    embedding = UnifiedEmbedding(
        EmbeddingPlan.of(table, (layout,)), build_table(table, device=torch.device("cpu"), seed=0)
    )
    return build_ranker(config, embedding).eval()


def rows(count: int, fields: int) -> FeatureBlock:
    """Values near Zipf's law, spread over 64 bits."""
    ranks = (torch.rand(count, fields) ** 4 * 1e6).long()
    single = ranks * -0x61C8864680B583EB
    return FeatureBlock(single, (), torch.zeros(count, 0))


def engines(
    model: nn.Module, layout: FeatureLayout, folder: Path, compiler: str
) -> dict[str, Callable[[FeatureBlock], Tensor]]:
    """Return what scores rows, by name; the compiled model is of plain tensors."""
    write_onnx(folder / "model.onnx", model, layout)
    exported = OnnxRanker(folder / "model.onnx", layout)
    torch._dynamo.reset()  # or it stops compiling after some models
    compiled = torch.compile(
        PaddedRanker(model, layout, Calibrator()), dynamic=True, backend=compiler
    )

    def eager(features: FeatureBlock) -> Tensor:
        with torch.inference_mode():
            return torch.as_tensor(model(features))

    def fast(features: FeatureBlock) -> Tensor:
        with torch.inference_mode():
            return torch.as_tensor(compiled(features.single)[0])

    def onnx(features: FeatureBlock) -> Tensor:
        return torch.from_numpy(exported.run(graph_inputs(features, layout))[0])

    return {"eager": eager, "compiled": fast, "onnx": onnx}


def timings(
    scorers: dict[str, Callable[[FeatureBlock], Tensor]],
    features: FeatureBlock,
    repeats: int,
    calls: int,
) -> dict[str, Timing]:
    """Return the median times of `calls` calls."""

    def several(score: Callable[[FeatureBlock], Tensor]) -> Callable[[], object]:
        return lambda: [score(features) for _ in range(calls)]

    return alternated({name: several(score) for name, score in scorers.items()}, repeats)


def main() -> None:
    benchmark = Benchmark("ranker_scoring", __doc__ or "")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    repeats, calls, table_rows = benchmark.sized(
        (9, 200, 1_000_000), (3, 200, 100_000), (1, 1, 1_000)
    )
    compiler = benchmark.sized("inductor", "inductor", "eager")  # traced, without compiling C++
    figures: dict[str, dict[str, float]] = {}
    for fields in benchmark.sized((8, 39), (8, 39), (2,)):
        layout = FeatureLayout(tuple((f"field_{n}", 1) for n in range(fields)), (), ())
        for name in benchmark.sized([*MODELS], [*MODELS], ["dcn"]):
            model = ranker(MODELS[name], layout, table_rows)
            with tempfile.TemporaryDirectory() as folder:
                scorers = engines(model, layout, Path(folder), compiler)
                many, one = rows(BATCH, fields), rows(1, fields)
                logits = {engine: score(many) for engine, score in scorers.items()}
                off = max(float((each - logits["eager"]).abs().max()) for each in logits.values())
                assert off < 1e-4, f"{name}: logits are {off} apart"
                batch = timings(scorers, many, repeats, 1)
                single = timings(scorers, one, repeats, calls)
            found = {"largest_difference": off}
            for engine in scorers:
                found[f"{engine}_rows_per_cpu_second"] = round(BATCH / batch[engine].cpu)
                found[f"{engine}_one_row_ms"] = round(1e3 * single[engine].cpu / calls, 4)
            figures[f"{name}, {fields} fields"] = found
            for engine in scorers:
                rate, late = found[f"{engine}_rows_per_cpu_second"], found[f"{engine}_one_row_ms"]
                label = f"{name}, {fields} fields, {engine}"
                benchmark.row(label, f"{rate:>9,.0f} rows/CPU s {late:>8.3f} ms a row")
    benchmark.finish({"batch_size": BATCH, "threads": 1, "models": figures})


if __name__ == "__main__":
    main()
