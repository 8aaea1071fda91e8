"""The registries of models: what is registered, and what the types of a configuration allow."""

from typing import get_args

import pytest

from recsys.core.imports import settled
from recsys.models.kind import ModelKind
from recsys.models.rankers import RANKERS, RankerConfig
from recsys.models.registry import MODELS, PIPELINES
from recsys.models.retrieval import RetrievalModel
from recsys.models.retrieval_kinds import RETRIEVAL, RetrievalConfig


@pytest.mark.parametrize(("name", "kind"), MODELS.items())
def test_a_kind_is_registered_by_the_name_that_its_settings_have(
    name: str, kind: ModelKind
) -> None:
    own = {"sources": ({"model": {"kind": "ease"}},)} if name in PIPELINES else {}
    assert kind.config.model_validate({"kind": name, **own}).model_dump()["kind"] == name


def test_a_configuration_takes_what_is_registered() -> None:
    union, _ = get_args(RankerConfig)
    assert {*get_args(union)} == {kind.config for kind in RANKERS.values()}
    assert {*get_args(RetrievalConfig)} == {kind.config for kind in RETRIEVAL.values()}
    assert {*get_args(RetrievalModel)} == {settled(kind.build) for kind in RETRIEVAL.values()}
