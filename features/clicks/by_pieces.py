"""A click log encoded by an engine that has many workers read its pieces.

The first look at the log is that of one process (`recsys.features.clicks.survey`): roles, columns
that scaling is fitted on and categories without a type are read here. What takes the time, the
values of features that know theirs and the encoding of all columns, is done by workers. What comes
out are the bytes that one process writes.
"""

import json
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recsys.core.errors import ConfigError
from recsys.features.clicks.joining import join_pieces
from recsys.features.clicks.memory import ClickMemory
from recsys.features.clicks.pieces import (
    Counting,
    Encoding,
    Pieces,
    finding_of,
    raise_told,
    type_of,
)
from recsys.features.clicks.rows import ClickSource, PartOrder
from recsys.features.clicks.store import PartFacts
from recsys.features.clicks.survey import Cuts, Survey, survey
from recsys.features.dataset.code import code_digest
from recsys.features.dataset.split import SplitConfig
from recsys.features.encoding.encoder import known_values, knows_its_values
from recsys.features.encoding.value_counts import ValueCounts
from recsys.features.schema import Schema
from recsys.features.tables.ledger import Ledger
from recsys.features.tables.rows import Rows

PIECE_ROWS = 1 << 20
"""Rows of a piece, or more where a row group has more; a CSV file is one, whatever its size."""


class Workers(Protocol):
    """What has each piece read by one of many workers."""

    def encode(self, encoding: Encoding, pieces: int) -> pa.Table:
        """Return what `encode_pieces` yields for the numbers 0 to `pieces` - 1, in any order."""

    def count(self, counting: Counting, pieces: int, least: Sequence[int]) -> pa.Table:
        """Return what `count_pieces` yields for all pieces, the counts of a value summed up.

        least: of each feature, by its place: values of fewer rows may be left out.
        """


@dataclass
class ByPieces:
    """Reads a click log by `workers`: an engine of `recsys.features.clicks.log.open_click_log`."""

    workers: Workers
    piece_rows: int = field(default_factory=lambda: PIECE_ROWS)
    _usable: Counter[int] = field(default_factory=Counter)
    """Usable rows of each piece."""

    def survey(
        self, source: ClickSource, schema: Schema, split: SplitConfig, lookups: int | None
    ) -> Survey:
        """Look at the log here, and have values counted by the workers.

        Raises:
            ConfigError: a feature needs the rows one after another.
            DataError: as `recsys.features.clicks.survey.survey`.
        """
        _check(schema)
        can_be_cut = source.files.can_be_cut
        firsts = [one.first for one in source.files.pieces(self.piece_rows)] if can_be_cut else None
        self._usable.clear()

        def see(rows: Rows) -> None:
            bounds = source.files.starts if firsts is None else firsts
            numbers = np.searchsorted(bounds, rows.rows, side="right") - 1
            counts = np.bincount(numbers)
            self._usable.update({int(at): int(counts[at]) for at in np.flatnonzero(counts)})

        def known(
            source: ClickSource, schema: Schema, cuts: Cuts, whole: frozenset[str]
        ) -> dict[str, NDArray[np.int64]]:
            return self._known(Counting(self._pieces(source), schema, cuts, whole))

        return survey(source, schema, split, lookups, see=see, known_values_of=known)

    def write(
        self, folder: Path, source: ClickSource, found: Survey, memory: ClickMemory, ledger: Ledger
    ) -> list[PartFacts]:
        """Have the workers encode every piece, and join what they wrote in `folder`.

        Raises:
            UserError: what a worker raised for the first piece that it could not encode.
        """
        aside = folder.absolute() / "pieces"
        aside.mkdir()
        pieces = self._pieces(source)
        total = len(pieces.pieces)
        table = self.workers.encode(Encoding(pieces, found, memory, aside), total)
        outcomes = list(_in_order(table, total))
        schema = found.encoder.schema
        _join_findings(source, found, schema, outcomes, ledger)
        written = [
            (aside / told["folder"], [PartFacts(**one) for one in told["parts"]])
            for told in outcomes
        ]
        num_outcomes = len(schema.interactions.outcomes)
        parts = join_pieces(folder, written, found.encoder.ranking_layout(), num_outcomes)
        shutil.rmtree(aside)
        return parts

    def _known(self, counting: Counting) -> dict[str, NDArray[np.int64]]:
        schema = counting.schema
        features = [
            one for one in schema.features_of("interactions") if knows_its_values(schema, one)
        ]
        if not features:
            return {}
        least = [one.least_count for one in features]
        table = self.workers.count(counting, len(counting.pieces.pieces), least)
        for error in table.column("error").drop_null().to_pylist():
            raise_told(error)
        columns = (table.column(name) for name in ("feature", "value", "rows"))
        feature, value, rows = (np.asarray(column, np.int64) for column in columns)
        found = {}
        for place, one in enumerate(features):
            own = feature == place
            counts = ValueCounts.counted(one, value[own], rows[own])
            found[one.name] = known_values(schema, one, counts)
        return found

    def _pieces(self, source: ClickSource) -> Pieces:
        """Return the pieces, once the log was read to its end."""
        pieces = source.files.pieces(self.piece_rows)
        counts = [self._usable[number] for number in range(len(pieces))]
        positions = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])[:-1]
        return Pieces(source, tuple(pieces), tuple(positions.tolist()), code_digest())


def _check(schema: Schema) -> None:
    has_time = schema.interactions.time is not None
    for feature in schema.label_features:
        if not feature.folds_of(has_time=has_time):
            raise ConfigError(
                f"feature '{feature.name}' is of the rows before each, which workers that read "
                "pieces of the log do not see: set rows: folds for it, or encode in one process"
            )


def _in_order(table: pa.Table, total: int) -> Iterator[dict[str, Any]]:
    """Yield what came of each piece, in the order of the log.

    Raises:
        UserError: the first that a worker told.
    """
    told = {row["piece"]: row for row in table.to_pylist()}
    if sorted(told) != list(range(total)):
        raise RuntimeError(f"{total} pieces were to be encoded, and {sorted(told)} came back")
    for number in range(total):
        if told[number]["error"] is not None:
            raise_told(told[number]["error"])
        yield json.loads(told[number]["outcome"])


def _join_findings(
    source: ClickSource,
    found: Survey,
    schema: Schema,
    outcomes: Sequence[dict[str, Any]],
    ledger: Ledger,
) -> None:
    """Note what workers found in pieces as if one reader had found it.

    Raises:
        DataError: files have a column in several types, or parts are not in order of time.
    """
    reader = source.reader(schema.features_of("interactions"), ledger)
    time = schema.interactions.time
    order = None if time is None else PartOrder(source.files, time.column)
    for told in outcomes:
        ledger.join({(column, reason): finding_of(one) for column, reason, one in told["findings"]})
        for name, (read, given, row) in told["types"].items():
            reader.check_type(name, type_of(read), type_of(given), row)
        if order is not None and told["extremes"]:
            parts, times, rows = map(np.array, zip(*told["extremes"], strict=True))
            order.add(parts.astype(np.int8), times, rows)
    of_all_rows = {key: one for key, one in found.findings.items() if key not in ledger.found()}
    ledger.join(of_all_rows)  # what only the whole of a column shows comes last
