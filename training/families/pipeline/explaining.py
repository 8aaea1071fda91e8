"""Why a pipeline shows an item: which sources name it, and what that adds to its score.

Of a ranker the parts are what its score loses without them; of trees, their shares by TreeSHAP.
"""

from dataclasses import replace

import numpy as np

from recsys.core.errors import ConfigError
from recsys.features.bundle.searching import items_of
from recsys.features.dataset.split import TEST
from recsys.features.pipeline.candidates import Candidates
from recsys.features.pipeline.row_ranker import RowRanker
from recsys.features.pipeline.searching import PipelineSearch
from recsys.features.requests.table import Requests
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
    user_row = row_of(data.tables.users, data.schema.user_key, user, "user", data.schema.ids.users)
    item_row = row_of(data.tables.items, data.schema.item_key, item, "item", data.schema.ids.items)
    asking = Asking.before(config, data, TEST + 1)
    if not wanted.is_everything:
        passes = wanted.passing(data, config.policies)
        wanted.check(passes, item_row, item)
        asking = replace(asking, passes=passes if asking.passes is None else asking.passes & passes)
    _, requests = asking.one_table(np.array([user_row]), search)
    _, candidates = search.candidates(requests, exclude=asking.excluded(requests))
    (place,) = np.nonzero(candidates.items.values.numpy() == item_row)
    if not len(place):
        raise ConfigError(
            f"none of {', '.join(search.names)} names item {item} for user {user} (or it was seen "
            "or does not pass the filter), so that the pipeline cannot show it: let sources take "
            "more"
        )
    ranked = search.ranked(requests, candidates, search.joined.num_items)
    at = np.flatnonzero(ranked.rows[0].numpy() == item_row)
    of_sources, others = _parts(search, requests, candidates, int(place[0]))
    because = [
        Because(
            name,
            f"{name}: place {rank:,} of {take:,}" if rank else f"{name}: not named",
            adds,
        )
        for name, rank, take, adds in zip(
            search.names,
            candidates.rank[place[0]].tolist(),
            search.takes,
            of_sources,
            strict=True,
        )
    ]
    because += [Because("item", words, adds) for words, adds in others.items()]
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


def _parts(
    search: PipelineSearch, requests: Requests, candidates: Candidates, place: int
) -> tuple[list[float], dict[str, float]]:
    """Return what each source adds to the score of a candidate, and what else does.

    Of a candidate that the ranker orders, to the ranker's score; else to that of the fusion.
    """
    joined, history = search.joined, items_of(requests.history)
    if joined.ranker is None or place not in joined.fused(candidates, joined.keeps).chosen:
        parts = joined.fusion.parts(candidates, joined.facts.counts)[place].tolist()
        return parts[:-1], {"the item by itself": parts[-1]}
    one = candidates.only(np.array([place]))
    groups = joined.groups(len(search.names))
    inputs = joined.inputs(one, history)
    found = joined.ranker.parts(one, inputs, requests.for_ranker, groups)[0].tolist()
    others = {
        "how often the item occurs, and its numbers": found[-2],
        "the history, and what the item shares with it": found[-1],
    }
    ranker = joined.ranker
    if isinstance(ranker, RowRanker) and ranker.windows.features:
        windows = ranker.windows_add(one, inputs, requests.for_ranker)
        others["the rows of other tables before the request"] = float(windows[0])
    return found[:-2], others
