"""What makes one bundle of another: files that differ, and of tensors the rows that differ.

A training that continues on newer rows changes the rows of the table that it reads, and leaves the
others. So a delta of `*.safetensors` holds rows and their new values; any other file that differs
is in it whole, and one that is the same is not in it at all.

    result.json            the manifest of the bundle that is made, byte by byte
    whole/<path>           files that differ, or that the base lacks
    rows/<path>            of a file of tensors: `rows.<name>` (n,) int64 ascending and
                           `values.<name>` (n, ...) of a tensor (N, ...) of which some rows differ,
                           `whole.<name>` of one that differs in another way; nothing of one that is
                           the same. `header` (bytes,) uint8: how the file made begins.

Values are compared and copied as bits: what is made has the hashes that its manifest names.
"""

import json
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from recsys.bundle.directory import MANIFEST, Bundle
from recsys.core.atomic import publish, staged_folder
from recsys.core.errors import IntegrityError

RESULT = "result.json"
WHOLE, ROWS = "whole/", "rows/"
_TENSORS = ".safetensors"
_HEADER = "header"

Read = Callable[[str], bytes]


@dataclass(frozen=True)
class DeltaFacts:
    """What a delta holds.

    base: id of the model that it is applied to. result: of the model that is made. base_sha256:
    path -> hash of each file of the base that is read. rows: path of a file and name of a tensor ->
    how many of its rows differ, and how many it has.
    """

    base: str
    result: str
    base_sha256: Mapping[str, str]
    rows: Mapping[str, tuple[int, int]]


def write_delta(folder: Path, base: Bundle, result: Bundle) -> DeltaFacts:
    """Write into an empty folder what makes `result` of `base`.

    The two may be any bundles; much is saved where one was trained on from the other.
    """
    known = _hashes(base.manifest)
    used: dict[str, str] = {}
    changed: dict[str, tuple[int, int]] = {}
    for name, digest in _hashes(result.manifest).items():
        if known.get(name) == digest:
            used[name] = digest
        elif name in known and name.endswith(_TENSORS):
            tensors, counts = _tensor_delta(base.read(name), result.read(name))
            _write(folder / ROWS / name, save(tensors))
            changed |= {f"{name}: {tensor}": count for tensor, count in counts.items()}
            used[name] = known[name]
        else:
            _write(folder / WHOLE / name, result.read(name))
    _write(folder / RESULT, (result.path / MANIFEST).read_bytes())
    return DeltaFacts(base.model_id, result.model_id, used, changed)


def apply_delta(read: Read, names: list[str], base: Bundle, parent: Path) -> Path:
    """Make the bundle that a delta is of, and return its folder, parent/<model_id>.

    Args:
        read: returns a file of the delta, verified.
        names: of its files.
        base: the bundle that it was made against.
        parent: folder for bundles, made where missing.

    Raises:
        IntegrityError: the delta is no such one, or what it makes of `base` is not what its
            manifest names. Nothing is left behind.
    """
    manifest = read(RESULT)
    try:
        result, wanted = json.loads(manifest)["model_id"], _hashes(json.loads(manifest))
    except (ValueError, KeyError, TypeError) as error:
        raise IntegrityError(f"{RESULT} of the delta is not a manifest ({error!r})") from None
    held = set(names)
    with staged_folder(parent, result) as staging:
        for name in wanted:
            if WHOLE + name in held:
                data = read(WHOLE + name)
            elif ROWS + name in held:
                data = _with_rows(base.read(name), read(ROWS + name), name)
            else:
                data = base.read(name)
            _write(staging / name, data)
        _write(staging / MANIFEST, manifest)
        Bundle.open(staging)
        target = parent / result
        if not target.exists():
            publish(staging, target)
    Bundle.open(target)
    return target


def _tensor_delta(
    before: bytes, after: bytes
) -> tuple[dict[str, Tensor], dict[str, tuple[int, int]]]:
    """Return what makes one file of tensors of another, and how many rows of each differ."""
    old, new = load(before), load(after)
    found, counts = {_HEADER: torch.frombuffer(bytearray(_head(after)), dtype=torch.uint8)}, {}
    for name, tensor in sorted(new.items()):
        earlier = old.get(name)
        like = earlier is not None and (earlier.shape, earlier.dtype) == (
            tensor.shape,
            tensor.dtype,
        )
        if earlier is None or not like or tensor.ndim == 0:
            found[f"whole.{name}"] = tensor
            continue
        rows = _differing(earlier, tensor)
        counts[name] = (len(rows), len(tensor))
        if len(rows) * (tensor[:1].nbytes + rows.itemsize) >= tensor.nbytes > 0 and len(rows):
            found[f"whole.{name}"] = tensor
        elif len(rows):
            found |= {f"rows.{name}": rows, f"values.{name}": tensor[rows]}
    return found, counts


def _differing(old: Tensor, new: Tensor) -> Tensor:
    """Return (n,) int64 the rows whose bits differ."""
    if old.numel() == 0:
        return torch.zeros(0, dtype=torch.int64)
    bits = [one.contiguous().view(len(one), -1).view(torch.uint8) for one in (old, new)]
    return (bits[0] != bits[1]).any(1).nonzero().flatten()


def _with_rows(before: bytes, delta: bytes, name: str) -> bytes:
    """Return the file of tensors that a delta makes of another."""
    try:
        old, given = load(before), load(delta)
        header = given[_HEADER].numpy().tobytes()
        places = json.loads(header[8:])
        size = max((one["data_offsets"][1] for one in places.values() if "shape" in one), default=0)
        made = bytearray(header) + bytearray(size)
        for tensor, place in places.items():
            if "shape" not in place:  # what safetensors calls __metadata__
                continue
            low, high = (len(header) + offset for offset in place["data_offsets"])
            made[low:high] = _bytes_of(_made(tensor, old, given))
        return bytes(made)
    except (SafetensorError, KeyError, ValueError, IndexError, RuntimeError) as error:
        raise IntegrityError(f"{ROWS}{name} of the delta does not fit: {error!r}") from None


def _made(name: str, old: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> Tensor:
    if f"whole.{name}" in given:
        return given[f"whole.{name}"]
    tensor = old[name]
    if f"rows.{name}" in given:
        tensor = tensor.clone()
        tensor[given[f"rows.{name}"]] = given[f"values.{name}"]
    return tensor


def _bytes_of(tensor: Tensor) -> bytes:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def _head(file: bytes) -> bytes:
    """Return what a file of tensors begins with: 8 bytes, the length of the JSON that follows."""
    (length,) = struct.unpack("<Q", file[:8])
    return file[: 8 + length]


def _hashes(manifest: Mapping[str, Any]) -> dict[str, str]:
    return {entry["path"]: entry["sha256"] for entry in manifest["files"]}


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
