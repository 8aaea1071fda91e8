"""A model as a function of Arrow batches, which Spark, Ray, Daft or a loop of one's own can call.

    function = recsys.batch_function("models:/shop@champion", k=20, where="in_stock")
    for answers in function(batches): ...            # pyarrow.RecordBatch in and out

It holds names and settings alone, so that engines can send it to their workers; there it opens the
model once a process, when it is first called. Another process, or machine, needs the engine
installed and the bundle in a folder (`BatchFunction.at`).
"""

import hashlib
import json
import os
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch

from recsys.app.arguments import Count, checked
from recsys.app.filtering import filtered
from recsys.app.models import Reference, folder_of
from recsys.app.scoring import ListOptions, check_settings, scorer_of
from recsys.bundle.directory import Bundle
from recsys.core.errors import ConfigError, IntegrityError
from recsys.features.bundle.files import read_description
from recsys.features.tables.frames import is_frame, lent, to_arrow
from recsys.serving.answering.lists import request_columns
from recsys.serving.engines.batches import Seen, lists_of, probabilities_of
from recsys.serving.recommend.filters import Filters
from recsys.serving.recommend.rows import RowScorer
from recsys.serving.recommend.scorer import Scorer

_FILTER_TABLES = ("items", "block")
_LISTED = ("exclude", "allow")
_KEPT = 4
"""Opened models that a process keeps."""


