"""Weights of one model for another that has one more."""

import pytest
import torch

from recsys.bundle.transfer import transferred
from recsys.core.errors import ConfigError
from recsys.data.batch import FeatureLayout
from recsys.embeddings.plan import EmbeddingPlan
from recsys.models.registry import LEARNED

PLAN = EmbeddingPlan(num_rows=8, dim=2, layouts=(FeatureLayout((("item", 1),), (), ()),))


def test_a_weight_that_changes_nothing_at_first_may_begin() -> None:
    may_begin = LEARNED["session"].may_begin
    like = {"start": torch.zeros(3), "repeat.weight": torch.zeros(1, 3)}
    before = {"start": torch.tensor([1.0, 2.0, 3.0])}
    found = transferred(PLAN, PLAN, {}, before, like, may_begin)
    assert found["start"].tolist() == [1, 2, 3]
    assert found["repeat.weight"].tolist() == [[0, 0, 0]]
    learnt = {**before, "repeat.weight": torch.ones(1, 3)}
    found = transferred(PLAN, PLAN, {}, learnt, like, may_begin)
    assert found["repeat.weight"].tolist() == [[1, 1, 1]]
    with pytest.raises(ConfigError, match=r"'repeat.weight' is \(0,\), this one's \(1, 3\)"):
        transferred(PLAN, PLAN, {}, before, like)
    with pytest.raises(ConfigError, match=r"'start' is \(0,\)"):
        transferred(PLAN, PLAN, {}, {}, like, may_begin)
