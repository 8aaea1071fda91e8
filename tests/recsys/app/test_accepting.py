"""What init proposes for few rows, check accepts: in other parts, or all rows are trained on."""

from pathlib import Path

import numpy as np
import pytest

import recsys

START = 1_600_000_000


def write(path: Path, *columns: str, rows: list[tuple[object, ...]]) -> Path:
    lines = [",".join(map(str, row)) for row in (columns, *rows)]
    path.write_text("\n".join(lines) + "\n")
    return path


def drawn(rng: np.random.Generator, rows: int, users: int, items: int) -> list[tuple[object, ...]]:
    each = zip(rng.integers(users, size=rows), rng.integers(items, size=rows), strict=True)
    return [(f"u{u}", f"i{i}", START + 3600 * row) for row, (u, i) in enumerate(each)]


@pytest.mark.parametrize("rows", [2, 3, 5, 12, 30])
@pytest.mark.parametrize(("users", "items"), [(1, 2), (3, 2), (2, 9), (9, 9)])
def test_few_rows_are_parted_so_that_check_accepts_them(
    tmp_path: Path, rows: int, users: int, items: int
) -> None:
    log = drawn(np.random.default_rng(rows * users), rows, users, items)
    log[-1] = ("u0", "i0", START + 3600 * rows)
    log[0] = ("u0", "i1", START)
    path = write(tmp_path / "log.csv", "user", "item", "time", rows=log)
    config = recsys.init(path, out=tmp_path / "recsys.yaml")
    recsys.check(config)
    assert recsys.Config.open(tmp_path / "recsys.yaml").experiment == config.experiment


@pytest.mark.parametrize("labels", [[0, 1], [1, 0, 1], [0, 0, 0, 1, 0, 0], [0, 1] * 10])
def test_few_rows_with_a_label_are_parted_so_too(tmp_path: Path, labels: list[int]) -> None:
    rows: list[tuple[object, ...]] = [
        (f"u{row % 3}", f"i{row % 2}", one) for row, one in enumerate(labels)
    ]
    config = recsys.init(write(tmp_path / "log.csv", "user", "item", "clicked", rows=rows))
    recsys.check(config)


def test_what_was_changed_is_said_and_why(tmp_path: Path) -> None:
    rows: list[tuple[object, ...]] = [("u1", f"i{row % 2}", START + row) for row in range(2)]
    config = recsys.init(write(tmp_path / "log.csv", "user", "item", "time", rows=rows))
    assert config["split.kind"] == "none"
    assert "nothing is measured" in config.unsure[-1]


def test_a_log_that_is_parted_well_is_left_as_it_was_proposed(tmp_path: Path) -> None:
    log = drawn(np.random.default_rng(0), 400, 20, 30)
    config = recsys.init(write(tmp_path / "log.csv", "user", "item", "time", rows=log))
    assert config["split.validation"] == 0.1
    assert not [one for one in config.unsure if "few rows" in one]


def test_two_logs_that_their_names_tell_apart_are_read_as_one(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    views = write(tmp_path / "views.csv", "user", "item", "time", rows=drawn(rng, 90, 6, 9))
    orders = write(tmp_path / "orders.csv", "user", "item", "time", rows=drawn(rng, 30, 6, 9))
    config = recsys.init(views, orders, folder=tmp_path)
    found = recsys.check(config)
    assert config["schema.interactions.targets"]["one_of"] == ["purchase"]
    assert found.rows["interactions"] == 120
