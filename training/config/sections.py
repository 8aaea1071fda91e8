"""The sections of an experiment's configuration that every family of models has."""

from typing import Annotated, Literal

from pydantic import Field

from recsys.core.bounds import Samples
from recsys.core.strict import StrictModel

PositiveInt = Annotated[int, Field(ge=1)]
Schedule = Literal["constant", "cosine", "linear"]


class FittingConfig(StrictModel):
    """What is drawn, and which metric compares settings."""

    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Of weights, batches and everything that is drawn."""
    metric: str
    """Validation metric that decides; larger is better."""


class TrainingConfig(FittingConfig):
    """The optimisation: how long, how fast, when to stop."""

    epochs: PositiveInt = 20
    """Passes over the training rows at most."""
    batch_size: PositiveInt = 1024
    """Rows of a step; users or sessions where these are the examples."""
    learning_rate: Annotated[float, Field(gt=0)] = 0.002
    """AdamW, for everything but the table."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    """Of AdamW, for everything but the table."""
    warmup_steps: Annotated[int, Field(ge=0)] = 100
    """Steps over which the learning rate grows from 0; at most a tenth of all steps."""
    schedule: Schedule = "constant"
    """How both learning rates, the table's among them, fall to 0 until the last of `epochs`."""
    average_epochs: Annotated[float, Field(ge=0)] = 0.0
    """Evaluate and keep the average of all weights over about so many of the last epochs, the
    table's among them (one copy more of it in memory); 0: the weights of the last step. It suits a
    `constant` schedule, whose weights do not settle by themselves."""
    clip_norm: Annotated[float, Field(gt=0)] = 10.0
    """Largest norm of the dense gradient; longer ones are shortened to it."""
    patience: PositiveInt = 3
    """Evaluations without a better `metric` before training stops."""
    id_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of ids replaced by the unknown id, so that cold items and users have a meaning."""
    checkpoint_every: PositiveInt = 1000
    """Steps between two checkpoints (one more at the end of every epoch)."""
    precision: Literal["float32", "bfloat16", "auto"] = "auto"
    """`auto`: bfloat16 products where the processor has them in hardware."""
    device: str = "auto"
    """`cpu`, `cuda`, or `auto`: a GPU where there is one."""


class EvaluationConfig(StrictModel):
    """How the finished model is evaluated."""

    bootstrap_samples: Samples = 1000
    """Resamples of the test part for the 95 % intervals."""


class TrackingConfig(StrictModel):
    """MLflow: where runs go. `uri` None: `mlflow.db` (SQLite) in the working folder."""

    enabled: bool = True
    """Track the run in MLflow."""
    uri: str | None = None
    """MLflow store; null: MLFLOW_TRACKING_URI, else mlflow.db in this folder."""
    experiment: str = "recsys"
    """Name of the MLflow experiment."""
    model_name: str | None = None
    """Register the bundle under this name after training."""
