"""Sampled negatives: what is drawn, and that the offset gives back the rows as they are."""

from dataclasses import replace
from math import exp, log

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recsys.data.batch import RankingBatch
from recsys.features.batches.negatives import (
    EVALUATION_NEGATIVES,
    kept_rows,
    num_kept,
    other_items,
    others_offset,
    share_offset,
)
from recsys.features.batches.rows import RankingLoader
from recsys.features.dataset.dataset import Dataset
from recsys.features.dataset.split import TEST, TRAIN


@given(st.integers(0, 20), st.integers(0, 40), st.floats(0.01, 1), st.integers(0, 9))
def test_all_positives_stay_and_a_share_of_the_negatives(
    positives: int, negatives: int, rate: float, seed: int
) -> None:
    label = np.random.default_rng(seed).permutation(
        np.array([1.0] * positives + [0.0] * negatives, np.float32)
    )
    kept = kept_rows(label, rate, np.random.default_rng(seed))
    assert len(set(kept.tolist())) == len(kept) == num_kept(label, rate)
    assert (label[kept] == 1).sum() == positives
    assert (label[kept] == 0).sum() == min(negatives, max(1, round(rate * negatives)))
    if positives and negatives:  # a model that knows no feature learns the odds of what it sees
        odds_seen = (label[kept] == 1).sum() / (label[kept] == 0).sum()
        assert exp(log(odds_seen) + share_offset(label, rate)) == pytest.approx(
            positives / negatives
        )


def test_other_items_are_all_others_equally_often() -> None:
    rng = np.random.default_rng(0)
    own = np.repeat(np.arange(4), 3000)
    drawn = other_items(own, 3, 4, rng)
    assert (drawn[:, 0] == own).all()
    assert not (drawn[:, 1:] == own[:, None]).any()
    counts = np.array(
        [np.bincount(drawn[own == item, 1:].ravel(), minlength=4) for item in range(4)]
    )
    assert counts.diagonal().sum() == 0
    others = counts[~np.eye(4, dtype=bool)]
    assert np.abs(others - 3000).max() < 5 * np.sqrt(3000)


def test_the_offset_of_others_gives_the_probability_of_being_taken() -> None:
    """Of V items with known chances, what sampled rows show of item i, undone, is its chance."""
    chance = np.array([0.5, 0.3, 0.15, 0.05])
    rng = np.random.default_rng(0)
    taken = rng.choice(4, 200_000, p=chance)
    drawn = other_items(taken, 2, 4, rng)
    for item in range(4):
        odds = (drawn[:, 0] == item).sum() / (drawn[:, 1:] == item).sum()
        logit = log(odds) + others_offset(2, 4)
        assert 1 / (1 + exp(-logit)) == pytest.approx(chance[item], rel=0.03)


@pytest.fixture(scope="module")
def positive(dataset: Dataset) -> RankingLoader:
    return RankingLoader(dataset, batch_size=64, seed=3, negatives=3)


def test_each_taken_item_stands_before_others(positive: RankingLoader, dataset: Dataset) -> None:
    events = dataset.tables.events
    batches = list(positive.epoch(0))
    assert [len(batch) for batch in batches[:-1]] == [64] * (positive.num_steps - 1)
    label = torch.cat([batch.label for batch in batches]).view(-1, 4)
    assert label.tolist() == [[1, 0, 0, 0]] * len(positive.events)
    examples = torch.cat([batch.examples for batch in batches]).view(-1, 4)
    assert sorted(examples[:, 0].tolist()) == positive.events.tolist()
    assert (examples == examples[:, :1]).all()
    # The features of a row are those of its item: the taken one's on label 1 alone.
    ids = _item_hash(positive, batches)
    own = dataset.items.single[events.item_row[examples[:, 0].numpy()].astype(np.int64)]
    assert torch.equal(ids[:, 0], own[:, _item_column(positive, dataset)])
    assert not (ids[:, 1:] == ids[:, :1]).any()


def _item_column(loader: RankingLoader, dataset: Dataset) -> int:
    return dataset.encoder.id_columns("items")[0]


def _item_hash(loader: RankingLoader, batches: list[RankingBatch]) -> torch.Tensor:
    names = [name for name, _ in loader.layout.single]
    items = [name for name, _ in loader.data.encoder.layout("items").single]
    column = names.index(items[_item_column(loader, loader.data)])
    return torch.cat([batch.features.single[:, column] for batch in batches]).view(-1, 4)


def test_an_epoch_draws_anew_and_ranks_share_it(positive: RankingLoader) -> None:
    first, second = (_item_hash(positive, list(positive.epoch(epoch))) for epoch in (0, 1))
    assert not torch.equal(first.sort(0).values[:, 1], second.sort(0).values[:, 1])
    whole = next(positive.epoch(0))
    shares = [next(positive.epoch(0, rank=rank, world=2)) for rank in range(2)]
    for rank, share in enumerate(shares):
        assert torch.equal(share.features.single, whole.features.single[rank::2])
        assert torch.equal(share.label, whole.label[rank::2])


def test_evaluated_rows_stand_for_the_whole_catalogue(
    positive: RankingLoader, dataset: Dataset
) -> None:
    batches = list(positive.ordered(TEST, 100))
    label = torch.cat([batch.label for batch in batches])
    weight = torch.cat([batch.weight for batch in batches])
    events = len(dataset.events_of((TEST,)))
    assert len(label) == positive.num_rows(TEST) == events * (1 + EVALUATION_NEGATIVES)
    assert float(label.sum()) == events
    assert float(weight[label == 0].sum()) == pytest.approx(events * (dataset.num_items - 1))
    other = torch.cat([batch.label for batch in positive.ordered(TEST, 7)])
    assert torch.equal(label, other)
    users = dataset.tables.events.user_row[torch.cat([b.examples for b in batches]).numpy()]
    assert np.array_equal(positive.users(TEST), users)


def test_a_share_of_the_negatives_an_epoch(dataset: Dataset) -> None:
    events = dataset.tables.events
    label = (np.arange(len(events)) % 5 == 0).astype(np.float32)
    labelled = replace(dataset, tables=replace(dataset.tables, events=replace(events, label=label)))
    loader = RankingLoader(labelled, batch_size=64, seed=3, negative_rate=0.25)
    own = label[labelled.events_of((TRAIN,))]
    seen = [torch.cat([b.label for b in loader.epoch(epoch)]) for epoch in (0, 1)]
    assert [int(one.sum()) for one in seen] == [int(own.sum())] * 2
    assert [len(one) - int(one.sum()) for one in seen] == [round(0.25 * int((own == 0).sum()))] * 2
    assert len(list(loader.epoch(0))) == loader.num_steps
    rows = [set(torch.cat([b.examples for b in loader.epoch(e)]).tolist()) for e in (0, 1)]
    assert rows[0] != rows[1]
    assert loader.num_rows(TEST) == len(dataset.events_of((TEST,)))
