"""The sizes of a ranker: what a log of so many rows and values is given."""

import pytest

from recsys.features.propose.sizes import RankerSizes, ranker_sizes


def test_a_log_of_measured_size_has_what_was_measured_on_it() -> None:
    found = ranker_sizes(288_609, 5_382)
    assert found == RankerSizes((400, 400), 0.1, 4096, 0.03, 262_144)


@pytest.mark.parametrize(
    ("rows", "batch", "decay"),
    [
        (0, 256, 0.1),
        (1_000, 256, 0.1),
        (40_000, 512, 0.1),  # 10,000 / 40,000 is above the most
        (163_840, 4096, 0.06),
        (1_000_000, 4096, 0.01),
        (45_000_000, 4096, 0.0002),
        (10**12, 4096, 1e-5),
    ],
)
def test_batches_grow_and_decay_falls_with_the_rows(rows: int, batch: int, decay: float) -> None:
    found = ranker_sizes(rows, 100)
    assert (found.batch_size, found.weight_decay) == (batch, pytest.approx(decay))


@pytest.mark.parametrize(
    ("values", "table"),
    [
        (0, 4096),
        (128, 4096),  # 32 rows a value, no more
        (129, 8192),
        (32_768, 1 << 20),
        (500_000, 1 << 20),  # values share rows
        ((1 << 20) + 1, 1 << 21),
        (10**9, 1 << 24),
    ],
)
def test_a_table_has_rows_for_its_values_and_an_end(values: int, table: int) -> None:
    assert ranker_sizes(100_000, values).num_rows == table


def test_few_rows_have_small_layers() -> None:
    assert ranker_sizes(49_999, 10).hidden == (128, 64)
    assert ranker_sizes(50_000, 10).hidden == (400, 400)
