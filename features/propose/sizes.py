"""The sizes of a ranker and of its training that fit a log, each with its reason.

Measured where labels, splits and peers are public: Frappe (202,000 training rows, 10 columns) and
MovieLens-1M (591,000, 8 columns), with the validation rows.

- The recipe itself (batch normalisation, Adam and L2 on the table, averaged weights) is the
  default of every ranker; here is what depends on how much there is to learn from.
- L2 is a prior: as the loss is a mean over rows, it weighs as much as a number of rows does, and
  its best value falls with their number: 0.05 to 0.1 on the first log, 0.01 on the second.
- A batch leaves an epoch a few dozen steps at least. More rows are cheaper a row.
- The table has enough rows that few values share one: on Frappe, with one lookup a value,
  validation AUC / log loss were 0.9851 / 0.1345 with 12 rows a value and 0.9859 / 0.1298 with 195.
  Above a million rows values share, as there is little to learn of most.
"""

from dataclasses import dataclass
from math import floor, log10

SMALL_LOG = 50_000
"""Rows below which wide layers and several lookups a feature overfit."""
_PRIOR_ROWS = 10_000
_LEAST_DECAY, _MOST_DECAY = 1e-5, 0.1
_STEPS_AN_EPOCH, _LEAST_BATCH, _MOST_BATCH = 40, 256, 4096
_ROWS_A_VALUE, _LEAST_TABLE, _ROOMY_TABLE, _MOST_TABLE = 32, 4096, 1 << 20, 1 << 24


@dataclass(frozen=True)
class RankerSizes:
    """Settings of `model`, `training` and `embedding` by their names there."""

    hidden: tuple[int, ...]
    dropout: float
    batch_size: int
    weight_decay: float
    num_rows: int


def ranker_sizes(rows: int, values: int) -> RankerSizes:
    """Return the sizes for a log of so many rows.

    Args:
        rows: of the log, all parts.
        values: distinct values that its features look up.
    """
    small = rows < SMALL_LOG
    table = max(min(_ROWS_A_VALUE * values, _ROOMY_TABLE), values)
    return RankerSizes(
        hidden=(128, 64) if small else (400, 400),
        dropout=0.2 if small else 0.1,
        batch_size=min(max(_power_of_2(rows // _STEPS_AN_EPOCH), _LEAST_BATCH), _MOST_BATCH),
        weight_decay=_one_digit(min(max(_PRIOR_ROWS / max(rows, 1), _LEAST_DECAY), _MOST_DECAY)),
        num_rows=min(max(_power_of_2(table - 1) * 2, _LEAST_TABLE), _MOST_TABLE),
    )


def _power_of_2(number: int) -> int:
    """Return the largest power of 2 that is not above `number`, 1 at least."""
    return 1 << (max(number, 1).bit_length() - 1)


def _one_digit(number: float) -> float:
    return round(number, -floor(log10(number)))
