"""A ranker of the engine that orders the candidates of a pipeline.

Its rows have the features of users and items, and as columns of the request what the sources say of
a candidate. Letters: B requests, C candidates, F columns, G groups of columns.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from recsys.data.batch import FeatureBlock
from recsys.features.bundle.rows import RowModel
from recsys.features.encoding.scaling import Scales
from recsys.features.encoding.whole_rows import WholeRows
from recsys.features.kinds.feature import is_nan
from recsys.features.kinds.relation_feature import RelationFeature
from recsys.features.pipeline.candidates import Candidates
from recsys.features.pipeline.windows import CandidateWindows, asked_times
from recsys.features.relations.asking import AskedRelations
from recsys.features.requests.origin import RequestOrigin
from recsys.features.requests.ranked import RankedRequests
from recsys.features.requests.table import encode_users
from recsys.features.tables.plain_values import plain_table

Floats = NDArray[np.float64]
AT_ONCE = 65_536
"""Rows that are scored together."""
_UNNAMED = RequestOrigin()
NOTHING = FeatureBlock(torch.zeros(0, 0).long(), (), torch.zeros(0, 0))
"""A block without rows."""


def column_names(names: Sequence[str]) -> list[str]:
    """Return the columns, and features, of rows that hold the inputs of these names."""
    return ["candidate_" + re.sub(r"\W+", "_", name) for name in names]


@dataclass(frozen=True)
class RowRanker:
    """See `recsys.features.pipeline.model.CandidateRanker`.

    Attributes:
        model: out of its bundle.
        columns: (F,) names of the inputs in its rows.
        items: the catalogue, encoded.
        windows: of candidates, columns of its rows behind the inputs.
    """

    model: RowModel
    columns: tuple[str, ...]
    items: FeatureBlock
    windows: CandidateWindows

    @classmethod
    def of(
        cls,
        model: RowModel,
        names: Sequence[str],
        items: pa.Table,
        now: int,
        windows: Sequence[RelationFeature] = (),
    ) -> "RowRanker":
        """Return the ranker of candidates with inputs of these names and windows; see `among`."""
        own = CandidateWindows(tuple(windows), pa.nulls(0))
        return cls(model, tuple(column_names(names)), NOTHING, own).among(items, now)

    def with_relations(self, relations: AskedRelations | None) -> "RowRanker":
        """Return the same ranker with what windows are computed of at hand, or not."""
        return replace(self, windows=replace(self.windows, relations=relations))

    def among(self, items: pa.Table, now: int) -> "RowRanker":
        """Return the same ranker of the items of a catalogue, with ages counted back from `now`.

        now: in microseconds; of no meaning where the log of the pipeline has no times.
        """
        model = self.model
        if model.schema.interactions.time is not None:
            model = replace(model, encoder=replace(model.encoder, reference_time=now))
        ids = items.column(model.schema.item_key).combine_chunks()
        encoded = model.encoder.encode("items", items)
        return replace(self, model=model, items=encoded, windows=replace(self.windows, items=ids))

    def users(self, table: pa.Table, origin: RequestOrigin = _UNNAMED) -> RankedRequests:
        """Return the users of requests as the ranker reads them."""
        block = encode_users(self.model.encoder, table, self.model.policies, origin)
        ids = plain_table(table).column(self.model.schema.user_key).combine_chunks()
        return RankedRequests(block, ids, asked_times(table), self.windows.given(table))

    def score(self, candidates: Candidates, inputs: Floats, users: RankedRequests | None) -> Floats:
        """Return the logits of candidates, (C,)."""
        assert users is not None, "requests are encoded for the ranker"
        owner, rows = candidates.items.owners(), candidates.items.values
        found = np.zeros(len(rows))
        for start in range(0, len(rows), AT_ONCE):
            part = slice(start, start + AT_ONCE)
            context = self._context(inputs[part])
            if self.windows.features:
                own = self.windows.of(owner[part].numpy(), rows[part].numpy(), users)
                context = context.beside(self._scaled(own))
            block = users.block.take(owner[part]).beside(context, self.items.take(rows[part]))
            found[part] = self.model.logits(self._whole(block))
        return found

    def parts(
        self,
        candidates: Candidates,
        inputs: Floats,
        users: RankedRequests | None,
        groups: Sequence[Sequence[int]],
    ) -> Floats:
        """Return what groups of columns add to the logits, (C, G): those without the columns less.

        A column that is left out is 0, as of a source that does not name the candidate.
        """
        whole = self.score(candidates, inputs, users)
        found = np.zeros((len(whole), len(groups)))
        for number, group in enumerate(groups):
            without = inputs.copy()
            without[:, list(group)] = 0.0
            found[:, number] = whole - self.score(candidates, without, users)
        return found

    def windows_add(
        self, candidates: Candidates, inputs: Floats, users: RankedRequests | None
    ) -> Floats:
        """Return what all windows add to the logits, (C,): those with null in their places less."""
        assert users is not None, "requests are encoded for the ranker"
        null = self.with_relations(None).score(candidates, inputs, replace(users, given={}))
        return self.score(candidates, inputs, users) - null

    def _context(self, inputs: Floats) -> FeatureBlock:
        """Return rows (C, F) as the encoder has the columns of a log: each a number, is it null."""
        return _columns(self._scales.apply(inputs), is_nan(inputs))

    def _scaled(self, windows: Floats) -> FeatureBlock:
        """Return windows (C, W) likewise."""
        scalers = [self.model.encoder.scalers[one.name] for one in self.windows.features]
        each = [scaler.apply(windows[:, at]) for at, scaler in enumerate(scalers)]
        return _columns(np.stack(each, axis=1), is_nan(windows))

    @cached_property
    def _scales(self) -> Scales:
        return Scales.of([self.model.encoder.scalers[name] for name in self.columns])

    @cached_property
    def _whole(self) -> WholeRows:
        return WholeRows(self.model.encoder)


def _columns(numbers: NDArray[np.float32], null: NDArray[np.float32]) -> FeatureBlock:
    """Return numbers (C, F) and whether each is null, side by side: (C, 2F)."""
    dense = np.stack([numbers, null], axis=2).reshape(len(numbers), 2 * numbers.shape[1])
    none = torch.zeros(len(numbers), 0, dtype=torch.int64)
    return FeatureBlock(none, (), torch.from_numpy(dense))
