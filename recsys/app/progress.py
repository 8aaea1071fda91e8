"""What the engine logs, and progress, go to the error stream, so that results can be piped."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from recsys.core.events import Event, Listener, PartDone

LOGGER = logging.getLogger("recsys")


class _Lines(logging.Handler):
    """A record a line; warnings are marked."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one record."""
        mark = "warning: " if record.levelno >= logging.WARNING else ""
        print(f"{mark}{record.getMessage()}", file=sys.stderr)


@contextmanager
def printed(quiet: bool) -> Iterator[None]:
    """Print what the engine logs meanwhile; quiet: its warnings alone.

    Programs that set up logging of their own see the same records, of loggers below `recsys`.
    """
    if any(isinstance(handler, _Lines) for handler in LOGGER.handlers):
        yield  # the caller prints already
        return
    handler, level = _Lines(), LOGGER.level
    handler.setLevel(logging.WARNING if quiet else logging.INFO)
    LOGGER.addHandler(handler)
    LOGGER.setLevel(logging.INFO)
    try:
        yield
    finally:
        LOGGER.removeHandler(handler)
        LOGGER.setLevel(level)


def parts_to_stderr(quiet: bool) -> Listener:
    """Return a listener that prints how many parts of a batch job are there, of how many."""

    def print_part(event: Event) -> None:
        if isinstance(event, PartDone) and not quiet:
            print(f"part {event.done} of {event.total}", file=sys.stderr)

    return print_part
