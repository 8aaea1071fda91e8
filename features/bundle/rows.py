"""A model that answers with a probability for each row, out of its bundle."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from recsys.bundle.calibration import Calibrator
from recsys.bundle.probe import check_replay, read_probe
from recsys.core.errors import ConfigError
from recsys.data.batch import FeatureBlock, FeatureLayout
from recsys.features.bundle.files import read_calibration, read_row_probe
from recsys.features.bundle.model_bundle import ModelBundle


@dataclass(frozen=True)
class RowModel(ModelBundle):
    """A ranker out of a verified bundle, its probe replayed; it answers encoded rows."""

    model: nn.Module
    calibrator: Calibrator

    @classmethod
    def open(cls, path: Path) -> Self:
        """Verify and read the bundle at `path`, and replay its probe where it has one.

        Raises:
            NotFoundError: there is no bundle.
            ConfigError: it is no ranker's.
            IntegrityError: a file is not what was written, encoder and model do not belong
                together, or the probe's logits are not reproduced here.
        """
        found = ModelBundle.read(path)
        if not found.description.gives_rows:
            raise ConfigError(f"{path}: not a ranker; it answers requests, not labelled rows")
        calibrator = read_calibration(found.bundle, Calibrator) or Calibrator()
        ranker = cls(**vars(found), model=found.ranker(), calibrator=calibrator)
        probe = read_row_probe(found.bundle)
        if probe is not None:
            features, expected_B = read_probe(probe)
            check_replay(torch.from_numpy(ranker.logits(features)), expected_B, str(path))
        return ranker

    @property
    def layout(self) -> FeatureLayout:
        """What the model reads."""
        (layout,) = self.description.layouts
        return layout

    @torch.no_grad()
    def logits(self, features: FeatureBlock) -> NDArray[np.float32]:
        """Return the model's logits of encoded rows before anything is calibrated.

        (N,), or (N, T) where the model predicts T outcomes, the label's first.
        """
        found: NDArray[np.float32] = self.model(features).numpy()
        return found
