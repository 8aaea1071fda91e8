"""The configuration of an experiment as Python sees it: what a `recsys.yaml` holds."""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import yaml
from pydantic import BaseModel, InstanceOf

from recsys.app.arguments import checked
from recsys.core.atomic import write_whole
from recsys.core.errors import ConfigError
from recsys.core.remote.path import path_at
from recsys.core.strict import nearest
from recsys.features.tables.sources import path_words
from recsys.training.config.experiment import ExperimentConfig
from recsys.training.config.file import dump_config, read_raw
from recsys.training.families.load import DEFAULT_KIND, config_of, without_foreign_keys
from recsys.training.families.pipeline.config import TAKEN


class Config:
    """What a model is trained on, and how: the content of a `recsys.yaml`.

    Made by `recsys.init`, `Config.open` or `Config(mapping)`; it does not change. `with_` returns
    one with other values, checked at once.

    Attributes:
        experiment: every key with its value, defaults included.
        unsure: what `recsys.init` was not sure of; look at these first.
        summary: what `recsys.init` found.

    Example:
        >>> import recsys
        >>> config = recsys.Config({
        ...     "data": {"interactions": "orders.parquet"},
        ...     "schema": {
        ...         "interactions": {"user": "customer", "item": "product"},
        ...         "features": [{"name": "product", "table": "items", "kind": "categorical"}],
        ...     },
        ...     "split": {"kind": "leave_one_out"},
        ... })
        >>> config.with_(epochs=5)["training.epochs"]
        5
    """

    def __init__(
        self,
        keys: Mapping[str, Any],
        *,
        folder: str | Path = ".",
        unsure: tuple[str, ...] = (),
        summary: tuple[str, ...] = (),
        text: str | None = None,
    ) -> None:
        """Check and hold `keys`.

        Args:
            keys: nested mapping, as YAML has it.
            folder: that relative data paths are relative to.
            unsure: what is to be looked at.
            summary: what was found in the tables.
            text: the same keys as commented YAML, for `save`.

        Raises:
            ConfigError: unknown keys (the nearest right one is named), wrong values.
        """
        self._keys = _with_sources(copy.deepcopy(dict(keys)))
        self._folder = path_at(folder).resolve()
        self._text = text
        self.unsure, self.summary = unsure, summary
        self.experiment: ExperimentConfig = config_of(
            self._keys, source="configuration", folder=self._folder
        )

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """Read a YAML file.

        Raises:
            NotFoundError: no such file.
            ConfigError: not YAML, unknown keys, wrong values.
        """
        path = path_at(path)
        return cls(read_raw(path), folder=path.resolve().parent, text=path.read_text())

    @classmethod
    def of(cls, experiment: ExperimentConfig) -> Self:
        """Return what the engine made of a configuration, with every default written out."""
        return cls(yaml.safe_load(dump_config(experiment)))

    @checked
    def with_(self, changes: Mapping[str, Any] | None = None, /, **short: Any) -> "Config":
        """Return a configuration with other values.

        Args:
            changes: full key -> value, as in {"training.loss": "full_softmax"}.
            short: the last part of a key where only one section has it, as in `epochs=5`;
                `model="session"` sets `model.kind`, and leaves out the keys of `model` and
                `training` that the other model does not have.

        Raises:
            ConfigError: no such key, several sections have it, or the value is wrong.
        """
        keys = copy.deepcopy(self._keys)
        full = {**(changes or {}), **{self._full_key(name): one for name, one in short.items()}}
        for key in sorted(full, key=lambda key: key != "model.kind"):
            _put(keys, key, full[key])
            if key == "model.kind":
                keys = without_foreign_keys(keys)
        return Config(keys, folder=self._folder, unsure=self.unsure, summary=self.summary)

    def __getitem__(self, key: str) -> Any:
        """Return the value of a full key, as in `config["training.epochs"]`, default or not."""
        node: Any = self.experiment.model_dump(mode="json", by_alias=True)
        for part in key.split("."):
            if not isinstance(node, dict) or part not in node:
                known = list(node) if isinstance(node, dict) else []
                raise ConfigError(f"configuration: no key '{key}'{nearest(part, known)}")
            node = node[part]
        return node

    def to_yaml(self) -> str:
        """Return the configuration as YAML: as it was written, or with every default."""
        return dump_config(self.experiment) if self._text is None else self._text

    def save(self, path: str | Path = "recsys.yaml") -> Path:
        """Write the configuration to a new YAML file, which the command line reads, too.

        Raises:
            ConfigError: the file exists, or the configuration's paths would not lead from there.
        """
        path = path_at(path)
        if path.exists():
            raise ConfigError(f"{path} exists; choose another path, or remove it first")
        same_folder = path.resolve().parent == self._folder
        write_whole(path, self.to_yaml() if same_folder else dump_config(self.experiment))
        return path

    def __repr__(self) -> str:
        kind, data = self.experiment.model.kind, self.experiment.data.interactions
        return f"Config({kind} on {path_words(data)})"

    def __str__(self) -> str:
        return self.to_yaml()

    def _full_key(self, name: str) -> str:
        """Return the one full key of a short name."""
        sections = type(self.experiment).model_fields
        if name == "model":
            return "model.kind"
        if name in sections:
            return name
        found = [
            f"{section}.{name}"
            for section in sections
            if isinstance(one := getattr(self.experiment, section), BaseModel)
            and name in type(one).model_fields
        ]
        if len(found) == 1:
            return found[0]
        if found:
            named = " and ".join(found)
            raise ConfigError(f"configuration: '{name}' is a key of {named}: give the full key")
        known = {
            key
            for section in sections
            if isinstance(one := getattr(self.experiment, section), BaseModel)
            for key in type(one).model_fields
        }
        raise ConfigError(f"configuration: no key '{name}'{nearest(name, sorted(known))}")


