"""A click log read piece by piece, each by whoever is asked for it.

A piece is a file, or row groups of one (`TableFiles.pieces`). `look_at_pieces`, `count_pieces` and
`encode_pieces` map Arrow batches of numbers of pieces onto Arrow batches of what came of them, and
know nothing of who calls them: an engine such as Spark has its workers do so. What is wrong with a
piece is told as what came of it; `recsys.features.clicks.by_pieces` joins all of it.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import pyarrow as pa

from recsys.core import errors
from recsys.core.errors import ConfigError, DataError, NotFoundError, Row, UserError
from recsys.core.imports import on_first_use
from recsys.features.clicks.first_look import Asked, look_at
from recsys.features.clicks.memory import ClickMemory
from recsys.features.clicks.rows import ClickSource
from recsys.features.clicks.survey import Cuts, Survey, count_values
from recsys.features.clicks.writing import write_rows
from recsys.features.dataset.code import code_digest
from recsys.features.schema import Schema
from recsys.features.tables.ledger import Ledger
from recsys.features.tables.piecewise import told_of
from recsys.features.tables.reading import Piece

with on_first_use():
    import torch

NUMBER = "id"
"""The column of batches that names pieces, by their place in `Pieces.pieces`."""
OUTCOMES = pa.schema([("piece", pa.int64()), ("error", pa.string()), ("outcome", pa.string())])
"""What `encode_pieces` yields, a row a piece: what is wrong with it, else what came of it."""
LOOKS = OUTCOMES.append(pa.field("sample", pa.list_(pa.binary())))
"""What `look_at_pieces` yields; sample: as `SampledRows.to_bytes` has it."""
COUNTS = pa.schema(
    [("feature", pa.int64()), ("value", pa.int64()), ("rows", pa.int64()), ("error", pa.string())]
)
"""What `count_pieces` yields: the place of a feature, the hash of a value of it, its rows; of a
piece that cannot be read what is wrong with it."""
_BATCH_ROWS = 1 << 20


@dataclass(frozen=True)
class Pieces:
    """The pieces of a log.

    positions: of the first row of each among the usable rows of the log. code: the digest of the
    code that is to read them.
    """

    source: ClickSource
    pieces: tuple[Piece, ...]
    positions: tuple[int, ...]
    code: str

    def source_of(self, number: int) -> ClickSource:
        """Return the rows of a piece.

        Raises:
            ConfigError: the code here is not the one that is to read them.
            NotFoundError: this machine does not see the file.
        """
        if code_digest() != self.code:
            raise ConfigError(
                "a worker has another version of the engine, or changed files of it: install the "
                "same on all machines"
            )
        piece = self.pieces[number]
        source = self.source.cut(piece)
        see(source.files.paths[piece.file])
        return source


def see(path: Path) -> None:
    """Refuse what is not there.

    Raises:
        NotFoundError: so it is.
    """
    if not path.exists():
        raise NotFoundError(
            f"{path}: a worker does not see it: the log and the folder for encoded data have to be "
            "at the same absolute path on all machines, as on a file system that they share"
        )


@dataclass(frozen=True)
class Encoding:
    """How pieces are encoded, and the folder for their files."""

    pieces: Pieces
    found: Survey
    memory: ClickMemory
    folder: Path

    def encode(self, number: int) -> dict[str, Any]:
        """Encode a piece into a folder of its own; return what came of it as plain values.

        Raises:
            UserError: a row is not as declared, or this machine does not see what it is to read.
        """
        source = self.pieces.source_of(number)
        see(self.folder)
        torch.set_num_threads(1)  # an engine gives each of its workers a core
        folder = self.folder / f"{number}-{uuid4().hex}"  # a piece may be asked for again
        ledger = Ledger(source.files)
        reader = source.reader(self.found.encoder.schema.features_of("interactions"), ledger)
        rows = reader.batches(finish=False)
        position = self.pieces.positions[number]
        done = write_rows(folder, rows, source, self.found, self.memory, ledger, position)
        ledger.check()
        return {
            "folder": folder.name,
            "parts": [asdict(part) for part in done.parts],
            "reading": told_of(reader, ledger),
            "extremes": [] if done.order is None else list(done.order.extremes()),
        }


@dataclass(frozen=True)
class Counting:
    """How the values of features that know theirs are counted in pieces; see `count_values`."""

    pieces: Pieces
    schema: Schema
    cuts: Cuts
    whole: frozenset[str]

    def count(self, number: int) -> Iterator[pa.RecordBatch]:
        """Yield the counts of a piece, as `COUNTS` has them.

        Raises:
            UserError: as `Encoding.encode` does.
        """
        source, position = self.pieces.source_of(number), self.pieces.positions[number]
        counted = count_values(source, self.schema, self.cuts, self.whole, position)
        for place, one in enumerate(counted.values()):
            values, rows = one.of_each()
            features, none = pa.repeat(place, len(values)), pa.nulls(len(values), pa.string())
            arrays = [features.cast(pa.int64()), pa.array(values), pa.array(rows), none]
            table = pa.Table.from_arrays(arrays, schema=COUNTS)
            yield from table.to_batches(_BATCH_ROWS)


@dataclass(frozen=True)
class Looking:
    """How pieces are looked at; see `recsys.features.clicks.first_look.look_at`."""

    pieces: Pieces
    asked: Asked
    bound: int

    def look(self, number: int) -> tuple[dict[str, Any], list[bytes]]:
        """Return what was seen in a piece as plain values, and its part of the sample.

        Raises:
            UserError: as `Encoding.encode` does.
        """
        source = self.pieces.source_of(number)
        seen = look_at(source, self.asked, bound=self.bound, finish=False)
        told = {
            "reading": told_of(seen.reader, seen.ledger),
            "counts": seen.counts.tolist(),
            "texts": sorted(seen.texts),
        }
        return told, [one.to_bytes() for one in seen.sample.pieces]


def look_at_pieces(looking: Looking, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Look at the pieces that batches name in their column `NUMBER`; yield `LOOKS`."""
    for number in _numbers(batches):
        error = outcome = None
        sample: list[bytes] = []
        try:
            told, sample = looking.look(number)
            outcome = json.dumps(told)
        except UserError as wrong:
            error = json.dumps(wrong.fields())
        yield pa.record_batch([[number], [error], [outcome], [sample]], schema=LOOKS)


