"""Progress goes to the error stream, so that results can be piped."""

import sys
from collections.abc import Callable


def lines_to_stderr(quiet: bool) -> Callable[[str], None]:
    """Return what takes a line of progress at a time; quiet: and drops it."""
    return (lambda line: None) if quiet else (lambda line: print(line, file=sys.stderr))


def parts_to_stderr(quiet: bool) -> Callable[[int, int], None]:
    """Return what is told how many parts of a batch job are there, of how many."""
    say = lines_to_stderr(quiet)
    return lambda done, total: say(f"part {done} of {total}")
