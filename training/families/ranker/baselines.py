"""Other rankers, trained on the same rows, for the report to compare."""

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from shutil import rmtree

from torch import nn

from recsys.training.engine.checkpoint import Checkpoints
from recsys.training.engine.loop import fit
from recsys.training.engine.ranks import World
from recsys.training.families.ranker import trees
from recsys.training.families.ranker.config import RankerExperiment
from recsys.training.families.ranker.evaluation import (
    Evaluated,
    calibrator_by,
    calibrator_of,
    evaluate_by,
    evaluate_ranker,
)
from recsys.training.families.ranker.rows import RankingRows
from recsys.training.families.ranker.task import ranking_task
from recsys.training.families.ranker.trees import TreeModel

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Alone:
    """What is compared with rankers and is none of the engine's.

    fit: trains on rows. is_installed: whether its package is. missing: what to say where it is not.
    """

    fit: Callable[[RankerExperiment, RankingRows], TreeModel]
    is_installed: Callable[[], bool]
    missing: str


ALONE: Mapping[str, Alone] = {
    "lightgbm": Alone(
        TreeModel.fit,
        trees.is_installed,
        "left out, as the package lightgbm is not installed (pip install 'recsys-engine[trees]')",
    ),
}


def left_out(config: RankerExperiment) -> dict[str, str]:
    """Return which of `config.evaluation.rankers` cannot be trained here, and why."""
    named = {name: ALONE[name] for name in config.evaluation.rankers if name in ALONE}
    return {name: one.missing for name, one in named.items() if not one.is_installed()}


def evaluated_baselines(
    config: RankerExperiment,
    rows: RankingRows,
    world: World,
    run_dir: Path,
) -> Iterator[Evaluated]:
    """Train and evaluate the rankers of `config.evaluation.rankers` but the model's own kind.

    Each has its sizes by default and nearly all else as the model has it: size of the table,
    optimizers, epochs, stopping, calibration; where its kind learns its table by other settings
    than the model's kind, these. One that was stopped continues from its checkpoint in `run_dir`.
    Those of `ALONE` have settings of their own.
    """
    without = {config.model.kind, *left_out(config)}
    for name in (one for one in config.evaluation.rankers if one not in without):
        if name in ALONE:
            yield _evaluated_alone(name, config, rows)
            continue
        other = config.compared_with(name)
        task = ranking_task(other, rows, World(device=world.device))
        checkpoints = Checkpoints(run_dir / "baselines" / name)
        state = fit(task, config.training, checkpoints)
        model: nn.Module = task.trained.model.cpu()
        found = evaluate_ranker(other, rows, model, calibrator_of(other, rows, model), name)
        LOG.info(f"{name}, trained for comparison: validation AUC {state.best_metric:.4f}")
        checkpoints.clear()
        yield found
    rmtree(run_dir / "baselines", ignore_errors=True)  # of checkpoints, all cleared


def _evaluated_alone(name: str, config: RankerExperiment, rows: RankingRows) -> Evaluated:
    predict = partial(ALONE[name].fit(config, rows).predictions, rows)
    found = evaluate_by(config, rows, predict, calibrator_by(config, rows, predict), name)
    LOG.info(f"{name}, trained for comparison: test AUC {found.result.metrics['auc'].value:.4f}")
    return found
