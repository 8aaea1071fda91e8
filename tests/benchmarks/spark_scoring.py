"""Lists for many users: the job on one machine, Spark on two cores, Daft, and a loop of batches.

A two-tower of 2,000 items, trained for an epoch on a made-up shop; requests with ten items of
history each, in Parquet, row groups of 10,000. Each way is a process of its own that opens the
model, reads, scores and writes; its CPU seconds and peak memory are those of all processes that it
starts, the Java machine and Spark's Python workers among them (resident memory added up, so what
processes share counts twice), looked at five times a second. Every process computes with one
thread; `spark` runs two tasks at a time.

    --set users=1000000     requests (--quick: 50,000)
    --set ways=local,spark  which to compare: local, loop, spark, daft
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from _harness import SMALL_TRAINING, Benchmark

import recsys
from recsys.features.world.world import RetailWorld
from recsys.training.families.load import load_config
from recsys.training.jobs.train import train

HISTORY, GROUP, K = 10, 10_000, 20
PAGE = os.sysconf("SC_PAGE_SIZE")
TICKS = os.sysconf("SC_CLK_TCK")


def local(bundle: str, asked: str, output: str) -> None:
    recsys.score(bundle, output, requests=asked, k=K)


def loop(bundle: str, asked: str, output: str) -> None:
    """The function of batches over what pyarrow reads, without an engine."""
    function = recsys.batch_function(bundle, k=K)
    with pq.ParquetFile(asked) as file:
        write(function, file.iter_batches(GROUP), output)


def spark(bundle: str, asked: str, output: str) -> None:
    from recsys.app.cli import main

    options = ["--input", asked, "--output", output, "--k", str(K)]
    main(["score", bundle, *options, "--engine", "spark", "--master", "local[2]"])


def daft(bundle: str, asked: str, output: str) -> None:
    import daft

    function = recsys.batch_function(bundle, k=K)
    write(function, daft.read_parquet(asked).to_arrow_iter(), output)


WAYS: dict[str, Callable[[str, str, str], None]] = {
    "local": local,
    "loop": loop,
    "spark": spark,
    "daft": daft,
}


def write(function: Any, batches: Any, output: str) -> None:
    writer = None
    for answers in function(batches):
        if writer is None:
            Path(output).mkdir()
            writer = pq.ParquetWriter(f"{output}/part-0.parquet", answers.schema)
        writer.write_batch(answers)
    assert writer is not None
    writer.close()


def descendants(root: int) -> list[int]:
    """Return the processes that a process started, and theirs, itself among them."""
    parent: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent[int(entry.name)] = int(fields_of(int(entry.name))[1])
            except OSError:
                continue  # it ended meanwhile
    found = [root]
    for one in found:
        found += [child for child, of in parent.items() if of == one]
    return found


def fields_of(process: int) -> list[str]:
    """Return the fields of /proc/PID/stat from the state on."""
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()


def measured(way: str, bundle: str, asked: str, output: str) -> dict[str, float]:
    """Run one way as a process; return what it and its processes took."""
    command = [sys.executable, __file__, "--way", way, bundle, asked, output]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYSPARK_PYTHON": sys.executable}
    cpu: dict[int, float] = {}
    peak, start = 0, time.perf_counter()
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(command, env=environment, stdout=said, stderr=said)
        while process.poll() is None:
            resident = 0
            for one in descendants(process.pid):
                try:
                    fields = fields_of(one)
                except OSError:
                    continue
                cpu[one] = (int(fields[11]) + int(fields[12])) / TICKS
                resident += int(fields[21]) * PAGE
            peak = max(peak, resident)
            time.sleep(0.2)
        wall = time.perf_counter() - start
        if process.returncode:
            said.seek(0)
            raise RuntimeError(f"{way}: {said.read().decode()[-2000:]}")
    total = sum(cpu.values())
    return {"cpu_s": round(total, 1), "wall_s": round(wall, 1), "peak_mib": peak // 2**20}


def trained(folder: Path, items: int) -> Path:
    world = RetailWorld.create(seed=0, users=500, items=items, events=20 * items)
    files = world.write(folder / "world")
    path = files.folder / "recsys.yaml"
    path.write_text(world.config_text(files))
    options = (*SMALL_TRAINING, "tracking.enabled=false", f"output={folder / 'runs'}")
    result = train(load_config(path, options))
    assert result is not None
    return Path(result.bundle)


def requests(bundle: Path, users: int, path: Path) -> None:
    """Write the requests of `users` users with random histories."""
    items, rng = pa.array(recsys.load(bundle).items), np.random.default_rng(0)
    rows = [users // GROUP * [GROUP], [users % GROUP]]
    writer, first = None, 0
    for count in [one for part in rows for one in part if one]:
        drawn = items.take(pa.array(rng.integers(0, len(items), count * HISTORY)))
        history = pa.ListArray.from_arrays(
            pa.array(np.arange(count + 1, dtype=np.int32) * HISTORY), drawn
        )
        names = pa.array([f"v{number:07}" for number in range(first, first + count)])
        table = pa.table({"user_id": names, "history": history})
        writer = writer or pq.ParquetWriter(path, table.schema)
        writer.write_table(table, row_group_size=GROUP)
        first += count
    assert writer is not None
    writer.close()


def differing(found: Path, expected: Path) -> int:
    """Return how many users have other items in one than in the other."""
    one, other = (pq.read_table(path).sort_by("user_id") for path in (found, expected))
    assert one.column("user_id").cast(pa.string()) == other.column("user_id").cast(pa.string())
    lists = [table.column("items").combine_chunks() for table in (one, other)]
    lengths = [np.asarray(pc.list_value_length(some)) for some in lists]
    unlike = lengths[0] != lengths[1]
    same = [some.filter(pa.array(~unlike)) for some in lists]
    items = [some.flatten().cast(pa.string()) for some in same]
    apart = np.asarray(pc.list_parent_indices(same[0]))[np.asarray(pc.not_equal(*items))]
    return int(unlike.sum() + (np.bincount(apart, minlength=1) > 0).sum())


def main() -> None:
    """Compare the ways."""
    benchmark = Benchmark("spark_scoring", __doc__ or "")
    given = dict(one.split("=", 1) for one in benchmark.overrides)
    users = int(given.get("users", benchmark.sized(1_000_000, 50_000, 300)))
    items = benchmark.sized(2_000, 2_000, 60)
    names = given.get("ways", benchmark.sized(",".join(WAYS), ",".join(WAYS), "local,loop"))
    figures: dict[str, Any] = {"users": users, "items": items, "k": K, "cores": os.cpu_count()}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        bundle, asked = trained(folder, items), folder / "requests.parquet"
        requests(bundle, users, asked)
        for name in names.split(","):
            output = folder / name
            if benchmark.smoke:
                WAYS[name](str(bundle), str(asked), str(output))
                found: dict[str, Any] = {}
            else:
                found = dict(measured(name, str(bundle), str(asked), str(output)))
            found["lists_unlike_local"] = differing(output, folder / "local")
            figures[name] = found
            benchmark.row(name, json.dumps(found))
            benchmark.keep(figures)
    benchmark.finish(figures)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--way"]:
        WAYS[sys.argv[2]](*sys.argv[3:])
    else:
        main()
