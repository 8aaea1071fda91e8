"""AdamW without torch's compiler: the same steps, and the compiler stays out."""

import subprocess
import sys

import torch
from torch import nn

from recsys.training.engine.optim import build_optimizer


def stepped(optimizer: torch.optim.Optimizer, model: nn.Module, steps: int) -> None:
    for step in range(steps):
        optimizer.zero_grad(set_to_none=True)
        inputs = torch.linspace(-1, 1, 12).reshape(4, 3) * (step + 1)
        model(inputs).square().sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()


def test_it_steps_as_torchs_own_does_also_after_it_was_saved_and_loaded() -> None:
    torch.manual_seed(0)
    ours = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 1))
    theirs = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 1))
    theirs.load_state_dict(ours.state_dict())
    matrices = [one for one in theirs.parameters() if one.ndim > 1]
    vectors = [one for one in theirs.parameters() if one.ndim == 1]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    expected = torch.optim.AdamW(groups, lr=0.01, fused=True)
    optimizer = build_optimizer(ours, learning_rate=0.01, weight_decay=0.1)
    stepped(optimizer, ours, 3)
    resumed = build_optimizer(ours, learning_rate=0.01, weight_decay=0.1)
    resumed.load_state_dict(optimizer.state_dict())
    stepped(resumed, ours, 3)
    stepped(expected, theirs, 3)
    stepped(expected, theirs, 3)
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_step_imports_no_compiler() -> None:
    code = (
        "import sys, torch; from torch import nn;"
        "from recsys.training.engine.optim import build_optimizer;"
        "model = nn.Linear(2, 2);"
        "optimizer = build_optimizer(model, learning_rate=0.1, weight_decay=0.0);"
        "optimizer.zero_grad(); model(torch.ones(1, 2)).sum().backward(); optimizer.step();"
        "optimizer.load_state_dict(optimizer.state_dict());"
        "sys.exit(', '.join(sorted({'torch._dynamo', 'sympy'} & set(sys.modules))) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
