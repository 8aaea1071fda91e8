"""Strict configuration objects: frozen, no unknown keys, errors that name the nearest right key."""

import difflib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from recsys.core.errors import ConfigError, Problem
from recsys.core.key_tree import Place, every_key, key_tree

Model = TypeVar("Model", bound="StrictModel")
_MOST_SHOWN = 3
"""Places that an unknown key may be meant for."""


class StrictModel(BaseModel):
    """A frozen pydantic model of finite numbers, which refuses unknown keys.

    Nothing is coerced but int to float.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, populate_by_name=True, allow_inf_nan=False
    )


def named(value: Any) -> Any:
    """Return the mapping of what is given by the name of its kind alone, to validate."""
    return {"kind": value} if isinstance(value, str) else value


@dataclass(frozen=True)
class Misfit:
    """Something in the wrong place: a key that is unknown there, or a value of the wrong kind.

    place: in the tree. key: as it was written. value: what is there. expected: what may be there,
    as text; None: no such key.
    """

    place: Place
    key: str
    value: Any
    expected: str | None


Explain = Callable[[Misfit], str | None]
"""Says what a misfit means to those who know more than the tree; None: no more."""
Written = Callable[[Place], tuple[str, str] | None]
"""Says where a key of the tree was written: in which file, and at which key of it ("a.b"); None: it
cannot be written."""


def nearest(word: str, choices: list[str], *, least: float = 0.5) -> str:
    """Return ` (did you mean 'x'?)` for the nearest of `choices`, or an empty string.

    least: similarity below which it is not meant, of 1.
    """
    close = difflib.get_close_matches(str(word), choices, n=1, cutoff=least)
    return f" (did you mean '{close[0]}'?)" if close else ""


def listed(words: Sequence[str], last: str) -> str:
    """Return `a`, `a and b`, `a, b and c`; `last` is the word before the last one."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} {last} {words[-1]}"


def parse(
    model: type[Model],
    raw: Any,
    *,
    source: str | Path,
    explain: Explain = lambda misfit: None,
    written: Written | None = None,
) -> Model:
    """Validate `raw` (what YAML or JSON gave) as `model`.

    Args:
        model: the class of the whole.
        raw: a mapping.
        source: where it comes from, for messages.
        explain: asked first for the words on a key or a value in the wrong place.
        written: where the keys were written, where `raw` was put together; None: in `source`, as
            they are there.

    Raises:
        ConfigError: every problem on a line of its own, with its place in the file; an
            unknown key is named with the nearest right one.
    """
    if not isinstance(raw, dict):
        raise ConfigError(f"{source}: expected a mapping of keys, got {type(raw).__name__}")
    # JSON is the mode in which strict models take plain lists and mappings.
    text = json.dumps(raw, default=str)
    try:
        return model.model_validate_json(text)
    except ValidationError as error:
        given = json.loads(text)
        # A default that is made of other keys cannot be where one of these is wrong, and said so.
        every = [one for one in error.errors() if one["type"] != "default_factory_not_called"]
        inside = {one["loc"][:end] for one in every for end in range(len(one["loc"]))}
        # A list is counted without the entries that are wrong, which are reported themselves.
        told = (one for one in every if one["type"] != "too_short" or one["loc"] not in inside)
        where = written or partial(_as_given, str(source))
        found = (_problem(model, problem, given, str(source), explain, where) for problem in told)
        raise ConfigError(problems=tuple(dict.fromkeys(found))) from None


def _as_given(source: str, place: Place) -> tuple[str, str]:
    return source, ".".join(place)


def _problem(
    model: type[BaseModel],
    problem: Any,
    given: Any,
    source: str,
    explain: Explain,
    written: Written,
) -> Problem:
    place = _place(problem["loc"], given, is_absent=problem["type"] == "missing")
    file, key = written(place) or _as_given(source, place)
    misfit = Misfit(place, key, problem.get("input"), None)
    words = _in_words(model, problem, misfit, given, explain, written)
    return Problem(file, key, words, problem["type"])


