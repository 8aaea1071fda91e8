"""A plan by hand, and that its constants are those that the benchmark saved."""

import json
from pathlib import Path

import pytest

from recsys.embeddings.table import TableConfig
from recsys.training.jobs.measured_costs import MEASURED
from recsys.training.jobs.planned import Hosts, Job, plan
from recsys.training.jobs.scale import Costs, Size, stages_of

ROWS = Size(rows=2e6, users=1e5, items=1e4, epochs=3, table=1e6)
BY_HAND = {
    "prepare_cpu_s": {"start": 4.0, "m_rows": 16.0, "m_items": 100.0},
    "train_cpu_s": {"m_rows_an_epoch": 730.0, "m_rows_an_epoch_m_items": 2000.0},
    "finish_cpu_s": {"start": 3600.0, "m_rows": 0.0, "m_items": 0.0, "m_cells": 0.0},
    "score_cpu_s": {
        "start": 0.0,
        "m_rows": 0.0,
        "m_items": 0.0,
        "m_users": 7200.0,
        "m_cells": 7.2,
    },
    "train_mib": {"start": 1024.0, "m_rows": 1536.0, "m_items": 0.0},
}
TABLE = TableConfig(num_rows=2**28, dim=15)  # with a float of state a row 2^28 x 16 x 4 bytes


def planned(hosts: Hosts, **changes: object) -> dict[str, tuple[float, ...]]:
    job = Job(Costs("two_tower", BY_HAND), ROWS, TABLE, by_rows=False, scored=1e5)
    found = plan(Job(**{**vars(job), **changes}), hosts)
    return {one.name: (one.cpu_hours, one.memory_gib, one.hosts, one.hours) for one in found.stages}


def test_every_stage_by_hand() -> None:
    stages = planned(Hosts(cores=1, memory_gib=40))
    assert stages["prepare"] == pytest.approx((37 / 3600, 4, 1, 37 / 3600))
    assert stages["train"] == pytest.approx((1.0, 20, 1, 1.0))  # 1.6 M rows three times
    assert stages["evaluate"] == pytest.approx((1.0, 20, 1, 1.0))
    cells = 7.2 * 1e5 * 1e4 / 1e6
    assert stages["score"] == pytest.approx(((720 + cells) * 1.25 / 3600, 4, 1, 1.25 * 7920 / 3600))


def test_a_table_that_is_too_large_is_spread_and_hours_take_hosts() -> None:
    stages = planned(Hosts(cores=4, memory_gib=10), hours=0.1)
    assert stages["train"][1:3] == pytest.approx((4 + 16 / 4, 4))
    cpu, memory, hosts, hours = stages["score"]
    assert (memory, hosts) == (8, 14)  # two processes of 4 GiB on each host
    assert hours == pytest.approx(cpu / 28)


def test_what_cannot_be_done_is_said_with_what_can() -> None:
    job = Job(Costs("two_tower", BY_HAND), ROWS, TABLE, by_rows=False, scored=1e5)
    (small,) = plan(job, Hosts(cores=1, memory_gib=4)).refused
    assert "the log takes 4 GiB on every host" in small
    assert "1,600,000 rows fit" in small
    (whole,) = plan(job, Hosts(cores=1, memory_gib=20)).refused
    assert "collects the whole table" in whole
    assert plan(job, Hosts(cores=1, memory_gib=64)).refused == ()


def test_costs_are_hosts_times_hours() -> None:
    job = Job(Costs("two_tower", BY_HAND), ROWS, TABLE, by_rows=False, scored=1e5)
    stages = plan(job, Hosts(cores=1, memory_gib=64, price=3.0)).stages
    assert [one.cost for one in stages] == pytest.approx([3 * one.hours for one in stages])


def test_the_constants_are_those_that_were_measured() -> None:
    saved = Path(__file__).parents[2] / "benchmarks" / "results" / "scale_plan.json"
    figures = json.loads(saved.read_text())["figures"]
    assert {kind: one["constants"] for kind, one in figures.items()} == MEASURED
    for kind, constants in MEASURED.items():
        for stage, terms in stages_of(kind).items():
            assert set(constants[stage]) == set(terms(ROWS))
