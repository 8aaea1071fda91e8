"""A trained ranker opened again: its model and what makes probabilities of its logits."""

from torch import nn

from recsys.bundle.calibration import Calibrator
from recsys.features.bundle.files import read_calibration
from recsys.training.families.opened import OpenedModel


def opened_ranker(opened: OpenedModel) -> tuple[nn.Module, Calibrator]:
    """Return the ranker, in evaluation mode, and its calibrator.

    Raises:
        IntegrityError: the weights are not those of such a model.
    """
    return opened.ranker(), read_calibration(opened.bundle, Calibrator) or Calibrator()
