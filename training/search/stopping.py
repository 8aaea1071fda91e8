"""Signals over a search of many trainings, each of which has handlers of its own."""

import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from recsys.training.engine.loop import Terminated
from recsys.training.engine.signals import ending_signals


@contextmanager
def stoppable() -> Iterator[Callable[[], None]]:
    """Raise `Terminated` where a signal comes; yields a check for those a training kept to itself.

    A training acts on a signal after a step; one that comes in its last validation would be
    lost, but every signal also writes its number to a socket, which the check reads. In a thread
    other than the main one signals are left to their owner.
    """
    numbers = ending_signals()
    reading, writing = socket.socketpair()
    with reading, writing:
        reading.setblocking(False)
        writing.setblocking(False)

        def handle(number: int, _frame: FrameType | None) -> None:
            raise Terminated(128 + number)

        def check() -> None:
            try:
                received = reading.recv(64)
            except BlockingIOError:
                return
            for number in received:
                if number in numbers:
                    raise Terminated(128 + number)

        try:
            previous = [signal.signal(number, handle) for number in numbers]
        except ValueError:
            yield check
            return
        descriptor = signal.set_wakeup_fd(writing.fileno(), warn_on_full_buffer=False)
        try:
            yield check
        finally:
            signal.set_wakeup_fd(descriptor)
            for number, handler in zip(numbers, previous, strict=True):
                signal.signal(number, handler)