def encode_pieces(
    encoding: Encoding, batches: Iterator[pa.RecordBatch]
) -> Iterator[pa.RecordBatch]:
    """Encode the pieces that batches name in their column `NUMBER`; yield `OUTCOMES`."""
    for number in _numbers(batches):
        error = outcome = None
        try:
            outcome = json.dumps(encoding.encode(number))
        except UserError as wrong:
            error = json.dumps(wrong.fields())
        yield pa.record_batch([[number], [error], [outcome]], schema=OUTCOMES)


def count_pieces(counting: Counting, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Count the values of the pieces that batches name in their column `NUMBER`; yield `COUNTS`."""
    for number in _numbers(batches):
        try:
            yield from counting.count(number)
        except UserError as wrong:
            yield pa.record_batch([[number], [0], [0], [json.dumps(wrong.fields())]], schema=COUNTS)


def _numbers(batches: Iterator[pa.RecordBatch]) -> Iterator[int]:
    for batch in batches:
        yield from batch.column(NUMBER).to_pylist()


def raise_told(error: str) -> None:
    """Raise what `UserError.fields` told of an error, as JSON.

    Raises:
        UserError: it.
    """
    told = json.loads(error)
    if told["error"] == DataError.__name__:
        names = ("reason", "file", "column", "num_rows", "value", "remedy", "rule")
        given = {name: told[name] for name in names if name in told}
        raise DataError(given.pop("reason"), rows=[Row(*one) for one in told["rows"]], **given)
    raise getattr(errors, told["error"])(told["message"])
