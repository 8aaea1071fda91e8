"""From a value of a feature to rows of a table, and from what they hold to the value's vector.

Shape letters: T values, L rows read for each, D width of a row, C vectors of D that come out.
"""

from dataclasses import dataclass
from math import isqrt
from typing import Protocol

import torch
from embedding_methods.vocabulary import Vocabulary
from torch import Tensor

from recsys.embeddings.hashing import salts_of, table_rows


class Lookup(Protocol):
    """How one feature reads the table."""

    @property
    def num_vectors(self) -> int:
        """How many vectors as wide as a row make up the vector of a value (C)."""

    def rows(self, values: Tensor) -> Tensor:
        """Return which rows the value hashes (T,) int64 read, (T, L) int64."""

    def compose(self, read_TLD: Tensor, values: Tensor) -> Tensor:
        """Return the values' vectors, (T, C * D), from the rows that they read."""


@dataclass(frozen=True)
class Hashed:
    """Concatenated: `num_vectors` hashes into the `num_rows` rows from `first` on.

    Rows of the feature's own make it the hashing trick (Weinberger et al., "Feature Hashing for
    Large Scale Multitask Learning", ICML 2009, without the sign) or, with several hashes, double
    hashing (Zhang et al., "Model Size Reduction Using Frequency Based Double Hashing", RecSys
    2020); Tito Svenstrup et al., "Hash Embeddings", NeurIPS 2017, weigh and add the vectors of
    several hashes instead. Rows of the whole table make it the unified embedding.
    """

    feature: str
    first: int
    num_rows: int
    num_vectors: int

    def rows(self, values: Tensor) -> Tensor:
        """Return (T, C) int64."""
        salts = salts_of(self.feature, self.num_vectors).to(values.device)
        return table_rows(values.unsqueeze(1), salts, self.num_rows) + self.first

    def compose(self, read_TLD: Tensor, values: Tensor) -> Tensor:
        """Return (T, C * D)."""
        return read_TLD.flatten(1)


@dataclass(frozen=True)
class Enumerated:
    """A row for each value of the vocabulary and one for all others, from row `first` on."""

    vocabulary: Vocabulary
    first: int
    num_vectors: int = 1

    def rows(self, values: Tensor) -> Tensor:
        """Return (T, 1) int64."""
        return (self.vocabulary.numbers(values) + self.first).unsqueeze(1)

    def compose(self, read_TLD: Tensor, values: Tensor) -> Tensor:
        """Return (T, D)."""
        return read_TLD.flatten(1)


@dataclass(frozen=True)
class QuotientRemainder:
    """Element-wise product of a row for a value's number mod R and one for its number div R.

    Shi et al., "Compositional Embeddings Using Complementary Partitions for Memory-Efficient
    Recommendation Systems", KDD 2020, section 2 (https://arxiv.org/abs/1909.02107). No two values
    share both rows, unless there are fewer pairs of rows than values: then the quotients wrap.

    The first `num_remainders` (R) of the `num_rows` rows from `first` on are the remainders'.
    """

    vocabulary: Vocabulary
    first: int
    num_rows: int
    num_remainders: int
    num_vectors: int = 1

    def rows(self, values: Tensor) -> Tensor:
        """Return (T, 2) int64: remainder's, quotient's."""
        numbers = self.vocabulary.numbers(values)
        quotients = numbers // self.num_remainders % (self.num_rows - self.num_remainders)
        pair = [numbers % self.num_remainders, quotients + self.num_remainders]
        return torch.stack(pair, dim=1) + self.first

    def compose(self, read_TLD: Tensor, values: Tensor) -> Tensor:
        """Return (T, D)."""
        return read_TLD[:, 0] * read_TLD[:, 1]


@dataclass(frozen=True)
class Product:
    """Element-wise product of two hashed rows among the `num_rows` from `first` on.

    What quotient and remainder become without a vocabulary: of a hash in 0..R^2 - 1 they are two
    independent numbers in 0..R - 1, so that two values meet in both with 1 / R^2. Rows of the whole
    table make it multiplexed (Coleman et al. 2023, section 3).
    """

    feature: str
    first: int
    num_rows: int
    num_vectors: int = 1

    def rows(self, values: Tensor) -> Tensor:
        """Return (T, 2) int64."""
        salts = salts_of(self.feature, 2).to(values.device)
        return table_rows(values.unsqueeze(1), salts, self.num_rows) + self.first

    def compose(self, read_TLD: Tensor, values: Tensor) -> Tensor:
        """Return (T, D)."""
        return read_TLD[:, 0] * read_TLD[:, 1]


def split_number(count: int, num_rows: int) -> int:
    """Return the most remainders R with R + ceil(count / R) <= num_rows, at least 2 rows.

    Where there is none, half of the rows: the most pairs.
    """
    for remainders in range(min(num_rows - 1, count), 0, -1):
        if remainders + -(-count // remainders) <= num_rows:
            return remainders
    return num_rows // 2


def rows_to_split(count: int) -> int:
    """Return the fewest rows that `split_number` tells `count` values apart with."""
    return min(r + -(-count // r) for r in range(1, isqrt(count) + 2))


@dataclass(frozen=True)
class Chunked:
    """`num_vectors` chunks of `dim` consecutive floats at hashed places of `num_rows` rows.

    ROBE-Z of Desai et al., "Random Offset Block Embedding Array (ROBE) for CriteoTB Benchmark
    MLPerf DLRM Model", MLSys 2022 (https://arxiv.org/abs/2108.02191), Z = `dim`, without its sign
    hash: the rows from `first` on are one circular array, and a chunk may begin at any float of
    it. It lies in two neighbouring rows, which are both read; what is read of them and not used
    has no gradient.
    """

    feature: str
    first: int
    num_rows: int
    dim: int
    num_vectors: int

    def rows(self, values: Tensor) -> Tensor:
        """Return (T, 2 * C) int64: each chunk's two rows beside each other."""
        first_TC = self._places(values) // self.dim
        pairs = torch.stack([first_TC, (first_TC + 1) % self.num_rows], dim=2)
        return pairs.flatten(1) + self.first

    def compose(self, read_TLD: Tensor, values: Tensor) -> Tensor:
        """Return (T, C * D)."""
        pairs = read_TLD.reshape(len(values), self.num_vectors, 2 * self.dim)
        shift_TC1 = (self._places(values) % self.dim).unsqueeze(2)
        where_TCD = shift_TC1 + torch.arange(self.dim, device=values.device)
        return pairs.gather(2, where_TCD).flatten(1)

    def _places(self, values: Tensor) -> Tensor:
        """Return the number of each chunk's first float, (T, C) int64."""
        salts = salts_of(self.feature, self.num_vectors).to(values.device)
        return table_rows(values.unsqueeze(1), salts, self.num_rows * self.dim)
