"""Weights of a model as safetensors bytes, the shared table and the dense parameters."""

import hashlib

import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from recsys.core.errors import IntegrityError
from recsys.data.batch import FeatureLayout
from recsys.embeddings.plan import EmbeddingPlan
from recsys.embeddings.table import Table, TableConfig
from recsys.embeddings.torch_table import TorchTable
from recsys.embeddings.unified import UnifiedEmbedding
from recsys.models.rankers import RankerConfig, build_ranker
from recsys.models.retrieval import RetrievalModel, build_retrieval
from recsys.models.retrieval_kinds import RetrievalConfig

_TABLE = "table.weight"
_FRAME = "frame"
"""Of a session model that was rotated."""


def save_weights(model: nn.Module) -> bytes:
    """Return the weights, the table as a plain (num_rows, dim) tensor among them."""
    embedding = model.embedding
    assert isinstance(embedding, UnifiedEmbedding)
    tensors = {name: tensor.cpu().contiguous() for name, tensor in model.state_dict().items()}
    tensors[_TABLE] = embedding.table.weight.detach().cpu().contiguous()
    return save(tensors)


def load_tensors(weights: bytes) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the table (num_rows, dim), and the dense weights by name, of what was saved.

    Raises:
        IntegrityError: there is no table among them.
    """
    tensors = load(weights)
    if _TABLE not in tensors:
        raise IntegrityError(f"the weights do not fit the configuration: no '{_TABLE}'")
    return tensors.pop(_TABLE), tensors


def save_optimizer_state(table: Table) -> bytes:
    """Return the state of the table's optimizer, for a training that continues from here."""
    return save({name: tensor.cpu().contiguous() for name, tensor in table.state.items()})


def load_retrieval(
    weights: bytes,
    config: RetrievalConfig,
    table: TableConfig,
    layouts: tuple[FeatureLayout, ...],
) -> RetrievalModel:
    """Return the model in evaluation mode on plain tensors; `layouts` are its sides.

    Raises:
        IntegrityError: the weights are not those of such a model.
    """
    embedding = UnifiedEmbedding(
        EmbeddingPlan.of(table, layouts), TorchTable(table, torch.device("cpu"))
    )
    model = build_retrieval(config, embedding)
    _fill(model, embedding, weights)
    return model


def load_ranker(
    weights: bytes,
    config: RankerConfig,
    table: TableConfig,
    layout: FeatureLayout,
    outcomes: int = 1,
) -> nn.Module:
    """Return the model in evaluation mode on plain tensors; outcomes: how many it predicts.

    Raises:
        IntegrityError: the weights are not those of such a model.
    """
    plan = EmbeddingPlan.of(table, (layout,))
    embedding = UnifiedEmbedding(plan, TorchTable(table, torch.device("cpu")))
    model = build_ranker(config, embedding, outcomes)
    _fill(model, embedding, weights)
    return model


def _fill(model: nn.Module, embedding: UnifiedEmbedding, weights: bytes) -> None:
    table, tensors = load_tensors(weights)
    try:
        if table.shape != embedding.table.weight.shape:
            raise RuntimeError(f"a table of {tuple(table.shape)}")
        embedding.table.weight.copy_(table)
        if _FRAME in tensors and hasattr(model, _FRAME):
            model.frame = torch.empty_like(tensors[_FRAME])
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise IntegrityError(f"the weights do not fit the configuration: {error}") from None
    model.eval()


def space_id(model: RetrievalModel) -> str:
    """Return a hash of all that shapes an item's vector: tower, table, features, normalisation."""
    digest = hashlib.sha256(repr(model.embedding.plan.layouts[0]).encode())
    geometry = model.config.geometry
    digest.update(b"unit-length" if geometry == "sphere" else geometry.encode())
    parts: list[Tensor] = [*model.candidate.state_dict().values(), model.embedding.table.weight]
    described, more = model.item_space()
    digest.update(described)
    for tensor in [*parts, *more]:
        digest.update(repr(tuple(tensor.shape)).encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:32]
