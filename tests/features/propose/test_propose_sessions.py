"""`recsys init` on logs of sessions: the column is found, the model of sessions proposed."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from recsys.features.propose.inspect import Report
from recsys.features.propose.tables import Inference, infer
from recsys.training.config.experiment import ExperimentConfig
from recsys.training.families.load import load_config
from recsys.training.jobs.check import preflight

START = 1_600_000_000
Write = Callable[..., Path]
Columns = dict[str, Any]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write_table(columns: Columns, file: str = "log.parquet") -> Path:
        path = tmp_path / file
        if path.suffix == ".csv":
            pyarrow.csv.write_csv(pa.table(columns), path)
        else:
            pq.write_table(pa.table(columns), path)
        return path

    return write_table


def visits(*, users: int = 20, each: int = 6, steps: int = 5, name: str = "session_id") -> Columns:
    """A log of `users` with `each` visits of `steps` rows a user."""
    visit = np.repeat(np.arange(users * each), steps)
    return {
        "user_id": visit % users,
        "item_id": np.arange(len(visit)) * 7 % 41,
        "at": START + 3_600 * visit + np.arange(len(visit)) % steps,
        name: [f"v{one:04}" for one in visit],
        "event": ["view", "buy"] * (len(visit) // 2),
    }


def loaded(found: Inference, folder: Path) -> ExperimentConfig:
    """The file as the strict models read it, which `recsys check` finds nothing amiss with."""
    path = folder / "recsys.yaml"
    path.write_text(found.yaml)
    config = load_config(path)
    report = preflight(config)
    assert isinstance(report, Report)
    for said in ("sessions: half have", "repeats: 0.00% of"):
        assert any(said in note for note in report.notes) == (config.model.kind == "session")
    return config


def uncommented(found: Inference) -> Inference:
    """The same with the block of sessions taken up, in place of what is a two-tower's alone."""
    text = re.sub(r"\ntraining:   #.*\n(  .*\n)+", "\n", found.yaml)
    for name in ("model", "training", "evaluation"):
        assert text.count(f"\n# {name}: {{") == 1
        text = text.replace(f"\n# {name}: {{", f"\n{name}: {{")
    return Inference(text, found.unsure, found.summary)


@pytest.mark.parametrize("file", ["log.parquet", "log.csv"])
@pytest.mark.parametrize("name", ["session_id", "session", "visitId", "basket_id", "InvoiceNo"])
def test_a_session_column_gets_its_role(write: Write, tmp_path: Path, name: str, file: str) -> None:
    found = infer([write(visits(name=name), file)])
    config = loaded(found, tmp_path)
    roles = config.schema_.interactions
    assert (roles.user, roles.item, roles.session) == ("user_id", "item_id", name)
    assert roles.time is not None
    assert config.model.kind == "two_tower"
    assert f"120 sessions ({name})" in found.summary[0]
    assert f"name: {name}," not in found.yaml
    assert "# - {name: event, table: interactions" in found.yaml
    assert "mostly follows another row of its item in the same session" in found.yaml
    assert [one.split(" (")[0] for one in found.unsure] == ["'event' holds the types of events"]

    taken_up = loaded(uncommented(found), tmp_path)
    assert taken_up.model.kind == "session"
    assert taken_up.training.loss.kind == "full_softmax"
    assert taken_up.evaluation.queries == "events"
    assert not taken_up.evaluation.filter_seen


def test_without_users_a_visit_is_the_user(write: Write, tmp_path: Path) -> None:
    columns = visits()
    del columns["user_id"]
    found = infer([write(columns)])
    config = loaded(found, tmp_path)
    assert config.schema_.interactions.user == "session_id"
    assert config.schema_.interactions.session is None
    assert config.model.kind == "two_tower"
    assert "leave 'session_id' out of the features" in found.yaml
    assert ("mostly follows another row" in found.yaml) == ("\n    targets:" in found.yaml)
    assert "sessions (" not in found.summary[0]
    assert loaded(uncommented(found), tmp_path).model.kind == "session"


def other_users(columns: Columns) -> None:
    columns["user_id"] = np.arange(600) % 20


def alone(columns: Columns) -> None:
    columns["session_id"] = [f"v{row:04}" for row in range(600)]


def mostly_alone(columns: Columns) -> None:
    columns["session_id"] = [f"v{max(row, 290):04}" for row in range(600)]
    columns["user_id"] = [max(row, 290) for row in range(600)]


def the_same_throughout(columns: Columns) -> None:
    columns["session_id"] = ["v"] * 600
    columns["user_id"] = [4] * 600
    columns["item_id"] = np.arange(600)  # something is new to the user in each part


def often_null(columns: Columns) -> None:
    columns["session_id"] = [None] * 35 + columns["session_id"][35:]


def labelled(columns: Columns) -> None:
    columns["click"] = np.arange(600) % 3 % 2


@pytest.mark.parametrize(
    "spoil", [other_users, alone, mostly_alone, the_same_throughout, often_null, labelled]
)
def test_a_column_that_only_has_the_name_gets_no_role(
    write: Write, tmp_path: Path, spoil: Callable[[Columns], None]
) -> None:
    columns = visits()
    spoil(columns)
    found = infer([write(columns)])
    config = loaded(found, tmp_path)
    assert config.schema_.interactions.session is None
    assert config.schema_.interactions.user == "user_id"
    assert "kind: session" not in found.yaml


def test_visits_of_one_row_are_no_sessions(write: Write, tmp_path: Path) -> None:
    columns = visits()
    alone(columns)
    del columns["user_id"]
    found = infer([write(columns)])
    assert loaded(found, tmp_path).schema_.interactions.user == "session_id"
    assert "kind: session" not in found.yaml


def test_a_few_sessions_of_two_users_or_none_do_no_harm(write: Write, tmp_path: Path) -> None:
    columns = visits()
    columns["user_id"][7] += 1
    columns["session_id"][20:30] = [None] * 10
    found = infer([write(columns)])
    config = loaded(found, tmp_path)
    assert config.schema_.interactions.session == "session_id"
    assert config.policies.bad_ids == "drop"
    assert any("'session_id' is null in 10 rows" in one for one in found.unsure)


def test_numbers_of_sessions_are_neither_a_time_nor_the_order(write: Write, tmp_path: Path) -> None:
    columns = visits()
    start = columns.pop("at")[::5].repeat(5)
    columns |= {"session_id": start, "order_id": start // 3_600, "position": np.arange(600) % 5}
    roles = loaded(infer([write(columns)]), tmp_path).schema_.interactions
    assert (roles.time, roles.session, roles.order) == (None, "session_id", "order_id")
    del columns["session_id"]
    roles = loaded(infer([write(columns)]), tmp_path).schema_.interactions
    assert (roles.time, roles.session, roles.order) == (None, "order_id", "position")
    del columns["position"]
    roles = loaded(infer([write(columns)]), tmp_path).schema_.interactions
    assert (roles.session, roles.order) == ("order_id", "order_id")


def test_a_large_catalogue_is_sampled(write: Write, tmp_path: Path) -> None:
    columns = visits(users=40, each=250, steps=6)
    columns["item_id"] = np.arange(60_000)
    config = loaded(uncommented(infer([write(columns)])), tmp_path)
    assert config.training.loss.kind == "sampled_softmax"
    assert config.training.uniform_negatives == 6_000
