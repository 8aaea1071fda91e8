"""Files that were changed after they were written: refused in words, or made anew."""

import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from _faulty import TERMINATE, Ended
from _flows import LIGHT, Stage, sets
from _rows import Counted, Share


@dataclass(frozen=True)
class Kept:
    """Files of one kind, and the command that reads them.

    Attributes:
        glob: the files, below the folder.
        command: what reads them, by what is in the folder.
        may_go_on: whether the command may also do without what is damaged.
    """

    name: str
    glob: str
    command: Callable[[Path], list[str]]
    may_go_on: bool = False


def _stopped(home: Path) -> str:
    (run,) = home.glob("stopped/*")
    return str(run.relative_to(home))


KINDS = (
    Kept("bundle", "model/**/*", lambda home: ["similar", "model", "i00001"]),
    Kept("export", "vectors/**/*", lambda home: ["verify", "vectors"]),
    Kept(
        "checkpoint",
        "stopped/*/checkpoints/**/*",
        lambda home: ["train", "--resume", _stopped(home)],
        may_go_on=True,
    ),
    Kept(
        "journal",
        "stopped/*/journal.jsonl",
        lambda home: ["sync", _stopped(home)],
        may_go_on=True,
    ),
    Kept(
        "cache",
        "kept/**/*",
        lambda home: _training("again", "cache=kept"),
        may_go_on=True,
    ),
)


def _training(output: str, *keys: str) -> list[str]:
    return ["train", "recsys.yaml", *sets(*LIGHT, f"output={output}", *keys)]


def prepare(stage: Stage) -> str:
    """Add to the folder what is damaged then; return the name of the bundle that is to come."""
    stage.reset()
    untracked = "tracking.enabled=false"
    stage.faulty.run(stage.home, _training("whole", "cache=kept", untracked))
    (bundle,) = stage.home.glob("whole/*/bundle/*")
    for call in range(60, 600, 20):
        stage.faulty.run(stage.home, _training("stopped", untracked), TERMINATE.at(call))
        if any(stage.home.glob("stopped/*/checkpoints/step-*")):
            break
        for run in stage.home.glob("stopped/*"):
            shutil.rmtree(run)
    stage.keep()
    return bundle.name


def damaged(data: bytes, chance: random.Random) -> Iterator[tuple[str, bytes]]:
    """Yield a flipped bit, a cut, and a tail."""
    if data:
        place, bit = chance.randrange(len(data)), chance.randrange(8)
        flipped = bytearray(data)
        flipped[place] ^= 1 << bit
        yield f"bit {bit} of byte {place} flipped", bytes(flipped)
        cut = chance.randrange(len(data))
        yield f"cut at byte {cut}", data[:cut]
    yield "a byte more", data + b"\0"


def flips(stage: Stage, share: Share) -> Counted:
    """Damage one file after the other."""
    found, chance = Counted(), random.Random(0)
    prepare(stage)
    for kind in KINDS:
        own = Share(share.seconds / len(KINDS))
        files = [p for p in sorted(stage.template.glob(kind.glob)) if p.is_file()]
        tries = ((path, how) for _ in range(1000) for path in files for how in range(3))
        for path, how in own.while_left(tries):
            variants = list(damaged(path.read_bytes(), chance))
            words, data = variants[how % len(variants)]
            stage.reset()
            target = stage.home / path.relative_to(stage.template)
            target.write_bytes(data)
            ended = stage.faulty.run(stage.home, kind.command(stage.home))
            own.used += ended.seconds
            name = path.relative_to(stage.template)
            found.add(f"{kind.name}, {name}, {words}", _wrong(kind, ended))
        share.used += own.used
    return found


def _wrong(kind: Kept, ended: Ended) -> str:
    said = ended.out + ended.err
    if "Traceback" in said:
        return said[-600:]
    if ended.code == 0:
        return "" if kind.may_go_on else "it was read as if nothing had happened"
    return "" if "Error: " in said else f"exit code {ended.code}: {said[-300:]}"
