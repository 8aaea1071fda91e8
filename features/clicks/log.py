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

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Protocol

from recsys.core.atomic import publish, staged_folder
from recsys.core.errors import ConfigError, DataError, IntegrityError
from recsys.core.imports import on_first_use
from recsys.core.sealed import seal, sealed
from recsys.data.batch import FeatureLayout, RankingBatch
from recsys.features.clicks.memory import ClickMemory
from recsys.features.clicks.refusals import check_settings
from recsys.features.clicks.rows import ClickSource
from recsys.features.clicks.store import PARTS, PartFacts, PartFiles
from recsys.features.clicks.survey import Survey, survey
from recsys.features.clicks.windows import LogWindows
from recsys.features.clicks.writing import decided_columns, parts_of, write_rows
from recsys.features.dataset.code import code_digest
from recsys.features.dataset.split import SplitConfig
from recsys.features.encoding.encoder import FeatureEncoder
from recsys.features.schema import Schema
from recsys.features.tables.checked import source_fingerprint
from recsys.features.tables.ledger import Drop, Ledger
from recsys.features.tables.reading import open_table
from recsys.features.tables.sources import Policies, Sources

with on_first_use():
    pass

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class ClickLog:
    """An encoded click log on disk; parts are numbered as in `recsys.features.dataset.split`.

    layout: what the features of a batch are. fingerprint: of the source files. counts and
    positives: rows of each part, and those of them with label 1. known: the same of the rows in
    which each further outcome is known. drops: rows that conditions and policies left out.
    was_there: whether it was encoded before.
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
    was_there: bool = False

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
    engine: ClickEngine | None = None,
) -> ClickLog:
    """Return the log of these settings from `cache`, encoded and kept there if missing.

    An entry that is damaged is encoded again. `earlier`: whose scales and known ids the encoder
    takes over (`FeatureEncoder.continuing`). engine: reads the log; None: this process.

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
            known = load_click_log(entry)
            _log.info("%s: the encoded log is read from there", entry)
            return known
        except (IntegrityError, OSError, ValueError, KeyError, TypeError) as error:
            _log.warning("%s: encoding the log again (%s)", cache, error)
            shutil.rmtree(entry)
    try:
        with _source_of(schema, sources, policies, split, entry, engine) as log:
            given = (log, schema, split, entry, lookups, fingerprint)
            return _encode(*given, engine or Here(), earlier)
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
    with _source_of(schema, sources, policies, split, folder) as log:
        return _encode(log, schema, split, folder, lookups, fingerprint, Here())


@contextmanager
def _source_of(
    schema: Schema,
    sources: Sources,
    policies: Policies,
    split: SplitConfig,
    folder: Path,
    engine: ClickEngine | None = None,
) -> Iterator[ClickSource]:
    """Lend the rows of a log that is encoded into `folder`, with their windows."""
    source = ClickSource(open_table(sources.interactions, "interactions"), schema, policies, split)
    if not schema.relation_features:
        yield source
        return
    if engine is not None:
        raise ConfigError(
            "windows over other rows are not computed in pieces of a log: prepare on this machine"
        )
    with staged_folder(folder.parent, f"{folder.name}-windows") as place:
        windows = LogWindows.read(schema, sources, policies, source, place)
        source.complete, source.drops = windows.beside, windows.drops
        yield source


class ClickEngine(Protocol):
    """What reads a click log twice, to look at it and to encode it."""

    def survey(
        self, source: ClickSource, schema: Schema, split: SplitConfig, lookups: int | None
    ) -> Survey:
        """Do what `recsys.features.clicks.survey.survey` does."""

    def write(
        self, folder: Path, source: ClickSource, found: Survey, memory: ClickMemory, ledger: Ledger
    ) -> Sequence[PartFacts]:
        """Encode every row into the files of its part in `folder`; return what each part holds."""


class Here:
    """Reads a click log in this process."""

    def survey(
        self, source: ClickSource, schema: Schema, split: SplitConfig, lookups: int | None
    ) -> Survey:
        """See `ClickEngine`."""
        return survey(source, schema, split, lookups)

    def write(
        self, folder: Path, source: ClickSource, found: Survey, memory: ClickMemory, ledger: Ledger
    ) -> Sequence[PartFacts]:
        """See `ClickEngine`."""
        batches = source.batches(found.encoder.schema.features_of("interactions"), ledger)
        return write_rows(folder, batches, source, found, memory, ledger).parts


def load_click_log(folder: Path) -> ClickLog:
    """Open what `encode_click_log` wrote.

    Raises:
        IntegrityError: a file is missing, or is not what was written.
        OSError, ValueError, KeyError: the facts or the encoder cannot be read.
    """
    sealed(folder, "encoded log", "encode the log again").check()
    return replace(_opened(folder), was_there=True)


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
    source: ClickSource,
    schema: Schema,
    split: SplitConfig,
    folder: Path,
    lookups: int | None,
    fingerprint: str,
    engine: ClickEngine,
    earlier: FeatureEncoder | None = None,
) -> ClickLog:
    found = engine.survey(source, schema, split, lookups)
    if earlier is not None:
        found = replace(found, encoder=found.encoder.continuing(earlier))
    memory = ClickMemory(
        source, found.encoder, partial(decided_columns, found), partial(parts_of, found)
    )
    found = replace(found, encoder=replace(found.encoder, label_tables=memory.tables))
    with staged_folder(folder.parent, folder.name) as staging:
        ledger = Ledger(source.files)
        written = engine.write(staging, source, found, memory, ledger)
        _check_counts(source, found, written)
        found.encoder.save(staging / "encoder")
        facts = {
            "key": folder.name,
            "fingerprint": fingerprint,
            "rows": found.counts,
            "positives": [part.num_positive for part in written],
            "positive_rate": [part.num_positive / max(part.num_rows, 1) for part in written],
            "known": [part.num_known for part in written],
            "layout": asdict(found.encoder.ranking_layout()),
            "drops": [asdict(drop) for drop in [*ledger.settle(), *source.drops]],
        }
        (staging / "facts.json").write_text(json.dumps(facts, indent=1))
        seal(staging)
        publish(staging, folder)
    return _opened(folder)


def _check_counts(source: ClickSource, found: Survey, written: Sequence[PartFacts]) -> None:
    counts = tuple(part.num_rows for part in written)
    if counts != found.counts:
        raise DataError(
            f"{sum(found.counts):,} rows in the first reading, {sum(counts):,} in the second",
            file=source.files.paths[0],
            remedy="do not change the files while they are read",
        )
