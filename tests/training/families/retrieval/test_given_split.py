"""A log that comes with train and test alone: from `init` over `check` to what training reads."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys.features.dataset.cache import cached
from recsys.features.dataset.dataset import Dataset, drawn_validation, prepare
from recsys.features.dataset.split import TEST, TRAIN, VALIDATION
from recsys.features.propose.tables import infer
from recsys.training.config.experiment import ExperimentConfig
from recsys.training.families.list_evaluation import protocol_of
from recsys.training.families.load import load_config
from recsys.training.jobs.check import preflight


def configured(folder: Path, columns: dict[str, object], *overrides: str) -> ExperimentConfig:
    folder.mkdir(exist_ok=True)
    pq.write_table(pa.table(columns), folder / "log.parquet")
    found = infer([folder / "log.parquet"], relative_to=folder)
    assert "without validation rows: a tenth of each user's training rows is drawn" in found.yaml
    (folder / "recsys.yaml").write_text(found.yaml)
    return load_config(folder / "recsys.yaml", overrides)


def read(config: ExperimentConfig) -> Dataset:
    return prepare(config.schema_, config.data, config.policies, config.split)


def parts_by_pair(data: Dataset) -> dict[tuple[str, str], int]:
    users = data.tables.users.column(data.schema.user_key).to_pylist()
    items = data.tables.items.column(data.schema.item_key).to_pylist()
    events = data.tables.events
    rows = zip(events.user_row, events.item_row, data.part, strict=True)
    return {(users[user], items[item]): int(part) for user, item, part in rows}


def pairs(seed: int = 0) -> dict[str, list[str]]:
    """30 users who took 40 of 60 items each, a fifth of it test."""
    generator = np.random.default_rng(seed)
    items = np.concatenate([generator.permutation(60)[:40] for _ in range(30)])
    return {
        "user": [f"u{row // 40:02d}" for row in range(1200)],
        "item": [f"i{item:02d}" for item in items],
        "split": ["test" if row % 5 == 0 else "train" for row in range(1200)],
    }


def test_without_an_order_the_pairs_are_drawn_by_their_ids(tmp_path: Path) -> None:
    config = configured(tmp_path / "a", pairs())
    assert config.split.kind == "column"
    data = read(config)
    counts = np.bincount(data.part)
    assert counts[TEST] == 240
    assert 60 < counts[VALIDATION] < 132  # of 960, 96 expected with a deviation of 9.3
    users = data.tables.events.user_row
    per_user = np.bincount(users[data.part == VALIDATION], minlength=30)
    assert len(set(per_user.tolist())) > 3  # no pattern of the rows
    words = "10 % of each user's training rows, by a hash of user and item"
    assert drawn_validation(config.schema_, data.tables, config.split) == words
    text = "\n".join(preflight(config).lines())
    assert f"note: no row of 'split' is validation: it is {words}" in text
    assert "no validation rows" not in text
    # Other rows beside them, which move all row numbers, leave the pairs where they are.
    more = {name: values[400:] for name, values in pairs().items()}
    fewer = parts_by_pair(read(configured(tmp_path / "b", more)))
    before = parts_by_pair(data)
    assert len(fewer) == 800
    assert all(before[pair] == part for pair, part in fewer.items())
    assert len({fewer[pair] for pair in fewer}) == 3


@pytest.mark.parametrize("name", ["timestamp", "position"])
def test_with_an_order_the_latest_training_rows_are_validation(tmp_path: Path, name: str) -> None:
    when = np.random.default_rng(1).permutation(1200)
    start = 1_600_000_000 if name == "timestamp" else 0
    columns = {**pairs(), name: (start + when).tolist()}
    given = ("split.kind=column", "split.column=split")
    config = configured(tmp_path, columns, *given)
    data = read(config)
    events = data.tables.events
    for user in range(30):
        mine = events.user_row == user
        trained, drawn = (events.time[mine & (data.part == p)] for p in (TRAIN, VALIDATION))
        assert (len(trained), len(drawn)) == (29, 3)
        assert trained.max() < drawn.min()
    words = "the last 10 % of each user's training rows"
    assert f"is validation: it is {words}" in "\n".join(preflight(config).lines())


def test_the_words_are_in_the_protocol_also_from_the_cache(tmp_path: Path) -> None:
    config = configured(tmp_path, pairs())
    settings = (config.schema_, config.data, config.policies, config.split)
    for data in (
        cached(tmp_path / "cache", lambda: read(config), *settings),
        cached(tmp_path / "cache", lambda: pytest.fail("read again"), *settings),
    ):
        words = protocol_of(config, data)
        assert words["split"] == "given by the column 'split'"
        assert words["validation"].startswith("10 % of each user's training rows")
    by_order = config.model_copy(update={"split": type(config.split)(kind="leave_one_out")})
    assert "validation" not in protocol_of(by_order, read(by_order))


def test_a_split_with_validation_rows_stays_as_it_is(tmp_path: Path) -> None:
    columns = pairs()
    columns["split"][1::5] = ["valid"] * 240
    pq.write_table(pa.table(columns), tmp_path / "log.parquet")
    found = infer([tmp_path / "log.parquet"], relative_to=tmp_path)
    assert "without validation rows" not in found.yaml
    (tmp_path / "recsys.yaml").write_text(found.yaml)
    config = load_config(tmp_path / "recsys.yaml")
    data = read(config)
    assert np.bincount(data.part).tolist() == [720, 240, 240]
    assert "note:" not in "\n".join(preflight(config).lines())
    assert drawn_validation(config.schema_, data.tables, config.split) is None
