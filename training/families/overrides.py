"""`--set key=value`: the value as the configuration has it at that key, not as YAML guesses.

YAML takes 007 for a number, no for false and 2024-05-31 for a date. Where a key holds text they are
the text that was written.
"""

import json
from typing import Any

import yaml
from pydantic import BaseModel

from recsys.core.key_tree import Place, accepts, key_tree
from recsys.training.config.file import parse_override, set_key
from recsys.training.families.registry import FAMILIES


def typed_override(override: str) -> tuple[str, Any]:
    """Return key and value of `key.sub=value`: as YAML, or as text where the key takes no other.

    Raises:
        ConfigError: it has no "=", or the value is not YAML.
    """
    key, value = parse_override(override)
    place = tuple(key.split("."))
    if _is_taken(place, value):
        return key, value
    words = yaml.load(override.partition("=")[2], Loader=yaml.BaseLoader)
    return key, words if _is_taken(place, words) else value


def override_key(raw: dict[str, Any], override: str) -> None:
    """Set `key.sub=value` in a mapping of keys, its sections made where missing.

    Raises:
        ConfigError: it has no "=", the value is not YAML, or a section is none.
    """
    set_key(raw, *typed_override(override))


def _is_taken(place: Place, value: Any) -> bool:
    """Whether some family's configuration takes a value at a place; a date is none."""
    try:
        json.dumps(value)
    except TypeError:
        return False
    return any(_accepts(family.experiment, place, value) for family in FAMILIES)


def _accepts(model: type[BaseModel], place: Place, value: Any) -> bool:
    for end in range(len(place), 0, -1):
        if place[:end] in key_tree(model):
            return accepts(model, place[:end], value)
        value = {place[end - 1]: value}  # below keys of the user's own
    return False
