"""What a training is estimated to take, by hand."""

from dataclasses import replace

import numpy as np
import pytest

from recsys.features.dataset.dataset import parted
from recsys.features.dataset.split import TEST
from recsys.features.tables.checked import read_tables
from recsys.training.config.experiment import ExperimentConfig
from recsys.training.families.costs import EASE_CUBED_NS, Rates, estimate


def test_rows_epochs_items_and_the_table_add_up(config: ExperimentConfig) -> None:
    split = config.split
    tables = read_tables(config.schema_, config.data, config.policies, split_column=split.column)
    tables, part, _ = parted(config.schema_, tables, split)
    rates = Rates(seconds=2, row_us=500, epoch_row_us=1000, mib=100, row_kib=1)
    rows, trained, items = len(part), int((part == 0).sum()), tables.items.num_rows
    training = config.training.model_copy(update={"epochs": 3, "average_epochs": 0})
    three = config.model_copy(update={"training": training})
    found = estimate(rates, three, tables, part)
    assert found is not None
    assert found.epochs == 3
    assert found.cpu_seconds == pytest.approx(2 + rows / 2000 + 3 * trained / 1000)
    table = config.embedding.memory_bytes / 2**20  # type: ignore[attr-defined]
    assert found.memory_mib == pytest.approx(100 + rows / 1024 + table)
    ease = estimate(replace(rates, ease_bytes=4), three, tables, part)
    assert ease is not None
    assert ease.cpu_seconds - found.cpu_seconds == pytest.approx(EASE_CUBED_NS * items**3 / 1e9)
    assert ease.memory_mib - found.memory_mib == pytest.approx(4 * items**2 / 2**20)
    fewer = config.evaluation.model_copy(update={"ease_max_items": items - 1})  # type: ignore[attr-defined]
    without = three.model_copy(update={"evaluation": fewer})
    assert estimate(replace(rates, ease_bytes=4), without, tables, part) == found
    users = len({int(one) for one in tables.events.user_row[part == TEST]})
    asked = estimate(replace(rates, asked_item_ns=1000), three, tables, part)
    assert asked is not None
    assert asked.cpu_seconds - found.cpu_seconds == pytest.approx(users * items / 1e6)
    many = estimate(replace(rates, many_rows=rows - 100, more_row_kib=0.25), three, tables, part)
    assert many is not None
    assert found.memory_mib - many.memory_mib == pytest.approx(100 * 0.75 / 1024)
    assert "no promise" in found.line
    assert "for 3 epochs" in found.line
    assert estimate(None, three, tables, np.zeros(rows, np.int8)) is None


def test_baselines_that_are_left_out_take_no_time(config: ExperimentConfig) -> None:
    split = config.split
    tables = read_tables(config.schema_, config.data, config.policies, split_column=split.column)
    tables, part, _ = parted(config.schema_, tables, split)
    rates = Rates(seconds=0, row_us=1000, mib=100, alone=0.2)

    def seconds(*baselines: str) -> float:
        evaluation = config.evaluation.model_copy(update={"baselines": baselines})
        found = estimate(rates, config.model_copy(update={"evaluation": evaluation}), tables, part)
        assert found is not None
        return found.cpu_seconds / (len(part) / 1000)

    assert seconds("auto") == pytest.approx(1)
    assert seconds() == seconds("popularity") == pytest.approx(0.2)
    assert seconds("popularity", "item_knn") == pytest.approx(0.2 + 0.8 / 4)
