"""Parameter groups: the fused table steps by itself, AdamW takes every dense parameter once."""

import inspect
import math
from typing import Any

import torch
from torch import nn
from torch.optim.optimizer import Optimizer

from recsys.training.config.sections import Schedule


class EagerAdamW(torch.optim.AdamW):
    """torch's AdamW without the wrappers for `torch.compile`, which nothing here uses.

    The first call through those wrappers imports the compiler: a second of CPU time and 70 MiB.
    """

    add_param_group = inspect.unwrap(Optimizer.add_param_group)
    zero_grad = inspect.unwrap(Optimizer.zero_grad)
    state_dict = inspect.unwrap(Optimizer.state_dict)
    load_state_dict = inspect.unwrap(Optimizer.load_state_dict)
    _stepped = staticmethod(inspect.unwrap(torch.optim.AdamW.step))

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Update every parameter that has a gradient."""
        return self._stepped(self, closure)


def build_optimizer(
    model: nn.Module, *, learning_rate: float, weight_decay: float
) -> torch.optim.AdamW:
    """Return AdamW over all trainable parameters; vectors and scalars are not decayed.

    Raises:
        AssertionError: a parameter is in no group or in two.
    """
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    decayed = [parameter for parameter in trainable if parameter.ndim >= 2]
    plain = [parameter for parameter in trainable if parameter.ndim < 2]
    optimizer = EagerAdamW(
        [
            {"params": decayed, "weight_decay": weight_decay},
            {"params": plain, "weight_decay": 0.0},
        ],
        lr=learning_rate,
        fused=True,
    )
    grouped = [id(parameter) for group in optimizer.param_groups for parameter in group["params"]]
    assert sorted(grouped) == sorted({id(p) for p in trainable}), "every parameter in one group"
    return optimizer


def warm_up(step: int, warmup_steps: int) -> float:
    """Return the factor on the learning rate at `step` (from 0): linear, then 1."""
    return min(1.0, (step + 1) / warmup_steps) if warmup_steps else 1.0


def decay(schedule: Schedule, step: int, num_steps: int) -> float:
    """Return the factor on both learning rates at `step` (from 0) of `num_steps`.

    cosine: (1 + cos(pi step / num_steps)) / 2 (Loshchilov and Hutter, "SGDR", ICLR 2017,
    equation 5, without restarts); linear: 1 - step / num_steps. Both end just above 0.
    """
    done = step / num_steps
    if schedule == "cosine":
        return (1 + math.cos(math.pi * done)) / 2
    return 1 - done if schedule == "linear" else 1.0
