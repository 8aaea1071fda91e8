"""A model that is renewed every day: from yesterday's weights, anew, or never.

The built-in world, its year in 52 days; items are launched every day, and 1 % of the older ones
leave the catalogue every day. On ten days, in the evening, a two-tower is trained on the rows
before that day, its test part:

    warm      from the weights of the evening before, on the rows of the last seven days
    anew      from scratch, on all rows
    never     the model of the first evening
    reset     as `warm`; rows of the table that no value of the items and users of today reads are
              as they were before any training: what evicting the ids that are gone could bring

and is asked for the rows of the next day. `recall`: recall@20, the mean of the days, and `spread`,
the least and the largest of the seeds. `cpu`: seconds of a training. `rows`: the share of the
table's rows that a `warm` training changed, `bytes`: the size of its delta, of that of the model.

    --set days=5             fewer days
    --set training.epochs=3  keys of the warm trainings; of the section embedding, of all
"""

import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pandas as pd
import torch
from _harness import SMALL_MODEL, SMALL_TRAINING, Benchmark
from safetensors.torch import load, save
from torch import Tensor

import recsys
from recsys.core.distinct import distinct
from recsys.embeddings.plan import EmbeddingPlan
from recsys.embeddings.table import initial_rows
from recsys.features.bundle.files import WEIGHTS, read_weights
from recsys.features.bundle.model_bundle import ModelBundle
from recsys.features.bundle.writing import write_renewed
from recsys.features.tables.checked import read_tables
from recsys.training.engine.machine import keep_freed_memory
from recsys.training.families.overrides import typed_override
from recsys.training.jobs.train import train

DAY, START, FIRST = 86_400, 1_672_617_600, 40
WINDOW, EPOCHS_WARM, EPOCHS_ANEW, LEAVING, YOUNG = 7, 1, 5, 0.01, 10
WAYS = ("never", "warm", "anew", "reset")
SETTINGS = {
    "tracking.enabled": False,
    "training.batch_size": 128,
    "evaluation.ks": [20],
    "evaluation.baselines": [],
    "evaluation.bootstrap_samples": 10,
    "split.join_validation": True,
}


@dataclass(frozen=True)
class Shop:
    """Log, items and users of 52 days; left: the day on which an item leaves the catalogue."""

    folder: Path
    log: pd.DataFrame
    items: pd.DataFrame
    users: pd.DataFrame
    left: pd.Series

    @classmethod
    def of(cls, folder: Path, seed: int, size: tuple[int, int, int]) -> "Shop":
        """Draw a world of so many users, items and events."""
        users, items, events = size
        log, goods, people = recsys.demo_tables(users=users, items=items, events=events, seed=seed)
        log["timestamp"] = START + (log["timestamp"] - START) // 7
        goods["launched"] = START + (goods["launched"] - START) // 7
        left = pd.Series(np.inf, goods["item_id"])
        rng = np.random.default_rng(seed)
        for day in range(FIRST, FIRST + 12):
            old = goods["launched"].to_numpy() < START + (day - YOUNG) * DAY
            stays = np.flatnonzero(old & np.isinf(left.to_numpy()))
            left.iloc[rng.choice(stays, max(1, round(LEAVING * items)), replace=False)] = day
        return cls(folder, log, goods, people, left)

    def config(self, day: int, since: int, base: recsys.Config) -> recsys.Config:
        """Write the tables of an evening, rows since a day; that day is the test part."""
        here = self.folder / f"{day}-{since}"
        here.mkdir(exist_ok=True)
        times = self.log["timestamp"]
        there = self.items["launched"] < START + (day + 1) * DAY
        items = self.items[there & (self.left[self.items["item_id"]].to_numpy() > day)]
        rows = (times >= START + since * DAY) & (times < START + (day + 1) * DAY)
        log = self.log[rows & self.log["item_id"].isin(items["item_id"])]
        tables = {"interactions": log, "items": items, "users": self.users}
        for name, table in tables.items():
            table.to_parquet(here / f"{name}.parquet", index=False)
        return base.with_(
            {
                **{f"data.{name}": str(here / f"{name}.parquet") for name in tables},
                "split.validation_from": _instant(day - 1),
                "split.test_from": _instant(day),
            }
        )


def _instant(day: int) -> str:
    return pd.Timestamp(START + day * DAY, unit="s", tz="UTC").isoformat()


def present_rows(found: ModelBundle, config: recsys.Config, plan: EmbeddingPlan) -> Tensor:
    """Return the rows of the table that values of the items and users of today read."""
    experiment = config.experiment
    tables = read_tables(found.schema, experiment.data, experiment.policies, trained=True)
    rows = []
    sides: dict[Any, Any] = {"items": tables.items, "users": tables.users}
    sides["interactions"] = tables.events.context
    for side, table in sides.items():
        layout, block = found.encoder.layout(side), found.encoder.encode(side, table)
        columns = [values for values in block.single.T]
        columns += [one.values for one in block.multi]
        for name, values in zip([n for n, _ in layout.features], columns, strict=True):
            rows.append(plan.rows_of(name, torch.from_numpy(distinct(values.numpy()))).flatten())
    return torch.from_numpy(distinct(torch.cat(rows).numpy()))


