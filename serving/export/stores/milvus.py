"""Milvus: the items, and a script that loads them into a server or a file of Milvus Lite."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recsys.core.errors import ConfigError
from recsys.serving.export.conditions import Condition
from recsys.serving.export.stores.protocol import Content, Page
from recsys.serving.export.stores.scripted import copy_script, holds, write_items
from recsys.serving.export.stores.store_code import query_code

SCRIPT = "load_milvus.py"
MOST_DIMENSIONS = 32_768
_LOCAL = "../milvus_items.db"
_MEANING = {True: "the squared distance", False: "the product, the model's score"}
_FIELD = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,254}")


class Milvus:
    """See `Target`."""

    def require(self) -> None:
        """Need nothing: the script needs the client where it loads."""

    def write(self, folder: Path, content: Content) -> dict[str, Any]:
        """Write the items and the script.

        Raises:
            ConfigError: Milvus has no field of a column's name, or no vectors as long.
        """
        for name in content.items.column_names:
            if not _FIELD.fullmatch(name):
                raise ConfigError(
                    f"column '{name}': a field of Milvus is named by letters, digits and _; name "
                    "the columns to export without it, --columns A,B"
                )
        if content.point_dim > MOST_DIMENSIONS:
            raise ConfigError(
                f"vectors of {content.point_dim:,} numbers: Milvus holds at most "
                f"{MOST_DIMENSIONS:,}; export a narrower model, or to another store"
            )
        write_items(folder, content)
        copy_script(folder, SCRIPT)
        return content.facts() | {
            "search_metric": "l2" if content.by_distance else "inner_product",
            "search_dim": content.point_dim,
        }

    def page(self, content: Content, facts: Mapping[str, Any]) -> Page:
        """Return how the items are loaded and asked."""
        search = f'client.search("items", data=[query], limit=10, output_fields=[{content.key!r}]'
        taken = f"[one[{content.key!r}] for one in rows[0]]"
        where = " and ".join(map(_condition, content.example))
        return Page(
            title="items for Milvus",
            holds=holds(SCRIPT, "Milvus"),
            load=f"""\
```bash
pip install pymilvus milvus-lite pyarrow numpy
python {SCRIPT} --uri {_LOCAL}
```

`--uri http://localhost:19530` loads a server, with an HNSW index; a path makes a folder of Milvus
Lite, which compares all vectors. Times and dates are text in UTC, which compares as they do.""",
            ask=f"""\
```python
from pymilvus import MilvusClient
{query_code(content)}
client = MilvusClient("{_LOCAL}")  # or "http://localhost:19530"
client.load_collection("items")
rows = {search})
found = {taken}
```

`distance` is {_MEANING[content.by_distance]}.""",
            filter=f"""\
```python
rows = {search}, filter={where!r})
filtered = {taken}
```"""
            if content.example
            else "",
            recall="Milvus Lite is exact. A server searches a graph: measure it by\n"
            f"`python {SCRIPT} --uri http://localhost:19530 --check`; `ef` in `search_params`\n"
            "raises it.",
        )


def _condition(condition: Condition) -> str:
    value = condition.value
    text = value if not isinstance(value, str) else value.replace("\\", "\\\\").replace('"', '\\"')
    written = f'"{text}"' if isinstance(value, str) else str(value).lower()
    if condition.sign == "contains":
        return f"array_contains({condition.column}, {written})"
    return f"{condition.column} {'==' if condition.sign == '=' else '<='} {written}"
