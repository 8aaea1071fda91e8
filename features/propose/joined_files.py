"""Which of the given files are one table: those of one folder with one header.

Where their names say what their rows are, as views.csv and orders.csv do, they are logs that are
read as one, with a column `event` that each name sets: purchases are told from views as a column of
types tells them.
"""

import os
from collections.abc import Sequence
from glob import escape
from itertools import takewhile
from pathlib import Path

from recsys.features.propose.events import kind_named
from recsys.features.tables.reading import open_table
from recsys.features.tables.sources import LogSource

EVENT = "event"


def joined_files(paths: list[str]) -> list[str | tuple[LogSource, ...]]:
    """Return each table that the paths are of: a path, a glob of several files, or several logs."""
    groups: dict[tuple[str, str, tuple[str, ...]], list[str]] = {}
    for path in paths:
        parent, suffix = os.path.dirname(path), Path(path).suffix
        columns = open_table(path, Path(path).name).columns
        groups.setdefault((parent, suffix, columns), []).append(path)
    out: list[str | tuple[LogSource, ...]] = []
    for (_, suffix, _), members in groups.items():
        logs = _named_logs(members)
        if logs:
            out.append(logs)
            continue
        # The ends of the sorted list differ first where any two do.
        ends = zip(min(members), max(members), strict=False)
        prefix = "".join(a for a, _ in takewhile(lambda pair: pair[0] == pair[1], ends))
        folder, start = os.path.split(prefix)
        pattern = os.path.join(folder, f"{escape(start)}*{suffix}")
        if len(members) > 1 and set(map(str, open_table(pattern, pattern).paths)) == set(members):
            out.append(pattern)
        else:
            out += members
    return out


def _named_logs(paths: Sequence[str]) -> tuple[LogSource, ...]:
    """Return files of one folder and one header as logs that set `event`; none: they are no such.

    Each name holds a word of one kind (view, wish, cart, purchase), no two names of the same kind,
    and the files have no column `event`.
    """
    kinds = [kind_named(Path(path).stem) for path in paths]
    found = [kind for kind in kinds if kind is not None]
    if len(paths) < 2 or len(set(found)) < len(paths):
        return ()
    if EVENT in open_table(paths[0], Path(paths[0]).name).columns:
        return ()
    given = [{"path": path, "set": {EVENT: kind}} for path, kind in zip(paths, found, strict=True)]
    return tuple(LogSource.model_validate(one) for one in given)
