"""Signals over a search of many trainings, each of which has handlers of its own."""

import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from recsys.core.signals import Terminated, ending_signals, handled, requests


@contextmanager
def stoppable() -> Iterator[Callable[[], None]]:
    """Raise `Terminated` where a signal comes; yields a check for those a training kept to itself.

    Code in between may set handlers of its own, as a training does, which acts after a step. Every
    signal also writes its number to a socket, which the check reads, so that none is lost. In a
    thread other than the main one signals are left to their owner.
    """
    numbers = ending_signals()
    reading, writing = socket.socketpair()
    with reading, writing, requests() as asked:
        reading.setblocking(False)
        writing.setblocking(False)

        def handle(number: int, _frame: FrameType | None) -> None:
            if asked.is_new():
                raise Terminated(128 + number)

        def check() -> None:
            try:
                received = reading.recv(64)
            except BlockingIOError:
                return
            for number in received:
                if number in numbers:
                    raise Terminated(128 + number)

        with handled(numbers, handle) as is_main_thread:
            if not is_main_thread:
                yield check
                return
            descriptor = signal.set_wakeup_fd(writing.fileno(), warn_on_full_buffer=False)
            try:
                yield check
            finally:
                signal.set_wakeup_fd(descriptor)
