"""Purchases in a file of their own are proposed as a part of the log, which `check` accepts."""

from collections.abc import Sequence
from pathlib import Path

import yaml

from recsys.features.propose.tables import Inference, infer
from recsys.training.families.load import load_config
from recsys.training.jobs.check import preflight


def written(
    folder: Path, *, day: str = "{0:02d}.{1:02d}.2024 {2:02d}:00", name: str = "orders"
) -> None:
    """Write views and carts, items without their zeros, and orders with returns."""
    events = ["at;customer_id;session_id;event_type;sku"]
    orders = ["order_no;ordered_at;customer_id;sku;quantity;unit_price"]
    for k in range(240):
        month, date = 1 + k // 28, 1 + k % 28
        row = f"{k // 3 % 7};s{k // 3};{('view', 'view', 'cart')[k % 3]};00{k % 37:02d}"
        events.append(f"{date:02d}.{month:02d}.2024 10:00;{row}")
        if k % 3 == 2:
            amount = -1 if k % 24 == 23 else 2
            when = day.format(date, month, 11)
            orders.append(f"{k};{when};{k // 3 % 7};00{k % 37:02d};{amount};9,{k % 90 + 10}")
    orders.append(f"999;{day.format(28, 9, 12)};3;9999;1;1,50")
    items = ["sku;price", *(f"{k};{k},50" for k in range(37))]
    for file, lines in {"events": events, name: orders, "items": items}.items():
        (folder / f"{file}.csv").write_text("\n".join(lines) + "\n")


def proposed(folder: Path, names: Sequence[str] = ("events", "orders", "items")) -> Inference:
    found = infer([folder / f"{name}.csv" for name in names], relative_to=folder)
    (folder / "recsys.yaml").write_text(found.yaml)
    return found


def test_views_and_orders_are_one_log(tmp_path: Path) -> None:
    written(tmp_path)
    found = proposed(tmp_path)
    raw = yaml.safe_load(found.yaml)
    assert raw["data"]["interactions"] == [
        {"path": str(tmp_path / "events.csv"), "set": {"quantity": 1}},
        {
            "path": str(tmp_path / "orders.csv"),
            "columns": {"at": "ordered_at"},
            "set": {"event_type": "purchase"},
        },
    ]
    roles = raw["schema"]["interactions"]
    assert roles["events"]["weights"] == dict.fromkeys(("view", "cart", "purchase"), 1)
    assert roles["targets"] == {"column": "event_type", "one_of": ["purchase"]}
    assert roles["where"] == [{"column": "quantity", "at_least": 1}]
    assert "session" not in roles
    assert raw["policies"]["unknown_items"] == "drop"
    said = "\n".join(found.unsure)
    assert "both are read as one log" in said
    assert "other candidates" not in said
    assert "has no 'session_id'" in said
    report = str(preflight(load_config(tmp_path / "recsys.yaml")))
    assert "310 interactions" in report  # 240, and 80 orders of which 10 are returns


def test_times_of_another_form_are_said(tmp_path: Path) -> None:
    written(tmp_path, day="2024-{1:02d}-{0:02d} {2:02d}:00:00")
    found = proposed(tmp_path)
    assert isinstance(yaml.safe_load(found.yaml)["data"]["interactions"], str)
    assert "write them alike" in "\n".join(found.unsure)


def test_a_table_of_another_name_is_no_log(tmp_path: Path) -> None:
    written(tmp_path, name="tickets")
    found = proposed(tmp_path, ("events", "tickets", "items"))
    assert isinstance(yaml.safe_load(found.yaml)["data"]["interactions"], str)
    assert "both are read as one log" not in "\n".join(found.unsure)
