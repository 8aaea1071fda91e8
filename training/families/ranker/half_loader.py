"""Half of a ranker's validation rows, for a search that must not see what it is compared on."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice

from recsys.core.errors import ConfigError
from recsys.data.batch import RankingBatch
from recsys.features.dataset.split import VALIDATION
from recsys.training.families.ranker.rows import RankingRows, RowLoader

_LEAST_BATCHES = 8


@dataclass(frozen=True)
class HalfLoader:
    """A `RowLoader` whose validation rows are every other batch of `size`, from `half` on."""

    whole: RowLoader
    half: int
    size: int

    @property
    def num_steps(self) -> int:
        """Batches an epoch."""
        return self.whole.num_steps

    def epoch(
        self, epoch: int, first_step: int = 0, *, rank: int = 0, world: int = 1
    ) -> Iterator[RankingBatch]:
        """Yield the training batches of `epoch`."""
        return self.whole.epoch(epoch, first_step, rank=rank, world=world)

    def ordered(
        self, part: int, batch_size: int, *, rank: int = 0, world: int = 1
    ) -> Iterator[RankingBatch]:
        """Yield the rows of `part` in order; of the validation part this half."""
        if part != VALIDATION:
            return self.whole.ordered(part, batch_size, rank=rank, world=world)
        batches = self.whole.ordered(part, self.size, rank=rank, world=world)
        return islice(batches, self.half, None, 2)

    def users(self, part: int) -> None:
        """No metric of a study is within users."""


def halved(rows: RankingRows, half: int, batch_size: int) -> RankingRows:
    """Return `rows` with half of the validation rows, in pieces that make at least eight.

    Raises:
        ConfigError: there are not enough of them to halve.
    """
    count = rows.rows[VALIDATION]
    if count < _LEAST_BATCHES:
        raise ConfigError(
            f"split: {count} validation rows cannot be halved for a study; choose a larger share"
        )
    size = min(batch_size, count // _LEAST_BATCHES)
    return replace(rows, loader=HalfLoader(rows.loader, half, size))
