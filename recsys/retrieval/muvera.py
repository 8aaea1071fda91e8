"""Several query vectors as one: fixed dimensional encodings, for an index that takes one vector.

Dhulipala et al., "MUVERA: Multi-Vector Retrieval via Fixed Dimensional Encodings", NeurIPS 2024,
https://arxiv.org/abs/2405.19504, section 2. There a query's token vectors each look for their best
match among a document's; here an *item* is the one vector that looks for its best match among a
user's interests, so items take the part of the paper's queries and users that of its documents:

    similarity = max over interests i of <q_i, c>  ~  <encoding of the user, encoding of the item>

Space is cut into 2^bits cells by random hyperplanes, `repetitions` times. An item's vector is
in its cell, zeros elsewhere. A user's block of a cell is the mean of the interests in it; of an
empty cell it is the interest whose own cell differs in the fewest hyperplanes. So an item meets an
interest near it, if not always the nearest.

Shape letters: N items, B queries, I interests, E width, R repetitions, K cells, W = R K E width of
an encoding.
"""

import torch
from torch import Tensor


class FixedDimensionalEncoding:
    """Encodings of width R * 2^bits * dim, a function of the seed."""

    def __init__(
        self,
        dim: int,
        *,
        bits: int = 3,
        repetitions: int = 8,
        seed: int = 0,
        cell_dim: int | None = None,
    ) -> None:
        """Draw the hyperplanes; of a vector the first `cell_dim` numbers decide its cell, or all.

        Raises:
            ValueError: bits outside 0..10, or no repetition.
        """
        if not 0 <= bits <= 10 or repetitions < 1:
            raise ValueError(f"bits in 0..10 and a repetition or more, got {bits}, {repetitions}")
        self.dim, self.bits, self.repetitions = dim, bits, repetitions
        generator = torch.Generator().manual_seed(seed)
        self.planes = torch.randn(repetitions, dim, bits, generator=generator)
        self.planes[:, dim if cell_dim is None else cell_dim :] = 0.0

    @classmethod
    def of_planes(cls, planes: Tensor) -> "FixedDimensionalEncoding":
        """Return the encoding whose `planes` (R, E, bits) these are."""
        repetitions, dim, bits = planes.shape
        encoding = cls(dim, bits=bits, repetitions=repetitions)
        encoding.planes = planes
        return encoding

    @property
    def num_cells(self) -> int:
        """K."""
        return 2**self.bits

    @property
    def width(self) -> int:
        """W."""
        return self.repetitions * self.num_cells * self.dim

    def items(self, vectors_NE: Tensor) -> Tensor:
        """Return the encodings of items, (N, W) float32."""
        count, cells_NR = len(vectors_NE), self._cells(vectors_NE)
        encoded = vectors_NE.new_zeros(count, self.repetitions, self.num_cells, self.dim)
        row_N1 = torch.arange(count, device=vectors_NE.device).unsqueeze(1)
        repetition_1R = torch.arange(self.repetitions, device=vectors_NE.device).unsqueeze(0)
        encoded[row_N1, repetition_1R, cells_NR] = vectors_NE.unsqueeze(1)
        return encoded.flatten(1)

    def queries(self, vectors_BIE: Tensor) -> Tensor:
        """Return the encodings of queries with I interests each, (B, W) float32.

        Scaled by 1 / R, so that products estimate the similarity itself.
        """
        num_queries, interests, _ = vectors_BIE.shape
        cells_BIR = self._cells(vectors_BIE.flatten(0, 1)).view(num_queries, interests, -1)
        cell_K = torch.arange(self.num_cells, device=vectors_BIE.device)
        differing_BIRK = _ones(cells_BIR.unsqueeze(-1) ^ cell_K, self.bits)
        # The nearest interests of each cell: those inside it, else the first of the nearest ones.
        nearest_BIRK = differing_BIRK == differing_BIRK.amin(1, keepdim=True)
        inside_BIRK = differing_BIRK == 0
        first_BIRK = nearest_BIRK & (nearest_BIRK.cumsum(1) == 1)
        chosen = torch.where(inside_BIRK.any(1, keepdim=True), inside_BIRK, first_BIRK).float()
        share = chosen / chosen.sum(1, keepdim=True)
        blocks = torch.einsum("birk,bie->brke", share, vectors_BIE.float())
        return blocks.flatten(1) / self.repetitions

    def _cells(self, vectors_NE: Tensor) -> Tensor:
        """Return in which cell of each repetition a vector is, (N, R) int64."""
        planes = self.planes.to(vectors_NE.device)
        side = torch.einsum("ne,reb->nrb", vectors_NE.float(), planes) > 0
        place = 2 ** torch.arange(self.bits, device=vectors_NE.device)
        return (side * place).sum(-1)


def _ones(numbers: Tensor, bits: int) -> Tensor:
    """Return how many of the lowest `bits` bits are set."""
    return sum(((numbers >> bit) & 1 for bit in range(bits)), torch.zeros_like(numbers))
