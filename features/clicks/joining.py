"""The encoded pieces of a click log, appended to the files that one process would have written."""

import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from recsys.data.batch import FeatureLayout
from recsys.features.clicks.store import PARTS, PartFacts, PartWriter

_OFFSETS = re.compile(r"multi-(\d+)\.offsets\.bin")
_AT_ONCE = 1 << 20


def join_pieces(
    folder: Path,
    pieces: Sequence[tuple[Path, Sequence[PartFacts]]],
    layout: FeatureLayout,
    num_outcomes: int,
) -> list[PartFacts]:
    """Append the files of pieces to those of the parts in `folder`, and remove them.

    Args:
        folder: for the parts; they must not be there.
        pieces: the folder of each with what its parts hold, in the order of the log.
        layout: of a row.
        num_outcomes: further outcomes than the label.

    Returns:
        What each part holds.
    """
    found = []
    for number, name in enumerate(PARTS):
        with PartWriter(folder / name, layout, num_outcomes) as begun:
            parts = [begun.facts()]
        for piece, facts in pieces:
            _append(folder / name, piece / name, PartFacts.joined(parts).num_values)
            parts.append(facts[number])
        found.append(PartFacts.joined(parts))
    return found


def _append(target: Path, piece: Path, num_values: Sequence[int]) -> None:
    """Append the files of a part of a piece; num_values: those that the part has before it."""
    for path in sorted(piece.iterdir()):
        offsets = _OFFSETS.fullmatch(path.name)
        with path.open("rb") as source, (target / path.name).open("ab") as end:
            if offsets is None:
                shutil.copyfileobj(source, end, 1 << 24)
            else:
                source.seek(np.dtype(np.int64).itemsize)  # the first one is 0, in every piece
                while len(some := np.fromfile(source, np.int64, _AT_ONCE)):
                    end.write((some + num_values[int(offsets[1])]).data)
        path.unlink()
