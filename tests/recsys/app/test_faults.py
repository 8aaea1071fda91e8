"""Commands that are killed, interrupted and refused at some of the changes that they make to files.

`make torture` does so at all of them, and with all commands.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from _faulty import INTERRUPT, KILL, NO_SPACE, TERMINATE, Fault, Faulty
from _flows import FLOWS, Reference, Stage

COMMANDS = {flow.name: flow for flow in FLOWS if flow.name in ("init", "score", "export")}
pytestmark = pytest.mark.skipif(bool(Faulty.missing()), reason=Faulty.missing() or "never")


@pytest.fixture(scope="module")
def stage(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A folder with tables and a model, and a process that runs commands in it."""
    scratch = tmp_path_factory.mktemp("faults")
    with Faulty(scratch) as faulty:
        yield Stage(faulty, scratch).with_model(trained)


@pytest.fixture(scope="module")
def undisturbed(stage: Stage) -> dict[str, Reference]:
    """What each command leaves."""
    return {name: stage.reference(flow) for name, flow in COMMANDS.items()}


@pytest.mark.parametrize(
    ("name", "fault", "share"),
    [
        ("init", KILL, 0.9),
        ("init", TERMINATE, 0.5),
        ("score", KILL, 0.2),
        ("score", KILL, 0.8),
        ("score", TERMINATE, 0.5),
        ("score", NO_SPACE, 0.7),
        ("export", KILL, 0.6),
        ("export", INTERRUPT, 0.8),
    ],
)
def test_a_disturbed_command_is_completed_by_the_next(
    stage: Stage, undisturbed: dict[str, Reference], name: str, fault: Fault, share: float
) -> None:
    call = 1 + int(share * (undisturbed[name].count(fault) - 1))
    outcome = stage.disturbed(COMMANDS[name], fault.at(call), undisturbed[name])
    assert outcome.wrong == ""


@pytest.mark.parametrize("name", COMMANDS)
def test_what_is_opened_to_be_written_has_a_staging_name(
    stage: Stage, undisturbed: dict[str, Reference], name: str
) -> None:
    stage.reset()
    opened = stage.faulty.run(stage.home, COMMANDS[name].arguments(stage.home)).opened
    inside = [
        path.removeprefix(f"{stage.home}/")
        for path in opened
        if path.startswith(f"{stage.home}/") or not path.startswith("/")
    ]
    assert inside
    assert not [path for path in inside if not re.search(r"(^|/)\.[^/]+\.[\w-]+-\d+", path)]


def test_the_signal_is_named_and_how_it_goes_on(
    stage: Stage, undisturbed: dict[str, Reference]
) -> None:
    flow = COMMANDS["score"]
    stage.reset()
    ended = stage.faulty.run(stage.home, flow.arguments(stage.home), TERMINATE.at(40))
    assert ended.code == 143
    said = "stopped by SIGTERM; the same command continues with the parts that are missing"
    assert ended.err.splitlines()[-1] == said
    ended = stage.faulty.run(stage.home, flow.arguments(stage.home), INTERRUPT.at(20))
    assert (ended.code, stage.staged()) == (130, [])
