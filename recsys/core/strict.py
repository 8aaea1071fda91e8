"""Strict configuration objects: frozen, no unknown keys, errors that name the nearest right key."""

import difflib
import json
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from recsys.core.errors import ConfigError

Model = TypeVar("Model", bound="StrictModel")


class StrictModel(BaseModel):
    """A frozen pydantic model of finite numbers, which refuses unknown keys.

    Nothing is coerced but int to float.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, populate_by_name=True, allow_inf_nan=False
    )

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
    # JSON is the mode in which strict models take plain lists and mappings.
    text = json.dumps(model.completed(raw), default=str)
    try:
        return model.model_validate_json(text)
    except ValidationError as error:
        given = json.loads(text)
        lines = [_explain(model, problem, given) for problem in error.errors()]
        raise ConfigError("\n".join(f"{source}: {line}" for line in lines)) from None


def _explain(model: type[BaseModel], problem: Any, given: Any) -> str:
    kind, context = problem["type"], problem.get("ctx", {})
    place = _place(problem["loc"], given, is_absent=kind == "missing")
    if kind in ("extra_forbidden", "unexpected_keyword_argument"):
        known = sorted(_known_keys(model))
        return f"unknown key '{place}'{nearest(str(problem['loc'][-1]), known)}"
    if kind == "missing":
        return f"missing key '{place}'"
    if kind in ("union_tag_not_found", "union_tag_invalid"):
        key = context["discriminator"].strip("'")
        if kind == "union_tag_not_found":
            return f"missing key '{f'{place}.{key}' if place else key}'"
        tag, tags = context["tag"], context["expected_tags"]
        hint = nearest(tag, [one.strip("'") for one in tags.split(", ")])
        return f"{place}: {key} '{tag}' is none of {tags}{hint}"
    message = problem["msg"].removeprefix("Value error, ")
    got = _got(problem.get("input"), of_parts=kind == "value_error")
    return f"{place}: {message}{got}" if place else message


def _got(value: Any, *, of_parts: bool) -> str:
    """What stands there; a mapping whose parts do not go together says nothing by itself."""
    if isinstance(value, dict):
        return "" if of_parts else " (got a mapping)"
    return f" (got {value!r})"


def _place(location: tuple[str | int, ...], given: Any, *, is_absent: bool) -> str:
    """Return a location as the keys of the file, `a.0.b`.

    Within a union it also names the member: by its tag, which the mapping there holds as a value
    and not as a key, or by a type, below a value that has no keys.

    Args:
        location: what the validation gave.
        given: the document.
        is_absent: whether the last element is a key that is not in the document.
    """
    keys: list[str] = []
    node: Any = given
    for number, part in enumerate(location):
        is_index = isinstance(node, list) and isinstance(part, int)
        if is_index or (isinstance(node, dict) and part in node):
            node = node[part]
        elif is_absent and number == len(location) - 1:
            pass
        elif not isinstance(node, dict) or part in node.values():
            continue
        else:
            node = {}
        keys.append(str(part))
    return ".".join(keys)


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
