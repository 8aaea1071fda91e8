"""What a command says when a signal ends it."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import click

from recsys.core.signals import Terminated, terminable

_NEXT = {
    "train": "nothing was trained yet: run the same command again",
    "score": "the same command continues with the parts that are missing",
}
"""Command -> how it goes on. Others write what they make at their end, whole."""
_ELSE = "nothing half-written is left: run the same command again"


@contextmanager
def stopping_in_order(context: click.Context) -> Iterator[None]:
    """Leave a command in order where a signal comes, and say in one line how it goes on.

    Ranks of a training are left to the agent that started them.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        yield
        return
    try:
        with terminable():
            yield
    except Terminated as stopped:
        if not stopped.told:
            name = signal.Signals(int(str(stopped.code)) - 128).name
            how = _NEXT.get(context.invoked_subcommand or "", _ELSE)
            click.echo(f"stopped by {name}; {how}", err=True)
        raise
