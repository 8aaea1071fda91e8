"""What `model.repeats: auto` decides."""

from pathlib import Path

import pytest

from recsys.models.session_config import Repeats
from recsys.retrieval.recurrence import Recurrence
from recsys.training.families.load import config_of
from recsys.training.families.session.config import SessionExperiment
from recsys.training.families.session.repeats import decided


def experiment(loss: str = "full_softmax", *, filter_seen: bool = False) -> SessionExperiment:
    found = config_of(
        {
            "data": {"interactions": "log.parquet", "items": "items.parquet"},
            "schema": {
                "interactions": {"user": "user", "item": "item", "order": "at"},
                "items": {"key": "item"},
                "features": [{"name": "item", "table": "items", "kind": "categorical"}],
            },
            "model": {"kind": "session"},
            "training": {"loss": loss},
            "evaluation": {"filter_seen": filter_seen},
        },
        source="test",
        folder=Path(),
    )
    assert isinstance(found, SessionExperiment)
    return found


@pytest.mark.parametrize(
    ("found", "wanted", "why"),
    [
        (Recurrence(99, 0.0, 0.1), False, "too few steps"),
        (Recurrence(100, 0.0, 0.0), "never", "leave out the items"),
        (Recurrence(9000, 0.0, 0.09), "never", "leave out the items"),
        (Recurrence(9000, 0.009, 0.09), "never", "leave out the items"),
        (Recurrence(9000, 0.009, 0.001), True, "is learnt"),  # rare, but no accident
        (Recurrence(9000, 0.05, 0.2), True, "is learnt"),  # rarer than by chance, and not rare
        (Recurrence(9000, 0.2, 0.0004), True, "is learnt"),
    ],
)
def test_by_the_share_of_steps_and_by_chance(found: Recurrence, wanted: Repeats, why: str) -> None:
    repeats, words = decided(experiment(), found)
    assert repeats == wanted
    assert type(repeats) is type(wanted)
    assert words.startswith(found.in_words())
    assert why in words


def test_what_recurs_is_not_learnt_where_it_is_left_out_or_cannot_be() -> None:
    often, never = Recurrence(9000, 0.2, 0.0), Recurrence(9000, 0.0, 0.0)
    repeats, why = decided(experiment(filter_seen=True), often)
    assert (repeats, "evaluation.filter_seen leaves them out" in why) == (False, True)
    repeats, why = decided(experiment("gbce"), often)
    assert (repeats, "training.loss: gbce cannot" in why) == (False, True)
    assert decided(experiment(filter_seen=True), never)[0] == "never"
    assert decided(experiment("gbce"), never)[0] == "never"
