"""What `recsys tune` may vary: ranges and choices by configuration key, checked before any work.

    training.learning_rate: {low: 1e-4, high: 1e-2, log: true}
    training.batch_size: {low: 256, high: 4096, log: true, integer: true}
    model.dim: [32, 64, 128]

A key may also be written as the configuration has it, section within section; a section within
`model`, `embedding` or `training` can be chosen as a whole, from a list of mappings. A range whose
key takes whole numbers alone is one of integers. `defaults: true` adds the entries of
`default_space` for the keys that are not named.
"""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from pydantic import Field

from recsys.core.errors import ConfigError
from recsys.core.key_tree import key_tree
from recsys.core.strict import StrictModel, nearest, parse
from recsys.training.config.experiment import ExperimentConfig, start_of
from recsys.training.config.ranges import Choice, Range, Space
from recsys.training.families.load import parse_config
from recsys.training.families.registry import family_of

SECTIONS = ("model", "embedding", "training")
_REFUSED = {
    "model.kind": "a search compares settings of one kind of model: search each kind by itself",
    "embedding.lookups": "it changes how the data are encoded, which a search does once: "
    "`recsys tune embedding` shares lookups out",
    "embedding.max_memory_mib": "it is a limit, not a setting of the model",
    "embedding.backend": "the kernels give equal numbers",
    "training.seed": "the best of several seeds is chance, not a better configuration",
    "training.metric": "it is what trials are compared by: give --metric",
    "training.max_validation_queries": "trials would be compared on different queries",
    "training.checkpoint_every": "it changes no number",
    "training.device": "it is where a search runs, not what it searches",
}


class _RangeEntry(StrictModel):
    low: float
    high: float
    log: bool = False
    integer: bool = False
    step: Annotated[float, Field(gt=0)] | None = None


def space_of(config: ExperimentConfig, raw: Mapping[str, Any], source: object) -> Space:
    """Return the space that `raw` describes; an empty one gives `default_space`.

    Raises:
        ConfigError: a key is not one of the configuration (the nearest right one is named) or
            cannot be searched, or an entry is no range and no choice of values that it can have.
    """
    if not isinstance(raw, Mapping):
        raise ConfigError(f"{source}: expected a mapping of keys, got {type(raw).__name__}")
    own = dict(raw)
    with_defaults = own.pop("defaults", not own)
    if not isinstance(with_defaults, bool):
        raise ConfigError(f"{source}: defaults: true or false (got {with_defaults!r})")
    tree = config.model_dump(mode="json", by_alias=True)
    leaves = [key for section in SECTIONS for key in _leaves(tree.get(section, {}), f"{section}.")]
    space: Space = {}
    for key, entry in _entries(own, leaves, config, source):
        space[key] = _entry(config, key, entry, f"{source}: {key}")
    if with_defaults:
        space |= {k: one for k, one in default_space(config).items() if k not in space}
    if not space:
        raise ConfigError(f"{source}: names no key to search; `--show-space` shows the default")
    return space


def default_space(config: ExperimentConfig) -> Space:
    """Return what is searched without a word from the user: around what `config` has.

    A warm start keeps every shape: only rates, shares and batches are searched then.
    """
    space: Space = family_of(config).space(config)
    if start_of(config) is None:
        return space
    return {
        key: one
        for key, one in space.items()
        if isinstance(one, Range) or key.startswith("training.")
    }


def with_values(
    config: ExperimentConfig, values: Mapping[str, Any], source: object = "trial"
) -> ExperimentConfig:
    """Return `config` with each key of `values` set.

    Raises:
        ConfigError: the values do not go with each other or with the rest.
    """
    tree = config.model_dump(mode="json", by_alias=True)
    for key, value in values.items():
        *parents, last = key.split(".")
        node = tree
        for parent in parents:
            node = node[parent]
        node[last] = value
    return parse_config(tree, source=source)


