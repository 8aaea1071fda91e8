"""Qdrant: the items, and a script that loads them into a server or a folder of the local mode.

Local folders are not exported as they are: they hold pickled objects, which run what they say when
they are opened.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from recsys.core.errors import ConfigError
from recsys.serving.export.stores.protocol import Content, Page
from recsys.serving.export.stores.scripted import copy_script, holds, write_items
from recsys.serving.export.stores.store_code import query_code

SCRIPT = "load_qdrant.py"
_PLAIN = re.compile(r"[A-Za-z0-9_-]+")
_LOCAL = "../qdrant_items"


class Qdrant:
    """See `Target`."""

    def require(self) -> None:
        """Need nothing: the script needs the client where it loads."""

    def write(self, folder: Path, content: Content) -> dict[str, Any]:
        """Write the items and the script.

        Raises:
            ConfigError: no filter of Qdrant can name a column.
        """
        for name in content.items.column_names:
            if '"' in name:
                raise ConfigError(
                    f"column '{name}': no filter of Qdrant can name a column with a quote; name "
                    "the columns to export without it, --columns A,B"
                )
        write_items(folder, content)
        copy_script(folder, SCRIPT)
        ids = content.items.column(content.key)
        numbered = pa.types.is_integer(ids.type) and pc.min(ids).as_py() >= 0
        return content.facts() | {
            "search_metric": "l2" if content.by_distance else "inner_product",
            "search_dim": content.point_dim,
            "point_id": content.key if numbered else "row",
        }

    def page(self, content: Content, facts: Mapping[str, Any]) -> Page:
        """Return how the items are loaded and asked."""
        search = 'client.query_points("items", query=query, limit=10'
        taken = f"[one.payload[{content.key!r}] for one in rows.points]"
        conditions = ", ".join(
            _condition(one.column, one.sign, one.value) for one in content.example
        )
        own = "the item's id" if facts["point_id"] == content.key else "the item's row"
        return Page(
            title="items for Qdrant",
            holds=holds(SCRIPT, "Qdrant"),
            load=f"""\
```bash
pip install qdrant-client pyarrow numpy
python {SCRIPT} --path {_LOCAL}
```

`--url http://localhost:6333` in place of `--path` loads a server, with an index for each column. A
point's id is {own}; the payload has the item's id and the columns. The local mode compares all
vectors and writes each to the disk by itself: it is meant for some thousands of them. In memory,
without a folder:

```python
import runpy

from qdrant_client import QdrantClient, models

client = QdrantClient(":memory:")  # or path="{_LOCAL}", or url="http://localhost:6333"
runpy.run_path("{SCRIPT}")["load"](client, is_server=False)  # of the others done above
```""",
            ask=f"""\
```python
{query_code(content)}
rows = {search})
found = {taken}
```

`score` is {"the distance" if content.by_distance else "the product, the model's score"}.""",
            filter=f"""\
```python
wanted = models.Filter(must=[{conditions}])
rows = {search}, query_filter=wanted)
filtered = {taken}
```"""
            if content.example
            else "",
            recall="The local mode is exact. A server searches a graph: measure it by\n"
            f"`python {SCRIPT} --url http://localhost:6333 --check`; `hnsw_ef` of a search and\n"
            "`exact=True` in `models.SearchParams` raise it.",
        )


def _condition(column: str, sign: str, value: Any) -> str:
    if sign == "<=":
        test = f"range=models.Range(lte={value!r})"
    else:  # a list meets it by one of its values
        test = f"match=models.MatchValue(value={value!r})"
    return f"models.FieldCondition(key={_key(column)!r}, {test})"


def _key(column: str) -> str:
    """Return a column as Qdrant's filters name it: in quotes where it is not one plain word."""
    return column if _PLAIN.fullmatch(column) else f'"{column}"'
