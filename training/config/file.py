"""A configuration as YAML: read with overrides, written with every default."""

from pathlib import Path
from typing import Any

import yaml

from recsys.core.errors import ConfigError, NotFoundError
from recsys.core.strict_yaml import read_yaml, read_yaml_file
from recsys.training.config.experiment import ExperimentConfig

_OF_THE_RUN = (
    *("warm_start", "compatible_with", "compatible_share", "final", "keep_optimizer_state"),
    *("tracking", "output", "cache", "tune"),
)
"""Keys that say how a run goes, not what is trained; they are written last."""


def read_raw(path: Path) -> dict[str, Any]:
    """Return the keys that `path` (YAML) gives, without any default.

    Raises:
        NotFoundError: no such file.
        ConfigError: not YAML, or no mapping of keys.
    """
    if not path.is_file():
        raise NotFoundError(f"{path}: no such configuration; `recsys init` writes one")
    raw = read_yaml_file(path)
    if not isinstance(raw, dict):
        raise ConfigError(f"{path}: expected a mapping of keys, got {type(raw).__name__}")
    return raw


def dump_config(config: ExperimentConfig) -> str:
    """Return the configuration as YAML, every default written out."""
    tree = config.model_dump(mode="json", by_alias=True)
    ordered = {key: tree[key] for key in tree if key not in _OF_THE_RUN}
    last = {key: tree[key] for key in _OF_THE_RUN if key in tree}
    return yaml.safe_dump({**ordered, **last}, sort_keys=False)


def parse_override(override: str) -> tuple[str, Any]:
    """Return key and value of `key.sub=value`, as YAML has it.

    Raises:
        ConfigError: it has no "=", or the value is not YAML.
    """
    key, equals, value = override.partition("=")
    if not equals:
        raise ConfigError(f"--set {override}: expected key=value, as in training.epochs=5")
    return key, read_yaml(value, source=f"--set {override}")


def set_key(raw: dict[str, Any], key: str, value: Any) -> None:
    """Set the value of `key.sub` in a mapping of keys, its sections made where missing.

    Raises:
        ConfigError: a section is none.
    """
    *parents, last = key.split(".")
    node: dict[str, Any] = raw
    for parent in parents:
        child = node.setdefault(parent, {})
        if not isinstance(child, dict):
            raise ConfigError(f"--set {key}: '{parent}' is not a section")
        node = child
    node[last] = value
