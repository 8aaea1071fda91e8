"""Rows of the shared table: frozen values, independence of features, even spread."""

import numpy as np
import torch

from recsys.embeddings.hashing import mix, salt_of, salts_of, table_rows
from recsys.features.encoding.hashing import splitmix64


def test_rows_are_frozen() -> None:
    values = torch.tensor([0, 1, -1, 2**62, -(2**63)])
    assert salt_of("brand", 0) == 6389484613195063814
    rows = table_rows(values.unsqueeze(1), salts_of("brand", 2), 1_000_003)
    assert rows.tolist() == [
        [270817, 84010],
        [29803, 195925],
        [215517, 223280],
        [691952, 161128],
        [596159, 759431],
    ]


def test_mix_is_splitmix64_without_its_counter() -> None:
    values = torch.randint(-(2**62), 2**62, (1000,))
    counter = np.uint64(0x9E3779B97F4A7C15)
    expected = splitmix64(values.numpy().view(np.uint64) - counter).view(np.int64)
    assert mix(values).tolist() == expected.tolist()


def test_rows_stay_in_the_table_and_spread_evenly() -> None:
    values = torch.arange(200_000)
    rows = table_rows(values, torch.tensor(salt_of("item", 0)), 97)
    assert 0 <= int(rows.min()) <= int(rows.max()) < 97
    expected = 200_000 / 97
    chi_square = float(((torch.bincount(rows, minlength=97) - expected) ** 2 / expected).sum())
    assert chi_square < 160  # 96 degrees of freedom: beyond 160 with probability 4e-5


def test_lookups_and_features_collide_independently() -> None:
    """Two values that share a row in one lookup share one in another only by chance."""
    values = torch.arange(3000)
    first, second = table_rows(values.unsqueeze(1), salts_of("item", 2), 64).unbind(1)
    other = table_rows(values, torch.tensor(salt_of("user", 0)), 64)
    for rows in (second, other):
        together = (first.unsqueeze(0) == first.unsqueeze(1)) & (
            rows.unsqueeze(0) == rows.unsqueeze(1)
        )
        share = float((together.sum() - 3000) / (3000 * 2999))
        assert abs(share - 1 / 64**2) < 2e-5


def test_the_largest_table_reaches_its_last_rows() -> None:
    rows = table_rows(torch.arange(100_000), torch.tensor(3), 2**31)
    assert int(rows.max()) > 0.999 * 2**31
    assert int(rows.min()) >= 0
