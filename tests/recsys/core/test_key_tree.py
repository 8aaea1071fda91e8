"""The keys of a tree by their places, and what an unknown one may have been meant for."""

from typing import Annotated, Literal

import pytest
from pydantic import Field

from recsys.core.errors import ConfigError
from recsys.core.key_tree import accepts, key_tree
from recsys.core.strict import Misfit, StrictModel, parse


class Sgd(StrictModel):
    kind: Literal["sgd"] = "sgd"
    rate: Annotated[float, Field(gt=0)] = 0.1


class Adam(StrictModel):
    kind: Literal["adam"]
    betas: tuple[float, float] = (0.9, 0.99)


class Loop(StrictModel):
    epochs: int = 3
    optimizer: Annotated[Sgd | Adam, Field(discriminator="kind")] = Sgd()


class Part(StrictModel):
    inside: int = 1


class Tree(StrictModel):
    loop: Loop = Loop()
    model_: Sgd | None = Field(default=None, alias="model")
    parts: tuple[Part, ...] = ()
    by_name: dict[str, Part] = Field(default_factory=dict)


def test_the_keys_of_all_kinds_of_a_section_are_there_and_those_of_lists_are_not() -> None:
    assert {".".join(place) for place in key_tree(Tree)} == {
        *("loop", "loop.epochs", "loop.optimizer", "loop.optimizer.kind", "loop.optimizer.rate"),
        *("loop.optimizer.betas", "model", "model.kind", "model.rate", "parts", "by_name"),
    }


def test_a_value_is_accepted_where_a_file_could_have_it() -> None:
    rate = ("loop", "optimizer", "rate")
    assert accepts(Tree, rate, 1)
    assert not accepts(Tree, rate, "1")
    assert not accepts(Tree, rate, 0.0)
    assert accepts(Tree, ("loop", "optimizer", "betas"), [0.5, 0.9])
    assert accepts(Tree, ("loop", "optimizer"), {"kind": "adam"})
    assert not accepts(Tree, ("loop", "optimizer"), {"kind": "adagrad"})
    assert accepts(Tree, ("model",), None)
    assert not accepts(Tree, ("epochs",), 3)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"epochs": 3}, "unknown key 'epochs': 'epochs' is a key of loop: write loop.epochs"),
        (
            {"loop": {"rate": 1.0}},
            "unknown key 'loop.rate': 'rate' is a key of model and loop.optimizer: write model.rate"
            " or loop.optimizer.rate",
        ),
        ({"loop": {"epoch": 3}}, "unknown key 'loop.epoch' (did you mean 'epochs'?)"),
        ({"model": {"kind": "sgd", "part": 1}}, "unknown key 'model.part' (did you mean 'parts'?)"),
        ({"parts": [{"epochs": 1}]}, "unknown key 'parts.0.epochs'"),
        ({"loop": {"parts": 1}}, "unknown key 'loop.parts'"),
        ({"zzz": 1}, "unknown key 'zzz'"),
    ],
)
def test_an_unknown_key_is_told_its_place(raw: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(Tree, raw, source="t")
    assert str(caught.value) == f"t: {message}"


def test_who_knows_more_is_asked_first() -> None:
    asked: list[Misfit] = []

    def explain(misfit: Misfit) -> str | None:
        asked.append(misfit)
        return "not here" if misfit.expected is None else None

    raw = {"loop": {"optimizer": {"kind": "adagrad"}, "epoch": 2, "epochs": "x"}}
    with pytest.raises(ConfigError) as caught:
        parse(Tree, raw, source="t", explain=explain)
    assert asked == [
        Misfit(("loop", "epochs"), "loop.epochs", "x", "Input should be a valid integer"),
        Misfit(
            ("loop", "optimizer"),
            "loop.optimizer",
            {"kind": "adagrad"},
            "choose one of 'sgd', 'adam'",
        ),
        Misfit(("loop", "epoch"), "loop.epoch", 2, None),
    ]
    assert str(caught.value).splitlines() == [
        "t: loop.epochs: Input should be a valid integer (got 'x')",
        "t: loop.optimizer: kind 'adagrad' is none of 'sgd', 'adam' (did you mean 'adam'?)",
        "t: not here",
    ]
