"""A trained model as Python sees it, whatever its family: it recommends, or it scores rows."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import torch

from recsys.app.arguments import Count, Ids, checked
from recsys.app.evaluating import evaluate_folder, explain_folder
from recsys.app.filtering import filtered, warn_of_filters, warn_of_unknown
from recsys.app.lists import (
    long_frame,
    of_users,
    places_of,
    query_frame,
    rows_of_ids,
    user_ids,
    vector_frame,
)
from recsys.bundle.directory import Bundle
from recsys.core.errors import ConfigError, DataError
from recsys.core.remote.path import path_at
from recsys.features.bundle.files import read_description, read_metrics
from recsys.features.pipeline.searching import PipelineSearch
from recsys.features.requests.origin import RequestOrigin
from recsys.features.tables.frames import is_frame, lent, to_arrow
from recsys.features.tables.id_forms import written_column, written_ids
from recsys.features.tables.reading import open_table
from recsys.features.tables.sources import Sources, policies_with
from recsys.serving.engines.batch import shards_of_log, shards_of_requests
from recsys.serving.engines.relations import with_relations
from recsys.serving.export.manifest import fetched_export
from recsys.serving.export.query_vectors import vectors_and_gains
from recsys.serving.export.searched import check_searches
from recsys.serving.recommend.filters import Filters
from recsys.serving.recommend.rows import RowScorer
from recsys.serving.recommend.scorer import Scorer

if TYPE_CHECKING:
    from recsys.serving.recommend.following import Following
    from recsys.training.config.experiment import ExperimentConfig
    from recsys.training.evaluation.results import ModelEvaluation
    from recsys.training.explain.because import ListExplanation
    from recsys.training.explain.explanation import Explanation, RowExplanation

_ROWS_PER_PART = 10_000
REQUESTS = "requests"


class Model:
    """A verified model, opened from its bundle; made by `recsys.load` or `run.model`.

    Retrieval models `recommend`, know `similar_items` and give vectors; rankers `predict`. What a
    model cannot do is refused with the reason.

    Attributes:
        path: folder of the bundle.
        id: hash of its content.
        kind: `model.kind` of its configuration.
    """

    def __init__(self, path: str | Path, settings: Mapping[str, Any] | None = None) -> None:
        """Verify the bundle in `path`.

        Args:
            path: folder of the bundle.
            settings: other policies than in training, by full key.

        Raises:
            ConfigError: a key of `settings` is no policy's, or its value is wrong.
            NotFoundError: there is none.
            IntegrityError: a file is not what was written.
        """
        self.path = Path(path)
        self._bundle = Bundle.open(self.path)
        self._description = read_description(self._bundle)
        self._settings = dict(settings or {})
        policies_with(self._description.policies, self._settings)
        self.id = self._bundle.model_id
        self.kind = self._description.kind

    @property
    def metrics(self) -> dict[str, Any]:
        """What was measured when the model was trained, as the bundle keeps it."""
        return read_metrics(self._bundle)

    @property
    def config(self) -> "ExperimentConfig":
        """The configuration that the model was trained with."""
        from recsys.training.jobs.opening import open_model

        return open_model(self.path).config

    @property
    def items(self) -> list[Any]:
        """The ids of the catalogue, in the order of `item_vectors`."""
        return list(self._scorer.item_ids.to_pylist())

    @checked
    def recommend(
        self,
        users: Ids | None = None,
        *,
        history: Any = None,
        user_table: Any = None,
        requests: Any = None,
        k: Count | None = None,
        filter_seen: bool | None = None,
        probability: bool = False,
        where: str | None = None,
        exclude: Any = None,
        allow: Any = None,
        items: Any = None,
        block: Any = None,
        cut: bool | None = None,
    ) -> pd.DataFrame:
        """Return the best items for each user, a row an item.

        Args:
            users: whom to recommend for, by id, in order; None: all of `history` or `requests`.
            history: an interaction log with the columns of that of the training; None: that log.
            user_table: the users' attributes, where the model reads any.
            requests: in place of `history`: a row a user, with the user key, `history` (item ids,
                oldest first) and whatever context the model reads.
            k: longest list; None: as the model says (the key `k` of a pipeline), else 20.
            filter_seen: leave out items the user has interacted with; None: as in the evaluation.
            probability: add the probability that the user interacts with the item.
            where: a condition on columns of the items, as in "price < 50 and in_stock".
            exclude: ids to leave out, or a file or frame of them.
            allow: the only ids that may be recommended, likewise.
            items: the items of today, which `where` reads and which alone may be recommended.
            block: a table of users and items that they are not to be shown.
            cut: end lists where relevance does; None: where the model knows that (`relevance`).

        Returns columns user key, item key, `rank` from 1, `score`, perhaps `probability`.

        Raises:
            ConfigError: the model is a ranker, arguments do not go together, or `where` is wrong.
            DataError: the log or the requests do not fit the model; row and column are named.

        Example:
            >>> list(model.recommend(["u000001"], k=3).columns)
            ['user_id', 'item_id', 'rank', 'score']
        """
        key, users = self._scorer.schema.user_key, self._written(users)
        given = {"where": where, "exclude": exclude, "allow": allow, "items": items, "block": block}
        parts = []
        with filtered(self._asking(history, requests), given, self._filters) as (scorer, filters):
            for table, origin in self._asked(users, history, user_table, requests):
                encoded = scorer.encode(table, origin)
                warn_of_unknown(encoded, origin)
                passing, own = filters.of_requests(table, origin)
                warn_of_filters(own)
                parts.append(scorer.answer(encoded, k, filter_seen, probability, passing, cut))
        if users is not None and parts:
            found = pa.concat_tables([part.combine_chunks() for part in parts])
            parts = [found.take(places_of(found.column(key), users))]
        return long_frame(parts, key, scorer.schema.item_key, scorer.item_ids)

    @checked
    def similar_items(self, items: Ids, *, k: Count = 10) -> pd.DataFrame:
        """Return the items whose vectors are nearest by cosine to those of `items`.

        Of a model that counts and has no vectors: what it recommends after that item alone. Of a
        pipeline its first source answers.

        Returns:
            Columns: the item key, `similar_item`, `rank` from 1, `score` (the cosine, or the score
            of the model); of a pipeline `source`, the name of the one that answers.

        Raises:
            NotFoundError: an id is not in the catalogue; the first is named.
            ConfigError: the model is a ranker.

        Example:
            >>> len(model.similar_items(model.items[:2], k=5))
            10
        """
        scorer = self._scorer
        rows = self._item_rows(items)
        scores, found = scorer.found_by.similar(rows, min(k + 1, len(scorer.item_ids)))
        keep = found != rows.unsqueeze(1)
        keep[keep.all(1), -1] = False  # ties above the item itself left it out
        kept = found[keep].numpy().reshape(len(rows), -1)
        each = kept.shape[1]
        ids = scorer.item_ids
        table = pd.DataFrame(
            {
                scorer.schema.item_key: ids.take(pa.array(np.repeat(rows.numpy(), each))),
                "similar_item": ids.take(pa.array(kept.reshape(-1))),
                "rank": np.tile(np.arange(1, each + 1), len(rows)),
                "score": scores[keep].numpy(),
            }
        )
        if isinstance(scorer.found_by, PipelineSearch):
            table["source"] = scorer.found_by.names[0]
        return table

    @checked
    def query_vectors(
        self,
        users: Ids | None = None,
        *,
        history: Any = None,
        user_table: Any = None,
        requests: Any = None,
        index: str | Path | None = None,
    ) -> pd.DataFrame:
        """Return what an index is searched with: a vector a user, or one an interest of the user.

        Args:
            users: as for `recommend`.
            history: likewise.
            user_table: likewise.
            requests: likewise.
            index: export that is searched; of a model that this one does not meet it is refused.

        Returns:
            Columns: the user key and `vector`, a float32 array, (E,), or (I, E) for a model of
            several interests; of a model of sessions that says so `repeat_gain`, what the items of
            the session gain. Users are in the order of `users`, else of the requests.

        Example:
            >>> model.query_vectors(["u000001"])["vector"][0].shape
            (64,)
        """
        scorer = self._scorer
        if index is not None:
            check_searches(scorer, fetched_export(path_at(index)))
        key, users = scorer.schema.user_key, self._written(users)
        tables = self._asked(users, history, user_table, requests)
        made = [vectors_and_gains(scorer, scorer.encode(*one)) for one in tables]
        return query_frame(key, [table.column(key) for table, _ in tables], made, users)

    @checked
    def evaluate(
        self,
        *,
        report: str | Path | None = None,
        settings: Mapping[str, Any] | None = None,
        quiet: bool = True,
    ) -> "ModelEvaluation":
        """Evaluate the model again; see `recsys.evaluate` for the arguments."""
        return evaluate_folder(self.path, report=report, settings=settings, quiet=quiet)

    @checked
    def explain(
        self,
        *,
        user: Any = None,
        item: Any = None,
        row: Count | None = None,
        max_rows: Count = 20_000,
        picture: str | Path | None = None,
        quiet: bool = True,
        **filters: Any,
    ) -> "Explanation | RowExplanation | ListExplanation":
        """Return what a ranker looks at; see `recsys.explain` for the arguments."""
        return explain_folder(
            self.path,
            user=user,
            item=item,
            row=row,
            wanted=filters,
            max_rows=max_rows,
            picture=picture,
            quiet=quiet,
        )

    def item_vectors(self) -> pd.DataFrame:
        """Return the item key and `vector`, a float32 array (E,), of the whole catalogue."""
        scorer = self._scorer
        return vector_frame(scorer.schema.item_key, [scorer.item_ids], [scorer.vectors])

    @checked
    def follow(self, user: Mapping[str, Any]) -> "Following":
        """Return a session of a user that grows event by event, each at the cost of one step.

        Args:
            user: the user key and the attributes that the model reads; `seen` may hold the items
                of earlier sessions.

        Returns:
            Before its first event: `append(item, time=..., column=...)` gives the session with one
            more, `recommend(k)` a table of one row with the best items next.

        Raises:
            ConfigError: the model is not of `model.kind: session`.
            DataError: the user key is missing, or a value is of another kind than in training.
        """
        from recsys.serving.recommend.following import Following

        return Following.start(self._scorer, user)

    @checked
    def predict(self, rows: Any, **tables: Any) -> pd.DataFrame:
        """Return a ranker's probability for each row.

        Args:
            rows: the rows to score, as a path (Parquet) or a data frame.
            tables: attribute tables to join, by name: `users=`, `items=`, or a side table's.

        Returns:
            The keys of the rows and `probability`, in the order of the rows; `probability_<name>`
            of further outcomes.

        Raises:
            ConfigError: the model is no ranker.
            DataError: a column is missing or a value is wrong; column and row are named.
        """
        if not self._description.gives_rows:
            raise ConfigError(
                f"predict: this model ({self.kind}) ranks items for users and scores no rows: use "
                "recommend"
            )
        with lent(tables) as given:
            scorer = RowScorer.open(self.path, given, self._settings)
            if isinstance(rows, str | Path):
                files = open_table(rows, "rows")
                if files.format != "parquet":
                    what = "rows are read as Parquet, whose columns have types"
                    raise DataError(what, file=rows, remedy="convert it")
                table = pa.concat_tables(batch.table for batch in files.batches(files.columns))
            else:
                table = to_arrow(rows, "rows")
            return scorer.score(table).to_pandas()

    def __repr__(self) -> str:
        return f"Model({self.kind}, {self.id})"

    @cached_property
    def _scorer(self) -> Scorer:
        if self._description.gives_rows:
            raise ConfigError(
                f"this model ({self.kind}) scores rows and has no vectors or lists: use predict"
            )
        return Scorer.open(self.path).with_settings(self._settings)

    @cached_property
    def _filters(self) -> Filters:
        return Filters.of(self._scorer)

    def _item_rows(self, items: Sequence[Any]) -> torch.Tensor:
        """Return rows of the catalogue (N,), int64."""
        written = written_ids(items, self._scorer.schema.ids.items, "items")
        return rows_of_ids(written, self._rows_by_id)

    @cached_property
    def _rows_by_id(self) -> dict[Any, int]:
        return {item: row for row, item in enumerate(self._scorer.item_ids.to_pylist())}

    def _asked(
        self, users: Sequence[Any] | None, history: Any, user_table: Any, requests: Any
    ) -> list[tuple[pa.Table, RequestOrigin]]:
        """Return the request tables that arguments ask for, each with where it comes from."""
        scorer = self._scorer
        if requests is None:
            with lent({"history": history, "users": user_table}) as paths:
                sources = self._sources(paths)
                chosen = None if users is None else user_ids(users)
                shards = shards_of_log(scorer, sources, rows_per_part=_ROWS_PER_PART, users=chosen)
            called = RequestOrigin("history") if is_frame(history) else None
            return [(shard.read(), called or shard.origin) for shard in shards.parts]
        if history is not None or user_table is not None:
            raise ConfigError(
                "requests hold history and attributes themselves: leave history and user_table out"
            )
        if isinstance(requests, str | Path):
            asked = shards_of_requests(scorer, str(requests)).parts
            parts = [(one.read(), one.origin) for one in asked]
        else:
            parts = [(to_arrow(requests, REQUESTS), RequestOrigin(REQUESTS))]
        key, form = scorer.schema.user_key, scorer.schema.ids.users
        parts = [(written_column(table, key, form), one) for table, one in parts]
        return parts if users is None else [(of_users(t, users, key), one) for t, one in parts]

    def _written(self, users: Sequence[Any] | None) -> Sequence[Any] | None:
        """Return ids of users as the schema writes them."""
        return None if users is None else written_ids(users, self._scorer.schema.ids.users, "users")

    def _asking(self, history: Any, requests: Any) -> Scorer:
        """Return the scorer; of a log, with what windows of candidates are computed of."""
        own = self._scorer
        with lent({"history": history}) as paths:
            return own if requests is not None else with_relations(own, self._sources(paths))

    def _sources(self, paths: Mapping[str, str]) -> Sources:
        """Return the log and the tables beside it: those given, else those of the training."""
        given, schema = self.config.data, self._scorer.schema
        sides = [name for name, side in schema.others.items() if side.joins == "users"]
        others = {name: given.others[name] for name in (*sides, *schema.relations)}
        log, users = paths.get("history", given.interactions), paths.get("users", given.users)
        return Sources(interactions=log, users=users, others=others)
