"""Values and their counts against a loop over the rows."""

from collections import Counter

import torch

from recsys.data.batch import FeatureBlock, FeatureLayout, Jagged
from recsys.embeddings.diagnostics import FeatureValues
from recsys.features.dataset.dataset import Dataset
from recsys.features.dataset.split import TRAIN
from recsys.features.encoding.feature_values import (
    block_feature_values,
    dataset_feature_values,
    feature_values,
)

LAYOUT = FeatureLayout((("a", 1), ("b", 2)), (("tags", 1),), ())
BLOCK = FeatureBlock(
    torch.tensor([[7, 1], [7, 2], [-5, 3]]),
    (Jagged(torch.tensor([4, 4, 9, 6]), torch.tensor([0, 3, 3, 4])),),
    torch.zeros(3, 0),
)


def counted(found: list[FeatureValues]) -> dict[str, dict[int, int]]:
    for one in found:
        assert one.values.dtype == one.counts.dtype == torch.int64
        assert len(one.values.unique()) == len(one.values)
    return {o.name: dict(zip(o.values.tolist(), o.counts.tolist(), strict=True)) for o in found}


def test_rows_count_once_or_as_often_as_they_stand_for() -> None:
    once = {"a": {7: 2, -5: 1}, "b": {1: 1, 2: 1, 3: 1}, "tags": {4: 2, 9: 1, 6: 1}}
    assert counted(feature_values(LAYOUT, BLOCK)) == once
    weighted = counted(feature_values(LAYOUT, BLOCK, torch.tensor([10, 3, 0])))
    assert weighted == {"a": {7: 13}, "b": {1: 10, 2: 3}, "tags": {4: 20, 9: 10}}


def test_blocks_add_up() -> None:
    rows = torch.tensor([2, 0, 0, 1, 2])
    whole = counted(feature_values(LAYOUT, BLOCK.take(rows)))
    blocks = [BLOCK.take(part) for part in rows.split(2)]
    assert counted(block_feature_values(LAYOUT, blocks)) == whole


def test_what_reads_the_rows_of_another_feature_counts_as_that_one() -> None:
    layout = FeatureLayout((("a", 1), ("b", 2)), (("taken", 1),), (), reads=(("taken", "a"),))
    expected = {"a": {7: 2, -5: 1, 4: 2, 9: 1, 6: 1}, "b": {1: 1, 2: 1, 3: 1}}
    assert counted(feature_values(layout, BLOCK)) == expected
    assert counted(block_feature_values(layout, [BLOCK, BLOCK])) == {
        name: {value: 2 * count for value, count in values.items()}
        for name, values in expected.items()
    }


def test_a_data_set_counts_its_training_rows_alone(dataset: Dataset) -> None:
    events, expected = dataset.tables.events, {}
    for side, block in (
        ("items", dataset.items),
        ("users", dataset.users),
        ("interactions", dataset.context),
    ):
        layout = dataset.encoder.layout(side)  # type: ignore[arg-type]
        row_of = {"items": events.item_row, "users": events.user_row}.get(side)
        counts: dict[str, Counter[int]] = {name: Counter() for name, _ in layout.features}
        for event in range(len(events)):
            if dataset.part[event] != TRAIN:
                continue
            row = event if row_of is None else int(row_of[event])
            for (name, _), value in zip(layout.single, block.single[row].tolist(), strict=True):
                counts[name][value] += 1
            for (name, _), jagged in zip(layout.multi, block.multi, strict=True):
                start, stop = jagged.offsets[row : row + 2].tolist()
                counts[name].update(jagged.values[start:stop].tolist())
        expected |= {name: dict(counter) for name, counter in counts.items()}
    assert counted(dataset_feature_values(dataset)) == expected
    assert (dataset.part != TRAIN).any()
