"""Weights of a model as safetensors bytes, the shared table beside the dense parameters."""

import hashlib

import torch
from safetensors.torch import load, save
from torch import Tensor

from recsys.batch import FeatureLayout
from recsys.embeddings.plan import EmbeddingPlan
from recsys.embeddings.table import TableConfig
from recsys.embeddings.torch_table import TorchTable
from recsys.embeddings.unified import UnifiedEmbedding
from recsys.errors import IntegrityError
from recsys.models.two_tower import TwoTower, TwoTowerConfig

_TABLE = "table.weight"


def save_two_tower(model: TwoTower) -> bytes:
    """Return the weights, the table as a plain (num_rows, dim) tensor among them."""
    tensors = {name: tensor.cpu().contiguous() for name, tensor in model.state_dict().items()}
    tensors[_TABLE] = model.embedding.table.weight.detach().cpu().contiguous()
    return save(tensors)


def load_two_tower(
    weights: bytes,
    config: TwoTowerConfig,
    table: TableConfig,
    layouts: tuple[FeatureLayout, FeatureLayout],
) -> TwoTower:
    """Return the model in evaluation mode on plain tensors; `layouts` are items and query.

    Raises:
        IntegrityError: the weights are not those of such a model.
    """
    tensors = load(weights)
    plan = EmbeddingPlan.of(table, layouts)
    plain = TorchTable(table, torch.device("cpu"))
    model = TwoTower(config, UnifiedEmbedding(plan, plain))
    try:
        plain.weight.copy_(tensors.pop(_TABLE))
        model.load_state_dict(tensors)
    except (KeyError, RuntimeError) as error:
        raise IntegrityError(f"the weights do not fit the configuration: {error}") from None
    return model.eval()


def space_id(model: TwoTower) -> str:
    """Return a hash of all that shapes an item's vector: tower, table, features, normalisation."""
    digest = hashlib.sha256(repr(model.embedding.plan.layouts[0]).encode())
    digest.update(b"unit-length")
    parts: list[Tensor] = [*model.candidate.state_dict().values(), model.embedding.table.weight]
    for tensor in parts:
        digest.update(repr(tuple(tensor.shape)).encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:32]
