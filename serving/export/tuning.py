"""The cheapest index of a model for a recall and a memory: all kinds tried, measured, shown.

    tuning.png    recall against the cost of a query and against memory, of all that was tried
    index.json    under `tuning`: the same as a table

The queries are those of the model's probe and others near them. The cost of a query is processor
time of this machine, the median of several runs, one thread: the choice may differ on another.
"""

import logging
import statistics
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from recsys.core.byte_sizes import size_text
from recsys.core.errors import ConfigError, UserError
from recsys.retrieval.index.approximate import (
    ApproximateBackend,
    ApproximateIndex,
    measured_facts,
)
from recsys.retrieval.index.build import with_vectors, write_facts
from recsys.retrieval.index.effort import Effort, frontier
from recsys.retrieval.index.exact import ExactVectors
from recsys.retrieval.index.protocol import Index, IndexRequest
from recsys.retrieval.index.recall import Truth
from recsys.retrieval.index.registry import AUTO, BACKENDS, EXACT
from recsys.serving.export.query_encoding import more_like
from recsys.serving.export.tuning_picture import PICTURE, draw

K = 10
RUNS = 3
WORTH = 0.8
"""Of the cost of exact search, which an index that misses some may have at most."""
_QUERIES = 1_000
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Tuning:
    """What an index may hold in memory, in bytes; None: any."""

    memory: int | None = None


@dataclass(frozen=True)
class Trial:
    """One search that was tried.

    parameters: as the library calls them. cpu_us: of a query, for ten items. memory_bytes: what
    the library holds. enough: whether it reaches the recall within the memory.
    """

    kind: str
    parameters: dict[str, int]
    recall_at_10: float
    cpu_us: float
    memory_bytes: int
    build_cpu_seconds: float
    enough: bool

    def text(self) -> str:
        """Return it for a message."""
        found = ", ".join(f"{name} {value}" for name, value in self.parameters.items())
        return (
            f"{self.kind}{f' ({found})' if found else ''}: recall@10 {self.recall_at_10:.4f}, "
            f"{size_text(self.memory_bytes)}, {self.cpu_us:.1f} us a query"
        )


@dataclass
class _Best:
    """The cheapest so far, with what is to be written of it; None: nothing was enough yet."""

    trial: Trial | None = None
    index: ApproximateIndex | None = None
    effort: Effort | None = None
    facts: dict[str, Any] | None = None

    def take(
        self, trial: Trial, index: ApproximateIndex, effort: Effort, facts: dict[str, Any]
    ) -> None:
        """Keep it if it is enough and cheaper; than exact search, by a fifth at least."""
        worth = WORTH if self.trial is not None and self.trial.kind == EXACT else 1.0
        if trial.enough and (self.trial is None or trial.cpu_us < worth * self.trial.cpu_us):
            self.trial, self.index, self.effort, self.facts = trial, index, effort, facts


def tuned_index(folder: Path, request: IndexRequest, tuning: Tuning) -> dict[str, Any]:
    """Write the cheapest index that reaches `request.min_recall` within the memory; its facts.

    All kinds are tried of which the library is installed, or only `request.kind`, where that is
    not `auto`. `folder` gets what `build_index` writes, and the picture.

    Raises:
        ConfigError: the library of the one kind that is asked for is not installed.
        UserError: nothing is enough; the message has the best that was found.
    """
    near = more_like(request.queries.unsqueeze(1), request.geometry).flatten(0, 1)
    truth = Truth(near[: 2 * _QUERIES].contiguous(), request.vectors)
    names = list(BACKENDS) if request.kind == AUTO else [request.kind]
    best, tried, skipped = _Best(), list[Trial](), dict[str, str]()
    if EXACT in names:
        tried.append(_exact(request, truth, tuning))
        best.trial = tried[0] if tried[0].enough else None
    for name in names:
        backend = BACKENDS[name]
        if not isinstance(backend, ApproximateBackend):
            continue
        try:
            backend.require()
        except ConfigError as error:
            if request.kind != AUTO:
                raise
            skipped[name] = str(error)
            continue
        log.info("tuning: building %s", name)
        tried += _tried(name, backend, request, truth, tuning, best)
    if best.trial is None:
        raise UserError(_refusal(tried, request.min_recall, tuning, skipped))
    facts = _written(folder, request, truth, best)
    facts["tuning"] = _table(tried, best.trial, request.min_recall, tuning) | {
        "queries": len(truth.queries),
        "skipped": skipped,
    }
    write_facts(folder, facts)
    draw(folder / PICTURE, facts["tuning"])
    return facts


