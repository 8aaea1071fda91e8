"""What a schema says where it is silent."""

import pytest

from recsys.core.errors import ConfigError
from recsys.core.strict import parse
from recsys.features.schema import Schema


@pytest.mark.parametrize(
    ("more", "name"),
    [({}, "item_id"), ({"items": {"key": "sku"}}, "sku")],
)
def test_without_features_the_item_id_is_one(more: dict[str, object], name: str) -> None:
    given = {"interactions": {"user": "user_id", "item": "item_id"}, **more}
    (feature,) = parse(Schema, given, source="x").features
    assert (feature.name, feature.table, feature.kind) == (name, "items", "categorical")
    again = Schema.model_validate_json(parse(Schema, given, source="x").model_dump_json())
    assert [one.name for one in again.features] == [name]


def test_a_ranker_has_to_say_what_it_reads() -> None:
    roles = {"user": "u", "item": "i", "label": {"column": "clicked"}}
    with pytest.raises(ConfigError, match="at least one feature is needed"):
        parse(Schema, {"interactions": roles}, source="x")


def test_no_features_are_not_the_item_id() -> None:
    given = {"interactions": {"user": "u", "item": "i"}, "features": []}
    with pytest.raises(ConfigError, match="at least one feature is needed"):
        parse(Schema, given, source="x")


def test_what_is_wrong_beside_features_is_said_alone() -> None:
    with pytest.raises(ConfigError) as found:
        parse(Schema, {"interactions": {"user": "u"}}, source="x")
    assert (
        str(found.value) == "x: interactions: the interactions need the columns 'user' and 'item'"
    )
