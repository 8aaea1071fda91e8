"""A click log encoded by an engine that has many workers read its pieces.

Workers look at the pieces first, count the values of features that know theirs, and encode all
columns. This process joins what they found, fits the encoder on the sample that they sent, sums up
what labels say, and puts the encoded pieces together. What comes out are the bytes that one process
writes.

Files that are read from their first row on (CSV) are looked at here: where their rows are in the
log only the reading shows.
"""

import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recsys.core.errors import ConfigError
from recsys.features.clicks.first_look import Asked, Look, look_at
from recsys.features.clicks.joining import join_pieces
from recsys.features.clicks.memory import ClickMemory
from recsys.features.clicks.pieces import (
    LOOKS,
    OUTCOMES,
    Counting,
    Encoding,
    Looking,
    Pieces,
    encode_pieces,
    look_at_pieces,
    raise_told,
)
from recsys.features.clicks.rows import ClickSource, PartOrder
from recsys.features.clicks.sample import ALL, RowSample, SampledRows
from recsys.features.clicks.store import PartFacts
from recsys.features.clicks.survey import Cuts, Survey, survey
from recsys.features.dataset.code import code_digest
from recsys.features.dataset.split import SplitConfig
from recsys.features.encoding.encoder import known_values, knows_its_values
from recsys.features.encoding.value_counts import ValueCounts
from recsys.features.schema import Schema
from recsys.features.tables.ledger import Ledger
from recsys.features.tables.piecewise import join_told
from recsys.features.tables.reading import Piece
from recsys.features.tables.rows import Rows

PIECE_ROWS = 1 << 20
"""Rows of a piece, or more where a row group has more; a CSV file is one, whatever its size."""
_SURPLUS = 2.0
"""So many times the rows of the sample are asked for: some of a log are not for training."""
_MORE = 8.0
"""So many times more where these were too few."""

OfPieces = Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]
"""From batches of numbers of pieces to what came of them."""


class Workers(Protocol):
    """What has each piece read by one of many workers."""

    def each(self, function: OfPieces, pieces: int, schema: pa.Schema) -> pa.Table:
        """Return what `function` yields for the numbers 0 to `pieces` - 1, in any order."""

    def count(self, counting: Counting, pieces: int, least: Sequence[int]) -> pa.Table:
        """Return what `count_pieces` yields for all pieces, the counts of a value summed up.

        least: of each feature, by its place: values of fewer rows may be left out.
        """


