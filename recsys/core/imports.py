"""Imports of large libraries: what they set up for the whole program, and what they cost."""

import gc
import logging
from collections.abc import Iterator
from contextlib import contextmanager


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
