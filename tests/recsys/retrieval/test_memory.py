"""The memory of pairs: its counts by hand, its bytes, another catalogue."""

import math

import numpy as np
import pytest
import torch

from recsys.core.errors import ConfigError
from recsys.core.strict import parse
from recsys.data.batch import Jagged
from recsys.retrieval import newcomers
from recsys.retrieval.memory import MemoryConfig, PairMemory
from recsys.retrieval.recommend import gains_of

Lists = list[list[int]]


def rows(*lists: list[int]) -> Jagged:
    lengths = np.array([len(one) for one in lists])
    return Jagged.of_lengths(np.array([value for one in lists for value in one], np.int64), lengths)


def memory_of(
    sequences: Lists,
    num_items: int,
    gain: float = 1.0,
    vectors: torch.Tensor | None = None,
    **settings: float,
) -> PairMemory:
    sequence = np.repeat(np.arange(len(sequences)), [len(one) for one in sequences])
    items = np.array([item for one in sequences for item in one], np.int64)
    config = MemoryConfig.model_validate(settings)
    return PairMemory.of(sequence, items, num_items, config, gain=gain, vectors=vectors)


def gains_by_hand(
    sequences: Lists, history: list[int], num_items: int, gain: float, config: MemoryConfig
) -> list[float]:
    """Follow the formulas one by one, without a limit of cells."""
    counts = [[0.0] * num_items for _ in range(num_items)]
    for one in sequences:
        for i, item in enumerate(one):
            for j in range(i + 1, min(len(one), i + config.steps + 1)):
                counts[item][one[j]] += config.lag_decay ** (j - i - 1)
    found = [0.0] * num_items
    for k, item in enumerate(reversed(history[-config.steps :])):
        total = sum(counts[item]) + config.shrinkage
        for j in range(num_items):
            found[j] += config.decay**k * counts[item][j] / total
    return [gain * math.log(1 + config.scale * m) for m in found]


def test_gains_are_those_of_the_formulas() -> None:
    rng = np.random.default_rng(0)
    sequences = [rng.integers(0, 7, length).tolist() for length in (12, 3, 1, 9, 2)]
    histories = [[0, 3, 3, 5], [], [6], rng.integers(0, 7, 15).tolist()]
    for steps in (1, 4, 10):
        config = MemoryConfig(steps=steps)
        memory = memory_of(sequences, 7, gain=0.3, steps=steps)
        found = memory.gains(rows(*histories))
        assert found.weights is not None
        dense = torch.zeros(4, 7)
        dense[found.owners(), found.values] = found.weights
        wanted = [gains_by_hand(sequences, one, 7, 0.3, config) for one in histories]
        torch.testing.assert_close(dense, torch.tensor(wanted))


def test_the_largest_cells_of_an_item_are_kept() -> None:
    sequences = [[0, 1], [0, 1], [0, 2], [0, 2], [0, 3], [0, 4], [4, 0]]
    shares = memory_of(sequences, 5, cells=2, steps=1).shares.toarray()
    whole = memory_of(sequences, 5, steps=1).shares.toarray()
    assert np.flatnonzero(shares[0]).tolist() == [1, 2]
    assert np.array_equal(shares[0, [1, 2]], whole[0, [1, 2]])
    assert shares[0, 1] == np.float32(2 / 26)
    assert np.array_equal(shares[4], whole[4])


def test_gains_of_repeats_and_of_the_memory_add_up() -> None:
    memory = memory_of([[0, 1, 2, 0, 3]], 5)
    history = rows([0, 1], [4])
    both = gains_of(history, torch.tensor([-2.0, 5.0]), memory)
    own = memory.gains(history)
    dense = torch.zeros(2, 5)
    assert own.weights is not None
    assert both is not None
    assert both.weights is not None
    dense[own.owners(), own.values] = own.weights
    dense[0, [0, 1]] -= 2
    dense[1, 4] += 5
    found = torch.zeros(2, 5)
    found[both.owners(), both.values] = both.weights
    torch.testing.assert_close(found, dense)
    assert gains_of(history, None, None) is None