def _in_words(
    model: type[BaseModel],
    problem: Any,
    misfit: Misfit,
    given: Any,
    explain: Explain,
    written: Written,
) -> str:
    kind, key = problem["type"], misfit.key
    if kind in ("extra_forbidden", "unexpected_keyword_argument"):
        return explain(misfit) or _unknown_key(model, misfit, given, written)
    if kind == "missing":
        return f"missing key '{key}'"
    if kind == "union_tag_not_found":
        tag = problem["ctx"]["discriminator"].strip("'")
        return f"missing key '{f'{key}.{tag}' if key else tag}'"
    if kind == "union_tag_invalid":
        expected = f"choose one of {problem['ctx']['expected_tags']}"
        return explain(replace(misfit, expected=expected)) or _tag(key, problem)
    message = problem["msg"].removeprefix("Value error, ")
    if kind != "value_error":
        found = explain(replace(misfit, expected=message))
        if found is not None:
            return found
    got = _got(misfit.value, of_parts=kind == "value_error")
    return f"{key}: {message}{got}" if key else message


def _unknown_key(model: type[BaseModel], misfit: Misfit, given: Any, written: Written) -> str:
    """Say that the tree has no such key, and which one may be meant.

    Where the key is one of another kind of such a section, that is said. Else it may be a key of
    this name in another section, the nearest name of the same section, or the nearest of all.
    """
    place = misfit.place
    last, said = place[-1], f"unknown key '{misfit.key}'"
    tree = {key: at for key in key_tree(model) if (at := written(key)) is not None}
    kind = _at(given, place[:-1]).get("kind")
    in_list = any(part.isdigit() for part in place)
    if kind is not None and (place in tree or (in_list and last in every_key(model))):
        return f"{said}: kind '{kind}' has no such key"
    others = [] if in_list else sorted((key for key in tree if key[-1] == last), key=len)
    alike = [key for key in others if key[-2:-1] == place[-2:-1]]
    others = alike or others  # data.items.decimal means that of schema.items
    if 0 < len(others) <= _MOST_SHOWN and all(len(key) > 1 for key in others):
        names = [tree[key][1] for key in others]
        sections = listed([name.removesuffix(f".{last}") for name in names], "and")
        return f"{said}: '{last}' is a key of {sections}: write {listed(names, 'or')}"
    siblings = sorted({key[-1] for key in tree if key[:-1] == place[:-1]})
    every = sorted(every_key(model) - {last})
    return said + (nearest(last, siblings, least=0.6) or nearest(last, every))


def _at(given: Any, place: Place) -> dict[str, Any]:
    """Return the section of the document at `place`; an empty one where there is none."""
    for part in place:
        given = given[int(part)] if isinstance(given, list) else given.get(part, {})
    return given if isinstance(given, dict) else {}


def _tag(at: str, problem: Any) -> str:
    """Say that a section is of no known kind."""
    context = problem["ctx"]
    key, tag, tags = context["discriminator"].strip("'"), context["tag"], context["expected_tags"]
    hint = nearest(tag, [one.strip("'") for one in tags.split(", ")])
    return f"{at}: {key} '{tag}' is none of {tags}{hint}"


def _got(value: Any, *, of_parts: bool) -> str:
    """What is there; a mapping whose parts do not go together says nothing by itself."""
    if isinstance(value, dict):
        return "" if of_parts else " (got a mapping)"
    return f" (got {value!r})"


def _place(location: tuple[str | int, ...], given: Any, *, is_absent: bool) -> Place:
    """Return a location as the keys of the file, ("a", "0", "b").

    Within a union it also names the member: by its tag, which the mapping there holds as a value
    or not at all, where a validator adds it, or by a type, below a value that has no keys.

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
        elif not is_absent or number < len(location) - 1:
            continue
        keys.append(str(part))
    return tuple(keys)
