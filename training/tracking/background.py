"""A thread that delivers a journal during training, and retries where the store fails."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

from recsys.core.tracking_store import http_limits, sqlite_path
from recsys.training.tracking.journal import delivering, load_position, sync

DELIVER_EVERY_SECONDS = 5.0
LONGEST_PAUSE_SECONDS = 60.0
CALL_SECONDS, LONGEST_CALL_SECONDS = 5, 60
SERVER_PATIENCE_SECONDS = 5.0
"""How long `finish` waits for a server that does not answer."""
FINISH_SECONDS = 60.0
"""How long `finish` waits in all while the delivery gets on."""

GotOn = Callable[[str | None], None]
"""Called after every step forward, with the run's id where it is known."""
Send = Callable[[Path, str, GotOn], None]
"""Sends what is pending of the journal in a folder to a store; raises where that fails."""


class Delivery(threading.Thread):
    """Sends, pauses, sends; after a failure it pauses twice as long and waits twice as long."""

    def __init__(self, run_dir: Path, uri: str, send: Send) -> None:
        super().__init__(name="mlflow-delivery", daemon=True)
        self.run_dir, self.uri, self.send = run_dir, uri, send
        self.run_id = load_position(run_dir, uri).run_id
        self.why = ""
        self.done = False
        self._finishing = threading.Event()
        self._progress = time.monotonic()
        self._imported = self._given_up = False

    def run(self) -> None:
        """Deliver until the journal is finished and all of it has arrived."""
        failures = 0
        while not (self.done or self._given_up):
            finishing = self._finishing.is_set()
            try:
                self._send_pending(min(CALL_SECONDS * 2**failures, LONGEST_CALL_SECONDS))
                self.done, failures, self.why = finishing, 0, ""
            except Exception as error:
                failures, self.why = min(failures + 1, 10), first_line(error)
                if finishing:
                    return
            if not finishing:
                pause = DELIVER_EVERY_SECONDS * 2**failures
                self._finishing.wait(min(pause, LONGEST_PAUSE_SECONDS))

    def finish(self) -> bool:
        """Wait while the delivery gets on; return whether all of it arrived."""
        self._finishing.set()
        end = time.monotonic() + FINISH_SECONDS
        # A local database always answers in the end; the import of MLflow needs no server.
        patient = sqlite_path(self.uri) is not None
        while self.is_alive() and time.monotonic() < end:
            self.join(0.05)
            silent = time.monotonic() - self._progress
            if self._imported and not patient and silent > SERVER_PATIENCE_SECONDS:
                break
        self._given_up = True
        return self.done

    def _send_pending(self, timeout: int) -> None:
        with delivering(self.run_dir, timeout=0) as mine, http_limits(retries=0, timeout=timeout):
            if not mine:
                raise TimeoutError("another process is delivering this run")
            sync(self.run_dir)
            self.send(self.run_dir, self.uri, self._got_on)

    def _got_on(self, run_id: str | None) -> None:
        self._imported = True
        self._progress = time.monotonic()
        self.run_id = run_id or self.run_id


def first_line(error: Exception) -> str:
    """Return what went wrong, in a line."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]
