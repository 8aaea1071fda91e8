"""How a model of sessions is trained, beside what all retrieval shares."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from recsys.core.strict import StrictModel
from recsys.data.feature_options import Name
from recsys.training.config.session_self_supervision import SessionSelfSupervision

Share = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]


class AttributeTask(StrictModel):
    """Say the next item's values of an item feature: its category, its brand."""

    feature: Name
    weight: Positive = 0.5
    """Beside the next item's 1; where weights are learnt, what they start from."""


class SessionTraining(StrictModel):
    """Which steps ask, what they are asked against, and what is asked besides."""

    windows: Literal["slide", "last"] = "slide"
    """Of a session longer than `model.history_length`: `slide` trains on all of it, a window at a
    time; `last` on its end alone."""
    positions: Literal["all", "last", "random_prefix"] = "all"
    """Which steps of a window ask for the next item: all, the last one, or the last one of a
    beginning of random length."""
    batch_negatives: bool = True
    """Whether the items that a batch asks for are candidates of a sampled loss."""
    frequent_negatives: Annotated[int, Field(ge=0)] = 0
    """Candidates a batch of a sampled loss that are drawn as often as the log has them, beside
    `training.uniform_negatives`."""
    step_dropout: Share = 0.0
    """Share of steps left out of what the model reads."""
    event_dropout: Share = 0.1
    """Share of steps that lose their event features and time, so that requests without have a
    trained answer."""
    attributes: tuple[AttributeTask, ...] = ()
    """What is asked of the next item besides itself."""
    learn_task_weights: bool = False
    """Weigh the tasks by how uncertain their answers are, learnt along."""
    self_supervision: SessionSelfSupervision = SessionSelfSupervision()
    """What is asked of sessions seen otherwise: hidden in part, cropped, reordered."""

    @model_validator(mode="after")
    def _each_once(self) -> "SessionTraining":
        names = [task.feature for task in self.attributes]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"attributes: two tasks ask for '{name}'")
        return self