def test_a_memory_comes_back_from_its_bytes() -> None:
    memory = memory_of([[0, 1, 2, 0, 3], [3, 3, 1]], 6, gain=0.07, decay=0.5, scale=40, steps=3)
    again = PairMemory.from_bytes(memory.to_bytes())
    assert memory.to_bytes() == again.to_bytes()
    assert (again.gain, again.steps, again.decay, again.scale) == (0.07, 3, 0.5, 40)
    assert np.array_equal(again.shares.toarray(), memory.shares.toarray())
    assert len(again) == 6


def test_another_catalogue_keeps_the_pairs_of_its_items() -> None:
    memory = memory_of([[0, 1, 2, 0, 3], [3, 3, 1]], 4)
    place = np.array([5, 0, -1, 2])
    moved = memory.onto(place, 6)
    shares, before = moved.shares.toarray(), memory.shares.toarray()
    for i, j in np.ndindex(4, 4):
        if place[i] >= 0 and place[j] >= 0:
            assert shares[place[i], place[j]] == before[i, j]
    assert len(moved) == 6
    assert moved.shares.sum() < memory.shares.sum()


def test_no_pairs_no_gains() -> None:
    memory = memory_of([[1], [2]], 3)
    gains = memory.gains(rows([1, 2], []))
    assert gains.weights is not None
    assert len(gains.values) == len(gains.weights) == 0
    assert gains.offsets.tolist() == [0, 0, 0]


def test_what_makes_no_sense_is_refused() -> None:
    for wrong in ({"weight": -1}, {"cells": 0}, {"decay": 0}, {"kind": "all"}, {"weights": 1}):
        with pytest.raises(ConfigError):
            parse(MemoryConfig, wrong, source="x.yaml")


def test_an_item_without_rows_takes_the_mean_of_the_nearest_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(newcomers, "NEIGHBOURS", 2)
    sequences = [[0, 1], [0, 1], [0, 2], [3, 2], [2, 3]]
    # Items 4 and 5 have no row; 4 is like 1 and 2, 5 like 3 and 2; lengths do not count.
    vectors = torch.tensor(
        [[-1.0, 0, 0], [9, 0, 0.1], [1, 0.5, 0], [0, 30, 2], [1, 0.1, 0], [0.1, 5, 0]]
    )
    bare = memory_of(sequences, 6, steps=1).shares.toarray()
    for factor in (1.0, 2.5):
        found = memory_of(sequences, 6, steps=1, vectors=vectors, new_items=factor).shares
        found = found.toarray()
        assert np.array_equal(found[:, :4], bare[:, :4])
        np.testing.assert_allclose(found[:, 4], factor * (bare[:, 1] + bare[:, 2]) / 2)
        np.testing.assert_allclose(found[:, 5], factor * (bare[:, 3] + bare[:, 2]) / 2)
        assert found[0, 4] > 0
    nothing = memory_of(sequences, 6, steps=1, vectors=vectors, new_items=0).shares.toarray()
    assert np.array_equal(nothing, bare)
    alike = vectors.clone()
    alike[4:] = alike[4]  # nothing tells new items apart
    assert np.array_equal(memory_of(sequences, 6, steps=1, vectors=alike).shares.toarray(), bare)
    few = memory_of(sequences, 6, steps=1, cells=1, vectors=vectors).shares.toarray()
    assert ((few[:, 4:] > 0).sum(1) <= 1).all()


def test_too_many_new_items_are_said_and_lent_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(newcomers, "MOST_PAIRS", 3)
    vectors = torch.eye(4)
    shares = memory_of([[0, 1], [0, 1]], 4, vectors=vectors).shares.toarray()
    assert (shares[:, 2:] == 0).all()
    assert "2 items have no training row, too many" in caplog.text
    known = memory_of([[0, 1, 2, 3]], 4, vectors=vectors).shares
    assert np.array_equal(known.toarray(), memory_of([[0, 1, 2, 3]], 4).shares.toarray())
