"""A trained ranker opened again: its model and what makes probabilities of its logits."""

from torch import nn

from recsys.bundle.calibration import CALIBRATOR_FILE, Calibrator
from recsys.bundle.weights import load_ranker
from recsys.data.batch import FeatureLayout
from recsys.training.families.opened import OpenedModel


def opened_ranker(opened: OpenedModel, layout: FeatureLayout) -> tuple[nn.Module, Calibrator]:
    """Return the ranker, in evaluation mode, for rows of `layout`, and its calibrator.

    Raises:
        IntegrityError: the weights are not those of such a model.
    """
    config, bundle = opened.config, opened.bundle
    weights = bundle.read("weights.safetensors")
    model = load_ranker(weights, config.model, config.embedding, layout)
    return model, Calibrator.from_json(bundle.text(CALIBRATOR_FILE))