def values_of(config: ExperimentConfig, space: Space) -> dict[str, Any]:
    """Return what `config` has at the keys of `space`."""
    tree = config.model_dump(mode="json", by_alias=True)
    found = {}
    for key in space:
        node: Any = tree
        for part in key.split("."):
            node = node[part]
        found[key] = node
    return found


def to_raw(space: Space) -> dict[str, Any]:
    """Return the space as a file would have it."""
    return {key: one.to_json() for key, one in space.items()}


def _leaves(tree: Mapping[str, Any], prefix: str) -> Iterator[str]:
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key


def _entries(
    raw: Mapping[str, Any],
    leaves: list[str],
    config: ExperimentConfig,
    source: object,
    prefix: str = "",
) -> Iterator[tuple[str, Any]]:
    """Yield the entries by full key, whether written with dots or section within section."""
    for name, entry in raw.items():
        key = f"{prefix}{name}"
        if key in _REFUSED:
            raise ConfigError(f"{source}: {key} cannot be searched: {_REFUSED[key]}")
        inner = any(leaf.startswith(f"{key}.") for leaf in leaves)
        if key in leaves or (inner and "." in key and _are_sections(entry)):
            yield key, entry
        elif isinstance(entry, Mapping) and inner:
            yield from _entries(entry, leaves, config, source, f"{key}.")
        elif (key.split(".")[0],) in key_tree(type(config)) and key.split(".")[0] not in SECTIONS:
            raise ConfigError(
                f"{source}: {key} cannot be searched: all trials train and validate on the same "
                f"encoded data; keys of {', '.join(SECTIONS)} can"
            )
        else:
            raise ConfigError(
                f"{source}: the configuration of a {config.model.kind} has no key '{key}'"
                f"{nearest(key, leaves)}"
            )


def _are_sections(entry: Any) -> bool:
    return isinstance(entry, list) and all(isinstance(value, dict) for value in entry)


def _entry(config: ExperimentConfig, key: str, entry: Any, source: str) -> Range | Choice:
    if key == "embedding.dim" and start_of(config) is not None:
        raise ConfigError(f"{source}: a warm start takes over rows of a fixed width")
    if isinstance(entry, list):
        one: Range | Choice = _checked_choice(entry, source)
    elif isinstance(entry, dict):
        one = _checked_range(config, key, entry, source)
    else:
        raise ConfigError(
            f"{source}: expected a list of values or {{low: ..., high: ...}} (got {entry!r})"
        )
    for value in one.ends():
        with_values(config, {key: value}, source)
    return one


def _checked_choice(entry: list[Any], source: str) -> Choice:
    if not entry or any(value in entry[:place] for place, value in enumerate(entry)):
        raise ConfigError(f"{source}: a choice is a list of different values (got {entry})")
    return Choice(tuple(entry))


def _checked_range(config: ExperimentConfig, key: str, entry: dict[str, Any], source: str) -> Range:
    # `{low: 1, high: 9, log}` is YAML for a `log` without a value: said is meant.
    said = {k: True if v is None and k in ("log", "integer") else v for k, v in entry.items()}
    found = parse(_RangeEntry, said, source=source)
    low, high, step = found.low, found.high, found.step
    if low >= high:
        raise ConfigError(f"{source}: low {low:g} must be below high {high:g}")
    if found.log and (low <= 0 or step is not None):
        raise ConfigError(f"{source}: log needs low above 0 and goes with no step")
    if step is not None and step > high - low:
        raise ConfigError(f"{source}: step {step:g} is larger than the range")
    integer = found.integer or _takes_integers_alone(config, key)
    if not integer:
        return Range(low, high, found.log, False, step)
    if any(number is not None and number != int(number) for number in (low, high, step)):
        raise ConfigError(f"{source}: low, high and step of whole numbers must be whole")
    return Range(int(low), int(high), found.log, True, None if step is None else int(step))


def _takes_integers_alone(config: ExperimentConfig, key: str) -> bool:
    try:
        with_values(config, {key: 1.5})
    except ConfigError as error:
        return any(one.kind in ("int_type", "int_from_float") for one in error.problems)
    return False
