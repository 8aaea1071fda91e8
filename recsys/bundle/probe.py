"""The probe of a ranker: some encoded rows with the logits that were computed of them.

It is in the bundle and is replayed wherever the model is opened or exported, so an installation
that computes something else is detected before it answers.
"""

import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from recsys.core.errors import IntegrityError
from recsys.data.batch import FeatureBlock, Jagged

PROBE_ROWS = 16
PROBE_TOLERANCE = 1e-4
"""How far off a replayed logit may be."""


@torch.no_grad()
def write_probe(model: nn.Module, features: FeatureBlock) -> bytes:
    """Return the probe of `model`, in evaluation mode, on the rows of `features`."""
    was_training = model.training
    logits: Tensor = model.eval()(features.to(next(model.parameters()).device))
    model.train(was_training)
    tensors = {"single": features.single, "dense": features.dense, "logit": logits.float()}
    for number, jagged in enumerate(features.multi):
        tensors[f"multi.{number}.values"] = jagged.values
        tensors[f"multi.{number}.offsets"] = jagged.offsets
        if jagged.weights is not None:
            tensors[f"multi.{number}.weights"] = jagged.weights
    # Features may share offsets, which the format does not.
    return save({name: tensor.cpu().contiguous().clone() for name, tensor in tensors.items()})


def read_probe(probe: bytes) -> tuple[FeatureBlock, Tensor]:
    """Return the rows and their logits (B,) or (B, T) float32."""
    tensors = load(probe)
    numbers = range(sum(name.endswith(".values") for name in tensors))
    multi = tuple(
        Jagged(
            tensors[f"multi.{number}.values"],
            tensors[f"multi.{number}.offsets"],
            tensors.get(f"multi.{number}.weights"),
        )
        for number in numbers
    )
    return FeatureBlock(tensors["single"], multi, tensors["dense"]), tensors["logit"]


def check_replay(got: Tensor, expected: Tensor, who: str) -> float:
    """Return the largest difference of replayed logits, (B,) or (B, T); `who` computed them.

    Raises:
        IntegrityError: one is further off than `PROBE_TOLERANCE`, or is not a number.
    """
    off = (got - expected).abs().flatten()
    worst = int(off.argmax())  # a NaN is the largest of all
    if not off[worst] <= PROBE_TOLERANCE:
        row = worst * len(got) // len(off)
        raise IntegrityError(
            f"{who}: row {row + 1} of the probe has logit {float(got.flatten()[worst]):.6f}, "
            f"{float(expected.flatten()[worst]):.6f} was recorded: this installation computes "
            "other logits than the one that trained the model"
        )
    return float(off[worst])
