"""Windows of a click log that is larger than memory: the numbers that they are in memory.

Relations of other tables are read into memory, and windows over them are computed batch by batch.
For windows over the log itself two more readings of it spread its rows over files by their owner (a
user, an item, or both); the rows of one file are then joined in memory, and the numbers written by
the position of the row that asks. Windows end just before a row wherever it stands in the log, so
its rows may come in any order.

Letters: N rows of a batch, R rows of a file, W windows over the log.
"""

from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recsys.core.distinct import distinct_codes
from recsys.features.clicks.rows import ClickSource
from recsys.features.clicks.spill import OWNER, Spill
from recsys.features.encoding.hashing import hash_values, splitmix64
from recsys.features.kinds.feature import Feature
from recsys.features.kinds.relation_feature import LOG, RelationFeature
from recsys.features.relations.columns import relation_columns
from recsys.features.relations.facts import KEYS_OF, Asked, By, Facts, Key
from recsys.features.relations.reading import columns_of_rows, read_relations
from recsys.features.relations.timeline import Integers
from recsys.features.relations.wanted import Wanted, wanted_of
from recsys.features.schema import Schema
from recsys.features.tables.ids import Ids
from recsys.features.tables.ledger import Drop, Ledger, is_text
from recsys.features.tables.reading import TableFiles, open_table
from recsys.features.tables.rows import RowReader, Rows
from recsys.features.tables.sources import Policies, Sources
from recsys.features.tables.times import latest_seconds

FILE_BYTES = 8 << 20
"""Bytes of the log for each file that its owners are spread over: some 200 MB when it is joined."""
_MOST_FILES = 256
_TIME, _POSITION = "time", "position"
_Ids = dict[Key, tuple[pa.Array, Integers]]


class LogWindows:
    """The windows of each row of a click log, by its position among the usable rows."""

    def __init__(self, schema: Schema, files: TableFiles, folder: Path) -> None:
        """Get ready; `files` are those of the log, `folder` is there while windows are used."""
        self._files = files
        self._features = schema.relation_features
        self._schema, self._folder = schema, folder
        self._facts: dict[str, Facts] = {}
        self._untyped: set[tuple[str, Key]] = set()
        self._computed: dict[str, NDArray[np.float64]] = {}
        self.drops: list[Drop] = []

    @classmethod
    def read(
        cls, schema: Schema, sources: Sources, policies: Policies, source: ClickSource, folder: Path
    ) -> Self:
        """Read the relations, and compute the windows over the log.

        Args:
            schema: of the log.
            sources: of the log and the relations.
            policies: what is done with rows that break a rule.
            source: the rows of the log.
            folder: for files that are needed meanwhile.

        Raises:
            DataError: a table is not as declared.
        """
        found = cls(schema, source.files, folder)
        files = {n: open_table(path, n) for n, path in sources.others.items()}
        latest = latest_seconds(policies)
        for name, rows in read_relations(schema, files, policies, latest=latest).items():
            found._untyped |= {(name, key) for key, ids in rows.keys.items() if ids.untyped}
            found._facts[name] = rows.settled(policies).whole()
            found.drops += rows.ledger.settle()
        wanted = [one for one in found._features if one.relation == LOG]
        for by in dict.fromkeys(one.owner for one in wanted):
            found._compute([one for one in wanted if one.owner == by], by, source, policies)
        return found

    def beside(self, batches: Generator[Rows], features: Sequence[Feature]) -> Generator[Rows]:
        """Yield batches of all usable rows, in order, with those of `features` that are windows."""
        wanted = [one for one in features if isinstance(one, RelationFeature)]
        position = 0
        with closing(batches):
            for rows in batches:
                yield self._with_windows(rows, wanted, position) if wanted else rows
                position += len(rows)

    def _with_windows(self, rows: Rows, wanted: Sequence[RelationFeature], position: int) -> Rows:
        columns = dict(rows.columns)
        for feature in wanted:
            if feature.relation == LOG:
                values = self._computed[feature.name][position : position + len(rows)]
                columns[feature.source_column] = pa.array(values, mask=np.isnan(values))
        for name in self._facts:
            own = [one for one in wanted if one.relation == name]
            if own:
                asked = self._asked(name, rows)
                columns |= relation_columns(own, {name: self._facts[name]}, asked)
        return replace(rows, columns=columns)

    def _asked(self, name: str, rows: Rows) -> Asked:
        """Return rows as a relation is asked about them: text of CSV is compared as text."""
        ids: _Ids = {}
        for key, own in self._facts[name].ids.items():
            if key not in rows.ids:
                continue
            mine, codes = rows.ids[key].dictionary, np.asarray(rows.ids[key].indices)
            differ = is_text(mine.type) != is_text(own.distinct.type)
            is_csv = self._files.is_untyped(self._schema.keys_of(LOG)[key])
            if differ and (is_csv or (name, key) in self._untyped):
                mine = mine.cast(pa.large_string())
                if not is_text(own.distinct.type):
                    self._as_text(name, key)
            ids[key] = (mine, codes.astype(np.int64))
        assert rows.clock is not None
        return Asked(ids, rows.clock)

    def _as_text(self, name: str, key: Key) -> None:
        facts = self._facts[name]
        ids = replace(facts.ids[key], distinct=facts.ids[key].distinct.cast(pa.large_string()))
        self._facts[name] = replace(facts, ids={**facts.ids, key: ids}, _timelines={})

    def _compute(
        self, features: Sequence[RelationFeature], by: By, source: ClickSource, policies: Policies
    ) -> None:
        """Compute the windows over the log of one kind of owner."""
        wanted = wanted_of(self._schema, LOG)
        num_files = _files_for(source)
        with TemporaryDirectory(dir=self._folder, prefix="windows-") as place:
            rows = Spill(Path(place) / "rows", _kinds(by, wanted), num_files)
            asked = Spill(Path(place) / "asked", _kinds(by), num_files)
            with rows, asked:
                _spread_rows(source, rows, by, wanted, policies)
                total = _spread_askers(source, asked, by)
                values = {one.name: self._file(one.name, total) for one in features}
                for number in range(num_files):
                    ledger = Ledger(source.files)
                    facts = _facts(rows.read(number), by, wanted, ledger)
                    _join(facts, asked.read(number), features, values)
        self._computed |= values

    def _file(self, name: str, rows: int) -> NDArray[np.float64]:
        """Return numbers of all rows on disk, (rows,)."""
        path = self._folder / f"window-{len(self._computed)}-{name}.npy"
        return np.lib.format.open_memmap(path, "w+", np.float64, (max(rows, 1),))