@dataclass
class ByPieces:
    """Reads a click log by `workers`: an engine of `recsys.features.clicks.log.open_click_log`."""

    workers: Workers
    piece_rows: int = field(default_factory=lambda: PIECE_ROWS)
    _pieces: Pieces | None = None
    """Of the log that was looked at last."""

    def survey(
        self, source: ClickSource, schema: Schema, split: SplitConfig, lookups: int | None
    ) -> Survey:
        """Look at the log, and have values counted by the workers.

        Raises:
            ConfigError: a feature needs the rows one after another.
            DataError: as `recsys.features.clicks.survey.survey`.
        """
        _check(schema)
        look = self._look if source.files.can_be_cut else self._look_here
        return survey(source, schema, split, lookups, look=look, known_values_of=self._known)

    def write(
        self, folder: Path, source: ClickSource, found: Survey, memory: ClickMemory, ledger: Ledger
    ) -> list[PartFacts]:
        """Have the workers encode every piece, and join what they wrote in `folder`.

        Raises:
            UserError: what a worker raised for the first piece that it could not encode.
        """
        assert self._pieces is not None, "the log was looked at"
        aside = folder.absolute() / "pieces"
        aside.mkdir()
        pieces, schema = self._pieces, found.encoder.schema
        function = partial(encode_pieces, Encoding(pieces, found, memory, aside))
        outcomes = [told for told, _ in self._told(function, pieces.pieces, OUTCOMES)]
        _join_findings(source, schema, outcomes, ledger)
        written = [
            (aside / told["folder"], [PartFacts(**one) for one in told["parts"]])
            for told in outcomes
        ]
        num_outcomes = len(schema.interactions.outcomes)
        parts = join_pieces(folder, written, found.encoder.ranking_layout(), num_outcomes)
        shutil.rmtree(aside)
        return parts

    def _look(self, source: ClickSource, asked: Asked) -> Look:
        """Look at the log by the workers."""
        pieces = source.files.pieces(self.piece_rows)
        num_rows = source.files.num_rows
        share = _SURPLUS * asked.size / max(num_rows, 1)
        while True:
            bound = ALL if share >= 1 else int(share * ALL)
            unplaced = Pieces(source, tuple(pieces), (0,) * len(pieces), code_digest())
            function = partial(look_at_pieces, Looking(unplaced, asked, bound))
            seen, enough = self._joined(source, asked, list(self._told(function, pieces, LOOKS)))
            if enough or bound == ALL:
                return seen
            share *= _MORE

    def _joined(
        self, source: ClickSource, asked: Asked, told: Sequence[tuple[dict[str, Any], list[bytes]]]
    ) -> tuple[Look, bool]:
        """Return what was seen in all pieces, and whether all rows of the sample were sent."""
        ledger, sample = Ledger(source.files), RowSample(asked.size)
        reader = source.reader(asked.watched, ledger)
        counts, texts, usable, sent = np.zeros(3, np.int64), set[str](), [], 0
        for own, rows in told:
            join_told(reader, ledger, own["reading"])
            begin = int(counts.sum())
            for one in rows:
                sampled = SampledRows.of_bytes(one, begin)
                sent += len(sampled.position)
                sample.add(sampled)
            usable.append(sum(own["counts"]))
            counts += own["counts"]
            texts |= set(own["texts"])
        reader.finish()
        self._place(source, usable)
        look = Look(reader, ledger, counts, frozenset(texts), sample)
        return look, sent >= min(asked.size, int(counts[0]))

    def _look_here(self, source: ClickSource, asked: Asked) -> Look:
        """Look at the log in this process, and count the usable rows of each file."""
        counts: Counter[int] = Counter()

        def see(rows: Rows) -> None:  # all of one file
            counts[len(source.files.starts) - 1] += len(rows)

        seen = look_at(source, asked, see=see)
        self._place(source, [counts[file] for file in range(len(source.files.paths))])
        return seen

    def _place(self, source: ClickSource, usable: Sequence[int]) -> None:
        """Note the pieces, of so many usable rows each."""
        pieces = source.files.pieces(self.piece_rows)
        positions = np.concatenate([[0], np.cumsum(usable, dtype=np.int64)])[:-1]
        self._pieces = Pieces(source, tuple(pieces), tuple(positions.tolist()), code_digest())

    def _known(
        self, source: ClickSource, schema: Schema, cuts: Cuts, whole: frozenset[str]
    ) -> dict[str, NDArray[np.int64]]:
        features = [
            one for one in schema.features_of("interactions") if knows_its_values(schema, one)
        ]
        if not features:
            return {}
        assert self._pieces is not None, "the log was looked at"
        counting = Counting(self._pieces, schema, cuts, whole)
        least = [one.least_count for one in features]
        table = self.workers.count(counting, len(self._pieces.pieces), least)
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

    def _told(
        self, function: OfPieces, pieces: Sequence[Piece], schema: pa.Schema
    ) -> Iterator[tuple[dict[str, Any], list[bytes]]]:
        """Yield what came of each piece, and what was sampled of it, in the order of the log.

        Raises:
            UserError: the first that a worker told.
        """
        total = len(pieces)
        rows = self.workers.each(function, total, schema).to_pylist() if total else []
        told = {row["piece"]: row for row in rows}
        if sorted(told) != list(range(total)):
            raise RuntimeError(f"{total} pieces were asked for, and {sorted(told)} came back")
        for number in range(total):
            if told[number]["error"] is not None:
                raise_told(told[number]["error"])
            yield json.loads(told[number]["outcome"]), told[number].get("sample", [])


def _check(schema: Schema) -> None:
    for window in schema.relation_features:
        raise ConfigError(
            f"feature '{window.name}' is of all rows before each, which workers that read pieces "
            "of the log do not see: leave it out, or encode in one process"
        )
    has_time = schema.interactions.time is not None
    for feature in schema.label_features:
        if not feature.folds_of(has_time=has_time):
            raise ConfigError(
                f"feature '{feature.name}' is of the rows before each, which workers that read "
                "pieces of the log do not see: set rows: folds for it, or encode in one process"
            )


def _join_findings(
    source: ClickSource, schema: Schema, outcomes: Sequence[dict[str, Any]], ledger: Ledger
) -> None:
    """Note what workers found in pieces as if one reader had found it.

    Raises:
        DataError: files have a column in several types, or parts are not in order of time.
    """
    reader = source.reader(schema.features_of("interactions"), ledger)
    time = schema.interactions.time
    order = None if time is None else PartOrder(source.files, time.column)
    for told in outcomes:
        join_told(reader, ledger, told["reading"])
        if order is not None and told["extremes"]:
            parts, times, rows = map(np.array, zip(*told["extremes"], strict=True))
            order.add(parts.astype(np.int8), times, rows)
    reader.finish()
