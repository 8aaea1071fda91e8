"""Rows of a click log, encoded into the files of their parts."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recsys.core.distinct import distinct
from recsys.core.errors import DataError
from recsys.core.imports import on_first_use
from recsys.data.batch import RankingBatch
from recsys.features.clicks.memory import ClickMemory
from recsys.features.clicks.rows import ClickSource, PartOrder
from recsys.features.clicks.store import PARTS, PartFacts, PartWriter, take_rows
from recsys.features.clicks.survey import Survey, decided
from recsys.features.encoding.crosses import Crosses
from recsys.features.tables.ledger import Ledger
from recsys.features.tables.rows import Rows

with on_first_use():
    import torch


@dataclass(frozen=True)
class Written:
    """What was written of the rows of a log, and what was seen of their order."""

    parts: list[PartFacts]
    order: PartOrder | None


def write_rows(
    folder: Path,
    batches: Iterator[Rows],
    source: ClickSource,
    found: Survey,
    memory: ClickMemory,
    ledger: Ledger,
    position: int = 0,
) -> Written:
    """Encode rows into the files of their parts in `folder`.

    Args:
        folder: of the parts; they must not be there.
        batches: the rows, all or a piece of them.
        source: where they are from.
        found: what the first look said of all of them.
        memory: what labels say of them.
        ledger: has what was wrong with them; what no policy allows is raised.
        position: of the first row among the usable ones of the whole log.

    Raises:
        DataError: a value is not of the type that was fitted, or parts are not in order of time.
    """
    layout, schema = found.encoder.ranking_layout(), found.encoder.schema
    time = schema.interactions.time
    order = None if time is None else PartOrder(source.files, time.column)
    with ExitStack() as stack:
        outcomes = len(schema.interactions.outcomes)
        writers = [
            stack.enter_context(PartWriter(folder / name, layout, outcomes)) for name in PARTS
        ]
        for rows in batches:
            ledger.check()
            part = parts_of(found, rows, position)
            position += len(rows)
            times = source.times(rows)
            if order is not None and times is not None:
                order.add(part, times, rows.rows)
            batch = _encoded(rows, found, source)
            batch = replace(batch, features=memory.beside(batch.features, rows, part))
            for number, own in _by_part(batch, part):
                writers[number].append(own)
    return Written([one.facts() for one in writers], order)


def parts_of(found: Survey, rows: Rows, position: int) -> NDArray[np.int8]:
    """Return the part of each row (N,); position: of the first among the usable rows."""
    if found.cuts is None:
        assert rows.part is not None
        return rows.part
    at = position + np.arange(len(rows))
    return np.searchsorted(found.cuts, at, side="right").astype(np.int8)


def decided_columns(found: Survey, rows: Rows) -> dict[str, pa.Array]:
    """Return the columns of a batch, those of whole numbers as such."""
    return {
        name: decided(values, whole=name in found.whole) for name, values in rows.columns.items()
    }


def _encoded(rows: Rows, found: Survey, source: ClickSource) -> RankingBatch:
    try:
        encoded = found.encoder.encode("interactions", pa.table(decided_columns(found, rows)))
    except DataError as error:
        places = source.files.places(rows.rows)  # all of one file
        numbers = [place.number for place in places]
        raise error.within(places[0].file, numbers=numbers) from None
    assert rows.label is not None
    weight = np.ones(len(rows), np.float32) if rows.weight is None else rows.weight
    crosses = Crosses(found.encoder.schema.derived_features, found.encoder.columns_layout())
    return RankingBatch(
        features=crosses.beside(encoded),
        label=torch.from_numpy(rows.label),
        weight=torch.from_numpy(weight),
        examples=torch.from_numpy(rows.rows),
        outcomes=None if rows.outcomes is None else torch.from_numpy(rows.outcomes),
    )


def _by_part(batch: RankingBatch, part: NDArray[np.int8]) -> Iterator[tuple[int, RankingBatch]]:
    """Yield the rows of each part that is there, in order."""
    numbers = distinct(part).tolist()
    if len(numbers) == 1:
        yield numbers[0], batch
        return
    for number in numbers:
        yield number, take_rows(batch, torch.from_numpy(np.flatnonzero(part == number)))
