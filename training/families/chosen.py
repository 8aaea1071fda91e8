"""What the validation rows chose for a model, carried over to a training on more rows.

That is how many epochs are best, how much the memory of pairs weighs and whether items come back;
these become settings of the later training. What is fitted and no setting (how logits become
probabilities, how a pipeline joins its sources) is taken over by the families, out of the earlier
model's bundle.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from recsys.bundle.directory import RUN_BUNDLES
from recsys.core.errors import ConfigError
from recsys.core.strict_yaml import read_yaml
from recsys.features.bundle.files import CONFIG, read_config, read_items, read_memory
from recsys.features.bundle.measured import ChosenBy, Kept
from recsys.features.bundle.model_bundle import ModelBundle
from recsys.training.config.experiment import ExperimentConfig

BEST_EPOCH = "best_epoch"
"""Fact of a bundle: the epoch, from 1, whose weights were kept."""


def best_epoch(history: Sequence[Mapping[str, float]], metric: str) -> dict[str, str]:
    """Return which epoch was the best, from 1, as a fact; nothing where none was validated."""
    name = f"validation/{metric}"
    curve = [point[name] for point in history if name in point]
    return {BEST_EPOCH: str(1 + curve.index(max(curve)))} if curve else {}


def as_chosen(keys: Mapping[str, Any], chosen: ModelBundle) -> dict[str, Any]:
    """Return the keys of an experiment with what was chosen for an earlier training of it.

    Where that training had no validation rows, it keeps the epochs that it was given.
    """
    found = dict(keys)
    epochs = chosen.bundle.manifest["facts"].get(BEST_EPOCH)
    if epochs is None:
        epochs = keys_of_bundle(chosen)["training"].get("epochs")
    if epochs is not None:
        found["training"] = {**(found.get("training") or {}), "epochs": int(epochs)}
    memory: Any = getattr(chosen.description.model, "memory", None)
    if getattr(memory, "kind", "none") != "none":
        settings = memory.model_dump(mode="json")
        if settings["weight"] == "auto":
            settings["weight"] = _memory_weight(chosen)
        found["model"] = {**found["model"], "memory": settings}
    model: Any = chosen.description.model
    if "repeats" in type(model).model_fields:  # decided, so that both score alike
        found["model"] = {**found["model"], "repeats": model.repeats}
    return found


def keys_of_bundle(model: ModelBundle) -> dict[str, Any]:
    """Return the configuration that a model was trained with, every default written out."""
    source = model.bundle.path / CONFIG
    keys: dict[str, Any] = read_yaml(read_config(model.bundle), source=source)
    return keys


def _memory_weight(chosen: ModelBundle) -> float:
    """Return how much the memory of pairs of a model weighs, in logits; 0: it has none."""
    memory = read_memory(chosen.bundle, read_items(chosen.bundle).num_rows)
    if memory is None:
        return 0.0
    temperature = float(chosen.retrieval_model().temperature.detach())
    return round(memory.gain / temperature, 6)


def open_chosen(config: ExperimentConfig) -> ModelBundle | None:
    """Return the model whose training chose the settings of `config`; None: none is named.

    Raises:
        NotFoundError, IntegrityError: there is no such bundle, or it is damaged.
        ConfigError: it is of another kind.
    """
    if config.final is None:
        return None
    found = ModelBundle.read(Path(config.final))
    if found.description.kind != config.model.kind:
        raise ConfigError(
            f"final: {config.final} is of kind {found.description.kind}, model.kind is "
            f"{config.model.kind}: name a model of the same settings"
        )
    return found


def chosen_by(model: ModelBundle) -> ChosenBy:
    """Return which model's training chose the settings of one that is trained as `model` was.

    That is `model` itself, or, where it was trained on all rows, the one that chose its settings.
    """
    kept = Kept.of(model.bundle)
    if kept.chosen_by is not None:
        return kept.chosen_by
    folder = model.bundle.path.resolve().parent
    run = folder.parent.name if folder.name == RUN_BUNDLES else ""
    return ChosenBy(model.bundle.model_id, run, kept)


def facts_of_final(config: ExperimentConfig, chosen: ModelBundle | None) -> dict[str, str]:
    """Return what a bundle's manifest says of a model that was trained on all rows."""
    if config.split.evaluated is not None:
        return {}
    facts = {"trained_on": "all rows"}
    if chosen is not None:
        facts |= {"final": "true", "chosen_by": chosen_by(chosen).model_id}
    return facts
