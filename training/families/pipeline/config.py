"""The configuration of an experiment with a pipeline."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self, TypeVar

from pydantic import model_validator

from recsys.core.errors import ConfigError
from recsys.core.remote.path import below
from recsys.features.bundle.description import LIST_LENGTH
from recsys.features.dataset.split import TEST, RetrievalSplitConfig
from recsys.features.kinds.relation_feature import RelationFeature
from recsys.models.registry import MODELS
from recsys.pipeline.config import PipelineConfig, Ranker, Source
from recsys.training.config.experiment import ExperimentConfig
from recsys.training.config.file import read_raw
from recsys.training.config.retrieval import RetrievalEvaluationConfig, refuse_labels
from recsys.training.config.sections import FittingConfig, PositiveInt
from recsys.training.families.pipeline.references import settled_reference

TAKEN = ("model", "training", "embedding", "sessions")
"""Sections of a source's own file that count."""
OF_RANKERS = ("model", "training", "embedding")
"""Sections of a ranker's own file that count."""
LABEL, PART, TIME = "candidate_is_right", "candidate_part", "candidate_time"
"""Columns of the log of candidates that a ranker is trained on."""
_USUAL = {"negative_rate": 0.2, "batch_size": 1024}
"""Of the training of a ranker on candidates, of which few are right."""


class PipelineFittingConfig(FittingConfig):
    """What joining and ranking candidates is learnt from."""

    metric: str = "ndcg_at_20"
    """Validation metric that is printed; larger is better."""
    max_validation_queries: PositiveInt = 10_000
    """Validation queries at most, drawn once: joining and ranking are learnt on them."""


class PipelineEvaluationConfig(RetrievalEvaluationConfig):
    """How a pipeline is evaluated."""

    source_reports: bool = False
    """Draw a report of each training of each source, too, in `sources/` of the run's folder."""


class PipelineSplitConfig(RetrievalSplitConfig):
    """How the rows of a log of positives are parted, whose items are to be found.

    In the end a pipeline is trained on the validation rows, too, and so not evaluated on them.
    """

    @property
    def evaluated(self) -> int | None:
        """The part that a finished pipeline is evaluated on; None: no row is held out for that."""
        return TEST if TEST in self.parts else None


