"""PostgreSQL with pgvector: a CSV file, and the SQL that makes a table of it, indexed by HNSW.

Values of the vectors are written so that they are read back as the same float32.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from recsys.core.errors import ConfigError
from recsys.serving.export.payload import VECTOR
from recsys.serving.export.stores.protocol import Content, Page
from recsys.serving.export.stores.store_code import query_code, quoted, sql
from recsys.serving.export.stores.texts import vector_texts

TABLE, LOAD_FILE, ROWS_FILE = "items", "load.sql", "items.csv"
MOST_DIMENSIONS, MOST_INDEXED = 16_000, 2_000
LINKS, EF_CONSTRUCTION, EF = 32, 200, 200
_ROWS = 20_000
_OPERATORS = {"inner_product": ("<#>", "vector_ip_ops"), "l2": ("<->", "vector_l2_ops")}
_TYPES = {"string": "text", "bool": "boolean", "int64": "bigint", "double": "double precision"}


class Pgvector:
    """See `Target`."""

    def require(self) -> None:
        """Need nothing: psql loads the files."""

    def write(self, folder: Path, content: Content) -> dict[str, Any]:
        """Write the rows and the SQL.

        Raises:
            ConfigError: vectors are longer than pgvector's, or a text has the character 0.
        """
        width, metric = content.point_dim, "l2" if content.by_distance else "inner_product"
        if width > MOST_DIMENSIONS:
            raise ConfigError(
                f"vectors of {width:,} numbers: pgvector holds at most {MOST_DIMENSIONS:,}; export "
                "a narrower model, or to another store"
            )
        start = 0
        with csv.CSVWriter(str(folder / ROWS_FILE), _row_schema(content)) as writer:
            while start < len(content.vectors):
                writer.write_table(_as_text(content.table(start, start + _ROWS)))
                start += _ROWS
        index = _index_sql(metric) if width <= MOST_INDEXED else ""
        (folder / LOAD_FILE).write_text(_load_sql(content, index))
        facts = {"search_metric": metric, "search_dim": width}
        return content.facts() | facts | ({"ef": EF} if index else {})

    def page(self, content: Content, facts: Mapping[str, Any]) -> Page:
        """Return how psql loads the table, and SQL that asks it."""
        operator, _ = _OPERATORS[facts["search_metric"]]
        key, indexed = quoted(content.key).replace("%", "%%"), "ef" in facts
        order = f"ORDER BY {quoted(VECTOR)} {operator} %s::vector LIMIT 10"
        where = sql(content.example, lambda column, value: f"{value} = ANY({column})")
        where = where.replace("%", "%%")
        asked = "connection.execute(sql, (str(query),)).fetchall()"
        settings = (
            f'connection.execute("SET hnsw.ef_search = {EF}")\n'
            'connection.execute("SET hnsw.iterative_scan = strict_order")  # filters, from 0.8 on\n'
        )
        exact = (
            f"Exact: pgvector indexes at most {MOST_INDEXED:,} numbers, so all rows are compared."
        )
        return Page(
            title="a table for PostgreSQL with pgvector",
            holds={
                ROWS_FILE: f"key, columns and `{VECTOR}`, one row an item",
                LOAD_FILE: "makes the table `items` and its index, and loads the rows",
            },
            load=f"""\
```bash
psql -v ON_ERROR_STOP=1 -f {LOAD_FILE}
```

The connection is that of `PGHOST`, `PGUSER` and `PGDATABASE`; `psql -d NAME` names another. A table
`{TABLE}` must not be there yet. For Python: `pip install "psycopg[binary]" pyarrow`.""",
            ask=f"""\
```python
import psycopg
{query_code(content)}
connection = psycopg.connect("", autocommit=True)
{settings if indexed else ""}sql = {f"SELECT {key} FROM {TABLE} {order}"!r}
found = [row[0] for row in {asked}]
```

`{operator}` is {"the distance" if content.by_distance else "the product times -1"}.""",
            filter=f"""\
```python
sql = {f"SELECT {key} FROM {TABLE} WHERE {where} {order}"!r}
filtered = [row[0] for row in {asked}]
```"""
            if content.example
            else "",
            recall=_MEASURE if indexed else exact,
            notes=_NOTES if indexed else "",
        )


_MEASURE = f"""\
Depends on the server's index: with `hnsw.ef_search = {EF}` nearly all. Compare the answers to the
queries of `queries.parquet` with its `items`; `SET enable_indexscan = off` makes a search exact."""
_NOTES = """\
Without `hnsw.iterative_scan` a filter is applied to what the graph found, and fewer than ten rows
may be left."""


def _index_sql(metric: str) -> str:
    settings = f"m = {LINKS}, ef_construction = {EF_CONSTRUCTION}"
    operators = _OPERATORS[metric][1]
    return f"CREATE INDEX ON {TABLE} USING hnsw ({quoted(VECTOR)} {operators}) WITH ({settings});\n"


def _load_sql(content: Content, index: str) -> str:
    columns = [f"{quoted(field.name)} {_type_of(field.type)}" for field in content.items.schema]
    columns[0] += " PRIMARY KEY"
    columns.append(f"{quoted(VECTOR)} vector({content.point_dim}) NOT NULL")
    names = ", ".join(map(quoted, [*content.items.column_names, VECTOR]))
    listed = ",\n    ".join(columns)
    return (
        "CREATE EXTENSION IF NOT EXISTS vector;\nBEGIN;\n"
        f"CREATE TABLE {TABLE} (\n    {listed}\n);\n"
        f"\\copy {TABLE} ({names}) FROM '{ROWS_FILE}' WITH (FORMAT csv, HEADER true)\n"
        f"{index}COMMIT;\nANALYZE {TABLE};\n"
    )


def _type_of(kind: pa.DataType) -> str:
    if pa.types.is_list(kind):
        return f"{_type_of(kind.value_type)}[]"
    if pa.types.is_timestamp(kind):
        return "timestamptz"
    return "date" if pa.types.is_date(kind) else _TYPES[str(kind)]


def _row_schema(content: Content) -> pa.Schema:
    return _as_text(content.table(0, 0)).schema


def _as_text(table: pa.Table) -> pa.Table:
    """Return rows as CSV holds them: lists as PostgreSQL's arrays, vectors as `[1,2]`."""
    for place, field in enumerate(table.schema):
        values = table.column(place).combine_chunks()
        if field.name == VECTOR:
            texts = vector_texts(values)
        elif pa.types.is_list(field.type):
            texts = pa.array([_array(one) for one in values.to_pylist()], pa.string())
        else:
            texts = values
        if pa.types.is_string(texts.type) and pc.any(pc.match_substring(texts, "\0")).as_py():
            raise ConfigError(
                f"column '{field.name}': a text has the character 0, which PostgreSQL cannot hold; "
                "name the columns to export without it, --columns A,B"
            )
        table = table.set_column(place, field.name, texts)
    return table


def _array(values: list[Any] | None) -> str | None:
    if values is None:
        return None
    return "{" + ",".join("NULL" if one is None else _element(one) for one in values) + "}"


def _element(value: Any) -> str:
    text = str(value).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'
