"""The requests of a batch job in parts, each read when it is its turn."""

from collections.abc import Callable
from dataclasses import dataclass

import pyarrow as pa

from recsys.features.requests.origin import RequestOrigin
from recsys.serving.engines.messages import Message


@dataclass(frozen=True)
class Shard:
    """A part of the requests: the file name of its answers, how to read it, its path."""

    name: str
    read: Callable[[], pa.Table]
    origin: RequestOrigin

    def order(self) -> Message:
        """Return what a worker is sent for this part."""
        return vars(self.origin), self.read()


@dataclass(frozen=True)
class Shards:
    """All requests of a job; `fingerprint` identifies a set of requests.

    of_log: they are the users of a log with their histories, so a later log has others.
    """

    parts: tuple[Shard, ...]
    fingerprint: str
    of_log: bool = False
