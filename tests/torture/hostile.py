"""Files made to hurt: each has to be refused in words, quickly, in little memory."""

import gzip
import hashlib
import json
import os
import shutil
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from _faulty import Ended
from _flows import Stage

from recsys.bundle.directory import MANIFEST, _model_id
from recsys.core.hashed_files import entries_of
from recsys.core.self_hashed import self_hashed
from recsys.core.strict_yaml import read_yaml

MOST_SECONDS, MOST_MB = 2.0, 200.0
DEEP = b"[" * 200_000 + b"]" * 200_000
HOLES = 1 << 40


@dataclass(frozen=True)
class Case:
    """A file that is made in the folder, and the command that meets it."""

    name: str
    make: Callable[[Path], None]
    command: tuple[str, ...]


def header(length: int, text: bytes = b"{}") -> bytes:
    """Return the beginning of a safetensors file whose header claims to be `length` long."""
    return struct.pack("<Q", length) + text


TENSORS = {
    "a header of 2**63 bytes": header(2**63),
    "a header longer than the file": header(1000),
    "a header that is no JSON": header(4, b"\xff\xfe{}"),
    "a header 100,000 levels deep": header(200_000, DEEP[:200_000]),
    "offsets beyond the end": header(
        72, b'{"table.weight":{"dtype":"F32","shape":[9,9],"data_offsets":[0,324]}}   '
    ),
    "a shape whose size overflows": header(
        88, b'{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}}'.ljust(88)
    ),
    "no bytes": b"",
}
PLACES: dict[str, Callable[[Path], None]] = {
    "a pipe": os.mkfifo,
    "a file of 1 TiB of holes": lambda path: (path.touch(), os.truncate(path, HOLES))[0],
    "a link to /dev/zero": lambda path: path.symlink_to("/dev/zero"),
    "JSON 200,000 levels deep": lambda path: (path.write_bytes(DEEP), None)[1],
    "a folder": lambda path: path.mkdir(),
}


def replaced(path: Path, make: Callable[[Path], None]) -> None:
    """Put something else in the place of a file."""
    path.unlink(missing_ok=True)
    make(path)


def sealed_again(bundle: Path) -> None:
    """Make the manifest of a bundle fit its files, as somebody who means harm would."""
    manifest = json.loads((bundle / MANIFEST).read_text())
    (bundle / MANIFEST).unlink()
    manifest["files"] = entries_of(bundle)
    manifest["model_id"] = _model_id({k: v for k, v in manifest.items() if k != "model_id"})
    (bundle / MANIFEST).write_text(json.dumps(manifest))


def cases() -> Iterator[Case]:
    """Yield all of them."""
    similar = ("similar", "model", "i00001")
    for name, make in PLACES.items():
        for file in (MANIFEST, "model.json", "weights.safetensors"):
            yield Case(f"bundle, {file}: {name}", _at(f"model/{file}", make), similar)
        yield Case(f"export.json: {name}", _at("vectors/export.json", make), ("verify", "vectors"))
        yield Case(f"configuration: {name}", _at("recsys.yaml", make), ("check", "recsys.yaml"))
        if name != "a folder":  # without files it has no rows
            log = _at("interactions/part-000.parquet", make)
            yield Case(f"log: {name}", log, ("check", "recsys.yaml"))
    for name, data in TENSORS.items():
        for file in ("weights.safetensors", "encoder/quantiles.safetensors"):
            yield Case(f"sealed bundle, {file}: {name}", _sealed(file, data), similar)
    for file in ("model.json", "schema.json", "config.yaml", "items.parquet"):
        yield Case(f"sealed bundle, {file}: deep", _sealed(file, DEEP), similar)
    yield Case("export.json, hashed: deep", _hashed_deep, ("verify", "vectors"))
    aliases = b"a0: &a0 [x]\n" + b"".join(
        b"a%d: &a%d [%s]\n" % (n, n, b",".join([b"*a%d" % (n - 1)] * 9)) for n in range(1, 40)
    )
    yield Case("configuration of aliases", _bytes("recsys.yaml", aliases), ("check", "recsys.yaml"))
    yield Case("configuration 100,000 levels deep", _bytes("recsys.yaml", b"{a: " * 100_000),
               ("check", "recsys.yaml"))  # fmt: skip
    unpacks = "a log that unpacks to 1 GB, gzip"
    yield Case(unpacks, _gzip_bomb, ("check", "recsys.yaml"))


def _at(file: str, make: Callable[[Path], None]) -> Callable[[Path], None]:
    return lambda home: replaced(home / file, make)


def _bytes(file: str, data: bytes) -> Callable[[Path], None]:
    return lambda home: (home / file).write_bytes(data) and None


def _sealed(file: str, data: bytes) -> Callable[[Path], None]:
    def make(home: Path) -> None:
        path = home / "model" / file
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
        sealed_again(home / "model")

    return make


def _hashed_deep(home: Path) -> None:
    text = self_hashed({"a": 1}).replace(b'"a": 1', b'"a": ' + DEEP)
    rest = text[text.index(b'",\n') + 3 :]
    (home / "vectors" / "export.json").write_bytes(
        b'{\n "sha256": "%s",\n' % hashlib.sha256(rest).hexdigest().encode() + rest
    )


def _log(home: Path, name: str) -> Path:
    shutil.rmtree(home / "interactions")
    path = home / name
    raw = read_yaml((home / "recsys.yaml").read_bytes(), source="configuration")
    raw["data"]["interactions"] = name
    (home / "recsys.yaml").write_text(json.dumps(raw))
    return path


def _gzip_bomb(home: Path) -> None:
    path = _log(home, "log.csv.gz")
    block = gzip.compress(b"u000001," * (16 << 20 >> 3), 9)  # members that follow each other
    with path.open("wb") as file:
        file.write(gzip.compress(b"user_id,item_id,timestamp,device,session_id\n"))
        for _ in range(64):
            file.write(block)


def met(stage: Stage, case: Case) -> tuple[str, Ended]:
    """Run a case; return what is wrong, an empty text where nothing is, and how it ended."""
    stage.reset()
    case.make(stage.home)
    ended = stage.faulty.run(stage.home, list(case.command), alarm=60)
    said = ended.out + ended.err
    if ended.code == -14:
        return "still at it after 60 s", ended
    if ended.code <= 0:
        return f"exit code {ended.code}: {said[-300:]}", ended
    if "Traceback" in said or "Error: " not in said:
        return f"no error in words: {said[-600:]}", ended
    if ended.seconds > MOST_SECONDS or ended.peak_mb - stage.base_mb > MOST_MB:
        mb = ended.peak_mb - stage.base_mb
        return f"{ended.seconds:.1f} s, {mb:.0f} MB: {said[-200:]}", ended
    return "", ended
