"""Whether there is enough to train a ranker on, found out before anything is encoded."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsys.core.errors import ConfigError
from recsys.features.batches.negatives import check_negatives
from recsys.features.clicks.log import ClickLog
from recsys.features.dataset.split import PART_NAMES, TRAIN, VALIDATION
from recsys.features.tables.checked import Tables
from recsys.training.families.ranker.config import RankerExperiment


@dataclass(frozen=True)
class OutcomeRows:
    """How many rows of a part have a known outcome that counts, and how many of these are 1.

    positives: None where it was not counted.
    """

    rows: int
    positives: int | None

    @property
    def is_constant(self) -> bool:
        """Whether the outcome is known to be the same in all rows, or there are none."""
        return self.rows == 0 or self.positives in (0, self.rows)


Counted = Sequence[Sequence[OutcomeRows]]
"""By part and by outcome, the label first."""


def check_rows(config: RankerExperiment, tables: Tables, part: NDArray[np.int8]) -> None:
    """Refuse rows of which a ranker learns nothing, or that say nothing of how good it is.

    Args:
        config: of the experiment.
        tables: the log, and the items.
        part: (E,) the part of each event.

    Raises:
        ConfigError: which part, and what is wrong with it.
    """
    events, numbers = tables.events, range(len(PART_NAMES))
    check_parts(config, [int((part == number).sum()) for number in numbers])
    check_negatives(config.training.negatives, tables.items.num_rows)
    if events.label is None:
        return
    columns = [events.label]
    if events.outcomes is not None:
        columns += list(events.outcomes.T)
    counted = [
        [_counted(column[here], events.weight[here]) for column in columns]
        for here in (part == number for number in numbers)
    ]
    check_outcomes(config, counted)


def check_clicks(config: RankerExperiment, log: ClickLog) -> None:
    """Refuse the same of a log that is encoded on disk, as far as its counts say it.

    Raises:
        ConfigError: which part, and what is wrong with it.
    """
    check_parts(config, log.counts)
    counted = [
        [OutcomeRows(*label), *(OutcomeRows(rows, None) for rows in known)]
        for *label, known in zip(log.counts, log.positives, log.known, strict=True)
    ]
    check_outcomes(config, counted)


def _counted(values: NDArray[np.float32], weight: NDArray[np.float32]) -> OutcomeRows:
    counts = ~np.isnan(values) & (weight > 0)
    return OutcomeRows(int(counts.sum()), int((counts & (values > 0)).sum()))


def check_parts(config: RankerExperiment, rows: Sequence[int]) -> None:
    """Refuse a split, given the rows of each part, of which one that it has is empty.

    Raises:
        ConfigError: which.
    """
    for number in config.split.parts:
        if rows[number] == 0:
            raise ConfigError(
                f"split: the {PART_NAMES[number]} part has no rows; choose a larger share"
            )


def check_outcomes(config: RankerExperiment, counted: Counted) -> None:
    """Refuse parts whose label is always the same, and outcomes of which nothing is known.

    Raises:
        ConfigError: which, and what to change.
    """
    outcomes = config.schema_.interactions.outcomes
    for outcome, one in zip(outcomes, counted[TRAIN][1:], strict=True):
        if one.rows == 0:
            raise ConfigError(
                f"schema.interactions.outcomes: '{outcome.column}' is null in all training rows: "
                f"nothing can be learnt of '{outcome.name}'"
            )
    for number in config.split.parts:
        label = counted[number][0]
        if label.is_constant:
            raise _one_class(config, number, label)
    metric, names = config.training.metric, config.schema_.interactions.outcome_names
    decides = {f"auc_{name}": place for place, name in enumerate(names, 1)}.get(metric)
    if decides is None or config.split.trains_on_validation:
        return
    if counted[VALIDATION][decides].is_constant:
        raise not_computed(metric)


def not_computed(metric: str) -> ConfigError:
    """Return what is raised where the validation rows do not say which epoch is best."""
    return ConfigError(
        f"training.metric: {metric} needs validation rows in which that outcome is 1 and rows "
        "in which it is 0, and there are none of one of them: set training.metric: auc, or a "
        "split with more validation rows"
    )


def _one_class(config: RankerExperiment, number: int, label: OutcomeRows) -> ConfigError:
    column = config.schema_.interactions.label
    assert column is not None, "rows have labels"
    value = int(bool(label.positives))
    purpose = "to learn from" if number == TRAIN else "to measure the ranker by"
    return ConfigError(
        f"schema.interactions.label: all {label.rows:,} {PART_NAMES[number]} rows that count have "
        f"the label {value} ('{column.column}'): nothing {purpose}; choose parts that hold both "
        "labels (section 'split'), or look whether the column was recorded all the time"
    )
