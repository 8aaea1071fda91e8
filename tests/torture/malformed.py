"""Configurations, tables and requests that nobody meant: an answer or one error in words each.

Here no process is started: what is no `UserError` counts as a traceback.
"""

import copy
import io
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import yaml
from _flows import Stage
from _rows import Counted, Share

import recsys
from recsys.bundle.directory import Bundle
from recsys.core.errors import UserError
from recsys.features.requests.origin import RequestOrigin
from recsys.serving.answering.registry import answering_of
from recsys.serving.frames import INPUT, as_table, to_frame
from recsys.training.families.load import load_config

JUNK: tuple[Any, ...] = (
    *(None, True, 0, -1, 1, 10**30, -(10**30), 1e308, float("nan"), float("inf"), 0.5, ""),
    *("x", "None", "\0", "a" * 5000, "../..", "\ud800", [], {}, [None], [[[]]], {"a": 1}),
    *([1, "x"], {"": {}}, b"\xff", "1e9", "2020-13-45", "item_id", "recsys.yaml"),
)
CONFIGURATIONS, TABLES, REQUESTS = 1_000, 1_000, 5_000


def _leaves(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    below = tree.items() if isinstance(tree, dict) else enumerate(tree) if _listed(tree) else ()
    for key, value in below:
        yield from _leaves(value, (*path, key))


def _listed(tree: Any) -> bool:
    return isinstance(tree, list)


def _changed(tree: Any, chance: random.Random) -> Any:
    """Return a configuration of which a value, a key or a whole branch is another."""
    tree = copy.deepcopy(tree)
    *above, last = chance.choice([path for path in _leaves(tree) if path])
    parent = tree
    for key in above:
        parent = parent[key]
    how = chance.randrange(4)
    if how == 0:
        del parent[last]
    elif how == 1 and isinstance(parent, dict):
        parent[chance.choice(["x", "kind", "", "model", f"{last}s"])] = parent.pop(last)
    elif how == 2:
        others = [path for path in _leaves(tree) if path]
        value = tree
        for key in chance.choice(others):
            value = value[key]
        parent[last] = copy.deepcopy(value)
    else:
        parent[last] = chance.choice(JUNK)
    return tree


def _attempt(found: Counted, what: str, call: Callable[[], Any]) -> None:
    try:
        call()
        wrong = ""
    except UserError as error:
        wrong = "" if str(error).strip() else "an empty message"
    except Exception as error:
        wrong = repr(error)[:300]
    found.add(what, wrong)


def configurations(stage: Stage, share: Share) -> Counted:
    """Change one to three places of configurations of every family, and load them."""
    found, chance = Counted(possible=CONFIGURATIONS), random.Random(0)
    stage.reset()
    trees = [yaml.safe_load(path.read_text()) for path in sorted(stage.home.glob("*.yaml"))]
    path = stage.home / "changed.yaml"
    for number in share.while_left(range(CONFIGURATIONS)):
        tree = chance.choice(trees)
        for _ in range(chance.randint(1, 3)):
            tree = _changed(tree, chance) if isinstance(tree, dict) and tree else tree
        try:
            path.write_text(yaml.safe_dump(tree, allow_unicode=True))
        except (UnicodeError, yaml.YAMLError):
            path.write_bytes(repr(tree).encode(errors="replace"))
        _attempt(found, f"configuration {number}: {path.read_text()!r:.500}",
                 lambda: load_config(path))  # fmt: skip
    return found


def tables(stage: Stage, share: Share) -> Counted:
    """Change bytes of a log, as Parquet and as CSV, and check it."""
    found, chance = Counted(possible=TABLES), random.Random(1)
    stage.reset()
    log = pq.read_table(stage.home / "interactions").slice(0, 300)
    parquet, text = io.BytesIO(), io.BytesIO()
    pq.write_table(log, parquet)
    log.to_pandas().to_csv(text, index=False)
    keys = yaml.safe_load((stage.home / "recsys.yaml").read_text())
    for number in share.while_left(range(TABLES)):
        kind = ("parquet", "csv")[number % 2]
        data = bytearray((parquet if kind == "parquet" else text).getvalue())
        for _ in range(chance.randint(1, 6)):
            place = chance.randrange(len(data))
            many = chance.choice((1, 1, 1, 40))
            data[place : place + many] = chance.randbytes(chance.choice((0, 1, many)))
        path = stage.home / f"log.{kind}"
        path.write_bytes(data)
        keys["data"]["interactions"] = path.name
        _attempt(found, f"table {number} ({kind})", lambda: _check(keys, stage.home))
        path.unlink()
    return found


def _check(keys: dict[str, Any], folder: Path) -> None:
    path = folder / "check.yaml"
    path.write_text(yaml.safe_dump(keys))
    recsys.check(str(path))


CELLS: tuple[Any, ...] = (
    *(None, "", "u000001", "nobody", 0, -5, 2**63, 1.5, float("nan"), float("inf"), True, b"\xff"),
    *([], ["i00001"], ["i00001", None], ["x"] * 300, {"a": 1}, np.array([1, 2]), "x" * 5000),
    *(pd.Timestamp("2020-01-01"), pd.NaT, "1e999", [1, "a"], [[["i00001"]]], object),
)


def _frame(columns: list[str], chance: random.Random) -> pd.DataFrame:
    """Return some rows of which few cells are as they should be."""
    rows = chance.choice((0, 1, 1, 2, 5))
    names = [one for one in columns if chance.random() < 0.8]
    if chance.random() < 0.2:
        names.append(chance.choice(["k", "x", "user", "item_id", "", "items"]))
    return pd.DataFrame(
        {name: pd.Series([chance.choice(CELLS) for _ in range(rows)], dtype=object)
         for name in dict.fromkeys(names)}
    )  # fmt: skip


def requests(stage: Stage, share: Share) -> Counted:
    """Ask the models of every family."""
    found, chance = Counted(possible=REQUESTS), random.Random(2)
    stage.reset()
    servers = {}
    for kind in ("model", "session", "ranker", "pipeline"):
        if (stage.home / kind).is_dir():
            bundle = Bundle.open(stage.home / kind)
            servers[kind] = answering_of(bundle).server(bundle.path)
    for number in share.while_left(range(REQUESTS)):
        kind = chance.choice(sorted(servers))
        server = servers[kind]
        frame = _frame([*map(str, server.columns)], chance)
        params = {"k": chance.choice((1, 5, 0, -1, 10**9))} if chance.random() < 0.3 else {}

        def ask(server: Any = server, frame: Any = frame, params: Any = params) -> None:
            to_frame(server.answer(as_table(frame, server.columns), params, RequestOrigin(INPUT)))

        _attempt(found, f"request {number} to {kind}: {frame.to_dict('list')!r:.300}", ask)
    return found