def _files_for(source: ClickSource) -> int:
    size = sum(path.stat().st_size for path in source.files.paths)
    return min(1 + size // FILE_BYTES, _MOST_FILES)


def _kinds(by: By, wanted: Wanted | None = None) -> np.dtype[Any]:
    """Return what a record holds: of a row its columns, of one that asks its position."""
    found: list[tuple[str, str]] = [(OWNER, "u8"), (_TIME, "i8")]
    found += [(key, "i8") for key in KEYS_OF[by]]
    if wanted is None:
        return np.dtype([*found, (_POSITION, "i8")])
    found += [(f"number {column}", "f8") for column in wanted.numbers]
    found += [(f"code {column}", "i8") for column in wanted.codes]
    found += [(f"met {number}", "?") for number in range(len(wanted.wheres))]
    return np.dtype(found)


def _records(rows: Rows, by: By, kinds: np.dtype[Any]) -> NDArray[Any]:
    """Return a record a row, its owner, time and keys filled in."""
    found = np.zeros(len(rows), kinds)
    assert rows.clock is not None
    found[_TIME] = rows.clock
    owner = np.zeros(len(rows), np.uint64)
    for key in KEYS_OF[by]:
        hashes = hash_values(rows.ids[key])
        found[key] = hashes
        owner = splitmix64(owner ^ hashes.view(np.uint64))
    found[OWNER] = owner
    return found


def _spread_rows(
    source: ClickSource, spill: Spill, by: By, wanted: Wanted, policies: Policies
) -> None:
    """Spread the rows that windows are of."""
    ledger = Ledger(source.files)
    reader = RowReader(
        source.files, wanted.roles, policies, ledger, latest=latest_seconds(policies)
    )
    for rows in reader.batches():
        records = _records(rows, by, spill.kinds)
        found = columns_of_rows(rows, wanted, policies, ledger)
        for column, values in found.numbers.items():
            records[f"number {column}"] = values
        for column, codes in found.codes.items():
            records[f"code {column}"] = codes
        for number, where in enumerate(wanted.wheres):
            records[f"met {number}"] = found.met[where]
        spill.append(records)
    ledger.check()


def _spread_askers(source: ClickSource, spill: Spill, by: By) -> int:
    """Spread the rows that ask; return how many there are."""
    position = 0
    with closing(source.reader([], Ledger(source.files)).batches()) as batches:
        for rows in batches:
            records = _records(rows, by, spill.kinds)
            records[_POSITION] = position + np.arange(len(rows))
            spill.append(records)
            position += len(rows)
    return position


def _facts(records: NDArray[Any], by: By, wanted: Wanted, ledger: Ledger) -> Facts:
    """Return the rows of one file; their ids are the hashes of these."""
    ids: dict[Key, Ids] = {}
    rows = np.zeros(len(records), np.int64)
    for key in KEYS_OF[by]:
        distinct, codes = distinct_codes(records[key])
        ids[key] = Ids(key, pa.array(distinct), codes.astype(np.int32), rows, ledger, False)
    return Facts(
        LOG,
        np.ascontiguousarray(records[_TIME]),
        ids=ids,
        numbers={one: np.ascontiguousarray(records[f"number {one}"]) for one in wanted.numbers},
        codes={one: np.ascontiguousarray(records[f"code {one}"]) for one in wanted.codes},
        met={
            where: np.ascontiguousarray(records[f"met {number}"])
            for number, where in enumerate(wanted.wheres)
        },
    )


def _join(
    facts: Facts,
    asked: NDArray[Any],
    features: Sequence[RelationFeature],
    values: Mapping[str, NDArray[np.float64]],
) -> None:
    """Write the windows of the rows of one file that ask."""
    ids: _Ids = {}
    for key in facts.ids:
        distinct, codes = distinct_codes(asked[key])
        ids[key] = (pa.array(distinct), codes)
    asking = Asked(ids, np.ascontiguousarray(asked[_TIME]))
    for name, numbers in relation_columns(features, {LOG: facts}, asking).items():
        values[name][asked[_POSITION]] = numbers.to_numpy(zero_copy_only=False)
