"""What one row of the table counts, and how its share of the time is kept."""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

T = TypeVar("T")
SHOWN = 3


@dataclass
class Counted:
    """How often something was tried and passed; `skipped` says why it was not tried."""

    tried: int = 0
    passed: int = 0
    possible: int | None = None
    skipped: str = ""
    failures: list[str] = field(default_factory=list)

    def add(self, what: str, wrong: str) -> None:
        """Count one try; an empty text: it passed."""
        self.tried += 1
        self.passed += not wrong
        if wrong:
            self.failures.append(f"{what}: {wrong}")

    def note(self) -> str:
        """Return what the table says beside the numbers."""
        if self.skipped:
            return self.skipped
        if self.possible is not None and self.tried < self.possible:
            return f"of {self.possible:,}, spread evenly"
        return ""


@dataclass
class Share:
    """Seconds of the processor that a row may take; at least one try is made."""

    seconds: float
    used: float = 0.0

    def while_left(self, tries: Iterable[T]) -> Iterator[T]:
        """Yield tries as long as there is time, this process's own counted."""
        for one in tries:
            began = time.process_time()
            yield one
            self.used += time.process_time() - began
            if self.used >= self.seconds:
                return


def evenly(count: int) -> Iterator[int]:
    """Yield 0..count-1 in an order whose every beginning is spread evenly (van der Corput)."""
    bits = max(1, (count - 1).bit_length())
    for number in range(1 << bits):
        place = int(f"{number:0{bits}b}"[::-1], 2)
        if place < count:
            yield place
