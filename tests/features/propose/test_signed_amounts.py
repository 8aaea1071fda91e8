"""Returns that a log writes as negative amounts are no purchases."""

from pathlib import Path

import pytest
import yaml

from recsys.features.propose.tables import Inference, infer
from recsys.training.families.load import load_config
from recsys.training.jobs.check import preflight


def proposed(folder: Path, column: str, amounts: list[str]) -> Inference:
    lines = [f"customer_id,product_id,ordered_at,{column}"]
    for k in range(120):
        day = f"2024-{1 + k // 28:02d}-{1 + k % 28:02d} 10:00:00"
        lines.append(f"u{k % 7},i{k % 37},{day},{amounts[k % len(amounts)]}")
    (folder / "orders.csv").write_text("\n".join(lines) + "\n")
    found = infer([folder / "orders.csv"], relative_to=folder)
    (folder / "recsys.yaml").write_text(found.yaml)
    return found


def test_negative_quantities_are_left_out_and_said(tmp_path: Path) -> None:
    found = proposed(tmp_path, "quantity", ["1", "2", "-1", "1", "", "1"])
    raw = yaml.safe_load(found.yaml)
    assert raw["schema"]["interactions"]["where"] == [{"column": "quantity", "at_least": 1}]
    said = [one for one in found.unsure if "'quantity' is negative" in one]
    assert "in 20 rows, as returns are" in said[0]
    assert "and 20 in which it is null or 0" in said[0]
    report = str(preflight(load_config(tmp_path / "recsys.yaml")))
    assert "80 interactions" in report


def test_amounts_of_money_keep_what_is_free(tmp_path: Path) -> None:
    found = proposed(tmp_path, "amount", ["9.5", "0", "-9.5", "1.25"])
    where = yaml.safe_load(found.yaml)["schema"]["interactions"]["where"]
    assert where == [{"column": "amount", "at_least": 0}]


@pytest.mark.parametrize(
    ("column", "amounts"),
    [("quantity", ["1", "2"]), ("temperature", ["1", "-2", "3"]), ("amount", ["-3", "-2", "1"])],
)
def test_other_columns_are_no_amounts_with_returns(
    column: str, amounts: list[str], tmp_path: Path
) -> None:
    raw = yaml.safe_load(proposed(tmp_path, column, amounts).yaml)
    assert "where" not in raw["schema"]["interactions"]
