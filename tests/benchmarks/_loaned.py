"""The data sets on loan: where they lie, and how a benchmark ends where one is absent."""

import os
import sys
from pathlib import Path


def folder_of(name: str) -> Path:
    """Return the folder of a data set below `RECSYS_DATA` (`../shared/data`), there or not."""
    return Path(os.environ.get("RECSYS_DATA", "../shared/data")).resolve() / name


def loaned(name: str) -> Path:
    """Return the folder of a data set; ends the program where it is not there."""
    folder = folder_of(name)
    if not folder.is_dir():
        sys.exit(f"{folder} is not there: set RECSYS_DATA to the folder of the data sets")
    return folder
