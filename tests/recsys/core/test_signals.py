"""A request to end is one, however often its signal comes; a second request ends at once."""

import os
import signal
import subprocess
import sys
import threading

import pytest

from recsys.core import signals
from recsys.core.signals import Terminated, requests, terminable


def kill(number: int = signal.SIGTERM) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_same_signal_twice_does_not_disturb_what_is_put_in_order(number: int) -> None:
    before, ordered = signal.getsignal(number), []

    def work() -> None:
        try:
            kill(number)
        finally:
            kill(number)
            ordered.append(True)

    with pytest.raises(Terminated) as stopped, terminable():
        work()
    assert (stopped.value.code, stopped.value.told, ordered) == (128 + number, False, [True])
    assert signal.getsignal(number) is before


def test_a_second_request_ends_at_once() -> None:
    program = """
import os, signal
from recsys.core import signals
signals._ONE_REQUEST_SECONDS = 0.0
with signals.terminable():
    try:
        os.kill(os.getpid(), signal.SIGTERM)
    finally:
        os.kill(os.getpid(), signal.SIGTERM)
        print("not reached")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (-signal.SIGTERM, "")


def test_handlers_inside_each_other_count_the_same_requests(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [0.0]
    monkeypatch.setattr(signals.time, "monotonic", lambda: now[0])
    with requests() as outer, requests() as inner:
        assert outer is inner
        assert [inner.is_new(), inner.is_new(), outer.count] == [True, False, 1]
        now[0] = 1.5
        assert [outer.is_new(), inner.count] == [True, 2]
    with requests() as later:
        assert later is not outer


def test_other_threads_leave_signals_alone() -> None:
    before, seen = signal.getsignal(signal.SIGTERM), []

    def work() -> None:
        with terminable():
            seen.append(signal.getsignal(signal.SIGTERM) is before)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [True]
