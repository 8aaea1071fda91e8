"""Batch scoring as a function: requests in, Parquet parts out."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recsys.app.filtering import filtered
from recsys.app.log_given import log_given
from recsys.bundle.directory import Bundle
from recsys.core.errors import ConfigError
from recsys.core.events import Listener, ignore
from recsys.core.folders import check_folder
from recsys.features.bundle.files import read_description
from recsys.features.tables.frames import lent
from recsys.features.tables.sources import Source, Sources
from recsys.serving.engines.audience import read_new_items, score_new_items
from recsys.serving.engines.batch import (
    Shards,
    score_to_parquet,
    shards_of_log,
    shards_of_requests,
)
from recsys.serving.engines.relations import with_relations
from recsys.serving.engines.rows import score_rows
from recsys.serving.recommend.rows import RowScorer
from recsys.serving.recommend.scorer import Scorer

ROWS_PER_PART = 10_000


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
        listener: called with each `PartDone`.

    Raises:
        UserError: the requests do not fit the model, or `output` is named as a file or holds
            another job's files.
    """
    check_folder(output, "Parquet parts")
    with lent(tables) as paths:
        requests = paths.get("requests")
        if requests is None and "interactions" not in paths:
            raise ConfigError("score: give an interaction log or requests, one of the two")
        if read_description(Bundle.open(folder)).gives_rows:
            asked = lists is not None and not lists.are_default
            if requests is None or asked or "block" in paths:
                raise ConfigError(
                    "the model is a ranker: give the rows to score as requests; k, filter_seen, "
                    "probability, approximate, cut, rows_per_part, where, exclude, allow and block "
                    "are for lists of retrieval models"
                )
            del paths["requests"]
            scorer = RowScorer.open(folder, paths, settings)
            return dict(vars(score_rows(scorer, requests, output, listener=listener)))
        if requests is not None and "interactions" in paths:
            raise ConfigError("score: give an interaction log or requests, one of the two")
        lists = lists or ListOptions()
        recommender = _opened(folder, lists).with_settings(settings)
        _check_settings(settings)
        given = {name: getattr(lists, name) for name in ("where", "exclude", "allow")}
        given |= {name: tables.get(name) for name in ("items", "block") if paths.pop(name, None)}
        if requests is None:
            recommender = with_relations(recommender, _log_sources(paths))
        with filtered(recommender, given) as (whole, filters):
            shards = _shards(whole, paths, lists.rows_per_part)
            found = score_to_parquet(whole, shards, output, filters=filters, listener=listener)
        return found.facts()


def _opened(folder: Path, lists: ListOptions) -> Scorer:
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
        _check_settings(settings)
        shards = _shards(scorer, rest, rows_per_part)
        found = score_new_items(
            scorer, new, shards, output, top_customers=top_customers, listener=listener
        )
        return dict(vars(found))


def _check_settings(settings: Mapping[str, Any] | None) -> None:
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
