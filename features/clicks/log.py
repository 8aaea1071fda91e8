"""Click logs larger than memory, for rankers: encoded to disk once, in pieces, and read from there.

Two passes over the files: the first counts rows and fits the encoder
(`recsys.features.clicks.survey`), the second encodes batch by batch and appends to flat files
(`recsys.features.clicks.store`). Features of the labels of training rows take one more between
them (`recsys.features.clicks.memory`). The folder is there whole or not at all, and keyed as
`recsys.features.dataset.cache` keys its entries, so it is never stale.

Parts of a streamed log: `split.kind: column`, or `time`, which here is the order of the rows in
the files: of the rows that `interactions.where` and the policies leave, the last `test` share is
test and the `validation` share before it validation. Where a time column is declared, a row of
an earlier part that is later than one of a later part is an error.
"""

import hashlib
import json
import logging
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from recsys.core.atomic import publish, staged_folder
from recsys.core.distinct import distinct
from recsys.core.errors import DataError, IntegrityError
from recsys.core.sealed import seal, sealed
from recsys.data.batch import FeatureBlock, FeatureLayout, RankingBatch
from recsys.features.clicks.memory import ClickMemory
from recsys.features.clicks.refusals import check_settings
from recsys.features.clicks.rows import ClickSource, PartOrder
from recsys.features.clicks.store import PARTS, PartFiles, PartWriter
from recsys.features.clicks.survey import Survey, decided, survey
from recsys.features.clicks.windows import LogWindows
from recsys.features.dataset.code import code_digest
from recsys.features.dataset.split import SplitConfig
from recsys.features.encoding.crosses import Crosses
from recsys.features.encoding.encoder import FeatureEncoder
from recsys.features.schema import Schema
from recsys.features.tables.checked import source_fingerprint
from recsys.features.tables.ledger import Drop, Ledger
from recsys.features.tables.reading import open_table
from recsys.features.tables.rows import Rows
from recsys.features.tables.sources import Policies, Sources

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class ClickLog:
    """An encoded click log on disk; parts are numbered as in `recsys.features.dataset.split`.

    layout: what the features of a batch are. fingerprint: of the source files. counts and
    positives: rows of each part, and those of them with label 1. known: the same of the rows in
    which each further outcome is known. drops: rows that conditions and policies left out.
    """

    schema: Schema
    encoder: FeatureEncoder
    layout: FeatureLayout
    fingerprint: str
    folder: Path
    counts: tuple[int, ...]
    positives: tuple[int, ...]
    known: tuple[tuple[int, ...], ...]
    drops: tuple[Drop, ...]

    def num_rows(self, part: int) -> int:
        """Return how many rows `part` has."""
        return self.counts[part]

    def files(self, part: int) -> PartFiles:
        """Return the files of `part`, which give any ranges of its rows."""
        outcomes = len(self.schema.interactions.outcomes)
        return PartFiles(self.folder / PARTS[part], self.layout, self.counts[part], outcomes)

    def read(self, part: int, rows: slice) -> RankingBatch:
        """Return consecutive rows of `part`, as a slice without a step says.

        Raises:
            IntegrityError: a file is shorter than it was when it was written.
        """
        start, stop, step = rows.indices(self.counts[part])
        if step != 1:
            raise ValueError(f"a slice of consecutive rows is needed, not one with step {step}")
        return self.files(part).read([(start, max(start, stop))])

    @property
    def num_bytes(self) -> int:
        """Size of all files."""
        return sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())


