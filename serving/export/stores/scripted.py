"""Stores that a script in the export loads: the items as Parquet, and the script beside it.

The script is a file next to this one. It reads export.json, items.parquet and queries.parquet of
its own folder and needs the store's client, PyArrow and nothing of the engine.
"""

from pathlib import Path

import pyarrow.parquet as pq

from recsys.serving.export.payload import VECTOR
from recsys.serving.export.stores.protocol import Content
from recsys.serving.export.stores.python_code import ITEMS_FILE

_ROWS = 50_000


def write_items(folder: Path, content: Content) -> None:
    """Write key, columns and `vector` of all items, some rows at a time."""
    schema = content.table(0, 0).schema
    with pq.ParquetWriter(folder / ITEMS_FILE, schema, write_page_checksum=True) as writer:
        for start in range(0, len(content.vectors), _ROWS):
            writer.write_table(content.table(start, start + _ROWS))


def copy_script(folder: Path, name: str) -> None:
    """Copy a script that is next to this file."""
    (folder / name).write_bytes(Path(__file__).with_name(name).read_bytes())


def holds(script: str, store: str) -> dict[str, str]:
    """Return what the page says of the files."""
    return {
        ITEMS_FILE: f"key, columns and `{VECTOR}`, one row an item",
        script: f"loads {ITEMS_FILE} into {store} and measures what is found there",
    }
