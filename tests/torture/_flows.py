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
from typing import Any

import _faulty
import yaml
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


def _train(config: str, *keys: str) -> Callable[[Path], list[str]]:
    def arguments(home: Path) -> list[str]:
        begun = [path.parent for path in sorted(home.glob("trained/*/config.yaml"))]
        unfinished = [run for run in begun if (run / "checkpoints").is_dir() or not _bundle(run)]
        if unfinished:
            return ["train", "--resume", str(unfinished[-1].relative_to(home))]
        return ["train", config, *sets("output=trained", *keys)]

    return arguments


def _bundle(run: Path) -> bool:
    return any(run.glob("bundle/[!.]*/manifest.json"))


def _always(*arguments: str) -> Callable[[Path], list[str]]:
    return lambda home: list(arguments)


_LOG = ("--interactions", "interactions", "--users", "users.parquet")
_TO_STORE = ("--tracking-uri", STORE)
_GROWS = r"trained/[^/]*|trained/[^/]*/(journal|tracking).*"
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
    Flow(
        "train",
        _train("recsys.yaml", *LIGHT, "cache=cache", f"tracking.uri={STORE}"),
        grows=_GROWS,
    ),
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

_UNTRACKED = "tracking.enabled=false"
_FITTED = ("evaluation.bootstrap_samples=20", "evaluation.baselines=[popularity]", _UNTRACKED)
_RANKED = (
    "evaluation.bootstrap_samples=20",
    "evaluation.rankers=[logistic]",
    _UNTRACKED,
    *LIGHT[:2],
    *LIGHT[3:5],
)
FAMILIES = (
    Flow("train session", _train("session.yaml", *LIGHT, _UNTRACKED), grows=_GROWS),
    Flow("train ranker", _train("ranker.yaml", *_RANKED), grows=_GROWS),
    Flow("train pipeline", _train("pipeline.yaml", *_FITTED), grows=_GROWS),
    Flow(
        "score sessions",
        _always("score", "session", *_LOG, "--output", "scored", "--rows-per-part", "60"),
    ),
    Flow(
        "score pipeline",
        _always("score", "pipeline", *_LOG, "--output", "scored", "--rows-per-part", "60"),
    ),
    Flow(
        "score rows",
        _always(
            *("score", "ranker", "--input", "interactions", "--items", "items.parquet"),
            *("--users", "users.parquet", "--output", "scored"),
        ),
    ),
)
_MODELS: dict[str, dict[str, Any]] = {
    "session": {"model": {"kind": "session", "dim": 8}},
    "ranker": {"model": {"kind": "logistic"}, "training": {"negatives": 1}, "evaluation": {}},
    "pipeline": {
        "model": {
            "kind": "pipeline",
            "sources": [
                {"model": {"kind": "item_knn"}, "take": 20},
                {"model": {"kind": "popularity"}, "take": 20},
            ],
        }
    },
}
"""Family -> the sections that differ from those of the two-tower."""


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
        self.faulty, self.scratch = faulty, scratch
        self.home, self.template = scratch / "home", scratch / "template"
        world = RetailWorld.create(seed=1, users=200, items=120, events=4_000)
        files = world.write(self.home)
        (self.home / "recsys.yaml").write_text(world.config_text(files))
        self.base_mb = self._run(["--help"]).peak_mb

    def with_model(self, bundle: Path) -> "Stage":
        """Add a model that is trained already."""
        shutil.copytree(bundle, self.home / "model")
        shutil.copytree(self.home, self.template, symlinks=True)
        return self

    def with_models(self) -> "Stage":
        """Train models of every family, fill a store, and write an export."""
        text = (self.home / "recsys.yaml").read_text()
        self._train("model", "recsys.yaml", *LIGHT)
        self._train("plain", "recsys.yaml", *LIGHT[-2:], "model.kind=item_knn")
        for name, sections in _MODELS.items():
            keys = yaml.safe_load(text) | sections
            if name == "pipeline":
                del keys["embedding"]
            (self.home / f"{name}.yaml").write_text(yaml.safe_dump(keys))
            of_kind = {"session": LIGHT, "ranker": _RANKED, "pipeline": _FITTED}[name]
            self._train(name, f"{name}.yaml", *of_kind)
        # The tables of the store take MLflow seconds to create; a copy of them takes none.
        self._run(["register", "plain", "--name", "other", "--tracking-uri", STORE])
        self._run(["export", "model", "--to", "parquet", "--out", "vectors"])
        shutil.copytree(self.home, self.template, symlinks=True)
        return self

    def _train(self, name: str, config: str, *keys: str) -> None:
        self._run(["train", config, *sets(*keys, f"output={name}-run", _UNTRACKED)])
        (bundle,) = self.home.glob(f"{name}-run/*/bundle/*")
        bundle.rename(self.home / name)

    def keep(self) -> None:
        """Make the folder as it is now the one that `reset` brings back, until `restore`."""
        self.template = self.scratch / "kept"
        shutil.rmtree(self.template, ignore_errors=True)
        shutil.copytree(self.home, self.template, symlinks=True)

    def restore(self) -> None:
        """Let `reset` bring back the folder as it was at first."""
        self.template = self.scratch / "template"

    def staged(self) -> list[str]:
        """Return what lies in the folder under the name of something half-written."""
        return [one.name for one in self.home.rglob(".*") if _STAGED.fullmatch(one.name)]

    def _run(self, command: list[str]) -> Ended:
        ended = self.faulty.run(self.home, command)
        assert ended.code == 0, f"{command}: {ended.out[-500:]} {ended.err[-1500:]}"
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
        staged = self.staged()
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
