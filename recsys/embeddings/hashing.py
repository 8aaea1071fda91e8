"""From a 64-bit value hash to a row of the shared table: salt, mix, reduce.

Each lookup of each feature has its own salt, derived from the feature's *name* and the
lookup's number, so adding, removing or reordering features leaves the rows of the others
where they were. All arithmetic is modulo 2^64 on int64 tensors, equal on every device.

The mix is the finaliser of splitmix64 (Steele, Lea, Flood, OOPSLA 2014); the reduction is
Lemire's multiply-shift ("Fast random integer generation in an interval", 2019) on the upper
32 bits, so a table has at most 2^31 rows.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache

from recsys.core.imports import on_first_use

with on_first_use():
    import torch
    from torch import Tensor

MAX_ROWS = 2**31
FIRST_FACTOR, SECOND_FACTOR = -0x40A7B892E31B1A47, -0x6B2FB644ECCEEE15
"""0xBF58476D1CE4E5B9 and 0x94D049BB133111EB as signed numbers."""


def salt_of(feature: str, lookup: int) -> int:
    """Return the salt of lookup number `lookup` of `feature`, a signed 64-bit number."""
    digest = hashlib.blake2b(f"{feature}\0{lookup}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def mix(values: Tensor) -> Tensor:
    """Return the splitmix64 finaliser of `values` int64, same shape: a bijection of 64 bits."""
    return _mix_(values.clone())


def table_rows(values: Tensor, salts: Tensor, num_rows: int | Tensor) -> Tensor:
    """Return rows in [0, num_rows) int64 of value hashes under salts; the three broadcast."""
    mixed = _mix_(values ^ salts)
    mixed >>= 32
    mixed &= 0xFFFFFFFF
    mixed *= num_rows
    mixed >>= 32
    return mixed


def _mix_(values: Tensor) -> Tensor:
    """Mix in place: a step of training goes through here, and new tensors cost more than sums."""
    values ^= _shift(values, 30)
    values *= FIRST_FACTOR
    values ^= _shift(values, 27)
    values *= SECOND_FACTOR
    values ^= _shift(values, 31)
    return values


def _shift(values: Tensor, bits: int) -> Tensor:
    """Logical shift to the right; torch shifts int64 arithmetically."""
    shifted = values >> bits
    shifted &= (1 << (64 - bits)) - 1
    return shifted


@lru_cache(maxsize=4096)
def salts_of(feature: str, multiplicity: int) -> Tensor:
    """Return the salts of all lookups of `feature`, (multiplicity,) int64; not to be changed."""
    return torch.tensor([salt_of(feature, lookup) for lookup in range(multiplicity)])
