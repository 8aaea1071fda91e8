"""What a source's training says, under the name of the source."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

ENGINE = "recsys"
"""The logger above all of the engine's."""


@contextmanager
def lines_of(name: str) -> Iterator[None]:
    """Have each line that the engine says in the body begin with a name."""
    made_before = logging.getLogRecordFactory()

    def made(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = made_before(*args, **kwargs)
        if record.name.split(".")[0] == ENGINE:
            record.msg, record.args = f"{name}: {record.getMessage()}", ()
        return record

    logging.setLogRecordFactory(made)
    try:
        yield
    finally:
        logging.setLogRecordFactory(made_before)
