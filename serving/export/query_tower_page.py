"""README.md of an exported query tower: how to install, ask and search, and what the inputs are."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from recsys.features.requests.table import HISTORY
from recsys.serving.export.query_encoding import how_to_ask
from recsys.serving.recommend.scorer import Scorer

_SHOWN = 3
_INSTALL = """\
    pip install numpy onnxruntime

Neither the engine nor torch is needed. The graph was checked with onnxruntime {onnxruntime}. What
follows is run in this folder.
"""
_ASK = """\
```python
from queries import QueryTower

tower = QueryTower(".")
request = {request}
answer = tower([request])
print(answer["vector"].shape)
```

A value that is None or absent is not known. `tower` takes many requests at once.
"""
_SEARCH = """\
{how}

With the item vectors of `recsys export MODEL --to parquet --out vectors`, next to this folder:

```python
import numpy as np
import pyarrow.parquet as pq

items = pq.read_table("../vectors/vectors.parquet")
item_ids = items.column("item_id").to_pylist()
vectors = np.stack(items.column("vector").to_numpy())
{scores}
best = np.argsort(-scores, kind="stable")[:10]
print([item_ids[row] for row in best])
```
"""
_ONE = 'scores = vectors @ answer["vector"][0]'
_SEVERAL = 'scores = (vectors @ answer["vector"][0].T).max(1)'
_OWN = """\
own = [row for row, item in enumerate(item_ids) if item in request["history"]]
"""
_GAINED = _ONE + "\n" + _OWN + 'scores[own] += answer["repeat_gain"][0]'
_LEFT_OUT = _ONE + "\n" + _OWN + "scores[own] = -np.inf"
_OF_REPEATS = {True: _GAINED, "never": _LEFT_OUT}
_DIRECT = """\
Without `queries.py` the inputs are arrays: one value a request, (B,), of lists (B, L), of steps (B,
L) as the history. Beside each input are, with defaults, `NAME.null` (bool: where it is not known;
default: nowhere) and for lists `NAME.length` (int64: how many of the L; default: all). Numbers are
NaN where not known. L is 1 at least. Lists are padded at their ends with anything.
"""


def page_of(
    scorer: Scorer,
    columns: Sequence[Mapping[str, Any]],
    facts: Mapping[str, Any],
    example: pa.Table,
) -> str:
    """Return the page, as Markdown.

    Args:
        scorer: of the model.
        columns: the inputs, as JSON has them.
        facts: what was measured.
        example: a request of one row.
    """
    config = scorer.model.config
    scores = _OF_REPEATS.get(config.repeats, _ONE if config.interests == 1 else _SEVERAL)
    names = {column["column"] for column in columns} | {scorer.schema.user_key}
    request = {
        name: value[-_SHOWN:] if isinstance(value, list) else value
        for name, value in example.to_pylist()[0].items()
        if name in names
    }
    parts = [
        f"# Query tower of model {facts['model_id']}",
        "Raw values in, the vector out that item vectors and indexes of the same model are "
        "searched with. Hashing, scaling and the ids that the model knows are inside the graph. On "
        f"the requests of the model's own probe it differs from the engine by "
        f"{facts['largest_difference']:.1e} at most; one request takes "
        f"{facts['one_row_p50_ms']:.2f} ms on one thread of the machine that wrote it.",
        "## Install",
        _INSTALL.format(onnxruntime=facts["onnxruntime"]),
        "## Ask",
        _ASK.format(request=_literal(request)),
        "## Search",
        _SEARCH.format(how=how_to_ask(scorer, None), scores=scores),
        "## Inputs",
        _table(columns),
        _DIRECT,
    ]
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def _literal(request: Mapping[str, Any]) -> str:
    """Return a request as Python, times as text."""
    plain = json.loads(json.dumps(request, default=lambda value: value.isoformat()))
    lines = (f"    {name!r}: {value!r},\n" for name, value in plain.items())
    return "{\n" + "".join(lines) + "}"


def _table(columns: Sequence[Mapping[str, Any]]) -> str:
    rows = ["| input | of a request | type |", "|---|---|---|"]
    for one in columns:
        several = " list" if one["lists"] else ""
        of = f"`{one['column']}`" + (", one value a step" if one["steps"] else "")
        kind = f"{one['type']}{several}"
        kind += f" of {one['dim']} numbers" if one["dim"] else ""
        kind += f", whole numbers ({one['unit']})" if one["unit"] not in ("", "datetime") else ""
        kind += ", microseconds since 1970" if one["unit"] == "datetime" else ""
        kind += f", of text cut at {one['cut']!r}" if one["cut"] else ""
        needed = " (needed)" if one["column"] == HISTORY else ""
        rows.append(f"| `{one['input']}` | {of}{needed} | {kind} |")
    return "\n".join(rows)
