"""The job behind `recsys check`: everything that training would trip over, without training."""

from recsys.core.imports import on_first_use
from recsys.training.config.experiment import ExperimentConfig, LearnedExperiment
from recsys.training.engine.machine import check_device
from recsys.training.families.family import Findings
from recsys.training.families.registry import family_of

with on_first_use():
    from recsys.training.engine.warm_start import open_earlier
    from recsys.training.families.chosen import open_chosen


def preflight(config: ExperimentConfig) -> Findings:
    """Read and check the tables of `config`, part the log, and describe what was found.

    A streamed log is encoded to where training reads it from, unless it is there already.

    Raises:
        UserError: what training would raise on reading and parting the same data.
    """
    family = family_of(config)
    family.check(config)
    if isinstance(config, LearnedExperiment):
        check_device(config.training.device)
        if config.warm_start is not None:
            open_earlier(config)
    if config.final is not None:
        open_chosen(config)
    return family.inspect(config)
