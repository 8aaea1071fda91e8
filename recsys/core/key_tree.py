"""The keys of a strict tree by their places, for messages on a misplaced key."""

import json
from functools import cache
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, Field, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

Place = tuple[str, ...]


@cache
def key_tree(model: type[BaseModel]) -> dict[Place, tuple[Any, ...]]:
    """Return each key of the tree under `model` with the types that it may have there.

    A section that may be one of several kinds has the keys of all of them. What is in a list or
    under keys of the user's own is left out.
    """
    found: dict[Place, tuple[Any, ...]] = {}
    stack: list[tuple[Place, type[BaseModel]]] = [((), model)]
    while stack:
        place, one = stack.pop()
        for name, info in one.model_fields.items():
            key = (*place, info.alias or name)
            found[key] = (*found.get(key, ()), _type_of(info))
            stack += [(key, inner) for inner in _models_in(info.annotation)]
    return found


def accepts(model: type[BaseModel], place: Place, value: Any) -> bool:
    """Whether the tree under `model` has a key at `place` that may have `value`, as JSON gives it.

    Where the key may have several types, any of them.
    """
    for one in key_tree(model).get(place, ()):
        try:
            TypeAdapter(one).validate_json(json.dumps(value), strict=True)
        except ValidationError:
            continue
        return True
    return False


def _type_of(info: FieldInfo) -> Any:
    """Return the type of a key with all that restricts its values."""
    kind: Any = info.annotation
    for restriction in info.metadata:
        kind = Annotated[kind, restriction]
    if info.discriminator is None:
        return kind
    return Annotated[kind, Field(discriminator=info.discriminator)]


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    """Return the sections that a key of this type may hold."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _models_in(get_args(annotation)[0])
    if origin in (Union, UnionType):
        return [model for one in get_args(annotation) for model in _models_in(one)]
    is_section = isinstance(annotation, type) and issubclass(annotation, BaseModel)
    return [annotation] if is_section else []


def every_key(model: type[BaseModel]) -> set[str]:
    """Return every key of the tree under `model`, those within lists among them."""
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
