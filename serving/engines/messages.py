"""What a batch job and its workers tell each other: a line of JSON, then perhaps an Arrow table.

The line says how many bytes of Arrow's stream format follow it, so one pipe carries both.
"""

import json
from collections.abc import Mapping
from typing import IO, Any

import pyarrow as pa

Message = tuple[dict[str, Any], pa.Table | None]
_BYTES = "arrow_bytes"


def send(stream: IO[bytes], facts: Mapping[str, Any], table: pa.Table | None = None) -> None:
    """Write one message and flush it.

    Raises:
        BrokenPipeError: nobody reads any more.
    """
    content: Any = b""
    if table is not None:
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        content = sink.getvalue()
    size = {} if table is None else {_BYTES: len(content)}
    stream.write(json.dumps({**facts, **size}).encode() + b"\n")
    stream.write(content)
    stream.flush()


def receive(stream: IO[bytes]) -> Message | None:
    """Return the next message; None where the other side is gone, in the middle of one too."""
    line = stream.readline()
    if not line.endswith(b"\n"):
        return None
    facts: dict[str, Any] = json.loads(line)
    if _BYTES not in facts:
        return facts, None
    size = facts.pop(_BYTES)
    content = stream.read(size)
    if len(content) < size:
        return None
    return facts, pa.ipc.open_stream(content).read_all()
