"""Other rankers, trained on the same rows in the same loop, for the report to compare."""

import logging
from collections.abc import Iterator
from pathlib import Path

from torch import nn

from recsys.models.rankers import RANKERS
from recsys.training.engine.checkpoint import Checkpoints
from recsys.training.engine.loop import fit
from recsys.training.engine.ranks import World
from recsys.training.families.ranker.config import RankerExperiment
from recsys.training.families.ranker.evaluation import Evaluated, calibrator_of, evaluate_ranker
from recsys.training.families.ranker.rows import RankingRows
from recsys.training.families.ranker.task import ranking_task

LOG = logging.getLogger(__name__)


def evaluated_baselines(
    config: RankerExperiment,
    rows: RankingRows,
    world: World,
    run_dir: Path,
) -> Iterator[Evaluated]:
    """Train and evaluate the rankers of `config.evaluation.rankers` but the model's own kind.

    Each has its sizes by default and all else as the model has it: table, optimizer, epochs,
    stopping, calibration. One that was stopped continues from its checkpoint in `run_dir`.
    """
    for name in config.evaluation.rankers:
        if name == config.model.kind:
            continue
        other = config.model_copy(update={"model": RANKERS[name].config(kind=name)})
        task = ranking_task(other, rows, World(device=world.device))
        checkpoints = Checkpoints(run_dir / "baselines" / name)
        state = fit(task, config.training, checkpoints)
        model: nn.Module = task.trained.model.cpu()
        found = evaluate_ranker(other, rows, model, calibrator_of(other, rows, model), name)
        LOG.info(f"{name}, trained for comparison: validation AUC {state.best_metric:.4f}")
        checkpoints.clear()
        yield found
