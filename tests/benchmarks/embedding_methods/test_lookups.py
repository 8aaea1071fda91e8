"""From values to rows: numbers, shares of rows, quotients and remainders, by definition."""

import pytest
import torch
from embedding_methods.lookups import Product, QuotientRemainder, rows_to_split, split_number
from embedding_methods.vocabulary import Vocabulary, share_rows


def test_a_vocabulary_of_nothing_has_one_number() -> None:
    empty = Vocabulary.fit(torch.zeros(0, dtype=torch.int64))
    assert len(empty) == 1
    assert empty.numbers(torch.tensor([3, 4])).tolist() == [0, 0]


def test_rows_are_shared_out_by_what_is_wanted_beyond_the_least() -> None:
    ones = {"a": 1, "b": 1, "c": 1}
    found = share_rows({"a": 1, "b": 11, "c": 31}, ones, 23)  # 20 to share; 10 and 30 wanted
    assert found == {"a": (0, 1), "b": (1, 6), "c": (7, 16)}
    assert share_rows({"a": 7, "b": 2}, {"a": 2, "b": 2}, 9) == {"a": (0, 7), "b": (7, 2)}
    with pytest.raises(ValueError, match="2 tables need at least 4 rows, there are 3"):
        share_rows({"a": 7, "b": 2}, {"a": 2, "b": 2}, 3)


def test_quotient_and_remainder_multiply() -> None:
    values = torch.tensor([50, 10, 40, 30, 20, 99])  # numbers 4 0 3 2 1 5
    lookup = QuotientRemainder(Vocabulary.fit(values[:5]), first=10, num_rows=5, num_remainders=2)
    pairs = [[10, 14], [10, 12], [11, 13], [10, 13], [11, 12], [11, 14]]
    assert lookup.rows(values).tolist() == pairs
    table = torch.arange(40.0).view(20, 2)
    expected = torch.stack([table[a] * table[b] for a, b in pairs])
    assert torch.equal(lookup.compose(table[lookup.rows(values)], values), expected)


@pytest.mark.parametrize(("count", "rows"), [(6, 5), (301, 60), (301, 40), (3, 4), (1, 2), (9, 9)])
def test_the_split_of_numbers_is_the_widest_that_fits(count: int, rows: int) -> None:
    found = split_number(count, rows)
    fits = [r for r in range(1, rows) if r + -(-count // r) <= rows]
    assert fits
    assert found == max(r for r in fits if r <= count)


@pytest.mark.parametrize("count", [1, 2, 3, 6, 7, 100, 301, 1000])
def test_the_fewest_rows_to_split_are_found(count: int) -> None:
    assert rows_to_split(count) == min(r + -(-count // r) for r in range(1, count + 1))


def test_multiplexed_quotients_and_remainders_meet_as_rarely_as_pairs_of_rows() -> None:
    values = torch.arange(3_000)
    rows = Product("id", first=0, num_rows=200).rows(values)
    pairs = torch.unique(rows[:, 0] * 200 + rows[:, 1])
    expected = 40_000 * (1 - (1 - 1 / 40_000) ** 3_000)
    assert len(pairs) == pytest.approx(expected, rel=0.01)
