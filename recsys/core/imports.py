"""Imports of large libraries: when they happen, what they set up, and what they cost."""

import builtins
import gc
import importlib
import logging
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any, Union


@contextmanager
def logging_untouched() -> Iterator[None]:
    """Leave the root logger without the handler that an import would give it.

    FBGEMM calls `logging.info` as it is imported, which sets up a handler if there is none; that
    one would print what the engine logs a second time, and a later `logging.basicConfig` of the
    program that uses the engine would do nothing.
    """
    placeholder = logging.NullHandler()
    logging.root.addHandler(placeholder)
    try:
        yield
    finally:
        logging.root.removeHandler(placeholder)


@contextmanager
def uncollected() -> Iterator[None]:
    """Import without garbage collection, for commands whose work is shorter than their imports.

    torch and the engine make 300,000 objects that stay; looking through them again and again
    takes a tenth of the time of the imports.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


class Later:
    """What stands for an imported name until it is used: then it is imported, and bound instead.

    It answers as functions, classes and modules are asked: called, an attribute taken, a base of a
    class, `isinstance`, a part of an annotation. Other values (numbers, texts, dictionaries) are to
    be imported at once.
    """

    def __init__(self, module: str, name: str | None) -> None:
        """Stand for `name` of `module`, or for the module itself."""
        self._module, self._name = module, name
        self._bound: list[tuple[dict[str, Any], str]] = []

    def _settled(self) -> Any:
        module = importlib.import_module(self._module)
        found = module if self._name is None else _attribute(module, self._name)
        for names, name in self._bound:
            if names.get(name) is self:
                names[name] = found
        return found

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)  # what copies, hashes and inspects asks
        return getattr(self._settled(), name)

    def __call__(self, *given: Any, **named: Any) -> Any:  # noqa: D102
        return self._settled()(*given, **named)

    def __mro_entries__(self, _bases: tuple[Any, ...]) -> tuple[Any, ...]:
        return (self._settled(),)

    def __instancecheck__(self, one: Any) -> bool:
        return isinstance(one, self._settled())

    def __or__(self, other: Any) -> Any:
        return Union[self, other]  # noqa: UP007

    def __ror__(self, other: Any) -> Any:
        return Union[other, self]  # noqa: UP007


def _attribute(module: Any, name: str) -> Any:
    """Return what `from module import name` binds."""
    if not hasattr(module, name):
        try:
            importlib.import_module(f"{module.__name__}.{name}")
        except ImportError:
            raise ImportError(f"cannot import name '{name}' from {module.__name__}") from None
    return getattr(module, name)


def settled(value: Any) -> Any:
    """Return a value, or what is imported now where a `Later` stands for it."""
    return value._settled() if type(value) is Later else value


@cache
def _later(module: str, name: str | None) -> Later:
    """Return the one object that stands for a name, so that files that name it have the same."""
    return Later(module, name)


class _Names:
    """A module as `from module import ...` asks it, of which nothing is imported yet."""

    def __init__(self, module: str) -> None:
        self._module = module

    def __getattr__(self, name: str) -> Later:
        if name.startswith("__"):
            raise AttributeError(name)
        return _later(self._module, name)


_REPLACING = threading.RLock()


@contextmanager
def on_first_use() -> Iterator[None]:
    """Import what the block names when it is first used, not before.

    A module that names, for many jobs, the functions that do them is imported without all that
    each of these needs:

        with on_first_use():
            from recsys.training.engine.loop import train

    Type checkers and readers see the usual import. It is for functions, classes and modules
    (`Later`), at the top of a file alone; `import a.b` is to be `from a import b`.
    """
    names = sys._getframe(2).f_globals
    usual = builtins.__import__

    def later(
        module: str,
        globals: Mapping[str, Any] | None = None,
        locals: Mapping[str, Any] | None = None,
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> Any:
        if globals is not names:
            return usual(module, globals, locals, fromlist or (), level)
        if level or (not fromlist and "." in module):
            raise ImportError(f"{names['__name__']}: import {module} on first use by `from`")
        return _Names(module) if fromlist else _later(module, None)

    with _REPLACING:
        builtins.__import__ = later  # type: ignore[assignment]
        try:
            yield
        finally:
            builtins.__import__ = usual
    for name, value in names.items():
        if type(value) is Later and (names, name) not in value._bound:
            value._bound.append((names, name))
