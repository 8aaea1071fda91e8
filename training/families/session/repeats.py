"""Whether items come back in sessions: what `model.repeats: auto` decides by training rows."""

import logging
from dataclasses import replace

from recsys.features.bundle.searching import Search
from recsys.models.session_config import Repeats
from recsys.retrieval.recurrence import Recurrence
from recsys.training.families.opened import OpenedModel
from recsys.training.families.plain.rows import counted
from recsys.training.families.recounting import NewLog, Renewed
from recsys.training.families.retrieval.memory import recounted_memory
from recsys.training.families.session.config import Gbce, SessionExperiment

LOG = logging.getLogger(__name__)
RARE = 0.01
"""Below this share of steps, and no more of them than by chance, items do not come back: leaving
out those of the history costs this share of the steps at most."""
LEAST_STEPS = 100
"""Steps that are needed to say so."""


def decided(config: SessionExperiment, found: Recurrence) -> tuple[Repeats, str]:
    """Return what `auto` stands for on such training rows, and why."""
    words = found.in_words()
    if found.steps < LEAST_STEPS:
        return False, f"{words}: too few steps to tell"
    if found.share < RARE and found.share <= found.by_chance:
        return "never", f"{words}: lists leave out the items of the history"
    if config.evaluation.filter_seen:
        return False, f"{words}, and evaluation.filter_seen leaves them out"
    if isinstance(config.training.loss, Gbce):
        return False, f"{words}, and training.loss: gbce cannot learn what they gain"
    return True, f"{words}: what they gain is learnt"


def with_repeats(
    config: SessionExperiment, found: Recurrence
) -> tuple[SessionExperiment, dict[str, str]]:
    """Return the configuration with `auto` decided, and what a report says of it."""
    repeats, why = decided(config, found)
    written = repeats if isinstance(repeats, str) else str(repeats).lower()
    LOG.info("model.repeats: %s (%s)", written, why)
    model = config.model.model_copy(update={"repeats": repeats})
    return config.model_copy(update={"model": model}), {"repeats": f"{written} ({why})"}


def recounted_session(opened: OpenedModel, search: Search, log: NewLog) -> Renewed:
    """Return the model with the pairs of a newer log; say whether items come back in that, too.

    Raises:
        ConfigError: as `recounted_memory`.
    """
    renewed, config = recounted_memory(opened, search, log), opened.config
    rows = counted(log.data, log.sessions)
    found = Recurrence.of(rows.sequence, rows.item, config.model.history_length)
    if config.model.repeats == "never" and decided(config, found)[0] != "never":
        LOG.warning(
            "model.repeats: never: but in this log %s; train the model on it", found.in_words()
        )
    return replace(renewed, words={**renewed.words, "repeats": found.in_words()})
