"""Records on disk by the hash of their owner: those of one owner come back together."""

from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

OWNER = "owner"


class Spill:
    """Appends structured records to as many files as asked, and reads them file by file."""

    def __init__(self, folder: Path, kinds: np.dtype[Any], num_files: int) -> None:
        """Get ready.

        Args:
            folder: new.
            kinds: of a record; its field `owner` (uint64) says which file it belongs to.
            num_files: over which owners are spread.
        """
        folder.mkdir(parents=True)
        self.kinds, self.num_files = kinds, num_files
        self._paths = [folder / f"{number:04d}" for number in range(num_files)]
        self._open = ExitStack()
        self._files = [self._open.enter_context(path.open("wb")) for path in self._paths]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def append(self, records: NDArray[Any]) -> None:
        """Add records (N,)."""
        file_of = (records[OWNER] % np.uint64(self.num_files)).astype(np.int64)
        order = np.argsort(file_of, kind="stable")
        ends = np.cumsum(np.bincount(file_of, minlength=self.num_files))
        start = 0
        for number, end in enumerate(ends.tolist()):
            if end > start:
                self._files[number].write(records[order[start:end]].tobytes())
            start = end

    def read(self, number: int) -> NDArray[Any]:
        """Return the records of one file, in the order in which they were added."""
        self._files[number].flush()
        return np.fromfile(self._paths[number], self.kinds)
