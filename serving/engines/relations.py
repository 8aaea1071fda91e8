"""The relations that the users of a log are asked about with, for models with windows over them."""

from dataclasses import dataclass, replace

import pyarrow as pa

from recsys.features.pipeline.searching import PipelineSearch
from recsys.features.relations.asking import AskedRelations, relation_paths
from recsys.features.requests.ranked import ASKED_AT
from recsys.features.schema import Schema
from recsys.features.tables.sources import Sources
from recsys.serving.recommend.scorer import Scorer


@dataclass(frozen=True)
class Windows:
    """Windows before an instant just after `newest`, in microseconds.

    relations: None where a model has no such windows.

    They are columns of requests, as who asks a served model would send them. A pipeline computes
    its own, of each candidate, and its requests say when they are asked.
    """

    relations: AskedRelations | None
    newest: int
    of_candidates: bool = False

    @property
    def fingerprint(self) -> str:
        """A hash of the files of the relations."""
        return "" if self.relations is None else self.relations.fingerprint

    def beside(self, requests: pa.Table) -> pa.Table:
        """Return requests with their windows by user."""
        relations = self.relations
        if relations is None:
            return requests
        now = relations.after(self.newest)
        return _asked_at(requests, now) if self.of_candidates else relations.beside(requests, now)


def _asked_at(requests: pa.Table, now: int) -> pa.Table:
    return requests.append_column(ASKED_AT, pa.array([now] * requests.num_rows, pa.int64()))


def with_relations(scorer: Scorer, sources: Sources) -> Scorer:
    """Return the scorer of a pipeline with what windows of its candidates are computed of.

    Raises:
        ConfigError: a relation has no path.
        DataError: a table is not as declared.
    """
    search = scorer.found_by
    if not isinstance(search, PipelineSearch):
        return scorer
    relations = AskedRelations.read(scorer.schema, sources, scorer.policies)
    return replace(scorer, found_by=search.with_relations(relations))


def asked_relations(scorer: Scorer, sources: Sources) -> AskedRelations | None:
    """Return the relations of windows of requests; None: the model has no such windows.

    Those of a model of sessions are before each step, and read with the log.

    Raises:
        ConfigError: a relation has no path.
        DataError: a table is not as declared.
    """
    if scorer.sessions is not None:
        relation_paths(scorer.schema, sources)
        return None
    return AskedRelations.read(scorer.schema, sources, scorer.policies)


def without_relations(trained: Schema, read: Schema, sources: Sources) -> Sources:
    """Return the sources of what is read of a log, without relations of the model besides."""
    apart = set(trained.relations) - set(read.relations)
    others = {name: path for name, path in sources.others.items() if name not in apart}
    return sources.model_copy(update={"others": others})
