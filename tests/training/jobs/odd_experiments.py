"""Small odd tables and configurations of every family, drawn from a seed."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

KINDS = ("two_tower", "session", "ease", "markov", "logistic", "pipeline")
_START = 1_700_000_000
_FILES = {"interactions": "log.parquet", "items": "items.parquet"}
_FAST = {"epochs": 1, "batch_size": 16}


@dataclass(frozen=True)
class Odd:
    """A configuration of odd data: its name, for messages, its kind and its keys."""

    name: str
    kind: str
    keys: dict[str, Any]


def odd_experiments(folder: Path, count: int, seed: int = 0) -> Iterator[Odd]:
    """Write `count` logs below `folder`, and yield an experiment on each, the kinds in turn."""
    rng = np.random.default_rng(seed)
    for number in range(count):
        kind = KINDS[number % len(KINDS)]
        place = folder / f"{number}"
        place.mkdir()
        yield Odd(f"{number} {kind}", kind, _keys(rng, kind, place))


def _keys(rng: np.random.Generator, kind: str, folder: Path) -> dict[str, Any]:
    users, items = (int(rng.choice((1, 3, 12, 30, 40, 60))) for _ in range(2))
    rows = int(rng.choice((4, 20, 90, 300, 600)))
    log = _log(rng, users, items, rows)
    tables = {"log": log, "items": _items(rng, items)}
    for name, columns in tables.items():
        pq.write_table(pa.table(columns), folder / f"{name}.parquet")
    split = _split(rng, has_time="time" in log)
    schema: dict[str, Any] = {
        "interactions": {"user": "user", "item": "item"},
        "items": {"key": "item"},
        "features": [{"name": "item", "table": "items", "kind": "categorical"}],
    }
    if rng.random() < 0.7:
        schema["features"].append({"name": "genre", "table": "items", "kind": "categorical"})
    if rng.random() < 0.3:
        schema["features"].append({"name": "shop", "table": "interactions", "kind": "categorical"})
    if "time" in log:
        schema["interactions"]["time"] = {"column": "time", "unit": "s"}
    keys: dict[str, Any] = {
        "data": {
            "interactions": str(folder / "log.parquet"),
            "items": str(folder / "items.parquet"),
        },
        "schema": schema,
        "split": split,
        "model": {"kind": kind},
        "output": str(folder / "runs"),
        "tracking": {"enabled": False},
    }
    return _of_kind(rng, kind, keys)


def _of_kind(rng: np.random.Generator, kind: str, keys: dict[str, Any]) -> dict[str, Any]:
    """Add what experiments of a kind have."""
    filter_seen = bool(rng.random() < 0.6)
    keys["evaluation"] = {"filter_seen": filter_seen, "ks": [5], "bootstrap_samples": 20}
    keys["training"] = {"metric": "recall_at_5"}
    _OF_KINDS.get(kind, lambda _rng, _keys: None)(rng, keys)
    return keys


def _of_ranker(rng: np.random.Generator, keys: dict[str, Any]) -> None:
    roles = keys["schema"]["interactions"]
    keys["evaluation"] = {"rankers": [], "bootstrap_samples": 20}
    keys["training"] = dict(_FAST)
    if rng.random() < 0.2:
        keys["training"]["negatives"] = 2
        return
    roles["label"] = {"column": str(rng.choice(("label", "label", "late", "constant")))}
    if rng.random() < 0.3:
        keys["model"] = {"kind": "mmoe"}
        roles["outcomes"] = [{"name": "late", "column": "late"}]
        keys["training"]["metric"] = str(rng.choice(("auc", "auc_late")))


def _of_two_tower(rng: np.random.Generator, keys: dict[str, Any]) -> None:
    keys["training"] |= _FAST
    if rng.random() < 0.2:
        keys["calibration"] = "logistic"
    if rng.random() < 0.2:
        keys["training"]["self_supervision"] = {"kind": "contrastive"}
    if rng.random() < 0.2:
        keys["embedding"] = {"lookups": 8}


def _of_sessions(rng: np.random.Generator, keys: dict[str, Any]) -> None:
    keys["training"] |= _FAST
    keys["evaluation"]["queries"] = str(rng.choice(("users", "events")))
    if "time" in keys["schema"]["interactions"]:
        keys["sessions"] = {"inactivity_minutes": int(rng.choice((1, 30)))}
    else:
        keys["model"]["time_gaps"] = False


def _of_markov(rng: np.random.Generator, keys: dict[str, Any]) -> None:
    if rng.random() < 0.5 and "time" in keys["schema"]["interactions"]:
        keys["sessions"] = {"inactivity_minutes": 30}
        keys["evaluation"]["queries"] = str(rng.choice(("users", "events")))


def _of_pipeline(rng: np.random.Generator, keys: dict[str, Any]) -> None:
    sources = [{"model": {"kind": "item_knn"}}, {"model": {"kind": "ease"}}]
    keys["model"] |= {"sources": sources, "rank": str(rng.choice(("none", "gbdt")))}


_OF_KINDS = {
    "logistic": _of_ranker,
    "two_tower": _of_two_tower,
    "session": _of_sessions,
    "markov": _of_markov,
    "pipeline": _of_pipeline,
}


def _log(rng: np.random.Generator, users: int, items: int, rows: int) -> dict[str, Any]:
    label = rng.integers(0, 2, rows)
    log = {
        "user": rng.integers(0, users, rows),
        "item": (rng.random(rows) ** 2 * items).astype(np.int64),
        "shop": rng.choice(("a", "b", None), rows),
        "label": label,
        "late": np.arange(rows) > 0.85 * rows,
        "constant": np.ones(rows, np.int64),
        "part": rng.choice(("train", "train", "validation", "test"), rows),
    }
    form = rng.choice(("none", "constant", *["spread"] * 6))
    if form != "none":
        log["time"] = _START + (np.arange(rows) * 600 if form == "spread" else np.zeros(rows, int))
    return log


def _items(rng: np.random.Generator, items: int) -> dict[str, Any]:
    genre = np.full(items, None) if rng.random() < 0.15 else rng.choice(("x", "y", "z"), items)
    return {"item": np.arange(items), "genre": pa.array(genre.tolist(), pa.string())}


def _split(rng: np.random.Generator, *, has_time: bool) -> dict[str, Any]:
    splits: list[dict[str, Any]] = [
        {"kind": "leave_one_out"},
        {"kind": "column", "column": "part"},
    ]
    if has_time:
        splits += [{"kind": "time"}, {"kind": "time", "test": 0}, {"kind": "time", "test": 0.01}]
    return splits[int(rng.integers(len(splits)))]
