"""Imports of libraries that set up logging for the whole program."""

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
