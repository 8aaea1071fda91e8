"""Encoded data on disk: read, check and encode once, then map the result into memory.

The key is a hash of the schema, the policies, the split, the bytes of the source files and of the
code that encodes, so a cached data set is never stale. Files are verified by their sha256 before
they are opened. Tensors are in one safetensors file that is mapped, not read: what training
touches is paged in, and a log may be larger than memory.
"""

import hashlib
import json
import logging
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from pyarrow import feather
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from recsys.core.atomic import publish, staged_folder
from recsys.core.errors import IntegrityError
from recsys.core.sealed import seal, sealed
from recsys.data.batch import FeatureBlock, Jagged
from recsys.features.dataset.code import code_digest
from recsys.features.dataset.dataset import Dataset
from recsys.features.dataset.split import SplitConfig
from recsys.features.encoding.encoder import FeatureEncoder
from recsys.features.schema import Schema
from recsys.features.tables.checked import Events, Tables, source_fingerprint
from recsys.features.tables.ledger import Drop
from recsys.features.tables.sources import Policies, Sources

_EVENTS = (
    "user_row", "item_row", "time", "weight", "row", "label", "outcomes", "split", "session",
    "type", "target",
)  # fmt: skip
_SIDES = ("items", "users", "context")
_log = logging.getLogger(__name__)


def cached(
    folder: Path,
    build: Callable[[], Dataset],
    schema: Schema,
    sources: Sources,
    policies: Policies,
    split: SplitConfig,
    lookups: int | None = None,
) -> Dataset:
    """Return the data set of these settings from `folder`, built and kept there if missing.

    A cache entry that is damaged is built again, and so is one that cannot be read.
    """
    return kept(entry_of(folder, schema, sources, policies, split, lookups), build).data


@dataclass(frozen=True)
class Kept:
    """A data set and whether it was encoded before."""

    data: Dataset
    was_there: bool


def kept(entry: Path, build: Callable[[], Dataset], *, must: bool = False) -> Kept:
    """Return the data set of the entry that `entry_of` names, built and kept if missing.

    must: that it cannot be kept is an error, not a warning.

    Raises:
        OSError: so it is.
    """
    if entry.is_dir():
        try:
            sealed(entry, "cached data set", "it is built again").check()
            data = _load(entry)
            _log.info("%s: the encoded tables are read from there", entry)
            return Kept(data, was_there=True)
        except (IntegrityError, OSError, ValueError, KeyError, SafetensorError) as error:
            _log.warning("%s: encoding the tables again (%s)", entry.parent, error)
            shutil.rmtree(entry)
    data = build()
    try:
        with staged_folder(entry.parent, entry.name) as staging:
            _save(staging, data)
            seal(staging)
            publish(staging, entry)
    except OSError as error:
        if not entry.is_dir():  # a second process that was quicker is no trouble
            if must:
                raise
            _log.warning("%s: the encoded tables are not kept (%s)", entry.parent, error)
    return Kept(data, was_there=False)


def entry_of(
    folder: Path,
    schema: Schema,
    sources: Sources,
    policies: Policies,
    split: SplitConfig,
    lookups: int | None = None,
) -> Path:
    """Return where in `folder` the data set of these settings is, or would be.

    Raises:
        NotFoundError: a path does not exist, or a glob matches nothing.
    """
    return folder / _key(schema, sources, policies, split, lookups)


def _key(
    schema: Schema, sources: Sources, policies: Policies, split: SplitConfig, lookups: int | None
) -> str:
    parts = [model.model_dump_json() for model in (schema, policies, split)]
    parts += [str(lookups), source_fingerprint(schema, sources), code_digest()]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:24]


def _save(folder: Path, data: Dataset) -> None:
    events = data.tables.events
    tensors = {f"events.{name}": torch.from_numpy(values) for name, values in _columns(events)}
    tensors["part"] = torch.from_numpy(data.part.copy())  # it may be the split column itself
    tensors["cold"] = torch.from_numpy(data.cold)
    for side in _SIDES:
        tensors |= _block_tensors(side, getattr(data, side))
    save_file(
        {name: one.contiguous() for name, one in tensors.items()}, folder / "rows.safetensors"
    )
    for name, table in _tables(data).items():
        feather.write_feather(table, folder / f"{name}.arrow", compression="uncompressed")
    data.encoder.save(folder / "encoder")
    facts = {
        "fingerprint": data.tables.fingerprint,
        "drops": [asdict(drop) for drop in data.tables.drops],
        "multi": {side: len(getattr(data, side).multi) for side in _SIDES},
    }
    (folder / "facts.json").write_text(json.dumps(facts))


def _load(folder: Path) -> Dataset:
    facts = json.loads((folder / "facts.json").read_text())
    tensors = load_file(folder / "rows.safetensors")
    tables = {
        name: feather.read_table(folder / f"{name}.arrow") for name in ("items", "users", "context")
    }
    arrays: dict[str, Any] = {
        name: tensors[f"events.{name}"].numpy() for name in _EVENTS if f"events.{name}" in tensors
    }
    part = tensors["part"].numpy()
    drops = (Drop.from_json(raw) for raw in facts["drops"])
    blocks = {side: _block(side, tensors, facts["multi"][side]) for side in _SIDES}
    encoder = FeatureEncoder.read(lambda name: (folder / "encoder" / name).read_bytes())
    return Dataset(
        schema=encoder.schema,
        tables=Tables(
            items=tables["items"],
            users=tables["users"],
            events=Events(**{"split": None, **arrays}, context=tables["context"]),
            drops=tuple(drops),
            fingerprint=facts["fingerprint"],
        ),
        part=part,
        encoder=encoder,
        cold=tensors["cold"].numpy(),
        **blocks,
    )


def _columns(events: Events) -> list[tuple[str, Any]]:
    columns = [(name, getattr(events, name)) for name in _EVENTS]
    return [(name, values) for name, values in columns if values is not None]


def _tables(data: Dataset) -> dict[str, pa.Table]:
    tables = data.tables
    return {"items": tables.items, "users": tables.users, "context": tables.events.context}


def _block_tensors(side: str, block: FeatureBlock) -> dict[str, Tensor]:
    tensors = {f"{side}.single": block.single, f"{side}.dense": block.dense}
    for number, jagged in enumerate(block.multi):
        tensors[f"{side}.{number}.values"] = jagged.values
        tensors[f"{side}.{number}.offsets"] = jagged.offsets
        if jagged.weights is not None:
            tensors[f"{side}.{number}.weights"] = jagged.weights
    return tensors


def _block(side: str, tensors: dict[str, Tensor], num_multi: int) -> FeatureBlock:
    multi = (
        Jagged(
            tensors[f"{side}.{number}.values"],
            tensors[f"{side}.{number}.offsets"],
            tensors.get(f"{side}.{number}.weights"),
        )
        for number in range(num_multi)
    )
    return FeatureBlock(tensors[f"{side}.single"], tuple(multi), tensors[f"{side}.dense"])