def open_click_log(
    schema: Schema,
    sources: Sources,
    policies: Policies,
    split: SplitConfig,
    cache: Path,
    lookups: int | None = None,
    earlier: FeatureEncoder | None = None,
) -> ClickLog:
    """Return the log of these settings from `cache`, encoded and kept there if missing.

    An entry that is damaged is encoded again. `earlier`: whose scales and known ids the encoder
    takes over (`FeatureEncoder.continuing`).

    Raises:
        ConfigError: the settings are not for a streamed log.
        DataError: a row or a column is not as declared.
    """
    check_settings(schema, sources, policies, split)
    fingerprint = source_fingerprint(schema, sources)
    parts = [model.model_dump_json() for model in (schema, policies, split)]
    parts += [str(lookups), fingerprint, code_digest()]
    parts += [earlier.digest()] if earlier is not None else []
    entry = cache / hashlib.sha256("\n".join(parts).encode()).hexdigest()[:24]
    if entry.is_dir():
        try:
            return load_click_log(entry)
        except (IntegrityError, OSError, ValueError, KeyError, TypeError) as error:
            _log.warning("%s: encoding the log again (%s)", cache, error)
            shutil.rmtree(entry)
    try:
        return _encode(schema, sources, policies, split, entry, lookups, fingerprint, earlier)
    except OSError:
        if entry.is_dir():  # a second process was quicker
            return load_click_log(entry)
        raise


def encode_click_log(
    schema: Schema,
    sources: Sources,
    policies: Policies,
    split: SplitConfig,
    folder: Path,
    lookups: int | None = None,
) -> ClickLog:
    """Encode the interactions into `folder`, which must not exist, with bounded memory.

    Args:
        schema: roles and features; all features are columns of the interactions.
        sources: where the interactions are.
        policies: what to do with rows that break a rule.
        split: `column`, or `time` for the order of the rows.
        folder: is there whole or not at all.
        lookups: for `multiplicity: auto`, as in `recsys.features.dataset.dataset.prepare`.

    Raises:
        ConfigError: the settings are not for a streamed log.
        DataError: a row or a column is not as declared.
    """
    check_settings(schema, sources, policies, split)
    fingerprint = source_fingerprint(schema, sources)
    return _encode(schema, sources, policies, split, folder, lookups, fingerprint)


def load_click_log(folder: Path) -> ClickLog:
    """Open what `encode_click_log` wrote.

    Raises:
        IntegrityError: a file is missing, or is not what was written.
        OSError, ValueError, KeyError: the facts or the encoder cannot be read.
    """
    sealed(folder, "encoded log", "encode the log again").check()
    return _opened(folder)


def _opened(folder: Path) -> ClickLog:
    facts = json.loads((folder / "facts.json").read_text())
    encoder = FeatureEncoder.read(lambda name: (folder / "encoder" / name).read_bytes())
    return ClickLog(
        schema=encoder.schema,
        encoder=encoder,
        layout=encoder.ranking_layout(),
        fingerprint=facts["fingerprint"],
        folder=folder,
        counts=tuple(facts["rows"]),
        positives=tuple(facts["positives"]),
        known=tuple(tuple(counts) for counts in facts["known"]),
        drops=tuple(Drop.from_json(raw) for raw in facts["drops"]),
    )


def _encode(
    schema: Schema,
    sources: Sources,
    policies: Policies,
    split: SplitConfig,
    folder: Path,
    lookups: int | None,
    fingerprint: str,
    earlier: FeatureEncoder | None = None,
) -> ClickLog:
    source = ClickSource(open_table(sources.interactions, "interactions"), schema, policies, split)
    with staged_folder(folder.parent, f"{folder.name}-windows") as place:
        drops = _with_windows(source, schema, sources, policies, place)
        return _encode_rows(source, schema, split, folder, lookups, fingerprint, earlier, drops)


def _with_windows(
    source: ClickSource, schema: Schema, sources: Sources, policies: Policies, folder: Path
) -> list[Drop]:
    """Have the source compute windows, where the schema has some; return what relations drop."""
    if not schema.relation_features:
        return []
    windows = LogWindows.read(schema, sources, policies, source, folder)
    source.complete = windows.beside
    return windows.drops


