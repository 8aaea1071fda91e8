"""What `init` makes of a column of types of events, and what `check` says of what comes before."""

from pathlib import Path

import pytest
import yaml

from recsys.features.propose.tables import Inference, infer
from recsys.training.families.load import load_config
from recsys.training.families.registry import family_of


def proposed(folder: Path, types: list[str], name: str = "event_type") -> Inference:
    """Return the proposal for a log in which six users meet items by turns of `types`."""
    lines = [f"user_id,item_id,timestamp,{name}"]
    for k in range(240):
        day = f"2024-{1 + k // 28:02d}-{1 + k % 28:02d} 10:00:00"
        lines.append(f"u{k % 6},i{k % 53},{day},{types[k % len(types)]}")
    (folder / "log.csv").write_text("\n".join(lines) + "\n")
    found = infer([folder / "log.csv"], relative_to=folder)
    (folder / "recsys.yaml").write_text(found.yaml)
    return found


def roles_of(found: Inference) -> dict[str, object]:
    roles: dict[str, object] = yaml.safe_load(found.yaml)["schema"]["interactions"]
    return roles


def test_words_of_a_shop_become_weights_targets_and_returns(tmp_path: Path) -> None:
    found = proposed(
        tmp_path, ["view", "view", "add_to_cart", "purchase", "refund", "view", "view"]
    )
    roles = roles_of(found)
    assert roles["events"] == {
        "column": "event_type",
        "weights": {"view": 1, "add_to_cart": 3, "purchase": 10},
        "undo": {"refund": "purchase"},
        "seen": ["purchase"],
    }
    assert roles["targets"] == {"column": "event_type", "one_of": ["purchase"]}
    training = yaml.safe_load(found.yaml)["training"]
    assert training == {"history_gap_minutes": 60, "towards": "rows"}
    said = "\n".join(found.unsure)
    assert "'event_type' holds the types of events" in said
    assert "a row 'refund' takes back the last 'purchase'" in said


@pytest.mark.parametrize(
    "types",
    [
        ["view", "purchase", "swiped"],  # a word nobody knows
        ["pv", "fav", "cart", "buy", "pv"],
        ["view", "addtocart", "transaction", "view"],
        ["click", "cart", "remove_from_cart", "order", "cancel"],
        ["view", "return"],  # returns of nothing
        ["click", "play"],  # nothing to ask for alone
    ],
)
def test_check_accepts_what_is_proposed(types: list[str], tmp_path: Path) -> None:
    found = proposed(tmp_path, types)
    assert "events" in roles_of(found)
    config = load_config(tmp_path / "recsys.yaml")
    family_of(config).inspect(config)


def test_other_columns_of_few_words_are_no_types_of_events(tmp_path: Path) -> None:
    assert "events" not in roles_of(proposed(tmp_path, ["phone", "web", "tablet"], "device"))
    assert "events" not in roles_of(proposed(tmp_path, ["red", "blue"], "type"))
    assert "events" in roles_of(proposed(tmp_path, ["view", "buy"], "what"))


def test_check_says_what_repeats_a_moment_later(tmp_path: Path) -> None:
    lines = ["user_id,item_id,timestamp,event"]
    for k in range(200):
        day = f"2024-{1 + k // 28:02d}-{1 + k % 28:02d}"
        lines += [
            f"u{k % 7},i{k % 41},{day} 10:00:00,view",
            f"u{k % 7},i{k % 41},{day} 10:05:00,buy",
        ]
    (tmp_path / "log.csv").write_text("\n".join(lines) + "\n")
    found = infer([tmp_path / "log.csv"], relative_to=tmp_path)
    path = tmp_path / "recsys.yaml"
    path.write_text(found.yaml)
    report = family_of(load_config(path)).inspect(load_config(path))
    assert any("40 held-out rows (100%) have an earlier row" in note for note in report.notes)
    raw = yaml.safe_load(found.yaml)
    del raw["schema"]["interactions"]["targets"], raw["schema"]["interactions"]["events"]
    path.write_text(yaml.safe_dump(raw))
    report = family_of(load_config(path)).inspect(load_config(path))
    assert any("(50%)" in one and "interactions.targets" in one for one in report.notes)
