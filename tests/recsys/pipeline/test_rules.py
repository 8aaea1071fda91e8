"""A rule is recognised by its key, and what is wrong in it is named with its place."""

from typing import Any

import pytest

from recsys.app.reference import keys_of
from recsys.core.errors import ConfigError
from recsys.core.strict import StrictModel, parse
from recsys.pipeline.rules import RULES, AtMost, Boost, Diversify, Pin, Reserve, Rule


class Settings(StrictModel):
    """A configuration with rules."""

    rules: tuple[Rule, ...] = ()
    offset: int = 0


AT_MOST = {"at_most": 3, "of": "brand"}
EVERY: list[dict[str, Any]] = [
    AT_MOST,
    {"diversify": {"by": "category", "lambda": 0.3}},
    {"boost": {"where": "margin > 0.3", "by": 1.2}},
    {"pin": {"position": 1, "where": "campaign == 'x'"}},
    {"reserve": 2, "of": "new_items"},
]


def read(*rules: Any) -> tuple[Rule, ...]:
    """Return the rules of a file."""
    return parse(Settings, {"rules": list(rules)}, source="a.yaml").rules


def test_each_entry_is_the_rule_of_its_key_in_the_order_of_the_file() -> None:
    rules = read(*EVERY)
    assert [type(rule) for rule in rules] == [AtMost, Diversify, Boost, Pin, Reserve]
    assert [next(iter(one)) for one in EVERY] == [
        next(kind for kind, one in RULES.items() if isinstance(rule, one)) for rule in rules
    ]
    assert rules[1].diversify.weight == 0.3
    assert read() == ()


def test_rules_are_written_back_as_they_were_read() -> None:
    settings = Settings(rules=read(*EVERY))
    written = settings.model_dump(mode="json", by_alias=True)
    assert written["rules"] == EVERY
    assert parse(Settings, written, source="a.yaml") == settings


def test_rules_are_made_in_python() -> None:
    rule = AtMost(at_most=3, of="brand")
    assert Settings(rules=(rule,)) == Settings.model_validate({"rules": (AT_MOST,)})


WRONG: dict[str, tuple[Any, str]] = {
    "an unknown key": (
        {"at_most": 3, "off": "brand"},
        "missing key 'rules.1.of'\na.yaml: unknown key 'rules.1.off' (did you mean 'of'?)",
    ),
    "an unknown key in a section": (
        {"boost": {"were": "x", "where": "x", "by": 2.0}},
        "unknown key 'rules.1.boost.were' (did you mean 'where'?)",
    ),
    "an unknown key beside a section": (
        {"boost": {"where": "x", "by": 2.0}, "by": 2.0},
        "unknown key 'rules.1.by'",
    ),
    "an unknown rule": (
        {"atmost": 3, "of": "brand"},
        "rules.1: the key of a rule is missing (did you mean 'at_most'?): "
        "at_most, boost, diversify, pin or reserve",
    ),
    "no rule": (
        {},
        "rules.1: the key of a rule is missing: at_most, boost, diversify, pin or reserve",
    ),
    "two rules": (
        AT_MOST | {"pin": {"position": 1, "where": "x"}},
        "rules.1: at_most and pin are 2 rules: write an entry for each",
    ),
    "no mapping": (
        "at_most",
        "rules.1: a rule is expected, as in {at_most: 3, of: brand} (got 'at_most')",
    ),
    "no limit": (
        {"at_most": 0, "of": "brand"},
        "rules.1.at_most: Input should be greater than or equal to 1 (got 0)",
    ),
    "no column": (
        {"at_most": 1, "of": ""},
        "rules.1.of: String should have at least 1 character (got '')",
    ),
    "too much weight": (
        {"diversify": {"by": "brand", "lambda": 1.5}},
        "rules.1.diversify.lambda: Input should be less than or equal to 1 (got 1.5)",
    ),
    "no weight": ({"diversify": {"by": "brand"}}, "missing key 'rules.1.diversify.lambda'"),
    "a factor of nothing": (
        {"boost": {"where": "x", "by": 0}},
        "rules.1.boost.by: Input should be greater than 0 (got 0)",
    ),
    "a place before the first": (
        {"pin": {"position": 0, "where": "x"}},
        "rules.1.pin.position: Input should be greater than or equal to 1 (got 0)",
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_is_named(what: str) -> None:
    rule, message = WRONG[what]
    with pytest.raises(ConfigError) as caught:
        read(AT_MOST, rule)
    assert str(caught.value) == f"a.yaml: {message}"


def test_every_key_of_every_rule_has_a_meaning() -> None:
    found = {key.name: key for key in keys_of(Settings) if key.name.startswith("rules[]")}
    assert {name.split(".")[1] for name in found} == {*RULES, "of"}
    assert all(key.meaning for key in found.values())
