"""From tables to encoded rows: nothing that is fitted may depend on a later row."""

import json
from dataclasses import replace

import numpy as np
import torch

from recsys.features.dataset.dataset import Dataset, fit_encoder, part_of
from recsys.features.dataset.queries import build_queries
from recsys.features.dataset.split import TEST, TRAIN, VALIDATION
from recsys.features.world.world import RetailWorld
from recsys.training.config.experiment import ExperimentConfig


def fitted_state(encoder: object) -> str:
    state = {name: ids.tolist() for name, ids in encoder.known_ids.items()}  # type: ignore[attr-defined]
    scalers = {name: one.to_json() for name, one in encoder.scalers.items()}  # type: ignore[attr-defined]
    return json.dumps([state, scalers, encoder.families, encoder.reference_time])  # type: ignore[attr-defined]


def test_deleting_validation_and_test_rows_leaves_the_encoder_as_it_was(dataset: Dataset) -> None:
    train = dataset.events_of((TRAIN,))
    events = dataset.tables.events.take(train)
    truncated = replace(dataset.tables, events=events)
    again = fit_encoder(dataset.schema, truncated, np.zeros(len(train), np.int8))
    assert fitted_state(again) == fitted_state(dataset.encoder)


def test_the_encoder_does_depend_on_training_rows(dataset: Dataset) -> None:
    few = dataset.part.copy()
    few[dataset.events_of((TRAIN,))[200:]] = VALIDATION
    assert fitted_state(fit_encoder(dataset.schema, dataset.tables, few)) != fitted_state(
        dataset.encoder
    )


def test_parts_are_cut_in_time(dataset: Dataset, config: ExperimentConfig) -> None:
    time, part = dataset.tables.events.time, part_of(dataset.schema, dataset.tables, config.split)
    assert time[part == TRAIN].max() < time[part == VALIDATION].min()
    assert time[part == VALIDATION].max() < time[part == TEST].min()
    assert dataset.train_counts.sum() == (part == TRAIN).sum()


def test_queries_hold_what_a_loop_over_users_finds(dataset: Dataset, world: RetailWorld) -> None:
    log = world.interactions.to_pandas().sort_values(["user_id", "timestamp"], kind="stable")
    cut = int(dataset.tables.events.time[dataset.part == TEST].min()) // 1_000_000
    queries = build_queries(dataset, TEST, history_length=5, filter_seen=True, limit=10_000, seed=0)
    item_ids = dataset.tables.items.column("item_id").to_pylist()
    user_ids = dataset.tables.users.column("user_id").to_pylist()

    def names(jagged: object, row: int) -> list[str]:
        values = jagged.values[jagged.offsets[row] : jagged.offsets[row + 1]]  # type: ignore[attr-defined]
        return [item_ids[value] for value in values.tolist()]

    expected_users = []
    for user, rows in log.groupby("user_id"):
        before = rows[rows.timestamp < cut].item_id.tolist()
        after = set(rows[rows.timestamp >= cut].item_id) - set(before)
        if after:
            row = len(expected_users)
            expected_users.append(user)
            assert set(names(queries.relevant, row)) == after
            assert len(names(queries.relevant, row)) == len(after)
            assert names(queries.seen, row) == before
            assert names(queries.history, row) == before[-5:]
    assert [user_ids[row] for row in queries.users] == expected_users
    few = build_queries(dataset, TEST, history_length=5, filter_seen=True, limit=20, seed=3)
    assert len(few) == 20
    assert set(few.users) <= set(queries.users)


def test_validation_queries_know_training_rows_alone(dataset: Dataset) -> None:
    queries = build_queries(
        dataset, VALIDATION, history_length=5, filter_seen=False, limit=10_000, seed=0
    )
    events = dataset.tables.events
    for row, user in enumerate(queries.users):
        mine = events.user_row == user
        before = events.item_row[mine & (dataset.part == TRAIN)].tolist()
        after = set(events.item_row[mine & (dataset.part == VALIDATION)].tolist())
        seen, relevant = (
            one.values[one.offsets[row] : one.offsets[row + 1]].tolist()
            for one in (queries.seen, queries.relevant)
        )
        assert seen == before
        assert sorted(after) == sorted(relevant)  # those taken before count too: nothing is hidden


def test_a_query_carries_the_context_of_its_first_held_out_event(dataset: Dataset) -> None:
    queries = build_queries(dataset, TEST, history_length=5, filter_seen=False, limit=50, seed=0)
    events, users = dataset.tables.events, dataset.users.single.shape[1]
    for row, user in enumerate(queries.users):
        mine = np.flatnonzero((events.user_row == user) & (dataset.part == TEST))
        assert torch.equal(queries.block.single[row, users:], dataset.context.single[mine[0]])