def _exact(request: IndexRequest, truth: Truth, tuning: Tuning) -> Trial:
    vectors = request.vectors
    size = vectors.numel() * vectors.element_size()
    cost = _cost(ExactVectors(vectors), truth.queries)
    return Trial(EXACT, {}, 1.0, cost, size, 0.0, tuning.memory is None or size <= tuning.memory)


def _tried(
    name: str,
    backend: ApproximateBackend,
    request: IndexRequest,
    truth: Truth,
    tuning: Tuning,
    best: _Best,
) -> list[Trial]:
    """Build one kind and try its efforts; `best` keeps the index if it is the cheapest."""
    index, facts = backend.built(replace(request, kind=name))
    found = []
    for one in frontier(index, truth, request.min_recall):
        index.effort = one.effort
        size = index.held_bytes(one.effort)
        fits = tuning.memory is None or size <= tuning.memory
        trial = Trial(
            name,
            one.effort.facts(index.ladder()),
            one.recall,
            _cost(index, truth.queries),
            size,
            facts["build_cpu_seconds"],
            fits and one.recall >= request.min_recall,
        )
        found.append(trial)
        best.take(trial, index, one.effort, facts)
    return found


def _cost(index: Index, queries: Tensor) -> float:
    """Return microseconds of the processor a query, the median of `RUNS`."""
    asked = queries[:_QUERIES]
    times = []
    for _ in range(RUNS):
        started = time.process_time()
        index.search(asked, K)
        times.append(time.process_time() - started)
    return statistics.median(times) / len(asked) * 1e6


def _written(folder: Path, request: IndexRequest, truth: Truth, best: _Best) -> dict[str, Any]:
    assert best.trial is not None
    kind = best.trial.kind
    backend, facts = BACKENDS[kind], with_vectors(folder, request, kind)
    if best.index is None or best.trial.kind == EXACT:
        return facts | backend.build(folder, request)
    assert isinstance(backend, ApproximateBackend)
    assert best.effort is not None
    assert best.facts is not None
    best.index.effort = best.effort
    measured = measured_facts(best.index, truth)
    return facts | best.facts | measured | backend.write(folder, best.index)


def _table(tried: list[Trial], chosen: Trial, min_recall: float, tuning: Tuning) -> dict[str, Any]:
    return {
        "min_recall": min_recall,
        "memory_bytes": tuning.memory,
        "chosen": asdict(chosen),
        "tried": [asdict(trial) for trial in tried],
    }


def _refusal(tried: list[Trial], min_recall: float, tuning: Tuning, skipped: dict[str, str]) -> str:
    room = "" if tuning.memory is None else f" within {size_text(tuning.memory)}"
    small = [t for t in tried if tuning.memory is None or t.memory_bytes <= tuning.memory]
    right = [t for t in tried if t.recall_at_10 >= min_recall]
    said = [f"no index reaches recall@10 {min_recall}{room}"]
    if small:
        said.append(
            f"the best that fits is {max(small, key=lambda t: (t.recall_at_10, -t.cpu_us)).text()}"
        )
    if right:
        least = min(right, key=lambda t: (t.memory_bytes, t.cpu_us))
        said.append(f"the smallest that finds enough is {least.text()}")
    if skipped:
        said.append(f"not installed and not tried: {', '.join(skipped)}")
    return "; ".join(said) + ": give more memory or a lower recall"
