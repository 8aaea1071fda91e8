"""One experiment as one strict tree, read from YAML; every default is visible when written back."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import ConfigDict, Field, model_validator

from features.examples import Kind as ExampleKind
from features.sessions import SessionConfig
from features.sources import Policies, Sources
from features.split import SplitConfig
from recsys.calibration import Kind as CalibrationKind
from recsys.embeddings.table import TableConfig
from recsys.errors import ConfigError, NotFoundError
from recsys.models.rankers import RANKERS, RankerConfig
from recsys.models.retrieval import RetrievalConfig
from recsys.models.session import SessionTransformerConfig
from recsys.models.two_tower import TwoTowerConfig
from recsys.schema import Schema
from recsys.strict import StrictModel, parse
from training.baselines.names import BaselineName
from training.optim import Schedule
from training.retrieval_config import (
    HardNegatives,
    LogqCorrection,
    RetrievalLoss,
    SampledSoftmax,
)
from training.self_supervision_config import SelfSupervision
from training.session_checks import check_sessions
from training.session_config import SessionTraining

PositiveInt = Annotated[int, Field(ge=1)]


class TrainingConfig(StrictModel):
    """The optimisation: how long, how fast, when to stop."""

    seed: int = 0
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


class IndexConfig(StrictModel):
    """The index in the bundle: exact below some 100,000 items, else HNSW."""

    kind: Literal["auto", "exact", "hnsw"] = "auto"
    min_recall: Annotated[float, Field(ge=0, le=1)] = 0.95
    """An approximate index below this recall against exact search fails the export."""


class TrackingConfig(StrictModel):
    """MLflow: where runs go. `uri` None: `mlflow.db` (SQLite) in the working folder."""

    enabled: bool = True
    uri: str | None = None
    experiment: str = "recsys"
    model_name: str | None = None
    """Register the bundle under this name after training."""


class ExperimentConfig(StrictModel):
    """The whole file."""

    model_config = ConfigDict(protected_namespaces=())

    data: Sources
    policies: Policies = Policies()
    schema_: Schema = Field(alias="schema")
    split: SplitConfig = SplitConfig()
    sessions: SessionConfig = SessionConfig()
    model: Annotated[
        TwoTowerConfig | SessionTransformerConfig | RankerConfig, Field(discriminator="kind")
    ] = TwoTowerConfig()
    embedding: TableConfig = TableConfig()
    training: TrainingConfig = TrainingConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    index: IndexConfig = IndexConfig()
    calibration: CalibrationKind | Literal["logistic"] = "none"
    """How scores become probabilities, on the validation rows: of a ranker `temperature` or
    `isotonic`; of a two-tower `logistic` or `isotonic`, the probability that a user takes an item
    within a period like the validation part."""
    warm_start: str | None = None
    """Model whose weights, scales and known ids the training starts from: a bundle or run folder
    (`recsys train --warm-start` also takes models:/name@alias)."""
    keep_optimizer_state: bool = True
    """Leave the state of the table's optimizer in the bundle, for a later warm start."""
    tracking: TrackingConfig = TrackingConfig()
    output: str = "runs"
    """Folder that runs (checkpoints, bundles, reports) are written to."""
    cache: str | None = None
    """Folder that keeps encoded data between runs, for logs that take long to read."""
    tune: dict[str, Any] = Field(default_factory=dict)
    """What `recsys tune` searches (`training.search_space`); empty: what suits the model."""

    @classmethod
    def completed(cls, raw: dict[str, Any]) -> dict[str, Any]:
        """A model is a two-tower unless it says otherwise; rankers have a metric of their own."""
        model, training = raw.get("model", {}), raw.get("training", {})
        if isinstance(model, dict):
            model = {"kind": "two_tower", **model}
            raw = {**raw, "model": model}
            if model["kind"] in RANKERS and isinstance(training, dict):
                raw["training"] = {"metric": "auc", **training}
        return raw

    @model_validator(mode="after")
    def _model_fits_the_log(self) -> "ExperimentConfig":
        ranker, label = self.model.kind in RANKERS, self.schema_.interactions.label
        if ranker:
            self._check_rows_of_a_ranker()
        if not ranker and label is not None:
            raise ValueError(
                f"model.kind: {self.model.kind} learns from what was taken and has no use for "
                "schema.interactions.label: keep the positive rows with schema.interactions.where "
                "instead"
            )
        if not ranker and self.schema_.derived_features:
            feature = self.schema_.derived_features[0]
            raise ValueError(
                f"feature '{feature.name}': kind: {feature.kind} is for rankers, and model.kind is "
                f"{self.model.kind}"
            )
        if not self.schema_.interactions.user and not self.data.stream:
            raise ValueError(
                "schema.interactions: a log without 'user' and 'item' is read as a stream: set "
                "data.stream: true, or name both columns"
            )
        if self.data.stream and not ranker:
            raise ValueError(f"data.stream is for rankers, and model.kind is {self.model.kind}")
        return self

    def _check_rows_of_a_ranker(self) -> None:
        label, training = self.schema_.interactions.label, self.training
        if self.split.join_validation:
            raise ValueError(
                f"split.join_validation is for retrieval, and model.kind is {self.model.kind}, "
                "whose best epoch and calibration come from the validation rows"
            )
        if self.split.cold_items is not None:
            raise ValueError(
                f"split.cold_items is for retrieval, and model.kind is {self.model.kind}: leave it "
                "out"
            )
        if label is None and not training.negatives:
            raise ValueError(
                f"model.kind: {self.model.kind} ranks by labels: give schema.interactions.label; "
                "where all rows of the log are positive, set training.negatives"
            )
        if label is not None and training.negatives:
            raise ValueError(
                "training.negatives draws negative rows for a log without any; this one has a "
                "label: training.negative_rate takes a share of its negative rows"
            )
        if self.data.stream and training.negative_rate < 1:
            raise ValueError(
                "training.negative_rate: a streamed log is read as it is; leave rows out in the "
                "source, or set data.stream: false"
            )

    @model_validator(mode="after")
    def _retrieval_fits_together(self) -> "ExperimentConfig":
        loss, model = self.training.loss.kind, self.model
        check_sessions(self)
        if not isinstance(model, TwoTowerConfig):
            return self
        if model.geometry != "sphere" and loss == "cosine_contrastive":
            raise ValueError(
                f"training.loss: {loss} is about cosines, and model.geometry: {model.geometry} "
                "compares otherwise: set geometry: sphere, or another loss"
            )
        if self.training.examples == "rows" and not self.training.cut_history:
            raise ValueError(
                "training.cut_history is about whole users, and training.examples is rows, which "
                "have what came before them for a history: set examples: users, or leave it out"
            )
        if model.smoothing.rounds and self.training.self_supervision.kind != "none":
            raise ValueError(
                "model.smoothing has no neighbours for the views of training.self_supervision: "
                "set its kind to none, or rounds to 0"
            )
        if model.smoothing.rounds and self.training.negative_items == "trained":
            raise ValueError(
                "model.smoothing has the whole catalogue as candidates, and training.negative_items"
                ": trained leaves items out: set negative_items: catalogue, or rounds to 0"
            )
        return self

    @model_validator(mode="after")
    def _calibration_fits_the_model(self) -> "ExperimentConfig":
        kind = self.calibration
        if self.model.kind in RANKERS and kind == "logistic":
            raise ValueError(
                "calibration: logistic is for a two_tower, whose scores are no logits; a ranker "
                "takes temperature or isotonic"
            )
        if self.model.kind not in RANKERS and kind == "temperature":
            raise ValueError(
                "calibration: temperature is for rankers, whose scores are logits; a two_tower "
                "takes logistic or isotonic"
            )
        return self

    @model_validator(mode="after")
    def _self_supervision_fits_the_model(self) -> "ExperimentConfig":
        self.training.self_supervision.check(self.model.kind, streamed=self.data.stream)
        return self

    @property
    def every_item_each_step(self) -> bool:
        """Whether the whole catalogue is encoded at every training step."""
        smoothed = isinstance(self.model, TwoTowerConfig) and self.model.smoothing.rounds > 0
        return self.training.loss.kind == "full_softmax" or smoothed

    @property
    def of_sessions(self) -> bool:
        """Whether the model reads sessions step by step."""
        return self.model.kind == "session"

    @property
    def retrieval(self) -> RetrievalConfig:
        """The model's part, where the model retrieves."""
        assert isinstance(self.model, RetrievalConfig)
        return self.model

    @property
    def two_tower(self) -> TwoTowerConfig:
        """The model's part, where the model is a two-tower."""
        assert isinstance(self.model, TwoTowerConfig)
        return self.model


