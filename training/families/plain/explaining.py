"""Why a plain model recommends an item: because of which items of the history."""

import numpy as np
from numpy.typing import NDArray

from recsys.core.errors import ConfigError
from recsys.data.batch import Jagged
from recsys.features.dataset.dataset import Dataset
from recsys.features.dataset.sessions import Sessions
from recsys.features.dataset.split import TEST, TRAIN, VALIDATION
from recsys.plain.answering import MovedModel, PlainModel
from recsys.retrieval.passing import Passing
from recsys.training.explain.because import Because, ListExplanation, place_in_list
from recsys.training.explain.ids import row_of
from recsys.training.explain.wanted import EVERYTHING, Wanted
from recsys.training.families.opened import OpenedModel
from recsys.training.families.plain.job import model_on
from recsys.training.families.plain.reading import PlainData
from recsys.training.reports.showcase import item_titles


def explain_list(
    opened: OpenedModel, user: str, item: str, wanted: Wanted = EVERYTHING
) -> ListExplanation:
    """Return what each item of a user's history adds to the score of an item.

    That is by how much the score falls when the item is left out of the history, all its mentions
    at once; of models that add items up it is their share of the score.

    Raises:
        NotFoundError: the data have no such user or item.
        ConfigError: the model does not know the item, or it does not pass the filters.
    """
    config = opened.config
    reading = PlainData.of(config, opened.data())
    data = reading.data
    user_row = row_of(data.tables.users, data.schema.user_key, user, "user")
    item_row = row_of(data.tables.items, data.schema.item_key, item, "item")
    model = model_on(opened, data)
    history = _history(data, reading.sessions, user_row)
    own = _own(model, history, item_row)
    if own is None:
        raise ConfigError(f"item {item} is not in the model's catalogue: train it again")
    plain, steps, target = own
    names = item_titles(data)
    ids = data.tables.items.column(data.schema.item_key).to_pylist()
    with_all = _score(plain, steps, target)
    added = {one: with_all - _score(plain, steps[steps != one], target) for one in set(steps)}
    passes = wanted.passing(data, config.policies)
    wanted.check(passes, item_row, item)
    if config.evaluation.filter_seen:
        passes[_history(data, None, user_row)] = False
    passes[item_row] = True
    allowed = Passing.of(_of_model(model, passes), np.zeros(1, np.int64))
    top = plain.top(_one(steps), plain.num_items, exclude=allowed)
    of_data = {int(one): place for place, one in zip(history, steps, strict=True)}
    rows = sorted(added, key=lambda one: (-added[one], of_data[int(one)]))
    return ListExplanation(
        kind=config.model.kind,
        user=user,
        item=item,
        title=names[item_row],
        score=with_all,
        rank=place_in_list(top.rows[0].numpy(), target, np.zeros(0, np.int64)),
        by_popularity=bool(top.popular[0]),
        because=tuple(
            Because(ids[of_data[int(one)]], names[of_data[int(one)]], float(added[one]))
            for one in rows
        ),
    )


def _history(data: Dataset, sessions: Sessions | None, user_row: int) -> NDArray[np.int64]:
    """Return the item rows of a user's events, of the last session where there are any."""
    events = data.tables.events
    if sessions is None:
        found = data.histories((TRAIN, VALIDATION, TEST)).last(np.array([user_row]))
        return np.asarray(found.values.numpy(), np.int64)
    of_user = np.flatnonzero(sessions.user == user_row)
    if not len(of_user):
        return np.zeros(0, np.int64)
    last = of_user[-1]
    rows = sessions.order[sessions.offsets[last] : sessions.offsets[last + 1]]
    return events.item_row[rows].astype(np.int64)


def _of_model(model: PlainModel | MovedModel, passes: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return which items of the data pass, (1, N), in the model's own rows."""
    if isinstance(model, PlainModel):
        return passes[None]
    found = np.zeros((1, model.model.num_items), bool)
    found[0, model.own[passes & (model.own >= 0)]] = True
    return found


def _own(
    model: PlainModel | MovedModel, history: NDArray[np.int64], item: int
) -> tuple[PlainModel, NDArray[np.int64], int] | None:
    """Return the model with history and item in its own rows; None: it lacks the item."""
    if isinstance(model, PlainModel):
        return model, history, item
    steps, target = model.own[history], int(model.own[item])
    return None if target < 0 else (model.model, steps[steps >= 0], target)


def _one(steps: NDArray[np.int64]) -> Jagged:
    return Jagged.of_lengths(steps, np.array([len(steps)]))


def _score(model: PlainModel, steps: NDArray[np.int64], item: int) -> float:
    return float(model.scores(_one(steps))[0, item])
