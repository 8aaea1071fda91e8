"""Arguments of the Python API, checked when a function is called, before any work is done."""

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import wraps
from types import FunctionType, UnionType
from typing import Annotated, Any, Literal, ParamSpec, TypeVar, Union, get_args, get_origin

from pydantic import BeforeValidator, ConfigDict, Field, ValidationError, validate_call

from recsys.core.errors import ArgumentError
from recsys.core.strict import nearest

P = ParamSpec("P")
R = TypeVar("R")


def _as_list(values: Any) -> list[Any]:
    """Return ids as a list; text is one id and not a sequence of letters."""
    if isinstance(values, str | bytes | Mapping) or not isinstance(values, Iterable):
        raise ValueError("expected several ids, as in ['u1', 'u2']")
    return list(values.tolist() if hasattr(values, "tolist") else values)


Ids = Annotated[Sequence[Any], BeforeValidator(_as_list)]
"""Ids of users or items: a list, an array or a column of a data frame."""
Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Share = Annotated[float, Field(ge=0, le=1)]
Minutes = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_STRICT = ConfigDict(strict=True, arbitrary_types_allowed=True)
_UNEXPECTED = "unexpected_keyword_argument"
_BY_PLACE = "unexpected_positional_argument"
_MISSING = ("missing_argument", "missing_positional_only_argument", "missing_keyword_only_argument")


def checked(function: Callable[P, R]) -> Callable[P, R]:
    """Return `function` with its arguments checked against its annotations at every call.

    Nothing is converted: `k="10"` is refused where `k: int` is declared.

    Raises:
        ArgumentError: when called; each argument of a wrong type is named with what was given.
    """
    validated = validate_call(config=_STRICT)(_without_answer(function))
    signature = inspect.signature(function)
    known = {n: one.annotation for n, one in signature.parameters.items()}
    name = f"recsys.{function.__qualname__}"

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return validated(*args, **kwargs)
        except ValidationError as error:
            if error.title != function.__qualname__ and error.title != function.__name__:
                raise  # an object that the function itself built
            lines = dict.fromkeys(_explain(one, name, known) for one in error.errors())
        raise ArgumentError("\n".join(lines))

    call.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[
            one.replace(annotation=_Written(_type_in_words(one.annotation)))
            if one.annotation is not one.empty
            else one
            for one in signature.parameters.values()
        ],
        return_annotation=_Written(str(signature.return_annotation))
        if isinstance(signature.return_annotation, str)
        else signature.return_annotation,
    )
    return call


class _Written(str):
    """An annotation as `help` shows it."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def _without_answer(function: Callable[P, R]) -> Callable[P, R]:
    """Return a copy without the annotation of what is returned, which nothing checks.

    It may name a class that is imported for type checkers alone.
    """
    assert isinstance(function, FunctionType)
    copy = FunctionType(
        function.__code__,
        function.__globals__,
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    copy.__kwdefaults__, copy.__qualname__ = function.__kwdefaults__, function.__qualname__
    copy.__annotations__ = {n: one for n, one in function.__annotations__.items() if n != "return"}
    return copy


def _explain(problem: Any, name: str, known: dict[str, Any]) -> str:
    """Describe one problem: the argument, what it must be, what was given."""
    place, names = problem["loc"][0] if problem["loc"] else "?", list(known)
    argument = names[place] if isinstance(place, int) and place < len(names) else str(place)
    if problem["type"] == _BY_PLACE:
        return f"{name}() takes its arguments by name: {', '.join(names)}; got {problem['input']!r}"
    if problem["type"] == _UNEXPECTED:
        return f"{name}() has no argument '{argument}'{nearest(argument, names)}"
    if problem["type"] in _MISSING:
        return f"{name}() needs the argument '{argument}'"
    must = problem["msg"].removeprefix("Value error, ")
    must = must[0].lower() + must[1:]
    if problem["type"].endswith(("_type", "is_instance_of")) and argument in known:
        must = f"must be {_type_in_words(known[argument])}"
    value, kind = repr(problem["input"]), type(problem["input"]).__name__
    shown = value if len(value) <= 60 else f"{value[:57]}..."
    return f"{name}(): argument '{argument}': {must}; got {shown} ({kind})"


def _type_in_words(annotation: Any) -> str:
    """Return a type as it is written in Python, without modules and what pydantic adds to it."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type_in_words(parts[0])
    if origin in (Union, UnionType):
        return " or ".join(map(_type_in_words, parts))
    if origin is Literal:
        return " or ".join(map(repr, parts))
    if annotation is type(None):
        return "None"
    return str(getattr(origin or annotation, "__name__", annotation))
