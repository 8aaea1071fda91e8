"""The job behind `recsys check`: everything that training would trip over, without training."""

from recsys.training.config.experiment import ExperimentConfig, LearnedExperiment
from recsys.training.engine.machine import pick_device
from recsys.training.engine.warm_start import open_earlier
from recsys.training.families.chosen import open_chosen
from recsys.training.families.family import Findings
from recsys.training.families.registry import family_of


def preflight(config: ExperimentConfig) -> Findings:
    """Read and check the tables of `config`, part the log, and describe what was found.

    A streamed log is encoded to where training reads it from, unless it is there already.

    Raises:
        UserError: what training would raise on reading and parting the same data.
    """
    family = family_of(config)
    family.check(config)
    if isinstance(config, LearnedExperiment):
        pick_device(config.training.device)
        open_earlier(config)
    open_chosen(config)
    return family.inspect(config)
