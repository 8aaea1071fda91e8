"""Strict configuration objects: frozen, no unknown keys, errors that name the nearest right key."""

import difflib
import json
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from recsys.errors import ConfigError

Model = TypeVar("Model", bound="StrictModel")


class StrictModel(BaseModel):
    """A frozen pydantic model that refuses unknown keys and coerces nothing but int to float."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, populate_by_name=True)

    @classmethod
    def completed(cls, raw: dict[str, Any]) -> dict[str, Any]:
        """Return what a file gave with the defaults that depend on it; for `parse`."""
        return raw


def nearest(word: str, choices: list[str]) -> str:
    """Return ` (did you mean 'x'?)` for the nearest of `choices`, or an empty string."""
    close = difflib.get_close_matches(str(word), choices, n=1, cutoff=0.5)
    return f" (did you mean '{close[0]}'?)" if close else ""


def parse(model: type[Model], raw: Any, *, source: str | Path) -> Model:
    """Validate `raw` (what YAML or JSON gave) as `model`.

    Raises:
        ConfigError: every problem on a line of its own, with its place in the file; an
            unknown key is named with the nearest right one.
    """
    if not isinstance(raw, dict):
        raise ConfigError(f"{source}: expected a mapping of keys, got {type(raw).__name__}")
    try:
        # JSON is the mode in which strict models take plain lists and mappings.
        return model.model_validate_json(json.dumps(model.completed(raw), default=str))
    except ValidationError as error:
        lines = [_explain(model, problem) for problem in error.errors()]
        raise ConfigError("\n".join(f"{source}: {line}" for line in lines)) from None


def _explain(model: type[BaseModel], problem: Any) -> str:
    place = ".".join(str(part) for part in problem["loc"])
    if problem["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        known = sorted(_known_keys(model))
        return f"unknown key '{place}'{nearest(str(problem['loc'][-1]), known)}"
    if problem["type"] == "missing":
        return f"missing key '{place}'"
    got = problem.get("input")
    message = problem["msg"].removeprefix("Value error, ")
    return f"{place or 'document'}: {message} (got {got!r})" if place else message


def _known_keys(model: type[BaseModel]) -> set[str]:
    """Every key of the tree under `model`: enough to name the nearest right one."""
    keys: set[str] = set()
    stack: list[Any] = [model.model_json_schema()]
    while stack:
        node = stack.pop()
        if isinstance(node, dict):
            keys.update(node.get("properties", {}))
            stack.extend(node.values())
        elif isinstance(node, list):
            stack.extend(node)
    return keys
