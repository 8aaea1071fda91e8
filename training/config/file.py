"""An experiment's configuration as a YAML file: read with overrides, written with every default."""

import re
from pathlib import Path
from typing import Any

import yaml

from recsys.core.errors import ConfigError, NotFoundError
from recsys.core.strict import parse
from recsys.features.tables.sources import Sources
from recsys.training.config.experiment import ExperimentConfig


def load_config(path: Path, overrides: tuple[str, ...] = ()) -> ExperimentConfig:
    """Read `path` (YAML), apply `key.sub=value` overrides, resolve data paths beside the file.

    Raises:
        NotFoundError: no such file.
        ConfigError: not YAML, unknown keys (the nearest right one is named), wrong values.
    """
    raw = read_raw(path, overrides)
    return config_of(raw, source=path, folder=path.resolve().parent)


def read_raw(path: Path, overrides: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return the keys that `path` (YAML) and `overrides` give, without any default.

    Raises:
        NotFoundError: no such file.
        ConfigError: not YAML, or no mapping of keys.
    """
    if not path.is_file():
        raise NotFoundError(f"{path}: no such configuration; `recsys init` writes one")
    raw = read_yaml(path.read_text(), source=path)
    if not isinstance(raw, dict):
        raise ConfigError(f"{path}: expected a mapping of keys, got {type(raw).__name__}")
    for override in overrides:
        _override(raw, override)
    return raw


def config_of(raw: dict[str, Any], *, source: object, folder: Path) -> ExperimentConfig:
    """Return the configuration that the keys in `raw` give; relative data paths lie in `folder`.

    Raises:
        ConfigError: unknown keys (the nearest right one is named), wrong values; `source` is named.
    """
    config = parse(ExperimentConfig, raw, source=str(source))
    earlier = config.warm_start
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


def parse_override(override: str) -> tuple[str, Any]:
    """Return key and value of `key.sub=value`.

    Raises:
        ConfigError: it has no "=", or the value is not YAML.
    """
    key, equals, value = override.partition("=")
    if not equals:
        raise ConfigError(f"--set {override}: expected key=value, as in training.epochs=5")
    return key, read_yaml(value, source=f"--set {override}")


def _override(raw: dict[str, object], override: str) -> None:
    key, value = parse_override(override)
    *parents, last = key.split(".")
    node = raw
    for parent in parents:
        child = node.setdefault(parent, {})
        if not isinstance(child, dict):
            raise ConfigError(f"--set {override}: '{parent}' is not a section")
        node = child
    node[last] = value


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
