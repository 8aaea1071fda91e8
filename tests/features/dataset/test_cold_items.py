"""Cold items: no row that training or validation could see, and a choice that stays."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.core.errors import ConfigError, DataError
from recsys.features.dataset.cache import cached
from recsys.features.dataset.dataset import Dataset, parted, prepare
from recsys.features.dataset.split import (
    TEST,
    TRAIN,
    VALIDATION,
    ColdItemsConfig,
    RetrievalSplitConfig,
    drawn_cold,
)
from recsys.training.config.experiment import ExperimentConfig

SessionData = Callable[..., Dataset]


def split(given: RetrievalSplitConfig, **cold: Any) -> RetrievalSplitConfig:
    chosen = ColdItemsConfig.model_validate_json(json.dumps(cold))
    return given.model_copy(update={"cold_items": chosen})


def prepared(config: ExperimentConfig, **cold: Any) -> Dataset:
    parts = config.schema_, config.data, config.policies
    return prepare(*parts, split(config.split, **cold) if cold else config.split)


def test_no_training_or_validation_row_of_a_cold_item_is_left(
    config: ExperimentConfig, dataset: Dataset
) -> None:
    data = prepared(config, share=0.2, seed=3)
    events, cold = data.tables.events, data.cold
    assert 0.08 < cold.mean() < 0.35
    assert (data.part[cold[events.item_row]] == TEST).all()
    assert data.train_counts[cold].sum() == 0
    assert data.encoder.known_ids["item_id"].size == (data.train_counts > 0).sum()
    # All other rows stay as they were, in their parts.
    whole = dataset.tables.events
    stays = ~(cold[whole.item_row] & (dataset.part != TEST))
    assert (dataset.part[cold[whole.item_row]] == VALIDATION).any()
    assert events.row.tolist() == whole.row[stays].tolist()
    assert data.part.tolist() == dataset.part[stays].tolist()
    assert data.tables.items.equals(dataset.tables.items)
    *others, drop = data.tables.drops
    assert tuple(others) == dataset.tables.drops
    assert drop.rows == (~stays).sum()
    assert drop.policy == f"split.cold_items: {cold.sum()} items"
    assert str(drop.examples[0]) == f"row {whole.row[~stays].min() + 1}"


def test_items_that_are_not_removed_are_only_told_apart(
    config: ExperimentConfig, dataset: Dataset
) -> None:
    data = prepared(config, share=0.2, seed=3, removed=False)
    assert data.cold.tolist() == prepared(config, share=0.2, seed=3).cold.tolist()
    assert data.tables.events.row.tolist() == dataset.tables.events.row.tolist()
    assert data.part.tolist() == dataset.part.tolist()
    assert data.tables.drops == dataset.tables.drops
    assert data.encoder.digest() == dataset.encoder.digest()
    assert not dataset.cold.any()
    assert len(dataset.cold) == dataset.num_items


@given(st.integers(0, 50), st.lists(st.integers(0, 10**6), min_size=1, max_size=30, unique=True))
def test_the_choice_of_an_item_depends_on_its_id_alone(seed: int, others: list[int]) -> None:
    config = ColdItemsConfig(share=0.5, seed=seed)
    ids = pa.chunked_array([pa.array(range(40))])
    alone = drawn_cold(config, ids)
    among = drawn_cold(config, pa.chunked_array([pa.array([*others, *range(40)])]))
    assert among[len(others) :].tolist() == alone.tolist()
    less = drawn_cold(ColdItemsConfig(share=0.2, seed=seed), ids)
    assert not (less & ~alone).any()  # a larger share adds items


def test_the_share_is_kept_and_the_seed_draws_anew() -> None:
    ids = pa.chunked_array([pa.array([f"item {k}" for k in range(5_000)])])
    first, second = (drawn_cold(ColdItemsConfig(share=0.1, seed=k), ids) for k in (0, 1))
    for one in (first, second):
        assert 0.085 < one.mean() < 0.115
    assert (first & second).mean() < 0.02


def test_items_released_from_an_instant_on(session_data: SessionData) -> None:
    day = 86_400
    data = session_data(
        [0, 0, 0, 1, 1, 1],
        [0, 1, 2, 1, 3, 2],
        time=[day, 2 * day, 3 * day, 4 * day, 5 * day, 6 * day],
        num_items=5,
    )
    given = RetrievalSplitConfig(validation_from="1970-01-06", test_from="1970-01-07")

    def cold(instant: str, **changes: Any) -> list[bool]:
        config = split(given, **{"from": instant, **changes})
        return parted(data.schema, data.tables, config)[2].tolist()

    assert cold("1970-01-03") == [False, True, True, True, False]
    assert cold("1970-01-03T00:00:01Z") == [False, False, True, True, False]
    tables, part, _ = parted(data.schema, data.tables, split(given, **{"from": "1970-01-04"}))
    assert tables.events.item_row.tolist() == [0, 1, 1, 2]
    assert part.tolist() == [TRAIN, TRAIN, TRAIN, TEST]
    with pytest.raises(DataError, match="none of 5 items is cold; choose a larger share, or an"):
        cold("1990-01-01")
    with pytest.raises(DataError, match="4 of 5 items are cold, and no training row is left"):
        cold("1970-01-01")
    assert sum(cold("1970-01-01", removed=False)) == 4
    with pytest.raises(ConfigError, match="'soon' is not an ISO date"):
        cold("soon")


def test_what_was_validation_and_is_trained_on_leaves_too(
    config: ExperimentConfig, dataset: Dataset
) -> None:
    joined = config.split.model_copy(update={"join_validation": True})
    tables, part, cold = parted(config.schema_, dataset.tables, split(joined, share=0.2, seed=3))
    assert (part[cold[tables.events.item_row]] == TEST).all()
    assert set(part.tolist()) == {TRAIN, TEST}


def test_an_instant_needs_a_clock(session_data: SessionData) -> None:
    data = session_data([0] * 9, range(9))
    config = split(RetrievalSplitConfig(kind="leave_one_out"), **{"from": "2020-01-01"})
    with pytest.raises(ConfigError, match=r"needs schema\.interactions\.time; set share instead"):
        parted(data.schema, data.tables, config)


@pytest.mark.parametrize("cold", [{}, {"share": 0.1, "from": "2020-01-01"}])
def test_a_choice_is_made_in_one_way(cold: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="needs 'share' or 'from', and not both"):
        ColdItemsConfig.model_validate_json(json.dumps(cold))


def test_cold_items_come_back_from_the_cache(config: ExperimentConfig, tmp_path: Path) -> None:
    chosen = split(config.split, share=0.2)
    parts = (config.schema_, config.data, config.policies)
    built = cached(tmp_path, lambda: prepare(*parts, chosen), *parts, chosen)

    def never() -> Dataset:
        raise AssertionError

    again = cached(tmp_path, never, *parts, chosen)
    assert again.cold.tolist() == built.cold.tolist()
    assert again.tables.drops == built.tables.drops
    other = split(config.split, share=0.2, removed=False)
    with pytest.raises(AssertionError):
        cached(tmp_path, never, *parts, other)
