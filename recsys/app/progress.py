"""Progress goes to the error stream, so that results can be piped."""

import sys
from collections.abc import Callable


def lines_to_stderr(quiet: bool) -> Callable[[str], None]:
    """Return what takes a line of progress at a time; quiet: and drops it."""
    return (lambda line: None) if quiet else (lambda line: print(line, file=sys.stderr))
