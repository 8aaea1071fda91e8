"""The sections of an experiment's configuration that are about training and what comes of it."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from recsys.core.strict import StrictModel, nearest
from recsys.features.batches.examples import Kind as ExampleKind
from recsys.retrieval.index.registry import AUTO, BACKENDS
from recsys.training.config.retrieval import (
    HardNegatives,
    LogqCorrection,
    RetrievalLoss,
    SampledSoftmax,
)
from recsys.training.config.self_supervision import SelfSupervision
from recsys.training.config.sessions import SessionTraining
from recsys.training.engine.optim import Schedule
from recsys.training.families.plain.names import BaselineName

PositiveInt = Annotated[int, Field(ge=1)]


class TrainingConfig(StrictModel):
    """The optimisation: how long, how fast, when to stop."""

    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    epochs: PositiveInt = 20
    batch_size: PositiveInt = 1024
    loss: RetrievalLoss = SampledSoftmax()
    """Of a two-tower: sampled_softmax, full_softmax, bce, bpr, cosine_contrastive or metric; of
    sessions: sampled_softmax, full_softmax or gbce. Its name, or a mapping with `kind` and its
    settings."""
    examples: ExampleKind = "rows"
    """Of retrieval: `rows`, each with what its user took before; or `users`, each cut at a random
    row, with several items taken after it. `batch_size` counts either."""
    positives: PositiveInt = 50
    """Most items that one example of `users` is to find."""
    cut_history: bool = True
    """Of `users`: false, and the items to find stay in the history, as graph models train."""
    mask_taken: bool = False
    """What a user took elsewhere in training is no negative of theirs."""
    uniform_negatives: Annotated[int, Field(ge=0)] = 512
    """Extra candidates a batch, drawn uniformly from `negative_items`."""
    negative_items: Literal["catalogue", "trained"] = "catalogue"
    """`trained`: items without a training row are no negatives. For catalogues that hold items
    before anybody could take them, so that the model does not learn that nobody wants them."""
    logq_correction: LogqCorrection = True
    """Undo how often sampling draws each candidate: retrieval learns as if from all items.
    `streaming`: as often as estimated from the batches so far, not from the log's counts."""
    cached_negatives: Annotated[int, Field(ge=0)] = 0
    """Candidates of past batches, as they were encoded then, that are negatives again."""
    hard_negatives: HardNegatives = HardNegatives()
    """Negatives that are mined with the model as it stands."""
    learning_rate: Annotated[float, Field(gt=0)] = 0.002
    """AdamW, for everything but the table."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    warmup_steps: Annotated[int, Field(ge=0)] = 100
    """Steps over which the learning rate grows from 0; at most a tenth of all steps."""
    schedule: Schedule = "constant"
    """How both learning rates, the table's among them, fall to 0 until the last of `epochs`."""
    average_epochs: Annotated[float, Field(ge=0)] = 0.0
    """Judge and keep the average of all weights over about so many of the last epochs, the table's
    among them (one copy more of it in memory); 0: the weights of the last step. It suits a
    `constant` schedule, whose weights do not settle by themselves."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Rankers learn label * (1 - this) + this / 2."""
    positive_weight: Annotated[float, Field(gt=0)] = 1.0
    """How much a positive row counts in a ranker's training; its probabilities undo it."""
    negative_rate: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of the negative rows that each epoch of a ranker sees, drawn anew every time; its
    probabilities undo it."""
    negatives: Annotated[int, Field(ge=0)] = 0
    """For a ranker on a log without a label, whose rows are all positive: other items drawn for
    each row, uniformly. Its probability is then that of being the next item taken."""
    clip_norm: Annotated[float, Field(gt=0)] = 10.0
    patience: PositiveInt = 3
    """Evaluations without a better `metric` before training stops."""
    metric: str = "ndcg_at_20"
    """Validation metric that decides the best checkpoint; larger is better. A ranker's default
    is auc."""
    max_validation_queries: PositiveInt = 10_000
    id_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of ids replaced by the unknown id, so that cold items and users have a meaning."""
    self_supervision: SelfSupervision = SelfSupervision()
    session: SessionTraining = SessionTraining()
    """What only a model of sessions is told."""
    checkpoint_every: PositiveInt = 1000
    """Steps between two checkpoints (one more at the end of every epoch)."""
    precision: Literal["float32", "bfloat16", "auto"] = "auto"
    """`auto`: bfloat16 products where the processor has them in hardware."""
    device: str = "auto"


class EvaluationConfig(StrictModel):
    """How the finished model is judged."""

    ks: tuple[PositiveInt, ...] = (10, 20, 50, 100)
    queries: Literal["users", "events"] = "users"
    """`users`: one query each, for all that the part holds of them. `events`, for sessions: one
    query an event, for that item, from what came before it in its session."""
    filter_seen: bool = True
    """Leave out what the user already took, from the lists and from what counts as relevant."""
    baselines: tuple[BaselineName, ...] = ("auto",)
    """What is fitted on the training rows to stand beside a retrieval model; `auto`: all that suit
    the model and that data and installation allow, and the report says why one is missing."""
    popularity_window_days: Annotated[float, Field(gt=0)] = 30
    """How long before the last training row `popularity_recent` counts."""
    ease_max_items: PositiveInt = 20_000
    """Largest catalogue for `ease`, which needs its square x 4 bytes and its cube of work."""
    rankers: tuple[Literal["logistic", "fm", "dcn", "mlp", "autoint"], ...] = (
        "logistic",
        "fm",
        "dcn",
        "mlp",
    )
    """What is trained on the same rows to stand beside a ranker; empty: nothing."""
    bootstrap_samples: PositiveInt = 1000
    max_queries: PositiveInt = 50_000


def _known_index(kind: str) -> str:
    known = [AUTO, *BACKENDS]
    if kind not in known:
        raise ValueError(f"should be one of {', '.join(known)}{nearest(kind, known)}")
    return kind


class IndexConfig(StrictModel):
    """The index in the bundle: exact below some 100,000 items, else a graph of neighbours."""

    kind: Annotated[str, AfterValidator(_known_index)] = AUTO
    """`auto`, or `exact`, `hnsw` (by faiss) or `usearch` (the extra `ann`)."""
    min_recall: Annotated[float, Field(ge=0, le=1)] = 0.95
    """An approximate index below this recall against exact search fails the export."""
    threads: PositiveInt = 1
    """That build a graph. With more than one, two trainings alike write two different graphs."""


class TrackingConfig(StrictModel):
    """MLflow: where runs go. `uri` None: `mlflow.db` (SQLite) in the working folder."""

    enabled: bool = True
    uri: str | None = None
    experiment: str = "recsys"
    model_name: str | None = None
    """Register the bundle under this name after training."""
