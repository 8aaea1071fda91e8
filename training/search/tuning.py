"""The search behind `recsys tune`: trainings with other settings, evaluated on the validation part.

Trial 0 is the given configuration, so the best of them is never worse than that. The
trials train on data that were encoded once; one that falls behind is pruned by epoch; one that
is impossible (a loss that is not finite, a table that does not fit) is recorded with its reason.
The test part is not evaluated: the best of many validation values is an optimistic number, and
only a test part that chose nothing can say what the choice is worth.
"""

import logging
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recsys.core.errors import ConfigError, UserError
from recsys.core.signals import Terminated
from recsys.features.tables.sources import log_name
from recsys.training.config.experiment import ExperimentConfig, passes
from recsys.training.config.ranges import Space
from recsys.training.engine.run_home import local_folder
from recsys.training.families.registry import family_of
from recsys.training.search.space import to_raw, values_of, with_values
from recsys.training.search.stopping import stoppable
from recsys.training.search.store import (
    DONE,
    FAILED,
    INTERRUPTED,
    SearchStore,
    Tried,
    open_search,
)
from recsys.training.search.tracked import SearchTracking
from recsys.training.search.trial import (
    TrialData,
    TrialPrunedError,
    TrialStoppedError,
    Watcher,
    is_lack_of_memory,
    trial_data,
)

LOG = logging.getLogger(__name__)

FAILURES_IN_A_ROW = 10
"""So many, and the search gives up."""
REPEATS_IN_A_ROW = 20
"""So many proposals that were trained before, and the space counts as searched."""
_RUN_DIR, _KERNEL = "run_dir", "kernel"
_NOT_COMPARED = (
    "data",
    "output",
    "tracking",
    "cache",
    "index",
    "tune",
    "calibration",
    "relevance",
)


@dataclass(frozen=True)
class Budget:
    """When a search ends, by whichever comes first.

    trials: of the search in all, those of earlier commands too, but for those cut off.
    minutes: of this command. A trial that runs then is cut off, but for the first one of all.
    """

    trials: int | None = None
    minutes: float | None = None

    def __post_init__(self) -> None:
        if self.trials is not None and self.trials < 1:
            raise ConfigError(f"a search has at least 1 trial, got {self.trials}")
        if self.minutes is not None and not 0 < self.minutes < math.inf:
            raise ConfigError(f"a search has more than 0 minutes, and an end; got {self.minutes}")


@dataclass(frozen=True)
class Found:
    """What a search knows when it ends.

    ended: why. importance: share of each key in how far the metric varies, where it is known.
    """

    metric: str
    space: Space
    trials: list[Tried]
    importance: dict[str, float]
    ended: str
    run_dir: Path

    @property
    def baseline(self) -> Tried:
        """The given configuration."""
        return self.trials[0]

    @property
    def best(self) -> Tried:
        """The trial with the largest metric; of equal ones the earliest.

        Raises:
            ConfigError: no trial came to its end.
        """
        done = [one for one in self.trials if one.state == DONE]
        if not done:
            raise ConfigError(
                f"none of {len(self.trials)} trials finished; the last reason: "
                f"{self.trials[-1].reason}"
            )
        return max(done, key=lambda one: (one.value or 0.0, -one.number))


