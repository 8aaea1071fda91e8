"""Smoothing of item vectors over the interactions: items with the same users come nearer.

The linear propagation of LightGCN (He et al., SIGIR 2020, https://arxiv.org/abs/2002.02126, section
3.1: no weights and no nonlinearity between layers), on the items' side of the graph alone: a query
has its own hop in the pooling of its history. With R (users x items) of ones where a user
interacted with an item, S = D_users^-1/2 R D_items^-1/2, items x and users u as their towers give
them, one round is

    x  ->  x_0 + weight * S^T (u + S x)

so an item without interactions stays as its features have it. Two sparse products a round; S^T S is
never made.

Shape letters: N items of the catalogue, M users, E width.
"""

import warnings
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor, nn

from recsys.data.batch import FeatureBlock


class ItemSmoothing(nn.Module):
    """S and its transpose as sparse tensors; no weights, and nothing to save."""

    def __init__(
        self,
        user_row: NDArray[np.integer[Any]],
        item_row: NDArray[np.integer[Any]],
        users: FeatureBlock,
        num_items: int,
        *,
        rounds: int,
        weight: float,
    ) -> None:
        """Build S from training rows (T,), a pair once however often it occurs.

        users: M rows of the query's features, context masked.
        """
        shape = (len(users), num_items)
        user_matrix = sparse.csr_array((np.ones(len(user_row)), (user_row, item_row)), shape=shape)
        user_matrix.sum_duplicates()
        user_matrix.data[:] = 1.0
        of_user, of_item = (
            sparse.diags_array(np.maximum(np.asarray(user_matrix.sum(axis)), 1.0) ** -0.5)
            for axis in (1, 0)
        )
        super().__init__()
        normalised = (of_user @ user_matrix @ of_item).tocsr()
        self.users, self.rounds, self.weight = users, rounds, weight
        self.register_buffer("to_users", _tensor(normalised), persistent=False)
        self.register_buffer("to_items", _tensor(normalised.T.tocsr()), persistent=False)

    def forward(self, items_NE: Tensor, users_ME: Tensor) -> Tensor:
        """Return the vectors (N, E) float32 of the whole catalogue after all rounds."""
        smoothed_NE = items_NE.float()
        for _ in range(self.rounds):
            of_users_ME = self._product(smoothed_NE, "to_users", "to_items") + users_ME
            of_items_NE = self._product(of_users_ME, "to_items", "to_users")
            smoothed_NE = items_NE + self.weight * of_items_NE
        return smoothed_NE

    def _product(self, vectors: Tensor, matrix: str, transposed: str) -> Tensor:
        product: Tensor = _Product.apply(  # type: ignore[no-untyped-call]
            vectors, self.get_buffer(matrix), self.get_buffer(transposed)
        )
        return product


class _Product(torch.autograd.Function):
    """A sparse matrix times dense vectors; the gradient takes the transpose, which is stored."""

    @staticmethod
    def forward(ctx: Any, vectors: Tensor, matrix: Tensor, transposed: Tensor) -> Any:
        ctx.transposed = transposed
        return _times(matrix, vectors)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return _times(ctx.transposed, grads[0]), None, None


def _times(matrix: Tensor, vectors: Tensor) -> Tensor:
    """Return the product in float32: sparse kernels know no other type."""
    with torch.autocast(vectors.device.type, enabled=False):
        return matrix @ vectors.float().contiguous()


def _tensor(matrix: sparse.csr_array[Any]) -> Tensor:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
        return torch.sparse_csr_tensor(
            torch.from_numpy(matrix.indptr.astype(np.int64)),
            torch.from_numpy(matrix.indices.astype(np.int64)),
            torch.from_numpy(matrix.data.astype(np.float32)),
            size=matrix.shape,
            check_invariants=True,
        )
