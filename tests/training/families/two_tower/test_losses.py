"""The registry of a two-tower's losses."""

from typing import get_args

from recsys.training.families.two_tower.config import TwoTowerTrainingConfig
from recsys.training.families.two_tower.losses import LOSSES
from recsys.training.families.two_tower.losses_config import TwoTowerLoss


def test_a_configuration_takes_the_losses_that_are_registered() -> None:
    kinds = [one().kind for one in get_args(get_args(TwoTowerLoss)[0])]
    assert kinds == list(LOSSES)
    for kind in LOSSES:
        loss = TwoTowerTrainingConfig.model_validate({"loss": kind}).loss
        assert loss.kind == kind
        assert loss.whole_catalogue == (kind == "full_softmax")
