"""The settings of a last training on all rows, chosen by an earlier one on its validation rows.

They are those of the earlier model, whose bundle has them, with what was chosen: the epochs and the
weight of the memory of pairs. What does not shape the model may be another: the data, to train on
newer rows; where things are written; which device and kernel is used.
"""

from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

from recsys.core.errors import ConfigError
from recsys.core.strict import listed
from recsys.features.bundle.model_bundle import ModelBundle
from recsys.models.registry import PIPELINES
from recsys.training.config.experiment import ExperimentConfig, LearnedExperiment
from recsys.training.families.chosen import BEST_EPOCH, as_chosen, keys_of_bundle
from recsys.training.families.load import parse_config
from recsys.training.families.overrides import override_key
from recsys.training.families.registry import FAMILY_OF_KIND
from recsys.training.jobs.runs import flat

_FREE = (
    *("data", "policies", "split", "evaluation", "index", "tracking", "output", "cache", "tune"),
    *("final", "keep_optimizer_state", "compatible_with", "compatible_share"),
)
"""Sections that do not shape the model, so that a last training may have others."""
_FREE_KEYS = (
    *(("embedding", "backend"), ("training", "device"), ("training", "precision")),
    *(("training", "checkpoint_every"), ("training", "patience")),
    ("training", "max_validation_queries"),
)
"""Keys of other sections that do not either."""
_SHAPES = ("data.stream", "evaluation.filter_seen", "evaluation.queries")
"""Keys of the free sections that do all the same."""
_MOST_NAMED = 5
_LEFT_OPEN = "auto"
"""A value that a training chooses."""
_ABSENT = object()


def final_config(
    config: ExperimentConfig | None, chosen: Path, overrides: tuple[str, ...] = ()
) -> ExperimentConfig:
    """Return the configuration of a training on all rows, with what `chosen` was trained with.

    Args:
        config: as the caller has it, for newer data and other folders; None: that of the model.
        chosen: the folder of the bundle whose training chose.
        overrides: `key.sub=value`, of the model's configuration where `config` is None.

    Raises:
        NotFoundError, IntegrityError: there is no such bundle, or it is damaged.
        ConfigError: `config` has other settings than the model was trained with; they are named.
    """
    found = ModelBundle.read(chosen)
    own = keys_of_bundle(found)
    _check_epochs_known(found, own)
    settled = own | {"split": {"kind": "none"}, "final": str(chosen.resolve())}
    if own["model"]["kind"] not in PIPELINES:
        settled = as_chosen(settled, found)
    given = own
    if config is not None:
        given = _written_out(config)
    elif overrides:
        given = deepcopy(own)
        for override in overrides:
            override_key(given, override)
    # By the classes of today: keys that are newer than the model have their defaults on all sides.
    own, given, settled = (
        _written_out(parse_config(one, source=str(chosen))) for one in (own, given, settled)
    )
    _check_same(given, own, settled, chosen)
    for section in _FREE:
        if section in given and section not in ("split", "final"):
            settled[section] = given[section]
    for section, key in _FREE_KEYS:
        if key in given.get(section, {}):
            settled[section][key] = given[section][key]
    return parse_config(settled, source=str(chosen))


def _written_out(config: ExperimentConfig) -> dict[str, Any]:
    return config.model_dump(mode="json", by_alias=True)


def check_can_choose(config: ExperimentConfig) -> None:
    """Refuse a configuration whose training cannot choose what a last one needs.

    Raises:
        ConfigError: it has no validation rows.
    """
    if config.split.trains_on_validation:
        which = "kind: none" if config.split.kind == "none" else "join_validation"
        raise ConfigError(
            f"split.{which} leaves no validation rows to choose by, which a training before the "
            "final one needs: leave it out (--final trains on all rows after it), or name the run "
            "that chose with --from"
        )


def _check_epochs_known(model: ModelBundle, keys: Mapping[str, Any]) -> None:
    """Refuse a model that learnt with validation rows, and does not say which epoch was best."""
    split = keys["split"]
    validated = split["kind"] != "none" and not split.get("join_validation", False)
    experiment = FAMILY_OF_KIND[keys["model"]["kind"]].experiment
    if not issubclass(experiment, LearnedExperiment) or not validated:
        return
    if BEST_EPOCH not in model.bundle.manifest["facts"]:
        raise ConfigError(
            f"{model.bundle.path}: the bundle does not say which epoch was the best (engine "
            f"{model.bundle.manifest['engine_version']}): train it again, then --final"
        )


def _check_same(
    given: Mapping[str, Any], own: Mapping[str, Any], settled: Mapping[str, Any], chosen: Path
) -> None:
    """Refuse settings that are neither those of the model nor what was chosen, nor left open.

    Raises:
        ConfigError: the keys that differ.
    """
    before, after, now = (flat(dict(one)) for one in (own, settled, given))
    differ = [
        key
        for key in dict.fromkeys((*now, *before))
        if not _is_free(key)
        and now.get(key) != _LEFT_OPEN
        and now.get(key, _ABSENT) not in (before.get(key, _ABSENT), after.get(key, _ABSENT))
    ]
    if not differ:
        return
    few = differ if len(differ) <= _MOST_NAMED else [*differ[:_MOST_NAMED], "others"]
    raise ConfigError(
        f"final: the configuration and {chosen} differ in {listed(few, 'and')}: what was chosen "
        "for one is not for the other. Leave the configuration out, to train as that model was, or "
        "train it with validation rows first (--final without --from does both)"
    )


def _is_free(key: str) -> bool:
    section = key.partition(".")[0]
    return key not in _SHAPES and (section in _FREE or tuple(key.split(".")) in _FREE_KEYS)
