"""What serving can do with the models of one kind of answer, and a model that is being served."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa

from recsys.bundle.directory import Bundle
from recsys.features.requests.origin import RequestOrigin
from recsys.serving.export.options import ExportOptions


class Server(Protocol):
    """An opened model that answers tables."""

    @property
    def columns(self) -> pa.Schema:
        """The columns that a question may have, with their types."""

    def answer(self, table: pa.Table, params: Mapping[str, Any], origin: RequestOrigin) -> pa.Table:
        """Return the answers to the rows of `table`, in order.

        Args:
            table: the questions.
            params: settings of the answers, by name.
            origin: of the table, for messages.

        Raises:
            DataError: the rows do not fit the model.
        """


class Answering(Protocol):
    """One kind of answer."""

    def targets(self) -> list[str]:
        """Return what the models can be exported to, as `recsys export --to` calls it."""

    def export(
        self,
        bundle: Path,
        target: str | None,
        out: Path,
        options: ExportOptions,
    ) -> dict[str, Any]:
        """Export the model to the new folder `out`; return what was written and measured.

        Without a target the kind of index is chosen, too, by `options.tuning`.

        Raises:
            UserError: `out` exists, the target does not suit the model, or recall is too low.
        """

    def server(self, bundle: Path) -> Server:
        """Open the model; its probe is replayed."""

    def described(self, bundle: Bundle) -> tuple[pa.Table | None, Any, dict[str, str]]:
        """Return an example of a question, if there is one, and MLflow's signature.

        Last, the types that the model reads the columns of questions as, which the signature leaves
        open.
        """

    def requirements(self, bundle: Bundle) -> list[str]:
        """Return the distributions that the model needs besides those that every model needs."""
