"""A user's session followed event by event: an event costs one step of the model, not the session.

    following = Following.start(scorer, {"user_id": 7, "region": "north"})
    following = following.append("i000012", time=1_700_000_000, device="phone")
    lists = following.recommend(k=10)

After each event the lists are those of `Scorer.score` for a request with the same history
(`recsys.features.requests.table`): a pause that ends a session begins a new one, an item that the
catalogue lacks leaves it as it was, and what a user has seen is left out where it is for requests.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import pyarrow as pa
import torch

from recsys.core.errors import ConfigError
from recsys.data.batch import History, Jagged
from recsys.features.bundle.searching import Found
from recsys.features.requests.origin import RequestOrigin
from recsys.features.requests.steps import TIMES, step_columns, step_times
from recsys.features.requests.table import HISTORY, Requests
from recsys.features.tables.times import NULL_TIME
from recsys.models.session import SessionTransformer
from recsys.models.session_state import SessionState
from recsys.retrieval.passing import Passing
from recsys.retrieval.recommend import best_items, gains_of
from recsys.serving.recommend.filters import FilterOptions, Filters
from recsys.serving.recommend.scorer import Scorer

_USER, _EVENT = RequestOrigin("the user"), RequestOrigin("the event")
_SECOND, _MINUTE = 1_000_000, 60_000_000  # microseconds


@dataclass(frozen=True)
class Following:
    """One session up to now; adding an event gives a new one and leaves this one as it is.

    Attributes:
        scorer: of a model of sessions.
        user: key and attributes, as a row of requests has them.
        asked: the one request, encoded without its steps; what the user has seen is up to date.
        state: of the model.
        filters: by which predicates are read.
        items: rows of the catalogue of the steps that the model sees.
        shown_at: when the last of them was, in microseconds, or `NULL_TIME`.
        last_at: when the last event was, of an item that the catalogue lacks too.
    """

    scorer: Scorer
    user: Mapping[str, Any]
    asked: Requests
    state: SessionState
    filters: Filters
    items: tuple[int, ...] = ()
    shown_at: int = NULL_TIME
    last_at: int = NULL_TIME

    @classmethod
    def start(cls, scorer: Scorer, user: Mapping[str, Any]) -> "Following":
        """Return the session of a user before its first event.

        Args:
            scorer: of a model of sessions.
            user: the user key and the attributes that the model reads; `seen` may hold the items
                of earlier sessions.

        Raises:
            ConfigError: the model reads whole histories, not sessions.
            DataError: the user key is missing, or a value is not of the kind that the model reads.
        """
        if scorer.sessions is None:
            raise ConfigError(
                f"a model of kind {scorer.description.kind} reads whole histories and follows no "
                "session: use recommend, or train model.kind: session"
            )
        asked = scorer.encode(_row({HISTORY: [], **user}, _USER), _USER)
        state = SessionState.empty(_stepwise(scorer), asked.block)
        return cls(scorer, dict(user), asked, state, Filters.of(scorer))

    def append(self, item: Any, time: Any = None, **known: Any) -> "Following":
        """Return the session with one more event.

        Args:
            item: the id of its item.
            time: when it was, as the time column of the log has it; None: not known.
            known: what else is known of it, by column of the interactions.

        Raises:
            DataError: a column that the model does not read, a value of another kind than it was
                trained on, or a time before that of the last event.
        """
        schema = self.scorer.schema
        columns = step_columns(schema)
        lists = {columns.get(name, f"history_{name}"): [value] for name, value in known.items()}
        if time is not None:
            lists[TIMES] = [time]
        table = _row(
            {schema.user_key: self.user[schema.user_key], HISTORY: [item], **lists}, _EVENT
        )
        step = self.scorer.encode(table, _EVENT)
        times = step_times(schema, table, _EVENT)
        now = NULL_TIME if times is None else int(times[0])
        if NULL_TIME not in (now, self.last_at) and now < self.last_at:
            raise _EVENT.error(
                f"its time {time!r} is before that of the last event",
                remedy="a session is followed in order of time",
            )
        going = self._restarted() if self._paused(now) else self
        if step.unknown_items:
            return replace(going, last_at=now)
        assert isinstance(step.history, History)
        history = replace(step.history, gap=torch.tensor([going._gap(now)]))
        limit = self.scorer.model.config.history_length
        row = int(history.items.values[0])
        return replace(
            going,
            asked=_with_event(going.asked, row),
            state=going.state.extend(self.scorer.vectors, history),
            items=(*going.items, row)[-limit:],
            shown_at=now,
            last_at=now,
        )

    @torch.no_grad()
    def recommend(
        self,
        k: int | None = None,
        filter_seen: bool | None = None,
        probability: bool | None = None,
        *,
        where: str | None = None,
        exclude: Any = None,
        allow: Any = None,
        cut: bool | None = None,
    ) -> pa.Table:
        """Return one row as `Scorer.score` does: user key, items, scores, reason.

        `where`, `exclude` and `allow` say what may be in the list, as `FilterOptions` has them;
        `cut` whether it ends where relevance does.

        Raises:
            ConfigError: k is below 1, probabilities are wanted of a model without calibration, or
                `cut` of one without relevance, or `where` does not fit the items.
            DataError: ids of lists are not of the catalogue's kind.
        """
        scorer = self.scorer
        wanted = scorer.k if k is None else k
        if wanted < 1:
            raise ConfigError(f"k must be at least 1, got {wanted}")
        without_seen = scorer.filter_seen if filter_seen is None else filter_seen
        seen = self.asked.seen if without_seen else None
        asked = FilterOptions(where=where, exclude=exclude, allow=allow)
        passing = self._passing(asked)
        vectors, gain = scorer.model.without_gain(self.state.query().float())
        scores, rows = best_items(
            scorer.index,
            scorer.vectors,
            vectors,
            gains_of(_one_row(self.items), gain, scorer.memory),
            k=min(wanted, len(scorer.item_ids)),
            exclude=seen if passing is None else passing.hiding(seen),
        )
        steps = torch.tensor([len(self.items)])
        found = scorer.by_vectors.with_logits(Found(scores, rows), vectors, steps)
        return scorer.lists(
            self.asked, scorer.ended(found, cut), wanted, probability, passing, seen
        )

    def _passing(self, asked: FilterOptions) -> Passing | None:
        """Return what may be recommended, by what is asked for and by the user's own columns."""
        filters = self.filters.with_(asked, self.scorer.policies)
        return filters.of_requests(_row(self.user, _USER), _USER)[0]

    def _paused(self, now: int) -> bool:
        """Whether the pause before `now` ends the session."""
        sessions = self.scorer.sessions
        if sessions is None or sessions.inactivity_minutes is None:
            return False
        known = NULL_TIME not in (now, self.last_at)
        return known and now - self.last_at > sessions.inactivity_minutes * _MINUTE

    def _restarted(self) -> "Following":
        """Return a session without a step, of the same user, who has seen what was seen."""
        state = SessionState.empty(_stepwise(self.scorer), self.asked.block)
        asked = replace(self.asked, num_events=torch.zeros_like(self.asked.num_events))
        return replace(self, asked=asked, state=state, items=(), shown_at=NULL_TIME)

    def _gap(self, now: int) -> float:
        """Return seconds since the step before, as the model reads them: NaN where not known."""
        if now == NULL_TIME or (self.items and self.shown_at == NULL_TIME):
            return float("nan")
        return (now - self.shown_at) / _SECOND if self.items else 0.0


def _row(values: Mapping[str, Any], origin: RequestOrigin) -> pa.Table:
    """Return a table of one row.

    Raises:
        DataError: a value is none of a table.
    """
    try:
        return pa.Table.from_pylist([dict(values)])
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise origin.error(reason, remedy="give values as tables hold them") from None


def _with_event(asked: Requests, row: int) -> Requests:
    seen = asked.seen.values.numpy()
    return replace(
        asked, seen=_one_row(np.append(seen, row).tolist()), num_events=asked.num_events + 1
    )


def _one_row(values: Any) -> Jagged:
    rows = np.array(values, np.int64)
    return Jagged.of_lengths(rows, np.array([len(rows)]))


def _stepwise(scorer: Scorer) -> SessionTransformer:
    """Return the model, which has sessions and so reads them step by step."""
    return cast(SessionTransformer, scorer.model)
