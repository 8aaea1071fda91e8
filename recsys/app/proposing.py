"""The Python API of `recsys init`: a configuration for tables."""

import os
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from recsys.app.accepting import accepted
from recsys.app.arguments import checked
from recsys.app.configuration import Config
from recsys.core.atomic import write_whole
from recsys.core.errors import ArgumentError, ConfigError
from recsys.core.imports import on_first_use
from recsys.core.remote.path import here, path_at
from recsys.core.strict_yaml import read_yaml
from recsys.features.propose.tables import Inference, infer
from recsys.features.tables.frames import FRAMES, path_of
from recsys.training.engine.run_home import local_folder

with on_first_use():
    from recsys.features.public_data.open import protocol_of, tables_of


@checked
def init(
    *tables: Any,
    dataset: str | None = None,
    protocol: str | None = None,
    out: str | Path | None = None,
    folder: str | Path = ".",
    force: bool = False,
) -> Config:
    """Look at tables and return a configuration for them.

    Args:
        tables: an interaction log and, in any order, tables of items, users or others: paths or
            data frames. Which is which is found out from their columns. With `dataset` the folder
            with its files.
        dataset: name of a public data set; its tables are written to the folder `dataset` beside
            the configuration.
        protocol: how papers split it; the first that it has where none is named.
        out: YAML file to write, too.
        folder: where data frames are kept, in `.recsys_cache/frames` below it.
        force: overwrite `out`.

    Raises:
        ConfigError: no table is a log, `out` exists, or no data set has that name.
        DataError: a table is empty or cannot be read, or a log of few rows is one that no
            configuration can be trained on, in the words of `recsys.check`.
        NotFoundError: a path does not exist.

    Example:
        >>> config = recsys.init(log, items, users)
        >>> config.experiment.model.kind
        'two_tower'
    """
    if not tables:
        raise ConfigError("recsys.init() needs at least one table, the interaction log")
    if "" in [one for one in tables if isinstance(one, str)]:
        raise ArgumentError("recsys.init(): the path of a table is empty; give a file or a folder")
    if out is not None and path_at(out).exists() and not force:
        raise ConfigError(f"{out} exists; give force=True to overwrite it, or another out")
    place = path_at(folder).resolve() if out is None else path_at(out).resolve().parent
    if dataset is not None:
        found = _public(dataset, protocol, tables, place)
    elif protocol is not None:
        raise ConfigError("a protocol is of a public data set: name that with dataset")
    else:
        frames = local_folder(folder) / FRAMES
        paths = [path_at(path_of(one, f"table{n + 1}", frames)) for n, one in enumerate(tables)]
        found = accepted(partial(infer, paths, relative_to=place), place)
    if out is not None:
        write_whole(path_at(out), found.yaml)
    keys = read_yaml(found.yaml, source="configuration")
    return Config(keys, folder=place, unsure=found.unsure, summary=found.summary, text=found.yaml)


def _public(name: str, protocol: str | None, given: tuple[Any, ...], place: Path) -> Inference:
    """Return what is proposed for a public data set, whose tables are written below `place`."""
    how = protocol_of(name, protocol)
    if len(given) != 1 or not isinstance(given[0], str | Path):
        raise ConfigError(f"{name}: give one path, the folder with the files of the data set")
    why = "the files of a public data set are read and written on this machine"
    folder = here(given[0], "dataset", why)
    written = tables_of(name, folder, here(place, "out", why) / name, protocol)
    paths = [Path(os.path.relpath(path)) for path in written.paths]  # the folder may move
    found = infer(paths, relative_to=place, split=how.split, where=how.where)
    return replace(found, unsure=(*written.said, *found.unsure))
