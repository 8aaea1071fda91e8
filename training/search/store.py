"""The trials of a search in an SQLite file, through Optuna: TPE proposes, the median prunes.

Storage, proposals, pruning, the first trial's given settings and the importance of each are
Optuna's. Ours is what it has not:

- What is proposed is a function of the seed, of how many trials came before, and of their results:
  a search that was stopped and continues proposes what one that was not stopped would. Optuna
  stores no sampler's state, so each proposal has a sampler with a seed of its own.
- One process has a search, by a lock on the file: an open trial found with the lock was cut
  off, and is proposed again. Optuna's heartbeat goes with `Study.optimize` alone, which acts on
  no signal within a trial, and knows of a killed process only after a time.
- A search continues only with the configuration, space, seed and data that it began with.
- A proposal that was trained before gets the earlier result.

Bergstra et al., "Algorithms for Hyper-Parameter Optimization", NeurIPS 2011, section 4 (TPE).
"""

import json
import logging
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from recsys.core.errors import ConfigError
from recsys.training.config.ranges import Choice, Range, Space

DONE, PRUNED, FAILED, INTERRUPTED = "done", "pruned", "failed", "interrupted"
STARTUP_TRIALS = 10
"""Trials drawn at random before results guide the drawing."""
PRUNING_TRIALS, PRUNING_EPOCHS = 4, 3
"""Finished trials before one is pruned, and epochs that each trial has before it can be."""
IMPORTANCE_TRIALS = 8
"""Finished trials below which nothing is said of what mattered."""
_FACTS, _DATA = "recsys", "data"
_REASON, _SECONDS, _REPEATS = "reason", "seconds", "repeats"
_SIGNIFICANT_DIGITS = 4


@dataclass(frozen=True)
class Tried:
    """A trial: what was set, how it ended, the validation metric of each epoch.

    value: the best of them; None where there is none. repeats: the trial that had the same settings
    before, so that this one was not trained. Trial 0 is the given configuration.
    """

    number: int
    values: dict[str, Any]
    state: str
    value: float | None
    epochs: tuple[float, ...] = ()
    seconds: float = 0.0
    reason: str = ""
    repeats: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)


