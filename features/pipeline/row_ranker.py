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
from recsys.features.pipeline.candidates import Candidates
from recsys.features.requests.origin import RequestOrigin
from recsys.features.requests.table import encode_users

Floats = NDArray[np.float64]
AT_ONCE = 65_536
"""Rows that are scored together."""
_UNNAMED = RequestOrigin()


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
    """

    model: RowModel
    columns: tuple[str, ...]
    items: FeatureBlock

    @classmethod
    def of(cls, model: RowModel, names: Sequence[str], items: pa.Table, now: int) -> "RowRanker":
        """Return the ranker of candidates with inputs of these names; see `among`."""
        none = FeatureBlock(torch.zeros(0, 0).long(), (), torch.zeros(0, 0))
        return cls(model, tuple(column_names(names)), none).among(items, now)

    def among(self, items: pa.Table, now: int) -> "RowRanker":
        """Return the same ranker of the items of a catalogue, with ages counted back from `now`.

        now: in microseconds; of no meaning where the log of the pipeline has no times.
        """
        model = self.model
        if model.schema.interactions.time is not None:
            model = replace(model, encoder=replace(model.encoder, reference_time=now))
        return replace(self, model=model, items=model.encoder.encode("items", items))

    def users(self, table: pa.Table, origin: RequestOrigin = _UNNAMED) -> FeatureBlock:
        """Return the users of requests as the ranker reads them."""
        return encode_users(self.model.encoder, table, self.model.policies, origin)

    def score(self, candidates: Candidates, inputs: Floats, users: FeatureBlock | None) -> Floats:
        """Return the logits of candidates, (C,)."""
        assert users is not None, "requests are encoded for the ranker"
        owner, rows = candidates.items.owners(), candidates.items.values
        found = np.zeros(len(rows))
        for start in range(0, len(rows), AT_ONCE):
            part = slice(start, start + AT_ONCE)
            context = self._context(inputs[part])
            block = users.take(owner[part]).beside(context, self.items.take(rows[part]))
            found[part] = self.model.logits(self._whole(block))
        return found

    def parts(
        self,
        candidates: Candidates,
        inputs: Floats,
        users: FeatureBlock | None,
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

    def _context(self, inputs: Floats) -> FeatureBlock:
        """Return rows (C, F) as the encoder has the columns of a log: each a number, is it null."""
        dense = np.stack([self._scales.apply(inputs), is_nan(inputs)], axis=2)
        dense = dense.reshape(len(inputs), 2 * len(self.columns))
        none = torch.zeros(len(inputs), 0, dtype=torch.int64)
        return FeatureBlock(none, (), torch.from_numpy(dense))

    @cached_property
    def _scales(self) -> Scales:
        return Scales.of([self.model.encoder.scalers[name] for name in self.columns])

    @cached_property
    def _whole(self) -> WholeRows:
        return WholeRows(self.model.encoder)
