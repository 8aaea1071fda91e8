"""Which signals end a run, after a checkpoint."""

import signal


def ending_signals() -> tuple[signal.Signals, ...]:
    """Return SIGTERM, SIGINT and, where the process does not ignore it (nohup), SIGHUP."""
    numbers = [signal.SIGTERM, signal.SIGINT]
    hangup = getattr(signal, "SIGHUP", None)  # Windows has none
    if hangup is not None and signal.getsignal(hangup) is not signal.SIG_IGN:
        numbers.append(hangup)
    return tuple(numbers)
