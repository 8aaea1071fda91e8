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
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from recsys.core.errors import ConfigError
from recsys.core.strict import StrictModel, nearest, parse
from recsys.models.rankers import RANKERS
from recsys.training.config.experiment import ExperimentConfig

SECTIONS = ("model", "embedding", "training")
_REFUSED = {
    "model.kind": "a search compares settings of one kind of model: search each kind by itself",
    "embedding.lookups": "it changes how the data are encoded, which a search does once: "
    "`recsys tune embedding` shares lookups out",
    "embedding.max_memory_mib": "it is a limit, not a setting of the model",
    "embedding.backend": "the kernels give equal numbers",
    "training.seed": "the best of several seeds is luck, not a better configuration",
    "training.metric": "it is what trials are compared by: give --metric",
    "training.max_validation_queries": "trials would be compared on different queries",
    "training.checkpoint_every": "it changes no number",
    "training.device": "it is where a search runs, not what it searches",
}


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both among them; `log`: uniform in the logarithm."""

    low: float
    high: float
    log: bool = False
    integer: bool = False
    step: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Return what a file would say of it."""
        found: dict[str, Any] = {"low": self.low, "high": self.high}
        found |= {"step": self.step} if self.step is not None else {}
        return found | {name: True for name in ("log", "integer") if getattr(self, name)}

    def holds(self, value: Any) -> bool:
        """Whether `value` could be drawn."""
        if not isinstance(value, int if self.integer else int | float):
            return False
        steps = 0.0 if self.step is None else (value - self.low) / self.step
        return self.low <= value <= self.high and abs(steps - round(steps)) < 1e-9

    def ends(self) -> tuple[Any, ...]:
        """Return the values to check."""
        return (self.low, self.high)


@dataclass(frozen=True)
class Choice:
    """One of `values`, in no order."""

    values: tuple[Any, ...]

    def to_json(self) -> list[Any]:
        """Return what a file would say of it."""
        return list(self.values)

    def holds(self, value: Any) -> bool:
        """Whether `value` could be drawn."""
        return value in self.values

    def ends(self) -> tuple[Any, ...]:
        """Return the values to check."""
        return self.values


Space = dict[str, Range | Choice]


class _RangeEntry(StrictModel):
    low: float
    high: float
    log: bool = False
    integer: bool = False
    step: Annotated[float, Field(gt=0)] | None = None


def space_of(config: ExperimentConfig, raw: Mapping[str, Any], source: object) -> Space:
    """Return the space that `raw` describes; an empty one stands for `default_space`.

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
    leaves = [key for section in SECTIONS for key in _leaves(tree[section], f"{section}.")]
    space: Space = {}
    for key, entry in _entries(own, leaves, config.model.kind, source):
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
    training, table = config.training, config.embedding
    size = training.batch_size
    space: Space = {
        "training.learning_rate": _around(training.learning_rate),
        "embedding.learning_rate": _around(table.learning_rate),
        "training.weight_decay": Range(1e-5, 0.1, log=True),
        "training.batch_size": _choice(size, sorted({max(size // 2, 1), size, size * 2, size * 4})),
    }
    if config.model.kind != "logistic":
        space["embedding.dim"] = _choice(table.dim, [8, 16, 32])
    if not config.data.stream:
        space["training.id_dropout"] = Range(0.0, 0.3)
    if config.model.kind not in RANKERS:
        space["training.uniform_negatives"] = _choice(
            training.uniform_negatives, [128, 512, 1024, 2048]
        )
    model = config.model.model_dump(mode="json")
    for name, one in _MODEL.items():
        if name in model:
            values = one.to_json() if isinstance(one, Choice) else None
            space[f"model.{name}"] = one if values is None else _choice(model[name], values)
    if config.warm_start is not None:
        kept = ("training.batch_size", "training.uniform_negatives")
        space = {k: one for k, one in space.items() if isinstance(one, Range) or k in kept}
    return space


_MODEL: Space = {
    "dim": Choice((32, 64, 128)),
    "hidden": Choice(([128], [256, 128], [128, 64], [400, 400])),
    "dropout": Range(0.0, 0.5),
    "temperature": Range(0.03, 0.2, log=True),
    "history_length": Choice((20, 50, 100)),
    "cross_layers": Choice((1, 2, 3, 4)),
    "layers": Choice((1, 2, 3)),
    "heads": Choice((1, 2, 4)),
    "head_dim": Choice((8, 16, 32)),
}
"""By the name of a model's setting, whichever kinds have it."""


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
    return parse(ExperimentConfig, tree, source=str(source))


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


def _around(value: float) -> Range:
    return Range(float(f"{value / 10:.3g}"), float(f"{value * 5:.3g}"), log=True)


def _choice(own: Any, values: list[Any]) -> Choice:
    """A choice that also has what the configuration says."""
    return Choice(tuple(values if own in values else [own, *values]))


def _leaves(tree: Mapping[str, Any], prefix: str) -> Iterator[str]:
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key


def _entries(
    raw: Mapping[str, Any], leaves: list[str], kind: str, source: object, prefix: str = ""
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
            yield from _entries(entry, leaves, kind, source, f"{key}.")
        elif key.split(".")[0] in ExperimentConfig.model_json_schema()["properties"].keys() - {
            *SECTIONS
        }:
            raise ConfigError(
                f"{source}: {key} cannot be searched: all trials train and validate on the same "
                f"encoded data; keys of {', '.join(SECTIONS)} can"
            )
        else:
            raise ConfigError(
                f"{source}: the configuration of a {kind} has no key '{key}'{nearest(key, leaves)}"
            )


def _are_sections(entry: Any) -> bool:
    return isinstance(entry, list) and all(isinstance(value, dict) for value in entry)


def _entry(config: ExperimentConfig, key: str, entry: Any, source: str) -> Range | Choice:
    if key == "embedding.dim" and config.warm_start is not None:
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
        return "valid integer" in str(error)
    return False