def load_config(path: Path, overrides: tuple[str, ...] = ()) -> ExperimentConfig:
    """Read `path` (YAML), apply `key.sub=value` overrides, resolve data paths beside the file.

    Raises:
        NotFoundError: no such file.
        ConfigError: not YAML, unknown keys (the nearest right one is named), wrong values.
    """
    if not path.is_file():
        raise NotFoundError(f"{path}: no such configuration; `recsys init` writes one")
    raw = read_yaml(path.read_text(), source=path)
    if not isinstance(raw, dict):
        raise ConfigError(f"{path}: expected a mapping of keys, got {type(raw).__name__}")
    for override in overrides:
        _override(raw, override)
    config = parse(ExperimentConfig, raw, source=path)
    folder, earlier = path.resolve().parent, config.warm_start
    if earlier is not None and (folder / earlier).is_dir():
        earlier = str(folder / earlier)
    return config.model_copy(update={"data": _beside(config.data, folder), "warm_start": earlier})


class _Loader(yaml.SafeLoader):
    """YAML 1.1 takes 1e-3 for text; people mean the number."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)


def read_yaml(text: str, *, source: object) -> Any:
    """Return what `text` holds.

    Raises:
        ConfigError: it is not YAML; `source` is named.
    """
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise ConfigError(f"{source}: not valid YAML: {error}") from None


def dump_config(config: ExperimentConfig) -> str:
    """Return the configuration as YAML, every default written out."""
    return yaml.safe_dump(config.model_dump(mode="json", by_alias=True), sort_keys=False)


def _override(raw: dict[str, object], override: str) -> None:
    key, equals, value = override.partition("=")
    if not equals:
        raise ConfigError(f"--set {override}: expected key=value, as in training.epochs=5")
    *parents, last = key.split(".")
    node = raw
    for parent in parents:
        child = node.setdefault(parent, {})
        if not isinstance(child, dict):
            raise ConfigError(f"--set {override}: '{parent}' is not a section")
        node = child
    node[last] = read_yaml(value, source=f"--set {override}")


def _beside(sources: Sources, folder: Path) -> Sources:
    """Relative paths are relative to the configuration file."""

    def resolve(path: str | None) -> str | None:
        return None if path is None else str(folder / path)

    return sources.model_copy(
        update={
            "interactions": str(folder / sources.interactions),
            "items": resolve(sources.items),
            "users": resolve(sources.users),
            "others": {name: str(folder / path) for name, path in sources.others.items()},
        }
    )
