"""Whether there is anybody to ask in the parts that a training of lists is judged by."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys.core.errors import ConfigError
from recsys.features.dataset.queries import users_to_ask
from recsys.features.dataset.session_queries import events_to_ask
from recsys.features.dataset.sessions import SessionConfig, sessions_of
from recsys.features.dataset.split import PART_NAMES, VALIDATION
from recsys.features.tables.checked import Tables


def check_asked(
    config: Any, tables: Tables, part: NDArray[np.int8], cutting: SessionConfig | None = None
) -> None:
    """Refuse a log in whose validation part, or the one that is evaluated on, nobody can be asked.

    Args:
        config: of the experiment, of any family whose models give lists.
        tables: the log, and the items.
        part: (E,) the part of each event.
        cutting: how the log is cut, where queries ask for events (`evaluation.queries`).

    Raises:
        ConfigError: which part, and what to choose.
    """
    ask = _events if getattr(config.evaluation, "queries", "users") == "events" else _users
    wanted = (None if config.split.trains_on_validation else VALIDATION, config.split.evaluated)
    for one in dict.fromkeys(number for number in wanted if number is not None):
        if not ask(config, tables, part, one, cutting):
            raise nobody_to_ask(config, one)


def nobody_to_ask(config: Any, part: int) -> ConfigError:
    """Return what is raised where a part, a number, has nobody to ask."""
    who, unseen = _WHO[getattr(config.evaluation, "queries", "users")]
    remedy = "choose a larger share"
    if config.evaluation.filter_seen:
        who = f"{who} {unseen}"
        remedy += ", or count what comes again (evaluation.filter_seen: false)"
    return ConfigError(f"split: {who.format(PART_NAMES[part])}; {remedy}")


_WHO = {
    "users": ("no user has a {} item", "that they had not had before"),
    "events": (
        "no {} row has an earlier one in its session",
        "and an item that its user had not had before",
    ),
}


def _users(
    config: Any, tables: Tables, part: NDArray[np.int8], asked: int, _cutting: SessionConfig | None
) -> int:
    only_new = config.evaluation.filter_seen
    return len(users_to_ask(config.schema_, tables, part, asked, filter_seen=only_new))


def _events(
    config: Any, tables: Tables, part: NDArray[np.int8], asked: int, cutting: SessionConfig | None
) -> int:
    assert cutting is not None, "events are asked for in sessions"
    sessions = sessions_of(config.schema_, tables.events, cutting)
    only_new = config.evaluation.filter_seen
    return len(events_to_ask(config.schema_, tables, part, sessions, asked, filter_seen=only_new))
