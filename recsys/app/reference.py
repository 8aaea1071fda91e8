"""The reference of the configuration: every key with its type, default and meaning, as Markdown.

Keys, types and defaults come from the classes that parse the file, meanings from the texts below
their fields, so that `docs/configuration.md` cannot say otherwise than the code.
"""

import ast
import inspect
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

_BOUNDS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
_NAMES = {"str": "text", "bool": "true or false", "int": "whole number", "float": "number"}
_HEAD = """# Configuration

A `recsys.yaml` holds the sections below; `recsys init` writes a first one from your tables. Every
key can be set from the command line (`--set training.epochs=5`) and in Python
(`config.with_({"training.epochs": 5})`). Keys without a default have to be given; every run writes
all of them next to its results. `[name]` in a key means the entries of that kind, `NAME` for a
name of your choice. The column *models* says which families have a key, where not all of them do.

This page is made from the code (`make docs`).
"""


@dataclass(frozen=True)
class Key:
    """One key: full name, type, default and meaning."""

    name: str
    type: str
    default: str
    meaning: str


def keys_of(model: type[BaseModel], prefix: str = "") -> Iterator[Key]:
    """Yield every key below `model`, sections before what they hold."""
    meanings = _meanings(model)
    for field, info in model.model_fields.items():
        alias = info.alias or field
        name = f"{prefix}{alias}"
        if field == "kind" and prefix.endswith("]."):
            continue  # the key says it already
        below = list(_models_in(info.annotation))
        meaning = meanings.get(field, "")
        if field == "kind" and not meaning:
            meaning = "Which of these it is; decides the other keys."
        if not meaning and len(below) == 1:
            meaning = _first_sentence(below[0][1])
        yield Key(name, _type_in_words(info), _default(info), meaning)
        for suffix, one in below:
            yield from keys_of(one, f"{name}{suffix}.")


def configuration_page() -> str:
    """Return the page on the configurations of all families of models."""
    from recsys.training.families.registry import FAMILIES

    return reference({family.plural: family.experiment for family in FAMILIES})


def reference(families: Mapping[str, type[BaseModel]]) -> str:
    """Return the page.

    Args:
        families: name of a family of models -> the class of its configuration.
    """
    merged: dict[str, dict[str, Key]] = {}
    for family, model in families.items():
        for key in keys_of(model):
            merged.setdefault(key.name, {})[family] = key
    sections: dict[str, list[str]] = {}
    for name, found in merged.items():
        section = name.split(".")[0] if "." in name else "top level"
        if any("." in other and other.split(".")[0] == name for other in merged):
            section = name
        sections.setdefault(section, []).append(_row(name, found, len(families)))
    parts = [_HEAD]
    for section, rows in sections.items():
        title = section if section == "top level" else f"`{section}`"
        head = "| key | type | default | models | meaning |\n|---|---|---|---|---|"
        parts.append("\n".join([f"## {title}", "", head, *rows, ""]))
    return "\n".join(parts)


def _row(name: str, found: Mapping[str, Key], all_families: int) -> str:
    """Return a line of the table; what differs between families is listed for each."""
    models = "" if len(found) == all_families else ", ".join(found)
    cells = [f"`{name}`"]
    for part in ("type", "default"):
        values = {family: getattr(key, part) for family, key in found.items()}
        distinct = dict.fromkeys(values.values())
        if len(distinct) == 1:
            cells.append(next(iter(distinct)))
        else:
            cells.append("; ".join(f"{family}: {value}" for family, value in values.items()))
    meaning = max((key.meaning for key in found.values()), key=len)
    return "| " + " | ".join([*map(_cell, cells), models, _cell(meaning)]) + " |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _meanings(model: type[BaseModel]) -> dict[str, str]:
    """Return the texts below the fields of a class, its bases' among them."""
    found: dict[str, str] = {}
    for base in reversed(model.__mro__):
        if not issubclass(base, BaseModel) or base is BaseModel:
            continue
        body = ast.parse(textwrap.dedent(inspect.getsource(base))).body[0]
        assert isinstance(body, ast.ClassDef)
        for statement, below in zip(body.body, body.body[1:], strict=False):
            if not isinstance(statement, ast.AnnAssign) or not isinstance(below, ast.Expr):
                continue
            text = below.value
            if isinstance(statement.target, ast.Name) and isinstance(text, ast.Constant):
                found[statement.target.id] = " ".join(str(text.value).split())
    return found


def _first_sentence(model: type[BaseModel]) -> str:
    return " ".join((inspect.getdoc(model) or "").split("\n\n")[0].split())


def _models_in(annotation: Any) -> Iterator[tuple[str, type[BaseModel]]]:
    """Yield the models that a type holds, each with what its keys have in front."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield "", annotation
    elif origin is Annotated:
        yield from _models_in(parts[0])
    elif origin in (Union, UnionType):
        found = [pair for part in parts for pair in _models_in(part)]
        for suffix, model in found:
            kind = model.model_fields.get("kind")
            several = len(found) > 1 and kind is not None and not suffix
            yield (f"[{_kind(kind)}]" if several and kind else suffix), model
    elif origin is tuple and parts:
        for suffix, model in _models_in(parts[0]):
            yield suffix or "[]", model
    elif origin is dict:
        for suffix, model in _models_in(parts[1]):
            yield f".NAME{suffix}", model


def _kind(field: FieldInfo) -> str:
    return ", ".join(str(one) for one in get_args(field.annotation))


def _type_in_words(info: FieldInfo) -> str:
    bounds = [
        f"{sign} {getattr(one, name):g}"
        for one in info.metadata
        for name, sign in _BOUNDS.items()
        if getattr(one, name, None) is not None
    ]
    return ", ".join([_type(info.annotation), *bounds])


def _type(annotation: Any) -> str:
    origin, parts = get_origin(annotation), get_args(annotation)
    if annotation is Any:
        return "anything"
    if annotation is NoneType:
        return "null"
    if origin is Annotated:
        bounds = [
            f"{sign} {getattr(one, name):g}"
            for extra in parts[1:]
            for one in getattr(extra, "metadata", [extra])
            for name, sign in _BOUNDS.items()
            if getattr(one, name, None) is not None
        ]
        return ", ".join([_type(parts[0]), *bounds])
    if origin is Literal:
        return ", ".join(f"`{_plain(one)}`" for one in parts)
    if origin in (Union, UnionType):
        return " or ".join(dict.fromkeys(map(_type, parts)))
    if origin is tuple:
        return f"list of {_type(parts[0])}"
    if origin is dict:
        return f"mapping of names to {_type(parts[1])}"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        kind = annotation.model_fields.get("kind")
        return "section" if kind is None else f"`{_kind(kind)}`"
    name = getattr(annotation, "__name__", str(annotation))
    return _NAMES.get(name, name)


def _default(info: FieldInfo) -> str:
    value = info.default
    if value is PydanticUndefined:
        return "(none)" if info.default_factory is None else "empty"
    if isinstance(value, BaseModel):
        kind = getattr(value, "kind", None)
        return "" if kind is None else f"`{kind}`"
    return f"`{_plain(value)}`"


def _plain(value: Any) -> str:
    """Return a value as YAML has it."""
    if isinstance(value, tuple):
        return "[" + ", ".join(map(_plain, value)) + "]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return repr(value) if value == "" else str(value)


if __name__ == "__main__":
    print(configuration_page(), end="")
