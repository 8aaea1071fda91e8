"""What `recsys check` says about numbers: a few that are so large that all others become one."""

import numpy as np
import pyarrow as pa

from recsys.features.schema import Schema
from recsys.features.tables.checked import Tables

_BULK = 0.95
_FLAT = 1e-3
_SAMPLE = 100_000


def number_doubts(schema: Schema, tables: Tables) -> list[str]:
    """Return warnings of standardised columns of which nearly all values become equal."""
    sources = {"items": tables.items, "users": tables.users, "interactions": tables.events.context}
    found = []
    for side, table in sources.items():
        for feature in schema.features_of(side):  # type: ignore[arg-type]
            if not feature.is_flattened:
                continue
            largest = _flattening(table.column(feature.source_column))
            if largest is not None:
                found.append(
                    f"{side}, column '{feature.source_column}': {_BULK:.0%} of the numbers become "
                    f"nearly equal by standardising, as {largest:g} is far from them; correct the "
                    f"source, or set transform: quantile for feature '{feature.name}'"
                )
    return found


def _flattening(column: pa.ChunkedArray) -> float | None:
    """Return the number farthest from the others, where 95 % lie within 0.001 deviations."""
    values = np.asarray(column.drop_null().cast(pa.float64(), safe=False).to_numpy())
    largest = float(np.abs(values).max(initial=0.0))
    if not 0 < largest < np.inf:
        return None
    values = values / largest  # squares of very large numbers are infinite
    sample = values[:: -(-len(values) // _SAMPLE)]
    middle = float(np.median(sample))
    bulk = float(np.quantile(np.abs(sample - middle), _BULK, method="lower"))
    if not 0 < bulk < _FLAT * float(values.std()):
        return None
    return float(values[np.abs(values - middle).argmax()] * largest)
