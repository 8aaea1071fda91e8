"""An experiment's configuration, read: the kind of its model decides which keys it has."""

import logging
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from recsys.core.errors import ConfigError
from recsys.core.key_tree import accepts, key_tree
from recsys.core.remote.path import below
from recsys.core.strict import Misfit, Written, listed, nearest, parse
from recsys.features.tables.paths import literal
from recsys.features.tables.sources import Sources
from recsys.models.registry import MODELS
from recsys.training.config.experiment import ExperimentConfig, start_of
from recsys.training.config.file import read_raw
from recsys.training.families.family import Family
from recsys.training.families.overrides import override_key
from recsys.training.families.registry import FAMILIES, FAMILY_OF_KIND

LOG = logging.getLogger(__name__)
KIND = "model.kind"
_MOST_NAMED = 5
"""Keys that are named of those that another kind has no use for."""
DEFAULT_KIND = "two_tower"
"""Of the model, where a configuration does not say."""


def load_config(path: Path, overrides: tuple[str, ...] = ()) -> ExperimentConfig:
    """Read `path` (YAML), apply `key.sub=value` overrides, resolve data paths relative to the file.

    An override of `model.kind` leaves out the keys of the file that are another family's.

    Raises:
        NotFoundError: no such file.
        ConfigError: not YAML, unknown keys (the nearest right one is named), wrong values.
    """
    raw = read_raw(path)
    kinds = [one for one in overrides if one.partition("=")[0] == KIND]
    for given in kinds:
        override_key(raw, given)
    if kinds:
        raw = _suiting(raw)
    for given in overrides:
        if given not in kinds:
            override_key(raw, given)
    return config_of(raw, source=path, folder=path.resolve().parent)


def _suiting(raw: dict[str, Any]) -> dict[str, Any]:
    """Return the keys without those that another family has, and say which these are."""
    kept = without_foreign_keys(raw)
    lost = sorted(".".join(place) for place in {*_leaves(raw)} - {*_leaves(kept)})
    if lost:
        few = lost if len(lost) <= _MOST_NAMED else [*lost[:_MOST_NAMED], "others"]
        LOG.warning(
            f"model.kind: {kept['model']['kind']} has no use for {listed(few, 'and')}: left out"
        )
    return kept


def _leaves(node: dict[str, Any], above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for key, value in node.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, (*above, key))
        else:
            yield (*above, key)


def config_of(raw: dict[str, Any], *, source: object, folder: Path) -> ExperimentConfig:
    """Return the configuration of the keys in `raw`; relative data paths start at `folder`.

    Raises:
        ConfigError: unknown keys (the nearest right one is named), wrong values; `source` is named.
    """
    config = parse_config(raw, source=source)
    update: dict[str, Any] = {"data": _resolved(config.data, folder)}
    earlier = start_of(config)
    if earlier is not None and below(folder, earlier).is_dir():
        update["warm_start"] = str(below(folder, earlier))
    if config.final is not None and below(folder, config.final).is_dir():
        update["final"] = str(below(folder, config.final))
    return config.model_copy(update=update).settled(folder)


def parse_config(raw: Any, *, source: object, written: Written | None = None) -> ExperimentConfig:
    """Return the configuration that `raw` holds, as its family has it.

    Args:
        raw: a mapping.
        source: where it comes from, for messages.
        written: where its keys were written (`recsys.core.strict.parse`).

    Raises:
        ConfigError: every problem on a line of its own. A key or a value of another family is
            refused with the name of that family, an unknown key with the nearest right one.
    """
    if not isinstance(raw, dict):
        raise ConfigError(f"{source}: expected a mapping of keys, got {type(raw).__name__}")
    kind = _kind_of(raw, source)
    family = FAMILY_OF_KIND[kind]
    explain = partial(_explain, family, kind)
    return parse(family.experiment, raw, source=str(source), explain=explain, written=written)


def without_foreign_keys(raw: dict[str, Any]) -> dict[str, Any]:
    """Return the keys of `raw` without those that its model's family has not and another one has.

    What is left of a configuration whose `model.kind` was changed. So are values that another
    family takes at their place and this one does not. Keys that no family knows stay, and values
    that none takes, to be refused.

    Raises:
        ConfigError: there is no such kind of model.
    """
    kind = _kind_of(raw, "configuration")
    family = FAMILY_OF_KIND[kind]
    own = {place for place in _places(family) if place[0] != "model"} | {("model",)}
    own |= {("model", *place) for place in key_tree(MODELS[kind].config)}
    foreign = {place for other in FAMILIES for place in _places(other)} - own

    def kept(node: dict[str, Any], above: tuple[str, ...]) -> dict[str, Any]:
        return {
            key: kept(value, (*above, key)) if isinstance(value, dict) else value
            for key, value in node.items()
            if (*above, key) not in foreign
            and (isinstance(value, dict) or fits((*above, key), value))
        }

    def fits(place: tuple[str, ...], value: Any) -> bool:
        return accepts(family.experiment, place, value) or not any(
            accepts(other.experiment, place, value) for other in FAMILIES
        )

    return kept(raw, ())


def _kind_of(raw: dict[str, Any], source: object) -> str:
    """Return the kind of the model that a configuration names."""
    model = raw.get("model", {})
    kind = model.get("kind", DEFAULT_KIND) if isinstance(model, dict) else DEFAULT_KIND
    if not isinstance(kind, str) or kind not in FAMILY_OF_KIND:
        known = list(FAMILY_OF_KIND)
        kinds = ", ".join(f"'{name}'" for name in known)
        raise ConfigError(
            f"{source}: model: kind '{kind}' is none of {kinds}{nearest(str(kind), known)}"
        )
    return kind


def _explain(own: Family[Any], kind: str, misfit: Misfit) -> str | None:
    """Say to which family a key or value in this configuration belongs."""
    place, key = misfit.place, misfit.key
    if misfit.expected is None:
        owners = _kinds_with(own, place) or [
            other.plural for other in FAMILIES if place in _places(other)
        ]
        if not owners:
            return None
        return f"{key} is for {listed(owners, 'and')}; model.kind is {kind}: leave it out"
    owners = [other.plural for other in FAMILIES if accepts(other.experiment, place, misfit.value)]
    if not owners or own.plural in owners:
        return None
    value = misfit.value.get("kind") if isinstance(misfit.value, dict) else misfit.value
    return (
        f"{key}: {value} is for {listed(owners, 'and')}, and model.kind is {kind}: "
        f"{misfit.expected}"
    )


def _places(family: Family[Any]) -> set[tuple[str, ...]]:
    """Return the place of every key of a family's configuration."""
    experiment: type[ExperimentConfig] = family.experiment
    return {*key_tree(experiment)}


def _kinds_with(own: Family[Any], place: tuple[str, ...]) -> list[str]:
    """Return the names of the kinds of the family whose model has the setting at `place`."""
    section, *inside = place
    if section != "model":
        return []
    kinds = [kind for kind in own.kinds if tuple(inside) in key_tree(MODELS[kind].config)]
    return [f"model.kind: {listed(kinds, 'and')}"] if kinds else []


def _resolved(sources: Sources, folder: Path) -> Sources:
    """Relative paths are relative to the configuration file."""
    moved = sources.relocated(lambda path: str(below(folder, literal(path))))
    return sources.model_copy(update=moved)
