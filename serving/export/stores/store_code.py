"""What the pages of stores have in common: the query that they are asked with, and conditions."""

from collections.abc import Callable, Mapping

from recsys.serving.export.conditions import Condition, Sign, literal
from recsys.serving.export.payload import VECTOR
from recsys.serving.export.stores.protocol import PROBE_FILE, Content

Written = Callable[[str, str], str]
"""Column and value, both as code, -> a condition."""


def query_code(content: Content) -> str:
    """Return code that leaves the first query of queries.parquet in `query`, a list of floats."""
    cut = f"[:{content.point_dim}]  # the point" if content.by_distance else ""
    return (
        "import pyarrow.parquet as pq\n\n"
        f'query = pq.read_table("{PROBE_FILE}")["{VECTOR}"][0].as_py(){cut}'
    )


def sql(conditions: list[Condition], contains: Written) -> str:
    """Return conditions as SQL, names in double quotes. contains: how lists are asked."""
    signs: Mapping[Sign, Written] = {
        "=": lambda column, value: f"{column} = {value}",
        "<=": lambda column, value: f"{column} <= {value}",
        "contains": contains,
    }
    return " AND ".join(
        signs[one.sign](quoted(one.column), literal(one.value)) for one in conditions
    )


def quoted(name: str) -> str:
    """Return the name of a column or a table as SQL writes it."""
    return '"' + name.replace('"', '""') + '"'
