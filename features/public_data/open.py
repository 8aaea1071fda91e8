"""A public data set by its name: the tables that are made of it, and how they are split."""

from collections.abc import Iterator
from pathlib import Path

from recsys.core.errors import ConfigError
from recsys.core.strict import nearest
from recsys.features.public_data.convert import Written, convert
from recsys.features.public_data.data_set import DataSet, Protocol
from recsys.features.public_data.registry import DATA_SETS


def data_set(name: str) -> DataSet:
    """Return a data set.

    Raises:
        ConfigError: none is called so.
    """
    if name not in DATA_SETS:
        raise ConfigError(
            f"no data set is called '{name}'{nearest(name, list(DATA_SETS))}; "
            "`recsys init --dataset list` names all"
        )
    return DATA_SETS[name]


def protocol_of(name: str, chosen: str | None) -> Protocol:
    """Return how a data set is split: by the protocol `chosen`, or by the first that it has.

    Raises:
        ConfigError: it has no such protocol.
    """
    protocols = data_set(name).protocols
    if chosen is None:
        return next(iter(protocols.values()))
    if chosen not in protocols:
        raise ConfigError(
            f"{name} has no protocol '{chosen}'{nearest(chosen, list(protocols))}; it has "
            f"{', '.join(protocols)}"
        )
    return protocols[chosen]


def tables_of(name: str, given: Path, out: Path, chosen: str | None = None) -> Written:
    """Write the tables of a data set to `out`, a Parquet file each.

    Args:
        name: of the data set.
        given: the folder with its files, or one of them.
        out: folder for the tables.
        chosen: name of the protocol; None: the first.

    Raises:
        ConfigError: there is no such data set or protocol.
        NotFoundError: a file that it needs is not there.
        DataError: a file is not as its authors wrote it.
    """
    protocol = protocol_of(name, chosen)
    written = convert(name, data_set(name), protocol, given, out)
    return Written(written.paths, (f"split: {protocol.about}", *written.said))


def lines() -> Iterator[str]:
    """Yield all data sets and their protocols, for people."""
    for name, one in DATA_SETS.items():
        yield f"{name}   {one.title}: {one.about}"
        for protocol, how in one.protocols.items():
            yield f"    --protocol {protocol}   {how.about}"
