"""Commands that write, and what of their output has to be the same however they were disturbed.

A flow is run undisturbed twice: what is equal then has to be equal after every disturbance. The
folder is always the same one, `home`, filled anew from a copy: paths are part of what is kept.
"""

import hashlib
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import _faulty
from _faulty import Ended, Fault, Faulty

from recsys.features.world.world import RetailWorld

LIGHT = (
    "training.epochs=1",
    "training.batch_size=512",
    "training.uniform_negatives=32",
    "training.checkpoint_every=4",
    "embedding.num_rows=2048",
    "evaluation.bootstrap_samples=20",
    "evaluation.baselines=[popularity]",
)
_STAMP = re.compile(r"\d{8}-\d{6}(-\d+)?")
_ALREADY = re.compile(rb'"parts_already_there": \d+')
_STAGED = re.compile(r"\..*\.(gone\.)?[A-Za-z0-9-]+-\d+(\.\d+)?$")
STORE = "sqlite:///mlflow.db"
_OF_THE_STORE = re.compile(r"(mlflow\.db.*|mlruns(/.*)?|\.cache(/.*)?)$")
"""Files that MLflow keeps as it likes; what counts is what it answers."""


def sets(*keys: str) -> list[str]:
    """Return keys as the command line takes them."""
    return [word for key in keys for word in ("--set", key)]


@dataclass(frozen=True)
class Flow:
    """A command, and how it is asked afterwards what it did.

    Attributes:
        arguments: of the command, by what is in the folder: a run that began is resumed.
        asked: a command whose printed answer is a part of the result.
        varies: paths whose content is another one each time: times that were measured.
        grows: paths below which a run that was disturbed may have left more than another.
    """

    name: str
    arguments: Callable[[Path], list[str]]
    asked: tuple[str, ...] = ()
    varies: str = r"(?!)"
    grows: str = r"(?!)"


def _train(home: Path) -> list[str]:
    begun = [path.parent for path in sorted(home.glob("trained/*/config.yaml"))]
    unfinished = [run for run in begun if (run / "checkpoints").is_dir() or not _bundle(run)]
    if unfinished:
        return ["train", "--resume", str(unfinished[-1].relative_to(home))]
    keys = (*LIGHT, "output=trained", "cache=cache", f"tracking.uri={STORE}")
    return ["train", "recsys.yaml", *sets(*keys)]


def _bundle(run: Path) -> bool:
    return any(run.glob("bundle/*/manifest.json"))


def _always(*arguments: str) -> Callable[[Path], list[str]]:
    return lambda home: list(arguments)


_LOG = ("--interactions", "interactions", "--users", "users.parquet")
_TO_STORE = ("--tracking-uri", STORE)
FLOWS = (
    Flow("init", _always("init", "interactions", "items.parquet", "--out", "new.yaml", "--force")),
    Flow(
        "score",
        _always("score", "model", *_LOG, "--output", "scored", "--rows-per-part", "60"),
    ),
    Flow(
        "export",
        _always("export", "model", "--to", "faiss", "--out", "index"),
        varies=r"index/(export|index)\.json",
    ),
    Flow(
        "evaluate",
        _always("evaluate", "model", "--out", "page.html", *sets("evaluation.bootstrap_samples=5")),
    ),
    Flow(
        "recount",
        _always("recount", "plain", "--interactions", "interactions", "--output", "renewed"),
    ),
    Flow("compare", _always("compare", "model", "plain", "--report", "compared.html")),
    Flow("train", _train, grows=r"trained/STAMP|trained/[^/]*/(journal|tracking).*"),
    Flow(
        "register",
        _always("register", "model", "--name", "shop", "--alias", "champion", *_TO_STORE),
        asked=("similar", "models:/shop@champion", "i00001", *_TO_STORE),
    ),
    Flow(
        "tune",
        _always(
            *("tune", "recsys.yaml", "--trials", "2", "--out", "tuned.yaml", "--force"),
            *sets(*LIGHT, "output=tuned", "tracking.enabled=false"),
        ),
        grows=r"tuned/.*|tune\.db.*",
    ),
)


@dataclass
class Outcome:
    """What one disturbance led to; `wrong` is empty where it passed."""

    flow: str
    fault: Fault
    wrong: str = ""
    seconds: float = 0.0


@dataclass
class Reference:
    """What a flow leaves when nothing disturbs it.

    Attributes:
        calls: kind -> how many.
        left: path -> digest of its content.
        differs: paths whose content is another one each time.
        temporary: what libraries leave in the folder for temporary files.
    """

    calls: dict[str, int]
    left: dict[str, str]
    differs: set[str] = field(default_factory=set)
    temporary: set[str] = field(default_factory=set)

    def count(self, fault: Fault) -> int:
        """Return how many calls the fault may befall."""
        return sum(count for kind, count in self.calls.items() if int(kind) & fault.kinds)


