"""Exports opened by their own libraries, without the engine: do they answer as it does?

A two-tower on the built-in world (2,000 users, 10,000 items, 64 numbers) is exported to every
target that a library opens here, with all columns of the items. 1,000 users ask: `same_top_10` is
the share of them whose ten items are those of the engine's exact search, `filtered_right` the same
under a filter on a text and a number, `load_s` the seconds until the store answers, `ms` the
milliseconds of a search. Indexes are asked as their pages say: with a filter, by their vectors.

    --set python=PATH      the interpreter that asks, of an environment without the engine; without
                           it this one, in a process of its own
    --set geometry=ball    where the vectors live (default sphere)

pgvector needs a server (PGHOST, PGUSER, PGDATABASE; its table `items` is replaced) and Milvus its
Lite version: they are left out where they are not there. OpenSearch and Elasticsearch need servers
that no package brings; tests read their documents.
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from _harness import SMALL_MODEL, SMALL_TRAINING, Benchmark
from peers.ask_export import OPENERS
from peers.ask_export import asked as asked_here

from recsys.features.tables.sources import Sources
from recsys.features.world.world import RetailWorld
from recsys.retrieval.index.protocol import IndexRequest
from recsys.serving.engines.batch import shards_of_log
from recsys.serving.export.payload import payload_of
from recsys.serving.export.query_encoding import query_vectors_of_requests
from recsys.serving.export.retrieval import export_index
from recsys.serving.export.stores.protocol import Content, Probe
from recsys.serving.recommend.scorer import Scorer
from recsys.training.families.load import load_config
from recsys.training.jobs.train import train

PROGRAM = Path(__file__).parent / "peers" / "ask_export.py"
NEEDS = {"pgvector": ("psycopg",), "milvus": ("pymilvus", "milvus_lite")}


def trained(benchmark: Benchmark, folder: Path, geometry: str) -> tuple[Scorer, Sources]:
    """Return a model, and the files that it was trained on."""
    sizes = benchmark.sized((2_000, 10_000, 60_000), (500, 2_000, 10_000), (60, 200, 1_500))
    world = RetailWorld.create(0, *sizes)
    files = world.write(folder / "world")
    path = files.folder / "recsys.yaml"
    path.write_text(world.config_text(files))
    small = (*SMALL_MODEL, *SMALL_TRAINING) if benchmark.smoke else ("model.dim=64",)
    few = ("training.epochs=1", "evaluation.bootstrap_samples=2", "evaluation.baselines=[]")
    where = (f"model.geometry={geometry}", "tracking.enabled=false", f"output={folder / 'runs'}")
    result = train(load_config(path, (*few, *small, *where)))
    assert result is not None
    sources = Sources(interactions=str(files.interactions), users=str(files.users))
    return Scorer.open(result.bundle), sources


def questions(scorer: Scorer, sources: Sources, count: int) -> pa.Table:
    """Return vectors of users and the engine's exact answers, as an export's queries.parquet."""
    shards = shards_of_log(scorer, sources, rows_per_part=2_000)
    queries = torch.cat([query_vectors_of_requests(scorer, one.read()) for one in shards.parts])
    request = IndexRequest(
        vectors=scorer.vectors,
        geometry=scorer.model.config.geometry,
        queries=queries[:count],
        space_id="",
        item_ids_sha256="",
        kind="auto",
        min_recall=0,
    )
    content = Content(request, payload_of(scorer, None))
    answers = Probe.of(content, queries[:count])
    return answers.table(content.items.column(content.key).combine_chunks())


def is_there(target: str, python: str) -> bool:
    """Whether the environment that asks has what a target needs besides."""
    if target == "pgvector" and "PGHOST" not in os.environ:
        return False
    imports = "; ".join(f"import {name}" for name in NEEDS.get(target, ()))
    command = [python, "-c", imports or "pass"]
    return subprocess.run(command, capture_output=True).returncode == 0


def main() -> None:
    benchmark = Benchmark("store_exports", __doc__ or "")
    options = dict(one.split("=", 1) for one in benchmark.overrides)
    python, geometry = options.get("python", sys.executable), options.get("geometry", "sphere")
    count = benchmark.sized(1_000, 200, 20)
    figures: dict[str, Any] = {"queries": count}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        scorer, sources = trained(benchmark, folder, geometry)
        figures["items"] = len(scorer.item_ids)
        pq.write_table(questions(scorer, sources, count), folder / "asked.parquet")
        for target in OPENERS:
            if (benchmark.smoke and target in NEEDS) or not is_there(target, python):
                continue
            out = folder / target
            export_index(scorer.bundle.path, target, out, min_recall=0.99)
            if benchmark.smoke:
                figures[target] = asked_here(out, folder / "asked.parquet")
            else:
                command = [python, "-I", str(PROGRAM), str(out), str(folder / "asked.parquet")]
                plain = {n: one for n, one in os.environ.items() if n != "PYTHONPATH"}
                said = subprocess.run(
                    command, check=True, env=plain, stdout=subprocess.PIPE, text=True
                ).stdout
                figures[target] = json.loads(said.splitlines()[-1])
            found = figures[target]
            benchmark.row(
                target,
                f"load {found['load_s']} s, same top 10 {found['same_top_10']}, filtered "
                f"{found['filtered_right']}, {found['ms']} ms a search",
            )
    benchmark.finish({**figures, "geometry": geometry})


if __name__ == "__main__":
    main()
