"""Errors of a configuration name the keys of the file, whatever unions lie on the way."""

from typing import Annotated, Any, Literal, Self

import pytest
from pydantic import Field, model_validator

from recsys.core.errors import ConfigError
from recsys.core.strict import StrictModel, parse


class Circle(StrictModel):
    kind: Literal["circle"]
    radius: Annotated[float, Field(gt=0)]
    fill: Literal["auto"] | int = 1


class Box(StrictModel):
    kind: Literal["box"]
    width: int
    height: int = 2

    @model_validator(mode="after")
    def _is_wide(self) -> Self:
        if self.width < self.height:
            raise ValueError("a box is at least as wide as high")
        return self


class Group(StrictModel):
    kind: Literal["group"]
    members: tuple[
        Annotated[
            Annotated[Circle | Box, Field(discriminator="kind")] | Annotated["Group", Field()],
            Field(discriminator="kind"),
        ],
        ...,
    ]


class Page(StrictModel):
    shape: Annotated[Circle | Box | Group, Field(discriminator="kind")]
    sizes: tuple[int, ...] = ()
    names: dict[str, Circle] = Field(default_factory=dict)


CIRCLE, BOX = {"kind": "circle", "radius": 1.5}, {"kind": "box", "width": 3}
WRONG: dict[str, tuple[dict[str, Any], list[str]]] = {
    "a value in a union": (
        {"shape": {**CIRCLE, "radius": 0}},
        ["shape.radius: Input should be greater than 0 (got 0)"],
    ),
    "an unknown key in a union": (
        {"shape": {**CIRCLE, "raduis": 1}},
        ["unknown key 'shape.raduis' (did you mean 'radius'?)"],
    ),
    "a key of another kind": (
        {"shape": {**CIRCLE, "height": 1}},
        ["unknown key 'shape.height': kind 'circle' has no such key"],
    ),
    "a missing key in a union": ({"shape": {"kind": "box"}}, ["missing key 'shape.width'"]),
    "a key missing from a list in a union in a union": (
        {
            "shape": {
                "kind": "group",
                "members": [BOX, {"kind": "group", "members": [{**CIRCLE}, {}]}],
            }
        },
        ["missing key 'shape.members.1.members.1.kind'"],
    ),
    "a value in a list in a union in a union": (
        {"shape": {"kind": "group", "members": [BOX, {"kind": "box", "width": "x"}]}},
        ["shape.members.1.width: Input should be a valid integer (got 'x')"],
    ),
    "a key named as another kind": (
        {"shape": {**BOX, "circle": 1}},
        ["unknown key 'shape.circle'"],
    ),
    "a key named as its own kind": (
        {"shape": {**BOX, "box": 1}},
        ["unknown key 'shape.box'"],
    ),
    "a value named as the kind": (
        {"shape": CIRCLE, "names": {"circle": {**CIRCLE, "radius": "circle"}}},
        ["names.circle.radius: Input should be a valid number (got 'circle')"],
    ),
    "no kind": ({"shape": {"radius": 1}}, ["missing key 'shape.kind'"]),
    "a kind that is none": (
        {"shape": {**CIRCLE, "kind": "cirle"}},
        ["shape: kind 'cirle' is none of 'circle', 'box', 'group' (did you mean 'circle'?)"],
    ),
    "either of two types": (
        {"shape": {**CIRCLE, "fill": "out"}},
        [
            "shape.fill: Input should be 'auto' (got 'out')",
            "shape.fill: Input should be a valid integer (got 'out')",
        ],
    ),
    "parts that do not go together": (
        {"shape": {**BOX, "height": 9}},
        ["shape: a box is at least as wide as high"],
    ),
    "a mapping for a number": (
        {"shape": {**BOX, "width": {"a": 1}}},
        ["shape.width: Input should be a valid integer (got a mapping)"],
    ),
    "a member of a list": (
        {"shape": BOX, "sizes": [1, "two", 3]},
        ["sizes.1: Input should be a valid integer (got 'two')"],
    ),
    "keys that are numbers": (
        {"shape": BOX, "names": {7: {**CIRCLE, "radius": -1}}},
        ["names.7.radius: Input should be greater than 0 (got -1)"],
    ),
    "several at once": (
        {"shape": {**CIRCLE, "fill": 2, "x": 1}, "siezs": [1]},
        ["unknown key 'shape.x'", "unknown key 'siezs' (did you mean 'sizes'?)"],
    ),
}


@pytest.mark.parametrize(("raw", "lines"), WRONG.values(), ids=WRONG.keys())
def test_an_error_names_the_keys_of_the_file(raw: dict[str, Any], lines: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(Page, raw, source="page.yaml")
    assert str(caught.value).splitlines() == [f"page.yaml: {line}" for line in lines]


def test_a_problem_of_the_whole_document_is_said_without_it() -> None:
    with pytest.raises(ConfigError) as caught:
        parse(Box, {"kind": "box", "width": 1}, source="box.yaml")
    assert str(caught.value) == "box.yaml: a box is at least as wide as high"
    with pytest.raises(ConfigError, match=r"box\.yaml: expected a mapping of keys, got list"):
        parse(Box, [1], source="box.yaml")


def test_what_is_right_is_read() -> None:
    page = parse(Page, {"shape": {"kind": "group", "members": [BOX, CIRCLE]}}, source="page.yaml")
    assert isinstance(page.shape, Group)
    assert page.shape.members == (Box(kind="box", width=3), Circle(kind="circle", radius=1.5))
