"""Signals that end a process: what they are, and how work is left in order when one comes."""

import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

_ONE_REQUEST_SECONDS = 1.0
"""`timeout` and schedulers send a signal to a process and to its group: it comes twice."""


class Terminated(SystemExit):
    """A signal came; what was to be kept is written. Exits with 128 + its number (SIGTERM: 143).

    Attributes:
        told: whether a line said how the work goes on.
    """

    told = False


def ending_signals() -> tuple[signal.Signals, ...]:
    """Return SIGTERM, SIGINT and, where the process does not ignore it (nohup), SIGHUP."""
    numbers = [signal.SIGTERM, signal.SIGINT]
    hangup = getattr(signal, "SIGHUP", None)  # Windows has none
    if hangup is not None and signal.getsignal(hangup) is not signal.SIG_IGN:
        numbers.append(hangup)
    return tuple(numbers)


class Requests:
    """Counts the requests to end: signals that come at once are one."""

    def __init__(self) -> None:
        self.count = 0
        self._began = 0.0

    def is_new(self) -> bool:
        """Note a signal; return whether it is a request of its own."""
        now = time.monotonic()
        if self.count and now - self._began < _ONE_REQUEST_SECONDS:
            return False
        self.count, self._began = self.count + 1, now
        return True


_counting: list[Requests] = []


@contextmanager
def requests() -> Iterator[Requests]:
    """Hand out what counts the requests: one for all handlers that are set inside each other."""
    _counting.append(_counting[-1] if _counting else Requests())
    try:
        yield _counting[-1]
    finally:
        _counting.pop()


@contextmanager
def terminable() -> Iterator[None]:
    """Raise `Terminated` where a signal comes, so that what is half done is removed.

    A second request ends the process at once, as if it were not handled. In a thread other than
    the main one signals are left to their owner.
    """
    with requests() as asked:

        def handle(number: int, _frame: FrameType | None) -> None:
            if not asked.is_new():
                return
            if asked.count > 1:
                signal.signal(number, signal.SIG_DFL)
                signal.raise_signal(number)
            raise Terminated(128 + number)

        with handled(ending_signals(), handle):
            yield


@contextmanager
def handled(
    numbers: Sequence[signal.Signals], handle: Callable[[int, FrameType | None], None]
) -> Iterator[bool]:
    """Handle signals inside; yield whether this is so: other threads than the main one cannot."""
    try:
        previous = [signal.signal(number, handle) for number in numbers]
    except ValueError:
        yield False
        return
    try:
        yield True
    finally:
        for number, handler in zip(numbers, previous, strict=True):
            signal.signal(number, handler)
