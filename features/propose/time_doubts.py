"""What `recsys check` says about the times of a log, and about dates that are read as words."""

import numpy as np
import pyarrow as pa

from recsys.features.propose.time_texts import odd_rows
from recsys.features.schema import Schema
from recsys.features.tables.checked import Events, Tables
from recsys.features.tables.known_formats import formats_of
from recsys.features.tables.ledger import is_text
from recsys.features.tables.time_formats import parse_times, time_format

_MOST = 0.5
_SAMPLE = 10_000


def time_doubts(schema: Schema, tables: Tables) -> list[str]:
    """Return warnings: one time throughout, rows of a user at one time, dates read as words."""
    found = _ties(schema, tables.events) if schema.interactions.time is not None else []
    sources = {"items": tables.items, "users": tables.users, "interactions": tables.events.context}
    for feature in schema.column_features:
        table = next(
            (
                one
                for side, one in sources.items()
                if feature in schema.features_of(side)  # type: ignore[arg-type]
            ),
            None,
        )
        if table is None or not feature.is_category or feature.has_several:
            continue
        text = _date_format(table.column(feature.source_column).slice(0, _SAMPLE))
        if text:
            declared = "unit: datetime" if text == "ISO" else f"format: '{text}'"
            found.append(
                f"feature '{feature.name}' is a category of dates: as kind: timestamp, {declared}, "
                "a model reads its age, hour and weekday"
            )
    return found


def _ties(schema: Schema, events: Events) -> list[str]:
    if len(events) < 2:
        return []
    name = schema.interactions.time.column if schema.interactions.time else ""
    if events.time.min() == events.time.max():
        return [
            f"all rows have the same time ('{name}'): it says no order; declare interactions.order "
            "or leave time out"
        ]
    same = (events.time[1:] == events.time[:-1]) & (events.user_row[1:] == events.user_row[:-1])
    tied = np.zeros(len(events), bool)
    tied[1:] |= same
    tied[:-1] |= same
    share = float(tied.mean())
    if share <= _MOST:
        return []
    return [
        f"{share:.0%} of the rows share '{name}' with another row of their user: among these the "
        "order is that of the file"
    ]


def _date_format(column: pa.ChunkedArray) -> str:
    """Return the form of a column whose words are dates, "" where they are not."""
    values = column.combine_chunks()
    if isinstance(values, pa.ChunkedArray):
        values = pa.concat_arrays(values.chunks) if values.num_chunks else pa.nulls(0)
    words = values.dictionary if pa.types.is_dictionary(values.type) else values
    if not is_text(words.type):
        return ""
    words = words.drop_null().slice(0, _SAMPLE).cast(pa.string())
    if not len(words):
        return ""
    for text in (*formats_of(words[0].as_py()), "%Y-%m-%d", "%Y-%m-%d %H:%M:%S"):
        if parse_times(words, time_format(text))[1].all():
            return "ISO" if text.startswith("%Y-%m-%d") and text.count("%") in (3, 6) else text
    odd = odd_rows(words)
    return odd[0] if odd else ""
