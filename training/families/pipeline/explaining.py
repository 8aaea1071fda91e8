"""Why a pipeline shows an item: which sources name it, and what that adds to its score."""

from dataclasses import replace

import numpy as np

from recsys.core.errors import ConfigError
from recsys.features.bundle.searching import items_of
from recsys.features.dataset.split import TEST
from recsys.training.explain.because import Because, ListExplanation
from recsys.training.explain.ids import row_of
from recsys.training.explain.wanted import EVERYTHING, Wanted
from recsys.training.families.opened import OpenedModel
from recsys.training.families.pipeline.asking import Asking
from recsys.training.families.pipeline.config import PipelineExperiment
from recsys.training.families.pipeline.opening import search_in
from recsys.training.reports.showcase import item_titles


def explain_candidate(
    opened: OpenedModel, user: str, item: str, wanted: Wanted = EVERYTHING
) -> ListExplanation:
    """Return which sources name an item for a user, at which place, and what each adds.

    Raises:
        NotFoundError: the data have no such user or item.
        ConfigError: the data have another catalogue, or no source names the item.
    """
    config: PipelineExperiment = opened.config
    data = opened.data()
    search = search_in(opened, data)
    user_row = row_of(data.tables.users, data.schema.user_key, user, "user")
    item_row = row_of(data.tables.items, data.schema.item_key, item, "item")
    asking = Asking.before(config, data, TEST + 1)
    if not wanted.is_everything:
        passes = wanted.passing(data, config.policies)
        wanted.check(passes, item_row, item)
        asking = replace(asking, passes=passes if asking.passes is None else asking.passes & passes)
    _, requests = asking.one_table(np.array([user_row]), search.sources)
    _, candidates = search.candidates(requests, exclude=asking.excluded(requests))
    (place,) = np.nonzero(candidates.items.values.numpy() == item_row)
    if not len(place):
        raise ConfigError(
            f"none of {', '.join(search.names)} names item {item} for user {user} (or it was seen "
            "or does not pass the filter), so that the pipeline cannot show it: let sources take "
            "more"
        )
    ranked = search.joined.ranked(candidates, items_of(requests.history), search.joined.num_items)
    at = np.flatnonzero(ranked.rows[0].numpy() == item_row)
    parts = search.joined.fusion.parts(candidates, search.joined.facts.counts)[place[0]]
    because = [
        Because(
            name,
            f"{name}: place {rank:,} of {take:,}" if rank else f"{name}: not named",
            float(adds),
        )
        for name, rank, take, adds in zip(
            search.names, candidates.rank[place[0]].tolist(), search.takes, parts, strict=False
        )
    ]
    because.append(Because("item", "the item by itself", float(parts[-1])))
    return ListExplanation(
        kind=config.model.kind,
        user=user,
        item=item,
        title=item_titles(data)[item_row],
        score=float(ranked.scores[0, at[0]]) if len(at) else float("nan"),
        rank=int(at[0]) + 1 if len(at) else 0,
        by_popularity=False,
        because=tuple(sorted(because, key=lambda one: -one.adds)),
    )