class PipelineExperiment(ExperimentConfig):
    """The whole file."""

    split: PipelineSplitConfig = PipelineSplitConfig()
    model: PipelineConfig
    """Sources, how they are joined and ranked, and the rules of the lists."""
    training: PipelineFittingConfig = PipelineFittingConfig()
    evaluation: PipelineEvaluationConfig = PipelineEvaluationConfig()
    k: PositiveInt = LIST_LENGTH
    """Length of the lists where who asks says no other: of `score`, `recommend` and MLflow's
    `predict`."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        refuse_labels(self)
        if not isinstance(self.model.rank, Ranker):
            for feature in self.schema_.relation_features:
                raise ValueError(
                    f"feature '{feature.name}': kind: {feature.kind} is read by a ranker of the "
                    "engine alone: set model.rank to one, as in rank: dcn, or leave it out"
                )
        if self.split.kind == "none" and self.final is None:
            raise ValueError(
                "split.kind: none holds out no rows, and a pipeline learns to join and rank on the "
                "validation rows: leave it out, or train with --final, which takes over what an "
                "earlier run learnt on them"
            )
        if self.split.join_validation:
            raise ValueError(
                "split.join_validation: a pipeline learns to join and rank on the validation "
                "rows, and trains its sources on them in the end: leave it out"
            )
        return self

    def settled(self, folder: Path) -> Self:
        """Return the experiment with sources, and a ranker, that are files written out.

        Raises:
            NotFoundError: there is no such file.
            ConfigError: a file has no model.
        """
        sources = tuple(_written_out(source, folder) for source in self.model.sources)
        rank = self.model.rank
        if isinstance(rank, Ranker) and isinstance(rank.model, str):
            rank = _out_of_file(below(folder, rank.model), rank, OF_RANKERS)
        model = self.model.model_copy(update={"sources": sources, "rank": rank})
        return self.model_copy(update={"model": model})

    def located(self, find: Callable[[str], Path]) -> Self:
        """Return the experiment with the folders of the trained models among its sources."""
        sources = tuple(
            source.model_copy(update={"model": str(find(source.model).resolve())})
            if isinstance(source.model, str)
            else source
            for source in self.model.sources
        )
        return self.model_copy(update={"model": self.model.model_copy(update={"sources": sources})})

    def of_source(self, number: int, *, last: bool = False) -> dict[str, Any]:
        """Return the keys of the experiment that trains a source.

        Args:
            number: of the source.
            last: whether the validation rows are trained on, too.
        """
        tree = self.model_dump(mode="json", by_alias=True)
        source = self.model.sources[number]
        own = {name: getattr(source, name) for name in TAKEN[1:]}
        found: dict[str, Any] = {"policies": tree["policies"], "split": tree["split"]}
        found |= self._without_windows(tree)
        if self.split.kind != "none":
            found["split"] = tree["split"] | {"join_validation": last}
        found["model"] = {"kind": "attributes"} if source.new_items else source.model
        found |= {name: one for name, one in own.items() if one is not None}
        decided = {"metric": self.training.metric, "seed": self.training.seed}
        found["training"] = decided | (source.training or {})
        found["evaluation"] = {
            "ks": tree["evaluation"]["ks"],
            "filter_seen": tree["evaluation"]["filter_seen"],
            "max_queries": min(1000, self.evaluation.max_queries),
            "bootstrap_samples": 20,
            "baselines": [],
        }
        return found | {"tracking": {"enabled": False}, "cache": tree["cache"]}

    def _without_windows(self, tree: dict[str, Any]) -> dict[str, Any]:
        """Return data and schema without windows, and the relations that they are of."""
        schema, data = self.schema_, tree["data"]
        pairs = zip(schema.features, tree["schema"]["features"], strict=True)
        kept = [keys for one, keys in pairs if not isinstance(one, RelationFeature)]
        others = {name: one for name, one in data["others"].items() if name not in schema.relations}
        return {
            "data": {**data, "others": others},
            "schema": {**tree["schema"], "relations": {}, "features": kept},
        }

    def of_ranker(self, log: str, columns: Sequence[str]) -> dict[str, Any]:
        """Return the keys of the experiment that trains a ranker on the candidates in a log.

        Args:
            log: path of the log.
            columns: of what the sources say of a candidate.
        """
        tree = self.model_dump(mode="json", by_alias=True)
        schema, rank = self.schema_, self.model.rank
        assert isinstance(rank, Ranker)
        known = [one for one in schema.column_features if one.table != "interactions"]
        features = [one.model_dump(mode="json", by_alias=True) for one in known]
        rows_alone = {"table": "interactions", "kind": "numeric"}
        features += [{"name": name, **rows_alone} for name in columns]
        for window in schema.relation_features:  # computed before, as of each request
            own = {"name": window.name, "transform": window.scaled_by}
            features.append({**own, **rows_alone})
        roles = schema.interactions
        rows: dict[str, Any] = {"user": roles.user, "item": roles.item, "label": {"column": LABEL}}
        if roles.time is not None:
            rows["time"] = {"column": TIME, "unit": "us"}
        plain = self._without_windows(tree)
        found: dict[str, Any] = {
            "data": {**plain["data"], "interactions": log},
            "policies": tree["policies"],
            "schema": {**plain["schema"], "interactions": rows, "features": features},
            "split": {"kind": "column", "column": PART},
            "model": rank.model,
            "training": {**_USUAL, "seed": self.training.seed, **(rank.training or {})},
            "evaluation": {"rankers": [], "bootstrap_samples": 20},
            "tracking": {"enabled": False},
            "keep_optimizer_state": False,
        }
        return found if rank.embedding is None else found | {"embedding": rank.embedding}


Given = TypeVar("Given", Source, Ranker)


def _written_out(source: Source, folder: Path) -> Source:
    if not isinstance(source.model, str):
        return source
    path = below(folder, source.model)
    if source.model in MODELS and not path.exists():
        raise ConfigError(
            f"model.sources: '{source.model}' is a kind of model and no file: write "
            f"{{kind: {source.model}}} for a model with the settings that it has by default"
        )
    trained = settled_reference(source, folder)
    if trained is not None:
        return trained
    found = _out_of_file(path, source, TAKEN)
    return found.model_copy(update={"name": source.name or path.stem})


def _out_of_file(path: Path, given: Given, names: tuple[str, ...]) -> Given:
    """Return the sections that a model's own file has, under those that are given beside it."""
    raw = read_raw(path)
    if not isinstance(raw.get("model"), dict):
        raise ConfigError(f"{path}: a model of a pipeline needs a section 'model'")
    taken = {name: raw[name] for name in names if name in raw and getattr(given, name) is None}
    kind = raw["model"].get("kind", "two_tower")
    return given.with_file(path, {**taken, "model": {"kind": kind, **raw["model"]}})