@contextmanager
def open_search(
    path: Path, name: str, *, space: Space, base: Mapping[str, Any], facts: dict[str, Any]
) -> Iterator["SearchStore"]:
    """Open the search `name` in the file `path`, or begin it; no other process has it meanwhile.

    Args:
        path: an SQLite file, made where it is missing.
        name: of the search; a file may hold several.
        space: what may be set.
        base: what the given configuration has at the keys of `space`.
        facts: plain data that make it this search and no other; "seed" is one.

    Raises:
        ConfigError: Optuna is not installed; the file is no such file or in use; it holds a
            search of this name with other facts, of which the first are named.
    """
    from filelock import FileLock, Timeout

    optuna = _optuna()
    _check_file(path)
    lock = FileLock(path.with_name(f".{path.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        if not Path(lock.lock_file).exists():
            raise ConfigError(f"--storage {path}: its folder cannot be written to") from None
        raise ConfigError(
            f"--storage {path}: another search is writing to it; wait for it, or give another file"
        ) from None
    except OSError as error:
        raise ConfigError(f"--storage {path}: cannot be written: {error.strerror}") from None
    try:
        study = _study(optuna, path, name)
        store = SearchStore(optuna, study, space, dict(base), facts)
        store.begin(path, name)
        yield store
    finally:
        lock.release()


class SearchStore:
    """One search: `propose`, then `report` epoch by epoch, then one of the endings."""

    def __init__(
        self, optuna: Any, study: Any, space: Space, base: dict[str, Any], facts: dict[str, Any]
    ) -> None:
        self._optuna, self._study = optuna, study
        self.space, self.base, self.facts = space, base, facts
        self._open: Any = None

    def begin(self, path: Path, name: str) -> None:
        """Compare the facts, or write them down; end what an earlier process left open."""
        stored = self._study.user_attrs.get(_FACTS)
        if stored is None and self._study.trials:
            raise ConfigError(
                f"--storage {path}: its study '{name}' is not of `recsys tune`; give --name"
            )
        running = self._optuna.trial.TrialState.RUNNING
        for trial in self._study.get_trials(deepcopy=False, states=(running,)):
            self._study.tell(trial.number, state=self._optuna.trial.TrialState.FAIL)
        plain = json.loads(json.dumps(self.facts))
        differences = list(_differences(stored or {}, plain)) if self._any_trial() else []
        if differences:
            shown = "; ".join(differences[:4]) + ("; ..." if len(differences) > 4 else "")
            raise ConfigError(
                f"--storage {path}: the search '{name}' in it is another one ({shown}): give "
                "--name for a new search, or the settings of the first one to continue it"
            )
        self._study.set_user_attr(_FACTS, plain)

    def check_data(self, fingerprint: str) -> None:
        """Refuse to compare trials on other data than those before; remember these.

        Raises:
            ConfigError: the data are not those of the trials before.
        """
        if self._any_trial() and self._study.user_attrs.get(_DATA) != fingerprint:
            raise ConfigError(
                f"the search '{self._study.study_name}' has trials on other data, which cannot be "
                "compared with new ones: give --name for a new search"
            )
        self._study.set_user_attr(_DATA, fingerprint)

    def recall(self, key: str) -> str | None:
        """Return what was remembered as `key`."""
        found: str | None = self._study.user_attrs.get(key)
        return found

    def remember(self, key: str, value: str) -> None:
        """Keep `value` with the trials."""
        self._study.set_user_attr(key, value)

    def trials(self, *, interrupted: bool = False) -> list[Tried]:
        """Return the trials that ended, in order; those that were cut off only on request."""
        ended = (t for t in self._study.get_trials(deepcopy=False) if t.state.is_finished())
        found = [self._tried(trial) for trial in ended]
        return [one for one in found if interrupted or one.state != INTERRUPTED]

    def propose(self) -> tuple[int, dict[str, Any]]:
        """Begin a trial; return its number and what to set. The first one sets nothing new."""
        before = len(self.trials())
        seed = (int(self.facts["seed"]) * 1_000_003 + before) % 2**32
        self._study.sampler = self._optuna.samplers.TPESampler(
            n_startup_trials=STARTUP_TRIALS, seed=seed
        )
        space = self.space
        if not before:
            # What is outside the space is no draw from it: only the others are learnt from.
            space = {key: one for key, one in space.items() if one.holds(self.base[key])}
            self._study.enqueue_trial({k: _encoded(one, self.base[k]) for k, one in space.items()})
        distributions = {key: _distribution(self._optuna, one) for key, one in space.items()}
        self._open = self._study.ask(distributions)
        return self._open.number, self._values(self._open)

    def report(self, epoch: int, value: float) -> bool:
        """Store the metric after `epoch` (from 1 on); return whether to prune."""
        self._open.report(value, epoch)
        return bool(self._open.should_prune())

    def done(self, value: float, seconds: float) -> None:
        """End the trial: trained to its end."""
        self._open.set_user_attr(_SECONDS, seconds)
        self._study.tell(self._open, value)

    def pruned(self, seconds: float) -> None:
        """End the trial: not worth continuing."""
        self._open.set_user_attr(_SECONDS, seconds)
        self._study.tell(self._open, state=self._optuna.trial.TrialState.PRUNED)

    def failed(self, reason: str, seconds: float = 0.0) -> None:
        """End the trial: it is impossible; `INTERRUPTED`: it was cut off and counts for nothing."""
        self._open.set_user_attr(_REASON, reason)
        self._open.set_user_attr(_SECONDS, seconds)
        self._study.tell(self._open, state=self._optuna.trial.TrialState.FAIL)

    def repeated(self, earlier: Tried) -> None:
        """End the trial as `earlier` ended, which had the same settings and so the same result."""
        self._open.set_user_attr(_REPEATS, earlier.number)
        words = f"the settings of trial {earlier.number}"
        if earlier.state == FAILED:
            return self.failed(f"{words}: {earlier.reason}")
        for epoch, value in enumerate(earlier.epochs, start=1):
            self._open.report(value, epoch)
        self._open.set_user_attr(_REASON, words)
        if earlier.state == PRUNED:
            return self.pruned(0.0)
        assert earlier.value is not None
        return self.done(earlier.value, 0.0)

    def importance(self) -> dict[str, float]:
        """Return each key's share in how far the metric varies (PED-ANOVA), largest first.

        Empty below `IMPORTANCE_TRIALS` finished trials, or where they are all equal.
        """
        done = [one for one in self.trials() if one.state == DONE]
        if len(done) < IMPORTANCE_TRIALS or len({one.value for one in done}) < 2:
            return {}
        try:
            found = self._optuna.importance.get_param_importances(self._study)
        except (ValueError, RuntimeError):
            return {}
        return {key: float(share) for key, share in found.items()}

    def _any_trial(self) -> bool:
        """Whether a trial counts; another search's values could not be read in this space."""
        ended = (t for t in self._study.get_trials(deepcopy=False) if t.state.is_finished())
        return any(self._word(trial) != INTERRUPTED for trial in ended)

    def _word(self, trial: Any) -> str:
        state, reason = self._optuna.trial.TrialState, trial.user_attrs.get(_REASON, "")
        word = {state.COMPLETE: DONE, state.PRUNED: PRUNED}.get(trial.state, FAILED)
        # A process that was killed sends no message.
        return INTERRUPTED if word == FAILED and reason in ("", INTERRUPTED) else word

    def _values(self, trial: Any) -> dict[str, Any]:
        """Return what a trial sets; what the base has, to its last digit."""
        found = dict(self.base)
        for key, drawn in trial.params.items():
            if drawn != _encoded(self.space[key], self.base[key]):
                found[key] = _decoded(self.space[key], drawn)
        return found

    def _tried(self, trial: Any) -> Tried:
        epochs = tuple(trial.intermediate_values[e] for e in sorted(trial.intermediate_values))
        return Tried(
            trial.number,
            self._values(trial),
            self._word(trial),
            max(epochs, default=None),
            epochs,
            float(trial.user_attrs.get(_SECONDS, 0.0)),
            trial.user_attrs.get(_REASON, ""),
            trial.user_attrs.get(_REPEATS),
        )


def _optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise ConfigError(
            f"`recsys tune` needs the package '{error.name}': pip install 'recsys-engine[tune]'"
        ) from None
    optuna.logging.set_verbosity(logging.WARNING)
    return optuna


def _study(optuna: Any, path: Path, name: str) -> Any:
    from sqlalchemy.exc import SQLAlchemyError

    try:
        storage = optuna.storages.RDBStorage(f"sqlite:///{path.resolve()}")
        return optuna.create_study(
            storage=storage,
            study_name=name,
            direction="maximize",
            load_if_exists=True,
            pruner=optuna.pruners.MedianPruner(
                n_startup_trials=PRUNING_TRIALS, n_warmup_steps=PRUNING_EPOCHS
            ),
        )
    except (SQLAlchemyError, RuntimeError) as error:  # read-only, or of another Optuna version
        why = str(getattr(error, "orig", None) or error).splitlines()[0]
        raise ConfigError(f"--storage {path}: {why}; give another file") from None


def _check_file(path: Path) -> None:
    """Refuse a file without searches: Optuna would add its tables to others."""
    if not path.resolve().parent.is_dir():
        raise ConfigError(
            f"--storage {path}: there is no folder {path.resolve().parent}; make it first"
        )
    if path.is_dir():
        raise ConfigError(f"--storage {path} is a folder; give a file, as in {path / 'tune.db'}")
    if not path.exists() or path.stat().st_size == 0:
        return
    try:
        # A search that was killed may have left a journal: to read on, SQLite takes it back first.
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=rw", uri=True)) as file:
            found = file.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            tables = {name for (name,) in found}
    except sqlite3.Error as error:
        raise ConfigError(
            f"--storage {path} cannot be read as SQLite ({error}); give another file"
        ) from None
    if tables and "studies" not in tables:
        raise ConfigError(
            f"--storage {path} is a database of something else; give a file of its own"
        )


def _distribution(optuna: Any, one: Range | Choice) -> Any:
    kinds = optuna.distributions
    if isinstance(one, Choice):
        return kinds.CategoricalDistribution([_encoded(one, value) for value in one.values])
    if one.integer:
        return kinds.IntDistribution(one.low, one.high, one.log, one.step or 1)
    return kinds.FloatDistribution(one.low, one.high, one.log, one.step)


def _encoded(one: Range | Choice, value: Any) -> Any:
    """Optuna stores single values; lists and mappings go as text."""
    return (
        json.dumps(value) if isinstance(one, Choice) and isinstance(value, list | dict) else value
    )


def _decoded(one: Range | Choice, drawn: Any) -> Any:
    if isinstance(one, Choice):
        return next(value for value in one.values if _encoded(one, value) == drawn)
    if one.integer:
        return int(drawn)
    short = float(f"{drawn:.{_SIGNIFICANT_DIGITS}g}")
    return min(max(short, one.low), one.high)


def _differences(old: Any, new: Any, prefix: str = "") -> Iterator[str]:
    """Describe what is not the same in two trees."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in [*old, *(key for key in new if key not in old)]:
            below = f"{prefix}.{key}".removeprefix("config.").lstrip(".")
            yield from _differences(old.get(key), new.get(key), below)
    elif old != new:
        yield f"{prefix}: {old} before, now {new}"
