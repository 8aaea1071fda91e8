"""A finished training as Python sees it."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from recsys.app.model import Model
    from recsys.training.evaluation.results import ModelEvaluation


@dataclass(frozen=True)
class Run:
    """Where a training left what it made, and how the model did.

    Attributes:
        path: folder of the run.
        bundle: folder of the model.
        report: HTML file; not there where the training was asked for none.
        run_id: the MLflow run; None where tracking is off or the store was not reached yet.
        version: of the registered model, where `tracking.model_name` names one.
        evaluation: the model and the baselines on what was held out; None where several processes
            trained, whose first one keeps it (`metrics` has its figures).
        chosen: of a final training on all rows, the run before it that chose the settings, and
            whose evaluation has figures; None where an earlier model was named, or of another run.
    """

    path: Path
    bundle: Path
    report: Path
    run_id: str | None = None
    version: int | None = None
    evaluation: "ModelEvaluation | None" = field(default=None, repr=False)
    chosen: "Run | None" = field(default=None, repr=False)

    @property
    def model(self) -> "Model":
        """The trained model, verified."""
        from recsys.app.models import load

        return load(self.bundle)

    @property
    def metrics(self) -> dict[str, Any]:
        """What was measured, as the bundle keeps it."""
        return self.model.metrics

    def _repr_html_(self) -> str:
        """Show the evaluation in a notebook."""
        if self.evaluation is None:
            return f"<pre>{self!r}</pre>"
        return self.evaluation.to_frame().to_html(index=False)
