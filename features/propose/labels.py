"""How often each part of a log has label 1, and what looks wrong about it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsys.features.propose.text_grid import grid

LABEL = "label"
"""What the first outcome is called, which needs no name."""
_SHIFT = 1.5


@dataclass(frozen=True)
class LabelledPart:
    """The rows of one part of the split in which an outcome is known, and those with label 1."""

    part: str
    rows: int
    positives: int
    outcome: str = LABEL

    @property
    def share(self) -> float:
        """Share of the rows with label 1."""
        return self.positives / max(self.rows, 1)


def labelled_parts(
    names: Sequence[str],
    outcome: str,
    label: NDArray[np.float32],
    parts: NDArray[np.int8],
) -> tuple[LabelledPart, ...]:
    """Count the rows of an outcome.

    Args:
        names: of the parts 0, 1, 2.
        outcome: what it is called.
        label: (E,) 0 or 1, NaN where unknown.
        parts: (E,) the part of each row.
    """
    known = ~np.isnan(label)
    ones = label > 0  # of NaN false
    return tuple(
        LabelledPart(name, int(known[here].sum()), int(ones[here].sum()), outcome)
        for name, here in ((name, parts == number) for number, name in enumerate(names))
    )


def label_lines(parts: Sequence[LabelledPart]) -> list[str]:
    """Return the parts as a table of text, the outcome beside each where there are several."""
    several = any(one.outcome != LABEL for one in parts)
    rows = [
        ((one.outcome,) if several else ())
        + (one.part, f"{one.rows:,}", f"{one.positives:,}", f"{one.share:.2%}")
        for one in parts
    ]
    return grid((("outcome",) if several else ()) + ("part", "rows", "label 1", "share"), rows)


def label_warnings(parts: Sequence[LabelledPart]) -> list[str]:
    """Return what looks wrong about the parts of one outcome, the training part first."""
    found = []
    name = "label" if parts[0].outcome == LABEL else f"outcome '{parts[0].outcome}'"
    for one in parts:
        if one.rows and one.positives in (0, one.rows):
            found.append(
                f"all {one.part} rows have the {name} {int(one.positives > 0)}: nothing to "
                "distinguish there; are the rows sorted by it?"
            )
    latest = next((one for one in reversed(parts) if one.rows), parts[0])
    train, last = parts[0].share, latest.share
    noise = (train * (1 - train) / max(latest.rows, 1)) ** 0.5
    far = abs(last - train) > 5 * noise and not train / _SHIFT < last < train * _SHIFT
    if 0 < train < 1 and far:
        found.append(
            f"the {name} is 1 in {train:.1%} of the training rows and in {last:.1%} of the "
            f"{latest.part} rows: are the rows in the order of time?"
        )
    return found