@dataclass(frozen=True)
class BatchFunction:
    """Answers batches of requests with lists, or batches of rows with probabilities.

    Attributes:
        folder: of the bundle, on the machine that calls.
        model_id: hash of its content, which is checked.
        gives_rows: whether it is a ranker, which answers rows.
        lists: what lists are to hold; of a ranker the defaults.
        tables: paths or Arrow tables by name: `items` and `block`, of a ranker those of attributes.
        settings: other policies than in training.
        threads: threads that a process computes with from the first call on; None: as it is.
        key: hash of everything that the answers depend on, besides what is asked.
    """

    folder: str
    model_id: str
    gives_rows: bool
    lists: ListOptions
    tables: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    threads: int | None = None
    key: str = ""

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Yield the answers to each batch, a row each, in order; see `answers`."""
        return self.answers(batches)

    def answers(
        self,
        batches: Iterable[pa.RecordBatch],
        called: str = "the batches",
        seen: Seen | None = None,
    ) -> Iterator[pa.RecordBatch]:
        """Yield the answers to each batch: of lists as `recsys.score` writes them.

        Args:
            batches: requests, or rows of a ranker.
            called: what messages call them; rows are counted over all batches.
            seen: told of the answers to each batch of requests.

        Raises:
            DataError: a batch does not fit the model.
            IntegrityError: `folder` holds another model.
        """
        opened = self.opened()
        if isinstance(opened.scorer, RowScorer):
            return probabilities_of(opened.scorer, batches, called)
        assert opened.filters is not None
        return lists_of(opened.scorer, opened.filters, batches, called, seen)

    def schema(self, asked: pa.Schema) -> pa.Schema:
        """Return the columns of the answers to batches with the columns `asked`.

        Raises:
            DataError: requests with these columns do not fit the model.
        """
        (empty,) = self([pa.RecordBatch.from_pylist([], asked)])
        return empty.schema.remove_metadata()

    def columns(self) -> list[str]:
        """Return the columns that requests or rows may have; others are not read."""
        scorer = self.opened().scorer
        if isinstance(scorer, RowScorer):
            return [*scorer.rows.columns, *scorer.rows.keys]
        return list(request_columns(scorer.bundle).names)

    def at(self, folder: str | Path, tables: Mapping[str, str] | None = None) -> "BatchFunction":
        """Return the function that finds its bundle, and tables that are paths, elsewhere."""
        return replace(self, folder=str(folder), tables={**self.tables, **(tables or {})})

    def opened(self) -> "Opened":
        """Return the model, opened in this process by the first call."""
        with _OPENING:
            found = _OPENED.get(self.key)
            if found is None:
                found = _OPENED[self.key] = Opened.of(self)
            _OPENED.move_to_end(self.key)
            while len(_OPENED) > _KEPT:
                _OPENED.popitem(last=False)[1].close()
            return found


@dataclass(frozen=True)
class Opened:
    """A model with what its answers need; `close` removes files of tables that were lent to it."""

    scorer: Scorer | RowScorer
    filters: Filters | None
    lent: ExitStack

    @classmethod
    def of(cls, function: BatchFunction) -> "Opened":
        """Open what a function names.

        Raises:
            UserError: the bundle is not whole, or what is asked for does not fit it.
        """
        if function.threads is not None:
            _compute_with(function.threads)
        folder, lists = Path(function.folder), function.lists
        if Bundle.open(folder).model_id != function.model_id:
            raise IntegrityError(f"{folder}: holds another model than {function.model_id}")
        stack = ExitStack()
        try:
            if function.gives_rows:
                paths = stack.enter_context(lent(function.tables))
                return cls(RowScorer.open(folder, paths, function.settings), None, stack)
            scorer = scorer_of(folder, lists).with_settings(dict(function.settings))
            given = {name: getattr(lists, name) for name in ("where", *_LISTED)}
            given |= dict(function.tables)
            whole, filters = stack.enter_context(filtered(scorer, given))
            return cls(whole, filters, stack)
        except BaseException:
            stack.close()
            raise
        finally:
            if function.threads is not None:
                _compute_with(function.threads)  # of libraries that were loaded meanwhile

    def close(self) -> None:
        """Remove what was lent."""
        self.lent.close()


_OPENED: "OrderedDict[str, Opened]" = OrderedDict()
_OPENING = threading.Lock()


@checked
def batch_function(
    model: Reference,
    *,
    k: Count | None = None,
    filter_seen: bool | None = None,
    probability: bool = False,
    approximate: bool = False,
    where: str | None = None,
    exclude: Any = None,
    allow: Any = None,
    block: Any = None,
    cut: bool | None = None,
    tables: Mapping[str, Any] | None = None,
    settings: Mapping[str, Any] | None = None,
    threads: Count | None = None,
    tracking_uri: str | None = None,
) -> BatchFunction:
    """Return a model as a function of Arrow batches, for engines that spread work over processes.

    Args:
        model: see `load`.
        k: longest list; None: as the model says, else 20.
        filter_seen: leave out items the user has interacted with; None: as in the evaluation.
        probability: add the probability of each item.
        approximate: search the model's index, which may miss some, and not all vectors.
        where: a condition on columns of the items, as in "price < 50 and in_stock".
        exclude: ids to leave out, or a file or frame of them.
        allow: the only ids that may be recommended, likewise.
        block: a table of users and items that they are not to be shown.
        cut: end lists where relevance does; None: where the model knows that (`relevance`).
        tables: paths or frames by name: `items`, the items of today; of a ranker the tables of
            attributes that its rows do not hold.
        settings: other policies than in training: {"policies.float_ids": ...}.
        threads: threads that a process computes with from the first call on; None: as it is.
        tracking_uri: MLflow store.

    Returns:
        A function of an iterable of `pyarrow.RecordBatch` (requests, or rows of a ranker) that
        yields as many with the answers; `schema` says their columns.

    Raises:
        UserError: there is no such model, or what is asked for does not fit it.

    Example:
        >>> [batch.num_rows for batch in recsys.batch_function(run, k=5)([])]
        []
    """
    how: dict[str, Any] = {"k": k, "filter_seen": filter_seen, "probability": probability}
    how |= {"approximate": approximate, "cut": cut, "where": where}
    how |= {name: _plain(given, name) for name, given in (("exclude", exclude), ("allow", allow))}
    lists = ListOptions(**how)
    given = {**(tables or {}), "block": block}
    return _function(folder_of(model, tracking_uri), lists, given, settings or {}, threads)


def _function(
    folder: Path,
    lists: ListOptions,
    tables: Mapping[str, Any],
    settings: Mapping[str, Any],
    threads: int | None,
) -> BatchFunction:
    """Return the function, tried in this process."""
    bundle = Bundle.open(folder)
    gives_rows = read_description(bundle).gives_rows
    given = {name: _plain(one, name) for name, one in tables.items() if one is not None}
    if gives_rows and (not lists.are_default or "block" in given):
        raise ConfigError(
            "the model is a ranker and answers rows: k, filter_seen, probability, approximate, "
            "where, exclude, allow, block and cut are for lists of retrieval models"
        )
    others = [name for name in given if name not in _FILTER_TABLES]
    if not gives_rows and others:
        raise ConfigError(
            f"tables: '{others[0]}' is no table of a model of lists, whose requests hold what is "
            "known of a user; it has 'items', as they are today"
        )
    check_settings(None if gives_rows else settings)
    whole = BatchFunction(
        folder=str(folder.absolute()),
        model_id=bundle.model_id,
        gives_rows=gives_rows,
        lists=lists,
        tables=given,
        settings=dict(settings),
        threads=threads,
    )
    function = replace(whole, key=_key(whole))
    function.opened()
    return function


def _plain(given: Any, name: str) -> Any:
    """Return a table or ids as an engine can send them: paths from the root, frames as Arrow."""
    if given is None:
        return None
    if isinstance(given, str | Path):
        return str(given) if "://" in str(given) else str(Path(given).absolute())
    if is_frame(given):
        return to_arrow(given, name)
    return list(given.tolist() if hasattr(given, "tolist") else given)


def _key(function: BatchFunction) -> str:
    """Return the hash of everything that answers depend on."""
    digest = hashlib.sha256()
    told = {**vars(function.lists), **function.tables}
    for name, one in sorted(told.items()):
        digest.update(f"{name}\n".encode())
        if isinstance(one, pa.Table):
            sink = pa.BufferOutputStream()
            with pa.ipc.new_stream(sink, one.schema) as writer:
                writer.write_table(one)
            digest.update(sink.getvalue())
        else:
            digest.update(f"{one!r}\n{_stamp(one)}\n".encode())
    plain = {"id": function.model_id, "settings": function.settings, "threads": function.threads}
    digest.update(json.dumps(plain, sort_keys=True, default=str).encode())
    return digest.hexdigest()


def _stamp(path: Any) -> str:
    """Return size and time of a file, by which a newer one is known."""
    if not isinstance(path, str) or not os.path.exists(path):
        return ""
    found = os.stat(path)
    return f"{found.st_size} {found.st_mtime_ns}"


def _compute_with(threads: int) -> None:
    """Let torch, BLAS and every OpenMP library of this process compute with `threads` threads."""
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    os.environ["OMP_NUM_THREADS"] = str(threads)
    torch.set_num_threads(threads)
    threadpool_limits(threads)
