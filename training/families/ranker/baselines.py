"""Other rankers, trained on the same rows in the same loop, for the report to stand beside."""

import logging
from collections.abc import Iterator
from pathlib import Path

from torch import nn

from recsys.models.rankers import RANKERS
from recsys.training.engine.checkpoint import Checkpoints
from recsys.training.engine.loop import fit
from recsys.training.engine.ranks import World
from recsys.training.families.ranker.config import RankerExperiment
from recsys.training.families.ranker.evaluation import Judged, calibrator_of, judge
from recsys.training.families.ranker.rows import RankingRows
from recsys.training.families.ranker.task import ranking_task

LOG = logging.getLogger(__name__)


def judged_baselines(
    config: RankerExperiment,
    rows: RankingRows,
    world: World,
    run_dir: Path,
) -> Iterator[Judged]:
    """Train and judge the rankers of `config.evaluation.rankers` but the model's own kind.

    Each has its sizes by default and all else as the model has it: table, optimizer, epochs,
    stopping, calibration. One that was stopped goes on from its checkpoint in `run_dir`.
    """
    for name in config.evaluation.rankers:
        if name == config.model.kind:
            continue
        other = config.model_copy(update={"model": RANKERS[name].config(kind=name)})
        task = ranking_task(other, rows, World(device=world.device))
        checkpoints = Checkpoints(run_dir / "baselines" / name)
        state = fit(task, config.training, checkpoints)
        model: nn.Module = task.trained.model.cpu()
        found = judge(other, rows, model, calibrator_of(other, rows, model), name)
        LOG.info(f"{name}, trained beside: validation AUC {state.best_metric:.4f}")
        checkpoints.clear()
        yield found