class Stage:
    """The folder in which flows run."""

    def __init__(self, faulty: Faulty, scratch: Path) -> None:
        self.faulty, self.home, self.template = faulty, scratch / "home", scratch / "template"
        world = RetailWorld.create(seed=1, users=200, items=120, events=4_000)
        files = world.write(self.home)
        (self.home / "recsys.yaml").write_text(world.config_text(files))
        for name, more in (("model", ()), ("plain", ("model.kind=item_knn",))):
            keys = LIGHT if name == "model" else LIGHT[-2:]
            command = ["train", "recsys.yaml", *sets(*keys, f"output={name}-run", *more)]
            self._run([*command, *sets("tracking.enabled=false")])
            (bundle,) = self.home.glob(f"{name}-run/*/bundle/*")
            bundle.rename(self.home / name)
        # The tables of the store take MLflow seconds to create; a copy of them takes none.
        self._run(["register", "plain", "--name", "other", "--tracking-uri", STORE])
        shutil.copytree(self.home, self.template, symlinks=True)

    def _run(self, command: list[str]) -> Ended:
        ended = self.faulty.run(self.home, command)
        assert ended.code == 0, (command, ended)
        return ended

    def reset(self) -> None:
        """Make the folder what it was at first."""
        shutil.rmtree(self.home)
        shutil.copytree(self.template, self.home, symlinks=True)

    def reference(self, flow: Flow) -> Reference:
        """Run a flow undisturbed, twice."""
        found = []
        for _ in range(2):
            self.reset()
            calls = self._run(flow.arguments(self.home)).calls
            temporary = {one.name for one in self.faulty.temporary.iterdir()}
            found.append(self.left(flow))
        first, second = found
        assert first.keys() == second.keys(), first.keys() ^ second.keys()
        varies = re.compile(flow.varies)
        differs = {one for one in first if first[one] != second[one] or varies.fullmatch(one)}
        return Reference(calls, first, differs, temporary)

    def left(self, flow: Flow) -> dict[str, str]:
        """Return every path in the folder with a digest of its content."""
        found = {}
        for path in sorted(self.home.rglob("*")):
            name = path.relative_to(self.home).as_posix()
            if not _OF_THE_STORE.match(name):
                content = b"" if path.is_dir() else path.read_bytes()
                if path.name == "_SUCCESS":
                    content = _ALREADY.sub(b"", content)
                found[_STAMP.sub("STAMP", name)] = hashlib.sha256(content).hexdigest()
        if flow.asked:
            found["answer"] = self.faulty.run(self.home, list(flow.asked)).out
        return found

    def disturbed(self, flow: Flow, fault: Fault, reference: Reference) -> Outcome:
        """Run a flow with a fault, then again without; say what went wrong."""
        self.reset()
        ended = self.faulty.run(self.home, flow.arguments(self.home), fault)
        outcome = Outcome(flow.name, fault, seconds=ended.seconds)
        outcome.wrong = self._wrong_at_once(fault, ended, reference)
        if not outcome.wrong:
            arguments = flow.arguments(self.home)
            again = self.faulty.run(self.home, arguments)
            outcome.seconds += again.seconds
            outcome.wrong = self._wrong_after(flow, reference, again)
        return outcome

    def _wrong_at_once(self, fault: Fault, ended: Ended, reference: Reference) -> str:
        if "Traceback" in ended.out + ended.err:
            return "traceback: " + (ended.out + ended.err)[-1500:]
        if fault.action == _faulty.KILL.action:
            return "" if ended.code in (-9, 0) else f"exit code {ended.code}"
        staged = [one.name for one in self.home.rglob(".*") if _STAGED.fullmatch(one.name)]
        if staged and fault.name != "EROFS":
            return f"left at once: {staged}"
        temporary = {one.name for one in self.faulty.temporary.iterdir()} - reference.temporary
        if temporary:
            return f"left in TMPDIR: {sorted(temporary)}"
        if fault.action == _faulty.TERMINATE.action:
            if ended.code not in (0, 128 + fault.number):
                return f"exit code {ended.code}: {ended.err[-300:]}"
            if ended.code and not re.search(r"stopped|continue", ended.err):
                return f"nothing said how it goes on: {ended.err[-300:]}"
        elif ended.code and "Error: " not in ended.err:
            return f"exit code {ended.code} without an error: {ended.err[-300:]}"
        return ""

    def _wrong_after(self, flow: Flow, reference: Reference, again: Ended) -> str:
        if "Traceback" in again.out + again.err:
            return "traceback when repeated: " + (again.out + again.err)[-1500:]
        left = self.left(flow)
        may = re.compile(flow.grows)
        extra = [one for one in left.keys() - reference.left.keys() if not may.fullmatch(one)]
        lacking = reference.left.keys() - left.keys()
        other = [
            name
            for name in reference.left.keys() & left.keys() - reference.differs
            if left[name] != reference.left[name] and not may.fullmatch(name)
        ]
        # What is complete may be refused the second time: it is never written over.
        if again.code and (extra or lacking or other or again.code != 2):
            return f"repeated: exit code {again.code}: {again.err[-600:]}"
        return "; ".join(
            f"{what}: {sorted(names)[:5]}"
            for what, names in (("extra", extra), ("lacking", lacking), ("other", other))
            if names
        )


def spread(calls: int, most: int) -> list[int]:
    """Return at most so many of the calls 1..n, spread evenly, with the first and the last."""
    if calls <= most:
        return list(range(1, calls + 1))
    if most == 1:
        return [calls]
    return sorted({1 + round(step * (calls - 1) / (most - 1)) for step in range(most)})
