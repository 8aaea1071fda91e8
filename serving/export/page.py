"""README.md of an export: what is in the folder, how it is loaded, asked and filtered."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recsys.serving.export.conditions import in_words
from recsys.serving.export.manifest import EXPORT_FILE
from recsys.serving.export.stores.protocol import PROBE_FILE, PROBE_QUERIES, Content, Page

PAGE_FILE = "README.md"
_HOW = ("queries", "short_vectors", "memory")
_VERIFY = """\
## Verify

`{export}` lists every file with its size and sha256, and begins with the sha256 of what follows
its second line:

```bash
tail -n +3 {export} | sha256sum
```

With the engine, `recsys verify FOLDER` says that every file is as it was written, or names the one
that is not. What is written into the folder afterwards is no part of the export and is refused:
use a copy where a library wants to write.
"""
_QUERIES = """\
## Query vectors

{how}

The model makes them: `recsys export MODEL --queries USERS --out DIR` writes those of a table of
requests or of a log, `recsys.load(MODEL).query_vectors(...)` returns them, and
`recsys export MODEL --to onnx --out DIR` writes the part of the model that makes them as an ONNX
graph. They must come from the same model, `{model_id}`: vectors of another training do not compare.
{points}
`{probe}` has {count} of them with the exact answers of the engine (`items`; `items_filtered` under
the filter below), to try and to measure with.
"""


def write_page(folder: Path, page: Page, content: Content, facts: Mapping[str, Any]) -> None:
    """Write README.md of an export that has vectors."""
    files = sorted(path.name for path in folder.iterdir() if path.is_file())
    holds = {
        **{name: "the library's own file" for name in files if name not in page.holds},
        **page.holds,
        PROBE_FILE: f"up to {PROBE_QUERIES:,} queries with the engine's exact answers",
        EXPORT_FILE: "what this is, how to ask it, the hash of every file",
    }
    points, dim = "", content.vectors.shape[1]
    if content.by_distance:
        points = (
            f"\nThe model's scores are distances. A vector has {dim} numbers, whose products are "
            f"minus half the squared distance; its first {content.point_dim} are the point, for "
            "searches by distance (L2).\n"
        )
    queries = _QUERIES.format(
        how="\n\n".join(
            facts[name] for name in ("queries", "short_vectors", "memory") if name in facts
        ),
        model_id=facts["model_id"],
        points=points,
        probe=PROBE_FILE,
        count=len(content.probe.queries),
    )
    filtered = ""
    if page.filter:
        filtered = f"## Filter\n\nAs an example, `{in_words(content.example)}`:\n\n{page.filter}\n"
    parts = (
        _head(page.title, facts, holds),
        f"## Load\n\nThe code runs in this folder.\n\n{page.load}\n",
        f"## Ask\n\n{page.ask}\n",
        filtered,
        f"{page.notes}\n" if page.notes else "",
        f"## Recall\n\n{page.recall}\n",
        _left_out(content),
        queries,
        _VERIFY.format(export=EXPORT_FILE),
    )
    (folder / PAGE_FILE).write_text("\n".join(part for part in parts if part))


def _left_out(content: Content) -> str:
    """Say which columns are not here, and why; empty where all are."""
    left = content.payload.left_out
    return "".join(f"Column `{name}` is not here: {why}.\n" for name, why in left.items())


def write_graph_page(folder: Path, title: str, use: str, facts: Mapping[str, Any]) -> None:
    """Write README.md of an ONNX graph.

    use: how it is asked, as Markdown. facts: with `model_id` and `holds`, file -> what is in it.
    """
    head = _head(title, facts, facts["holds"])
    text = "\n".join((head, f"## Use\n\n{use}\n", _VERIFY.format(export=EXPORT_FILE)))
    (folder / PAGE_FILE).write_text(text)


def _head(title: str, facts: Mapping[str, Any], holds: Mapping[str, str]) -> str:
    lines = [f"# Model {facts['model_id']}: {title}", ""]
    if "n" in facts:
        lines += [f"{facts['n']:,} items, {facts['dim']} numbers a vector.", ""]
    lines += ["| file | |", "|---|---|"]
    return "\n".join([*lines, *(f"| `{name}` | {what} |" for name, what in holds.items())]) + "\n"