def _with_sources(keys: dict[str, Any]) -> dict[str, Any]:
    """Return keys with the configurations that are sources of a pipeline written out.

    A source may be a configuration, or have one as its `model`, as the file of one: its sections of
    the model and its training are taken.
    """
    model = keys.get("model")
    sources = model.get("sources") if isinstance(model, dict) else None
    if isinstance(model, dict) and isinstance(sources, list | tuple):
        model["sources"] = [_source(one) for one in sources]
    return keys


def _source(one: Any) -> Any:
    if isinstance(one, Config | ExperimentConfig):
        return _source({"model": one})
    if not isinstance(one, Mapping) or not isinstance(one.get("model"), Config | ExperimentConfig):
        return one
    given = one["model"]
    keys = given._keys if isinstance(given, Config) else yaml.safe_load(dump_config(given))
    taken = {name: keys[name] for name in TAKEN if keys.get(name) is not None}
    return {**taken, **one, "model": {"kind": DEFAULT_KIND, **taken.get("model", {})}}


def _put(keys: dict[str, Any], key: str, value: Any) -> None:
    """Set a full key in a nested mapping, its sections made where missing."""
    *parents, last = key.split(".")
    node = keys
    for parent in parents:
        child = node.setdefault(parent, {})
        if not isinstance(child, dict):
            raise ConfigError(f"configuration: '{key}': '{parent}' is not a section")
        node = child
    node[last] = copy.deepcopy(value)


Given = InstanceOf[Config] | InstanceOf[ExperimentConfig] | Mapping[str, Any] | str | Path
"""How a configuration may be given: an object, a mapping of keys, or a path."""


def config_given(given: Any) -> ExperimentConfig:
    """Return the configuration that an argument gives."""
    if isinstance(given, Config):
        return given.experiment
    if isinstance(given, Mapping):
        return Config(given).experiment
    if isinstance(given, str | Path):
        return Config.open(given).experiment
    assert isinstance(given, ExperimentConfig)
    return given