def without_gone(model: Path, config: recsys.Config, place: Path) -> tuple[Path, float]:
    """Return a copy of a model whose rows of ids that are gone are as at first, and their share."""
    found = ModelBundle.read(model)
    settings = found.description.embedding
    assert settings is not None
    plan = EmbeddingPlan.of(settings, found.description.layouts)
    tensors = load(read_weights(found.bundle))
    fresh = initial_rows(settings, 0, 0, plan.total_rows)
    gone = torch.ones(plan.total_rows, dtype=torch.bool)
    gone[present_rows(found, config, plan)] = False
    gone &= (tensors["table.weight"] != fresh).any(1)
    tensors["table.weight"][gone] = fresh[gone]
    weights = save(tensors)

    def write(folder: Path) -> None:
        (folder / WEIGHTS).write_bytes(weights)

    return write_renewed(place, found.bundle, write, {}), float(gone.double().mean())


def trained(config: recsys.Config, start: Path | None = None) -> tuple[Path, float]:
    """Train, and return the bundle and the CPU seconds."""
    experiment = config.experiment.model_copy(
        update={} if start is None else {"warm_start": str(start)}
    )
    began = time.process_time()
    result = train(experiment, report=False)
    assert result is not None
    return result.bundle, time.process_time() - began


def of_seed(folder: Path, seed: int, days: int, benchmark: Benchmark) -> list[dict[str, Any]]:
    """Return what was found on each day."""
    size = benchmark.sized((400, 200, 8_000), (300, 150, 6_000), (60, 40, 1_500))
    shop = Shop.of(folder, seed, size)
    tables = [folder / f"{name}.parquet" for name in ("log", "items", "users")]
    for table, path in zip((shop.log, shop.items, shop.users), tables, strict=True):
        table.to_parquet(path, index=False)
    base = recsys.init(*tables, folder=folder).with_({**SETTINGS, "output": str(folder / "runs")})
    if benchmark.smoke:
        base = base.with_(dict(map(typed_override, (*SMALL_MODEL, *SMALL_TRAINING))))
    keys = dict(map(typed_override, benchmark.overrides))
    keys.pop("days", None)
    base = base.with_({key: one for key, one in keys.items() if key.startswith("embedding.")})
    anew = base.with_({"training.epochs": benchmark.sized(EPOCHS_ANEW, EPOCHS_ANEW, 1)})
    warm = base.with_({"training.epochs": EPOCHS_WARM, **keys})
    never, _ = trained(shop.config(FIRST, 0, anew))
    last, cleared = never, never
    found = []
    for day in range(FIRST + 1, FIRST + 1 + days):
        before, newest = last, shop.config(day, day - WINDOW, warm)
        last, cpu_warm = trained(newest, before)
        start, gone = without_gone(cleared, newest, folder / "reset")
        cleared, cpu_reset = trained(newest, start)
        fresh, cpu_anew = trained(shop.config(day, 0, anew))
        asked = shop.config(day + 1, 0, base)
        models = {"never": never, "warm": last, "anew": fresh, "reset": cleared}
        compared = recsys.compare([*models.values()], on=asked)
        delta = recsys.export_delta(last, before, folder / f"delta-{day}")
        changed, rows = delta["rows_that_differ"]["weights.safetensors: table.weight"]
        cpus = {"warm": cpu_warm, "anew": cpu_anew, "never": 0.0, "reset": cpu_reset}
        recalls = [m.slices["all"]["recall_at_20"].value.value for m in compared.models]
        found.append(
            {
                "recall": dict(zip(models, recalls, strict=False)),
                "cpu": cpus,
                "rows": changed / rows,
                "bytes": delta["bytes"] / delta["bytes_of_the_model"],
                "gone": gone,
            }
        )
        shown = "  ".join(f"{name} {found[-1]['recall'][name]:.4f}" for name in WAYS)
        benchmark.row(f"seed {seed}, day {day - FIRST}", shown)
    return found


def summary(by_seed: list[list[dict[str, Any]]]) -> dict[str, Any]:
    """Return the figures of the seeds so far."""
    figures: dict[str, Any] = {"days": len(by_seed[0]), "seeds": len(by_seed)}
    for way in WAYS:
        recalls = np.array([[day["recall"][way] for day in one] for one in by_seed])
        means = recalls.mean(1)
        figures[way] = {
            "recall": round(float(means.mean()), 4),
            "spread": [round(float(means.min()), 4), round(float(means.max()), 4)],
            "cpu": round(float(np.mean([day["cpu"][way] for one in by_seed for day in one])), 2),
            "by_day": [round(float(one), 4) for one in recalls.mean(0)],
        }
    for name in ("rows", "bytes", "gone"):
        found = [day[name] for one in by_seed for day in one]
        figures[name] = round(float(np.mean(found)), 4)
    return figures


def main() -> None:
    benchmark = Benchmark("daily_loop", __doc__ or "")
    keep_freed_memory()
    given = dict(map(typed_override, benchmark.overrides))
    days = int(given.get("days", benchmark.sized(10, 3, 1)))
    by_seed: list[list[dict[str, Any]]] = []
    for seed in benchmark.sized((1, 2, 3), (1,), (1,)):
        with tempfile.TemporaryDirectory(prefix="daily-loop-") as place:
            by_seed.append(of_seed(Path(place), seed, days, benchmark))
        benchmark.keep(summary(by_seed))
    figures = summary(by_seed)
    benchmark.row("", "recall@20   least to largest of the seeds   CPU s a day")
    for way in WAYS:
        one, (low, high) = figures[way], figures[way]["spread"]
        benchmark.row(
            way, f"{one['recall']:.4f}      {low:.4f} to {high:.4f}      {one['cpu']:.2f}"
        )
    benchmark.row("rows of the table that a day changes", f"{figures['rows']:.1%}")
    benchmark.row("delta, of the bytes of the model", f"{figures['bytes']:.1%}")
    benchmark.row("rows of ids that are gone", f"{figures['gone']:.1%}")
    benchmark.finish(figures)


if __name__ == "__main__":
    main()