def search(
    config: ExperimentConfig,
    space: Space,
    budget: Budget,
    *,
    storage: Path,
    name: str,
    seed: int = 0,
) -> Found:
    """Search, or continue the search `name` in `storage`.

    Args:
        config: the experiment; its `training.metric` decides.
        space: what may be set (`recsys.training.search.space.space_of`).
        budget: when to end.
        storage: SQLite file that keeps the trials.
        name: of the search in that file.
        seed: of the proposals.

    Raises:
        ConfigError: as `open_search` does; no trial succeeded.
        UserError: the data are wrong.
        Terminated: a signal came; what ended is stored.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError("a search runs in one process: start it without torchrun")
    family_of(config).check(config)
    if config.split.trains_on_validation:
        which = "kind: none" if config.split.kind == "none" else "join_validation"
        raise ConfigError(
            f"split.{which} leaves no rows to compare trials on: search without it, and "
            "train what was found with it"
        )
    facts = search_facts(config, space, seed)
    base = values_of(config, space)
    deadline = None if budget.minutes is None else time.monotonic() + 60 * budget.minutes
    with (
        open_search(storage, name, space=space, base=base, facts=facts) as store,
        stoppable() as check,
    ):
        return _Search(config, budget, deadline, store, name, check).run()


def search_facts(config: ExperimentConfig, space: Space, seed: int) -> dict[str, Any]:
    """Return what makes a search this one and no other: a resumed one must have the same."""
    tree = config.model_dump(mode="json", by_alias=True)
    return {
        "config": {key: value for key, value in tree.items() if key not in _NOT_COMPARED},
        "stream": tree["data"].get("stream", False),
        "space": to_raw(space),
        "seed": seed,
    }


class _Search:
    """One command's part of a search."""

    def __init__(
        self,
        config: ExperimentConfig,
        budget: Budget,
        deadline: float | None,
        store: SearchStore,
        name: str,
        check: Callable[[], None],
    ) -> None:
        self.config, self.budget, self.deadline = config, budget, deadline
        self.store, self.name, self.check = store, name, check

    def run(self) -> Found:
        """Open the data only where there is something left to do."""
        before = self.store.trials(interrupted=True)
        if before:
            ended = sum(one.state != INTERRUPTED for one in before)
            LOG.info(f"continuing the search '{self.name}': {ended} trials are there")
        why = self._why_not_another()
        if why:
            return self._found(why, self._run_dir() or local_folder(self.config.output))
        kernel: Any = self.store.recall(_KERNEL)
        data = trial_data(self.config, kernel)
        self.store.check_data(data.job.fingerprint)
        if data.backend is not None:
            self.store.remember(_KERNEL, data.backend)
        for fact, value in data.job.facts.items():
            LOG.info(f"{fact}: {value}")
        LOG.info(
            f"maximising the validation {self.config.training.metric} over "
            f"{len(self.store.space)} settings; the test part is not looked at"
        )
        tracking = SearchTracking(self.config, self._run_dir(), self.name, self.store.facts, before)
        self.store.remember(_RUN_DIR, str(tracking.run_dir.resolve()))
        status = "FAILED"
        try:
            name = log_name(self.config.data.interactions)
            tracking.dataset(name, data.job.fingerprint, data.job.facts)
            while not (why := self._why_not_another()):
                self.check()
                self._trial(data, tracking)
            status = "FINISHED"
        except Terminated:
            status = "KILLED"
            raise
        finally:
            tracking.finish(status)
        return self._found(why, tracking.run_dir)

    def _run_dir(self) -> Path | None:
        """Return the folder of the search's run, where it is known and still there."""
        folder = self.store.recall(_RUN_DIR)
        return Path(folder) if folder and Path(folder).is_dir() else None

    def _found(self, why: str, run_dir: Path) -> Found:
        metric, store = self.config.training.metric, self.store
        return Found(metric, store.space, store.trials(), store.importance(), why, run_dir)

    def _why_not_another(self) -> str:
        """Return why no further trial begins; an empty text: one does."""
        trials, budget = self.store.trials(), self.budget
        if budget.trials is not None and len(trials) >= budget.trials:
            return f"{len(trials)} of {budget.trials} trials are done"
        last = trials[-FAILURES_IN_A_ROW:]
        if len(last) == FAILURES_IN_A_ROW and all(one.state == FAILED for one in last):
            why = next((one for one in reversed(trials) if one.repeats is None), last[-1]).reason
            raise ConfigError(f"the last {FAILURES_IN_A_ROW} trials failed; the last one: {why}")
        latest = trials[-REPEATS_IN_A_ROW:]
        if len(latest) == REPEATS_IN_A_ROW and all(one.repeats is not None for one in latest):
            return "the space is exhausted: every proposal was tried"
        if self.deadline is not None and trials and time.monotonic() > self.deadline:
            return f"{budget.minutes:g} minutes have passed"
        return ""

    def _trial(self, data: TrialData, tracking: SearchTracking) -> None:
        """Propose, train, store; whatever a trial can fail of is stored as well."""
        store, metric = self.store, self.config.training.metric
        earlier = store.trials()
        number, values = store.propose()
        LOG.info(_announced(number, self.budget.trials, values, store.base))
        twin = next((one for one in earlier if one.values == values), None)
        if twin is not None:
            store.repeated(twin)
            LOG.info(f"  these are the settings of trial {twin.number}")
            return
        child = tracking.trial(number, values)
        watcher = Watcher(
            metric,
            passes(self.config),
            self._reporter(),
            self.deadline if earlier else None,
            self.check,
        )
        ending = INTERRUPTED
        try:
            config = with_values(self.config, values)
            data.train(config, (watcher, child))
            assert watcher.best is not None
            store.done(watcher.best, watcher.seconds)
            ending = DONE
        except TrialPrunedError:
            store.pruned(watcher.seconds)
            ending = "pruned"
        except TrialStoppedError:
            store.failed(INTERRUPTED, watcher.seconds)
            LOG.info("  cut off: the time limit is reached")
        except UserError as error:
            ending = self._failed(str(error), watcher)
        except Exception as error:
            if not is_lack_of_memory(error):
                store.failed(INTERRUPTED, watcher.seconds)
                raise
            ending = self._failed("out of memory", watcher)
        except BaseException:
            store.failed(INTERRUPTED, watcher.seconds)
            raise
        finally:
            tracking.ended(child, ending, watcher.best)
        if ending in (DONE, "pruned"):
            self._tell(number, ending, watcher)

    def _failed(self, reason: str, watcher: Watcher) -> str:
        self.store.failed(reason, watcher.seconds)
        LOG.info(f"  failed: {reason}")
        return FAILED

    def _reporter(self) -> Callable[[int, float], bool]:
        def report(epoch: int, value: float) -> bool:
            LOG.info(f"  epoch {epoch}  {self.config.training.metric} {value:.4f}")
            return self.store.report(epoch, value)

        return report

    def _tell(self, number: int, ending: str, watcher: Watcher) -> None:
        done = [one for one in self.store.trials() if one.state == DONE]
        best = max(done, key=lambda one: (one.value or 0.0, -one.number), default=None)
        value = f"{watcher.best:.4f}" if watcher.best is not None else "-"
        shown = f"  {ending}: {value} after {watcher.seconds:.0f} s"
        if best is not None and best.value is not None:
            shown += f"; best so far {best.value:.4f} (trial {best.number})"
        LOG.info(shown)


def _announced(
    number: int, trials: int | None, values: dict[str, Any], base: dict[str, Any]
) -> str:
    if values == base:
        words = "the given configuration"
    else:
        words = ", ".join(f"{key} {value}" for key, value in values.items())
    return f"trial {number}{'' if trials is None else f' (of {trials})'}: {words}"
