"""The reference of the configuration says what the code says, and of every key what it means."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from recsys.app.reference import configuration_page, keys_of, reference
from recsys.core.strict import StrictModel
from recsys.training.families.registry import FAMILIES

PAGE = Path(__file__).parents[3] / "docs" / "configuration.md"


class Circle(StrictModel):
    """A round shape."""

    kind: Literal["circle"] = "circle"
    radius: Annotated[float, Field(gt=0, le=9)] = 1.5
    """From the middle."""


class Square(StrictModel):
    """A shape of four sides."""

    kind: Literal["square"] = "square"
    side: int = 2
    """Of four."""


class Drawing(StrictModel):
    """Some shapes."""

    shape: Annotated[Circle | Square, Field(discriminator="kind")] = Circle()
    """What is drawn."""
    names: tuple[str, ...] = ("a", "b")
    """Of the
    drawing."""
    by_name: dict[str, Circle] = Field(default_factory=dict)
    title: str | None = None


def test_keys_of_made_up_classes() -> None:
    found = {key.name: (key.type, key.default, key.meaning) for key in keys_of(Drawing)}
    assert found == {
        "shape": ("`circle` or `square`", "`circle`", "What is drawn."),
        "shape[circle].radius": ("number, > 0, <= 9", "`1.5`", "From the middle."),
        "shape[square].side": ("whole number", "`2`", "Of four."),
        "names": ("list of text", "`[a, b]`", "Of the drawing."),
        "by_name": ("mapping of names to `circle`", "empty", "A round shape."),
        "by_name.NAME.kind": (
            "`circle`",
            "`circle`",
            "Which of these it is; decides the other keys.",
        ),
        "by_name.NAME.radius": ("number, > 0, <= 9", "`1.5`", "From the middle."),
        "title": ("text or null", "`null`", ""),
    }


def test_families_that_lack_a_key_are_told() -> None:
    page = reference({"drawings": Drawing, "circles": Circle})
    assert "| `names` | list of text | `[a, b]` | drawings | Of the drawing. |" in page


def test_every_key_has_a_meaning() -> None:
    for family in FAMILIES:
        silent = [key.name for key in keys_of(family.experiment) if not key.meaning]
        assert not silent, f"write what these mean below them: {silent}"


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text() == configuration_page(), "run `make docs`"