def _encode_rows(
    source: ClickSource,
    schema: Schema,
    split: SplitConfig,
    folder: Path,
    lookups: int | None,
    fingerprint: str,
    earlier: FeatureEncoder | None,
    drops: list[Drop],
) -> ClickLog:
    found = survey(source, schema, split, lookups)
    if earlier is not None:
        found = replace(found, encoder=found.encoder.continuing(earlier))
    memory = ClickMemory(
        source, found.encoder, partial(_decided, found), lambda rows, at: _parts(rows, found, at)
    )
    found = replace(found, encoder=replace(found.encoder, label_tables=memory.tables))
    with staged_folder(folder.parent, folder.name) as staging:
        ledger = Ledger(source.files)
        written = _write_parts(staging, source, found, memory, ledger)
        found.encoder.save(staging / "encoder")
        facts = {
            "key": folder.name,
            "fingerprint": fingerprint,
            "rows": found.counts,
            "positives": [part.num_positive for part in written],
            "positive_rate": [part.num_positive / max(part.num_rows, 1) for part in written],
            "known": [part.num_known for part in written],
            "layout": asdict(found.encoder.ranking_layout()),
            "drops": [asdict(drop) for drop in [*ledger.settle(), *drops]],
        }
        (staging / "facts.json").write_text(json.dumps(facts, indent=1))
        seal(staging)
        publish(staging, folder)
    return _opened(folder)


def _write_parts(
    folder: Path, source: ClickSource, found: Survey, memory: ClickMemory, ledger: Ledger
) -> list[PartWriter]:
    """Encode every row into the files of its part; return what wrote each, with its counts."""
    layout, schema = found.encoder.ranking_layout(), found.encoder.schema
    time = schema.interactions.time
    order = None if time is None else PartOrder(source.files, time.column)
    position = 0
    with ExitStack() as stack:
        outcomes = len(schema.interactions.outcomes)
        writers = [
            stack.enter_context(PartWriter(folder / name, layout, outcomes)) for name in PARTS
        ]
        for rows in source.batches(schema.features_of("interactions"), ledger):
            ledger.check()
            part = _parts(rows, found, position)
            position += len(rows)
            times = source.times(rows)
            if order is not None and times is not None:
                order.add(part, times, rows.rows)
            batch = _encoded(rows, found, source)
            batch = replace(batch, features=memory.beside(batch.features, rows, part))
            for number, own in _by_part(batch, part):
                writers[number].append(own)
    counts = tuple(writer.num_rows for writer in writers)
    if counts != found.counts:
        raise DataError(
            f"{sum(found.counts):,} rows in the first reading, {sum(counts):,} in the second",
            file=source.files.paths[0],
            remedy="do not change the files while they are read",
        )
    return writers


def _parts(rows: Rows, found: Survey, position: int) -> NDArray[np.int8]:
    if found.cuts is None:
        assert rows.part is not None
        return rows.part
    at = position + np.arange(len(rows))
    return np.searchsorted(found.cuts, at, side="right").astype(np.int8)


def _decided(found: Survey, rows: Rows) -> dict[str, pa.Array]:
    """Return the columns of a batch, those of whole numbers as such."""
    return {
        name: decided(values, whole=name in found.whole) for name, values in rows.columns.items()
    }


def _encoded(rows: Rows, found: Survey, source: ClickSource) -> RankingBatch:
    try:
        encoded = found.encoder.encode("interactions", pa.table(_decided(found, rows)))
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


def take_rows(batch: RankingBatch, rows: torch.Tensor) -> RankingBatch:
    """Return the rows `rows` (M,) int64 of a batch in that order."""
    features = FeatureBlock(
        batch.features.single.index_select(0, rows),
        tuple(jagged.take(rows) for jagged in batch.features.multi),
        batch.features.dense.index_select(0, rows),
    )
    outcomes = None if batch.outcomes is None else batch.outcomes[rows]
    return RankingBatch(
        features, batch.label[rows], batch.weight[rows], batch.examples[rows], outcomes
    )
