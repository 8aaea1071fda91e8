"""The collapse alarm: planted collapses raise it and name their cause, healthy spaces do not."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from recsys.data.batch import Jagged
from recsys.metrics.representation import alignment, rankme, uniformity
from recsys.training.evaluation import collapse
from recsys.training.evaluation.collapse import (
    collapse_warning,
    group_spread,
    representation_metrics,
)

N, E = 600, 32


def sphere(seed: int = 0, num: int = N) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return normalize(torch.randn(num, E, generator=generator), dim=1)


def jagged(lists: list[list[int]]) -> Jagged:
    offsets = torch.tensor([0, *np.cumsum([len(one) for one in lists])])
    return Jagged(torch.tensor([item for one in lists for item in one]), offsets)


def evaluated(items: Tensor, **more: float) -> dict[str, float]:
    taken = jagged([[row] for row in range(len(items))])
    return representation_metrics(items, sphere(9, len(items)), taken, **more)


def alarm(*points: dict[str, float], spread: float | None = None) -> str | None:
    logged = [
        {"step": 10.0 * n, "epoch": float(n), **{f"validation/{k}": v for k, v in p.items()}}
        for n, p in enumerate(points)
    ]
    return collapse_warning(logged, E, N, spread=spread)


def test_the_metrics_are_those_of_the_items_and_of_queries_that_took_something() -> None:
    items, queries = sphere(1), sphere(2, 3)
    found = representation_metrics(items, queries, jagged([[5, 7], [], [9]]), temperature=0.1)
    assert found == {
        "rankme": rankme(items),
        "uniformity": uniformity(items),
        "alignment": alignment(queries[[0, 2]], items[[5, 9]]),
        "twins": 0.0,
        "temperature": 0.1,
    }
    nothing = representation_metrics(items, queries, jagged([[], [], []]))
    assert set(nothing) == {"rankme", "uniformity", "twins"}


def test_twins_are_items_at_the_place_of_another() -> None:
    angles = torch.tensor([0.0, 5e-6, math.pi / 2, math.pi / 2 + 2e-5, math.pi], dtype=torch.double)
    items = torch.stack([angles.cos(), angles.sin()], 1)
    assert measured_twins(items) == pytest.approx(2 / 5)
    assert measured_twins(items[[0, 2, 4]].repeat_interleave(2, 0)) == 1.0
    copies = sphere(6)[torch.randperm(N) % 400]  # 200 of 400 twice
    assert measured_twins(copies) == pytest.approx(400 / 600)
    angles = torch.rand(5_000) * 2 * math.pi
    assert measured_twins(torch.stack([angles.cos(), angles.sin()], 1)) < 0.05


def measured_twins(items: Tensor) -> float:
    return representation_metrics(items, items[:1], jagged([[]]))["twins"]


def test_of_many_items_evenly_spaced_ones_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collapse, "_MAX_ROWS", 3)
    items = sphere()[[0, 1, 2, 1, 0]]  # of which rows 0, 2 and 4 are looked at
    assert measured_twins(items) == pytest.approx(2 / 3)


def test_a_healthy_space_raises_nothing() -> None:
    assert alarm(evaluated(sphere()), evaluated(sphere(1))) is None
    # Half of the dimensions, off centre and grouped, as trained spaces are.
    generator = torch.Generator().manual_seed(3)
    centres = torch.randn(12, E, generator=generator)[torch.arange(N) % 12]
    noise = torch.randn(N, E, generator=generator)
    noise[:, E // 2 :] = 0
    items = normalize(0.5 + centres + noise, dim=1)
    assert alarm(evaluated(items), spread=0.02) is None
    assert collapse_warning([], E, N) is None
    assert collapse_warning([{"step": 1.0, "loss": 2.0}], E, N) is None


def alike() -> Tensor:
    return normalize(sphere(1)[:1] + 0.05 * torch.randn(N, E), dim=1)


def low_rank(rank: int) -> Tensor:
    return normalize(torch.randn(N, rank) @ torch.randn(rank, E), dim=1)


def test_items_that_are_all_alike() -> None:
    found = evaluated(alike())
    words = alarm(found)
    assert words is not None
    assert f"use {found['rankme']:.1f} of 32 possible dimensions and mostly point" in words
    assert f"(uniformity {found['uniformity']:.2f})" in words
    assert "from the first evaluation on" in words
    assert "lower training.learning_rate" in words


def test_a_planted_low_rank_raises_it_and_three_times_that_does_not() -> None:
    words = alarm(evaluated(low_rank(2)))
    assert words is not None
    assert "of 32 possible dimensions. It was so from the first evaluation on" in words
    assert "few features of the items carry anything" in words
    assert alarm(evaluated(low_rank(9))) is None


def test_a_fall_during_training_is_blamed_on_the_learning_rate() -> None:
    before, after = evaluated(sphere()), evaluated(low_rank(2))
    words = alarm(before, after)
    assert words is not None
    assert f"It was {before['rankme']:.1f} before and fell during training" in words
    assert "embedding.learning_rate" in words
    assert alarm(after, before) is None  # it recovered: the last counts
    high, low, lower = ({**after, "rankme": value} for value in (9.0, 4.6, 4.4))
    assert "fell" in str(alarm(high, lower))
    assert "fell" not in str(alarm(high, low))
    assert "fell" not in str(alarm({**low, "rankme": 6.3}, {**low, "rankme": 2.0}))  # never well


def test_items_that_share_their_features_are_named_before_other_causes() -> None:
    kinds = sphere(4, 3)[torch.arange(N) % 3]
    words = alarm(evaluated(kinds, temperature=1.0))
    assert words is not None
    assert "100% of the items share their place with another" in words
    assert "training.id_dropout" in words


def test_a_high_temperature_is_named() -> None:
    assert "The temperature is 0.50: too high" in str(
        alarm(evaluated(low_rank(2), temperature=0.5))
    )
    assert "The temperature" not in str(alarm(evaluated(low_rank(2), temperature=0.3)))
    before = {**evaluated(low_rank(2)), "temperature": 0.4}
    assert "The temperature is 0.40" in str(
        alarm(before, evaluated(low_rank(2)))
    )  # known from then


def test_a_space_that_tells_only_categories_apart_is_named() -> None:
    group = torch.arange(N) % 4
    items = normalize(sphere(5, 4)[group] + 0.02 * torch.randn(N, E), dim=1)
    spread = group_spread(items, [f"g{one}" for one in group.tolist()])
    assert spread is not None
    assert spread < 0.1
    found = {**evaluated(items), "rankme": 2.9, "twins": 0.1}
    assert f"Items of one category are {spread:.0%} as far apart" in str(
        alarm(found, spread=spread)
    )
    assert "category" not in str(alarm(found, spread=0.11))


def test_group_spread_by_hand_and_at_its_ends() -> None:
    items = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 2.0], [0.0, 3.0], [9.0, 9.0]])
    names = ["a", "a", "b", "b", "c"]
    squares = torch.cdist(items, items).square()
    whole = float(squares.sum()) / 20
    assert group_spread(items, names) == pytest.approx((1 + 1) / 2 / whole)
    assert group_spread(items, ["a"] * 5) == pytest.approx(1)
    assert group_spread(items, list("abcde")) is None
    assert group_spread(torch.ones(4, 2), ["a", "a", "b", "b"]) is None


def test_a_small_catalogue_is_measured_by_what_it_could_have() -> None:
    point = {"rankme": 2.5, "uniformity": -2.0}
    assert collapse_warning([point], 64, 5) is None
    assert collapse_warning([point], 64, 5_000) is not None
    assert collapse_warning([{**point, "rankme": 12.7}], 64, 5_000) is not None
    assert collapse_warning([{**point, "rankme": 12.9}], 64, 5_000) is None
    assert collapse_warning([{**point, "rankme": 1.4}], 64, 5) is not None
    assert collapse_warning([{**point, "rankme": 1.1}], 2, 500) is None
    # Alike by uniformity alone: small differences may still be of full rank.
    for value, said in ((-0.9, True), (-1.1, False)):
        words = collapse_warning([{"rankme": 50.0, "uniformity": value}], 64, 5_000)
        assert ("point the same way" in str(words)) == said
