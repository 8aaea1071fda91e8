"""What a search for better settings found, as Python sees it."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from recsys.app.configuration import Config

if TYPE_CHECKING:
    from recsys.training.embedding.study import Study
    from recsys.training.search.tuning import Found


@dataclass(frozen=True)
class Tuned:
    """The best settings that were found, and what was tried.

    Attributes:
        config: the best configuration, to be trained by `recsys.train(tuned.config)`.
        found: every trial, with its values and its metric after each epoch; of
            `recsys.tune_embedding` the plans that were compared.
    """

    config: Config
    found: "Found | Study" = field(repr=False)
    summary: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "\n".join(self.summary)

    def to_json(self) -> dict[str, Any]:
        """Return the trials as plain data."""
        from recsys.training.embedding.study import Study
        from recsys.training.search.output import to_json

        return self.found.to_json() if isinstance(self.found, Study) else to_json(self.found)
