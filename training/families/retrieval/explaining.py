"""Why a model of vectors recommends an item: which items of the history speak for it.

A model is asked once more without each item of the history, all its mentions at once; what the
item adds is by how much the score of the recommended one falls. That is no share of the score: a
model of sessions may rest on several items together.
"""

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from recsys.core.errors import ConfigError
from recsys.data.batch import Jagged
from recsys.features.bundle.lists import ListModel
from recsys.features.bundle.searching import Found, VectorSearch, items_of
from recsys.features.dataset.dataset import Dataset
from recsys.features.dataset.sessions import cut_sessions
from recsys.features.dataset.split import TEST, TRAIN, VALIDATION
from recsys.features.requests.table import HISTORY, Requests, request_table
from recsys.training.explain.because import Because, ListExplanation, place_in_list
from recsys.training.explain.ids import row_of
from recsys.training.explain.wanted import EVERYTHING, Wanted
from recsys.training.families.family import Explainer
from recsys.training.families.opened import OpenedModel
from recsys.training.reports.showcase import item_titles


def explain_item(
    opened: OpenedModel, user: str, item: str, wanted: Wanted = EVERYTHING
) -> ListExplanation:
    """Return by how much each item of a user's history, or session, moves the score of an item.

    Raises:
        NotFoundError: the data have no such user or item.
        ConfigError: the model does not know the item, or it does not pass the filters.
    """
    data, model = opened.data(), ListModel.open(opened.bundle.path)
    user_row = row_of(data.tables.users, data.schema.user_key, user, "user", data.schema.ids.users)
    item_row = row_of(data.tables.items, data.schema.item_key, item, "item", data.schema.ids.items)
    target = int(opened.own_rows(data)[item_row])
    if target < 0:
        raise ConfigError(f"item {item} is not in the model's catalogue: train it again")
    passes = wanted.passing(data, opened.config.policies)
    wanted.check(passes, item_row, item)
    place_in_data = opened.rows_in(data)
    left_out = np.flatnonzero((place_in_data < 0) | ~passes[place_in_data])
    table = _request(data, model, user_row)
    steps = dict.fromkeys(table.column(HISTORY)[0].as_py())
    asked = pa.concat_tables([table, *(_without(table, step) for step in steps)])
    requests = model.encode(asked)
    found = model.search(requests, len(model.item_ids), filter_seen=False, exact=True)
    if bool((found.rows[0] != target).all()):
        raise ConfigError(
            f"item {item} is in the history of user {user}, and this model recommends none of it "
            "(model.repeats: never): explain another item"
        )
    place = (found.rows == target).nonzero()[:, 1]
    if opened.config.evaluation.filter_seen:
        seen = requests.seen.take(torch.tensor([0])).values.numpy()
        left_out = np.concatenate([left_out, seen])
    scores = _scores(found, place)
    pairs = _of_pairs(model, requests, target)
    names = dict(zip(_ids(data).to_pylist(), item_titles(data), strict=True))
    because = [
        Because(step, _named(str(names.get(step, step)), pairs[0] - pairs[at]), scores[0] - own)
        for at, (step, own) in enumerate(zip(steps, scores[1:], strict=True), 1)
    ]
    return ListExplanation(
        kind=opened.config.model.kind,
        user=user,
        item=item,
        title=str(names[data.tables.items.column(data.schema.item_key)[item_row].as_py()]),
        score=scores[0],
        rank=place_in_list(found.rows[0].numpy(), target, left_out),
        by_popularity=False,
        because=tuple(sorted(because, key=lambda one: -one.adds)),
    )


def _request(data: Dataset, model: ListModel, user_row: int) -> pa.Table:
    """Return the request of a user with all that is known of them."""
    histories = data.histories((TRAIN, VALIDATION, TEST))
    sessions = None if model.sessions is None else cut_sessions(data, model.sessions)
    users = np.array([user_row])
    return request_table(data.schema, data.tables, histories, users, sessions=sessions)


def _without(table: pa.Table, item: object) -> pa.Table:
    """Return a request without an item of its history, whatever is said of its steps with it."""
    kept = [place for place, one in enumerate(table.column(HISTORY)[0].as_py()) if one != item]
    for at, field in enumerate(table.schema):
        if field.name == HISTORY or field.name.startswith(f"{HISTORY}_"):
            values = table.column(at)[0].as_py()
            shorter = pa.array([[values[place] for place in kept]], field.type)
            table = table.set_column(at, field, shorter)
    return table


def _scores(found: Found, place: torch.Tensor) -> list[float]:
    return found.scores[torch.arange(len(place)), place].tolist()


def _of_pairs(model: ListModel, requests: Requests, target: int) -> list[float]:
    """Return what the memory of pairs adds to the score of an item, for each request."""
    search = model.found_by
    if not isinstance(search, VectorSearch) or search.memory is None:
        return [0.0] * len(requests)
    gains: Jagged = search.memory.gains(items_of(requests.history))
    assert gains.weights is not None
    mine = gains.values == target
    found: NDArray[np.float64] = np.zeros(len(requests))
    found[gains.owners()[mine].numpy()] = gains.weights[mine].numpy()
    return found.tolist()


def _named(title: str, of_pair: float) -> str:
    return f"{title} (pair {of_pair:+.3g})" if of_pair else title


def _ids(data: Dataset) -> pa.Array:
    return data.tables.items.column(data.schema.item_key).combine_chunks()


EXPLAINER = Explainer.of_lists(explain_item)
"""Of families of models of vectors."""
