"""Batch scoring as a function: requests in, Parquet parts out."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from recsys.app.filtering import filtered
from recsys.app.log_given import log_given
from recsys.bundle.directory import Bundle
from recsys.core.errors import ConfigError
from recsys.core.events import Listener, ignore
from recsys.core.folders import check_folder
from recsys.core.remote.path import path_at
from recsys.features.bundle.files import read_description
from recsys.features.tables.frames import is_frame, lent, to_arrow
from recsys.features.tables.sources import Source, Sources
from recsys.serving.engines.audience import read_new_items, score_new_items
from recsys.serving.engines.batch import score_to_parquet, shards_of_log, shards_of_requests
from recsys.serving.engines.relations import with_relations
from recsys.serving.engines.rows import score_rows
from recsys.serving.engines.shards import Shards
from recsys.serving.engines.workers import Team
from recsys.serving.recommend.filters import Filters
from recsys.serving.recommend.rows import RowScorer
from recsys.serving.recommend.scorer import Scorer

ROWS_PER_PART = 10_000
Workers = int | Literal["auto"]
_FILTERS, _FILTER_TABLES = ("where", "exclude", "allow"), ("items", "block")


@dataclass(frozen=True, kw_only=True)
class ListOptions:
    """What lists are to hold.

    Attributes:
        k: items of a list at most; None: as the model says, which is 20 unless trained otherwise.
        filter_seen: leave out items the user has interacted with; None: as in the evaluation.
        probability: add the probability of each item.
        approximate: search the model's index and not all vectors.
        cut: end lists where relevance does; None: where the model knows that.
        rows_per_part: users in a part of the output.
        where: a condition on columns of the items.
        exclude: ids to leave out: a path, a data frame or ids.
        allow: the only ids that may be recommended, likewise.
    """

    k: int | None = None
    filter_seen: bool | None = None
    probability: bool = False
    approximate: bool = False
    cut: bool | None = None
    rows_per_part: int = ROWS_PER_PART
    where: str | None = None
    exclude: Any = None
    allow: Any = None

    @property
    def are_default(self) -> bool:
        """Whether nothing was asked for; a data frame is not compared with anything."""
        plain = vars(ListOptions())
        return all(type(one) is type(plain[n]) and one == plain[n] for n, one in vars(self).items())


def score_model(
    folder: Path,
    output: Path,
    tables: Mapping[str, Any],
    lists: ListOptions | None = None,
    *,
    settings: Mapping[str, Any] | None = None,
    workers: Workers = 1,
    since: str | Path | None = None,
    listener: Listener = ignore,
) -> dict[str, Any]:
    """Score everything that is asked; return the summary.

    Args:
        folder: of the bundle.
        output: folder for the parts.
        tables: paths or data frames (None: not given): `interactions` or `requests`, `users`, and
            side tables by name; for lists also `items`, as they are today, and `block`, users and
            items that they are not to be shown.
        lists: of a retrieval model; None: the defaults.
        settings: other policies than in training, by full key.
        workers: processes that share the parts; "auto": one for each core.
        since: output of an earlier job of lists; users without a change since are left out.
        listener: called with each `PartDone`.

    Raises:
        UserError: the requests do not fit the model, `output` is named as a file or holds
            another job's files, or a worker is gone.
    """
    check_folder(output, "Parquet parts")
    earlier = None if since is None else path_at(since)
    if earlier is not None and earlier.resolve() == output.resolve():
        raise ConfigError(f"--since {since}: it is the --output, too; give each job its own folder")
    with lent(tables) as paths:
        requests = paths.get("requests")
        if requests is None and "interactions" not in paths:
            raise ConfigError("score: give an interaction log or requests, one of the two")
        if read_description(Bundle.open(folder)).gives_rows:
            _refuse_lists(paths, lists, since)
            requests = paths.pop("requests")
            scorer = RowScorer.open(folder, paths, settings)
            team = team_of(workers, folder, None, paths, settings)
            found = score_rows(scorer, requests, output, listener=listener, team=team)
            return dict(vars(found))
        if requests is not None and "interactions" in paths:
            raise ConfigError("score: give an interaction log or requests, one of the two")
        lists = lists or ListOptions()
        check_settings(settings)
        given = {name: tables[name] for name in _FILTER_TABLES if paths.pop(name, None)}
        log = dict(paths) if requests is None else None
        with (
            lists_opened(folder, lists, given, settings, log) as (whole, filters),
            lent(given) as own,
        ):
            shards = _shards(whole, paths, lists.rows_per_part)
            sent = _sendable(lists, whole.schema.item_key)
            team = team_of(workers, folder, sent, own, settings, log)
            how: dict[str, Any] = {"listener": listener, "team": team, "since": earlier}
            written = score_to_parquet(whole, shards, output, filters=filters, **how)
        return written.facts()


def _refuse_lists(
    paths: Mapping[str, str], lists: ListOptions | None, since: str | Path | None
) -> None:
    """Refuse what is of lists where a ranker is asked."""
    asked = lists is not None and not lists.are_default
    if "requests" not in paths or asked or "block" in paths or since is not None:
        raise ConfigError(
            "the model is a ranker: give the rows to score as requests; k, filter_seen, "
            "probability, approximate, cut, rows_per_part, where, exclude, allow, block "
            "and since are for lists of retrieval models"
        )


@contextmanager
def lists_opened(
    folder: Path,
    lists: ListOptions,
    tables: Mapping[str, Any],
    settings: Mapping[str, Any] | None,
    log: Mapping[str, str] | None = None,
) -> Iterator[tuple[Scorer, Filters]]:
    """Lend the scorer of a retrieval model with the filters that are asked for.

    Args:
        folder: of the bundle.
        lists: what lists are to hold.
        tables: `items` and `block`, paths or data frames.
        settings: other policies than in training, by full key.
        log: paths of the log and the tables beside it, which a pipeline's windows are over.

    Raises:
        UserError: what is asked for does not fit the model.
    """
    scorer = scorer_of(folder, lists).with_settings(settings)
    if log is not None:
        scorer = with_relations(scorer, _log_sources(log))
    given = {name: getattr(lists, name) for name in _FILTERS}
    with filtered(scorer, {**given, **tables}) as opened:
        yield opened


def team_of(
    workers: Workers,
    folder: Path,
    lists: ListOptions | None,
    tables: Mapping[str, str],
    settings: Mapping[str, Any] | None,
    log: Mapping[str, str] | None = None,
) -> Team | None:
    """Return the processes of a job, and what they open; None: one process is enough.

    Args:
        workers: how many; "auto": one for each core.
        folder: of the bundle.
        lists: of a retrieval model, with ids in place of data frames; None: a ranker.
        tables: paths that the model is opened with.
        settings: other policies than in training.
        log: see `lists_opened`.
    """
    if workers == 1:
        return None
    spec = {
        "folder": str(folder.absolute()),
        "lists": None if lists is None else vars(lists),
        "tables": dict(tables),
        "settings": None if settings is None else dict(settings),
        "log": None if log is None else dict(log),
    }
    return Team(None if workers == "auto" else workers, "recsys.app.score_worker", spec)


def _sendable(lists: ListOptions, item_key: str) -> ListOptions:
    """Return the same with paths and ids in place of data frames and arrays."""

    def plain(given: Any, name: str) -> Any:
        if given is None or isinstance(given, str | Path):
            return given if given is None else str(given)
        if is_frame(given):
            return to_arrow(given, name).column(item_key).to_pylist()
        return list(given.tolist() if hasattr(given, "tolist") else given)

    return replace(lists, **{name: plain(getattr(lists, name), name) for name in _FILTERS})


def scorer_of(folder: Path, lists: ListOptions) -> Scorer:
    """Return the scorer of a retrieval model, as lists are asked for, without their filters."""
    return Scorer.open(
        folder,
        k=lists.k,
        filter_seen=lists.filter_seen,
        probability=lists.probability,
        exact=not lists.approximate,
        cut=lists.cut,
    )


def score_audience(
    folder: Path,
    output: Path,
    tables: Mapping[str, Any],
    *,
    top_customers: int = 100,
    rows_per_part: int = ROWS_PER_PART,
    settings: Mapping[str, Any] | None = None,
    listener: Listener = ignore,
) -> dict[str, Any]:
    """Say who will interact with items that the catalogue lacks, and how many; return a summary.

    Args:
        folder: of the bundle of a calibrated two-tower.
        output: folder for the parts.
        tables: as for `score_model`, with `new_items`.
        top_customers: users named for each item.
        rows_per_part: users in a part.
        settings: other policies than in training, by full key.
        listener: called with each `PartDone`.

    Raises:
        UserError: the model gives no probabilities, or tables do not fit it.
    """
    check_folder(output, "Parquet parts")
    with lent(tables) as paths:
        scorer = Scorer.open(folder, probability=True).with_settings(settings)
        for name in ("items", "block"):
            if name in paths:
                raise ConfigError(
                    f"{name}: it filters lists, and new items give none: leave it out"
                )
        side_of = {name: table.joins for name, table in scorer.schema.others.items()}
        of_items = {n: path for n, path in paths.items() if side_of.get(n) == "items"}
        new = read_new_items(scorer, {"items": paths.pop("new_items"), **of_items})
        rest = {name: path for name, path in paths.items() if name not in of_items}
        check_settings(settings)
        shards = _shards(scorer, rest, rows_per_part)
        found = score_new_items(
            scorer, new, shards, output, top_customers=top_customers, listener=listener
        )
        return dict(vars(found))


def check_settings(settings: Mapping[str, Any] | None) -> None:
    """Refuse the policy that histories do not follow."""
    if "policies.unknown_items" in (settings or {}):
        raise ConfigError(
            "policies.unknown_items: items of a history that the model's catalogue lacks are left "
            "out and counted, whatever the policy: leave it out"
        )


def _shards(scorer: Scorer, paths: Mapping[str, str], rows_per_part: int) -> Shards:
    if "requests" in paths:
        return shards_of_requests(scorer, paths["requests"])
    return shards_of_log(scorer, _log_sources(paths), rows_per_part=rows_per_part)


def _log_sources(paths: Mapping[str, str]) -> Sources:
    """Return a log and the tables beside it."""
    roles = ("interactions", "users")
    others: dict[str, Source] = {name: path for name, path in paths.items() if name not in roles}
    log = log_given(paths["interactions"])
    return Sources(interactions=log, users=paths.get("users"), others=others)
