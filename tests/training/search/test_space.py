"""What a search may vary: checked against the configuration before any work."""

from pathlib import Path
from typing import Any

import pytest

from recsys.core.errors import ConfigError
from recsys.core.strict_yaml import read_yaml
from recsys.models.rankers import RANKERS
from recsys.training.config.experiment import ExperimentConfig
from recsys.training.config.ranges import Choice, Range
from recsys.training.families.load import parse_config
from recsys.training.search.space import (
    default_space,
    space_of,
    to_raw,
    values_of,
    with_values,
)


def ranker(kind: str, **more: Any) -> ExperimentConfig:
    raw: dict[str, Any] = {
        "data": {"interactions": "rows.parquet", "stream": True},
        "schema": {
            "interactions": {"label": {"column": "label"}},
            "features": [{"name": "shop", "table": "interactions", "kind": "categorical"}],
        },
        "model": {"kind": kind},
        **more,
    }
    return parse_config(raw, source="test")


@pytest.mark.parametrize("kind", ["two_tower", *RANKERS])
def test_by_default_every_kind_is_searched_around_what_it_has(
    kind: str, config: ExperimentConfig
) -> None:
    base = config if kind == "two_tower" else ranker(kind)
    space = space_of(base, {}, "test")
    assert space == default_space(base)
    assert {"training.learning_rate", "embedding.learning_rate", "training.batch_size"} <= {*space}
    assert ("model.dropout" in space) == (kind not in ("fm", "logistic"))
    assert ("training.uniform_negatives" in space) == (kind == "two_tower")
    assert ("training.id_dropout" in space) == (kind == "two_tower")  # the others' log is streamed
    assert ("embedding.dim" in space) == (kind != "logistic")
    assert ("embedding.weight_decay" in space) == (kind not in ("two_tower", "logistic"))
    for key, value in values_of(base, space).items():
        assert space[key].holds(value), key
        for end in space[key].ends():  # every value of it is one that the configuration takes
            changed = with_values(base, {key: end})
            assert values_of(changed, space) == values_of(base, space) | {key: end}
    assert space_of(base, to_raw(space), "test") == space  # what is printed can be read again


def test_a_self_supervised_loss_is_searched_where_there_is_one(config: ExperimentConfig) -> None:
    key = "training.self_supervision"
    assert not any(name.startswith(key) for name in default_space(config))
    on = with_values(config, {f"{key}.kind": "contrastive", f"{key}.weight": 0.5})
    space = default_space(on)
    assert space[f"{key}.weight"] == Range(0.05, 2.5, log=True)
    assert space[f"{key}.masking"] == Choice(("random", "correlated", "none"))
    for name in (f"{key}.weight", f"{key}.masking"):
        for end in space[name].ends():
            assert values_of(with_values(on, {name: end}), space)[name] == end
    spread = with_values(on, {f"{key}.kind": "spread_out"})
    assert {*default_space(on)} - {*default_space(spread)} == {f"{key}.masking"}
    assert {*default_space(with_values(on, {f"{key}.weight": 0.0}))} == {*default_space(config)}


def test_a_warm_start_keeps_the_shapes(config: ExperimentConfig) -> None:
    warm = config.model_copy(update={"warm_start": "earlier"})
    gone = {"embedding.dim", "model.dim", "model.hidden", "model.history_length"}
    assert {*default_space(config)} - {*default_space(warm)} == gone
    with pytest.raises(ConfigError, match=r"embedding\.dim: a warm start takes over rows of a"):
        space_of(warm, {"embedding.dim": [8, 16]}, "test")


def test_entries_with_dots_or_section_within_section(config: ExperimentConfig) -> None:
    dotted = """
        training.learning_rate: {low: 1e-4, high: 1e-2, log: true}
        training.batch_size: {low: 64, high: 512, log}
        training.self_supervision.weight: {low: 0, high: 1, step: 0.25}
        training.epochs: {low: 2, high: 8, step: 3}
        model.hidden: [[], [32], [64, 32]]
        embedding.optimizer: [sgd, adagrad]
    """
    nested = """
        training:
          learning_rate: {low: 1e-4, high: 1e-2, log: true}
          batch_size: {low: 64, high: 512, log: true, integer: true}
          self_supervision: {weight: {low: 0, high: 1, step: 0.25}}
          epochs: {low: 2, high: 8, step: 3}
        model: {hidden: [[], [32], [64, 32]]}
        embedding: {optimizer: [sgd, adagrad]}
    """
    spaces = [space_of(config, read_yaml(text, source="t"), "t") for text in (dotted, nested)]
    assert spaces[0] == spaces[1]
    assert spaces[0] == {
        "training.learning_rate": Range(1e-4, 1e-2, log=True),
        "training.batch_size": Range(64, 512, log=True, integer=True),
        "training.self_supervision.weight": Range(0, 1, step=0.25),
        "training.epochs": Range(2, 8, integer=True, step=3),
        "model.hidden": Choice(([], [32], [64, 32])),
        "embedding.optimizer": Choice(("sgd", "adagrad")),
    }
    assert isinstance(spaces[0]["training.batch_size"].ends()[0], int)


def test_own_entries_stand_alone_or_beside_the_defaults(config: ExperimentConfig) -> None:
    own = {"model.dim": [8, 16]}
    assert space_of(config, own, "t") == {"model.dim": Choice((8, 16))}
    both = space_of(config, {**own, "defaults": True}, "t")
    assert both == default_space(config) | {"model.dim": Choice((8, 16))}


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"model.dimm": [1, 2]}, r"of a two_tower has no key 'model.dimm' \(did you mean 'model.d"),
        ({"learning_rate": [1.0]}, r"no key 'learning_rate' \(did you mean 'training.learning_"),
        ({"model": {"heads": [1, 2]}}, "of a two_tower has no key 'model.heads'"),
        ({"model": [1, 2]}, "has no key 'model'"),
        ({"split.kind": ["time"]}, "split.kind cannot be searched: all trials train and validate"),
        ({"evaluation": {"ks": [1]}}, "cannot be searched: all trials train and validate"),
        ({"embedding.lookups": [8, 16]}, "changes how the data are encoded.*tune embedding"),
        ({"training.seed": [0, 1]}, "the best of several seeds is chance"),
        ({"training": {"metric": ["a"]}}, "training.metric cannot be searched.*--metric"),
        ({"model.kind": ["dcn"]}, "search each kind by itself"),
        ({"model.dim": 8}, r"model.dim: expected a list of values or \{low: ..., high: ...\} \(go"),
        ({"model.dim": []}, "a choice is a list of different values"),
        ({"model.dim": [8, 8]}, r"a choice is a list of different values \(got \[8, 8\]\)"),
        ({"model.dim": [8, 0]}, "model.dim: model.dim: .*greater than or equal to 1"),
        ({"model.dim": [8, "x"]}, "valid integer"),
        ({"model.dim": {"low": 8}}, "missing key 'high'"),
        ({"model.dim": {"low": 8, "high": 16, "lg": True}}, "unknown key 'lg'.*'log'"),
        ({"model.dim": {"low": 8, "high": 8}}, "low 8 must be below high 8"),
        ({"model.dim": {"low": 8.5, "high": 16}}, "low, high and step of whole numbers must be w"),
        ({"model.dropout": {"low": 0, "high": 0.5, "log": True}}, "log needs low above 0"),
        ({"model.dropout": {"low": 0.1, "high": 0.5, "log": True, "step": 0.1}}, "and goes with n"),
        ({"model.dropout": {"low": 0, "high": 0.5, "step": 0.7}}, "step 0.7 is larger than the ra"),
        ({"model.dropout": {"low": 0, "high": 1.5}}, "model.dropout: .*less than 1"),
        ({"defaults": 3}, "defaults: true or false"),
        ({"defaults": False}, "names no key to search; `--show-space` shows the default"),
        ([1], "expected a mapping of keys, got list"),
    ],
)
def test_what_cannot_be_searched_is_said(raw: Any, message: str, config: ExperimentConfig) -> None:
    with pytest.raises(ConfigError, match=f"(?s)^space.yaml: .*{message}"):
        space_of(config, raw, "space.yaml")


def test_a_range_holds_what_it_can_draw() -> None:
    assert Range(1, 9, step=2).holds(5)
    assert not Range(1, 9, step=2).holds(4)
    assert not Range(1, 9, integer=True).holds(2.0)
    assert not Range(1, 9).holds(10)
    assert not Range(1, 9).holds([2])
    assert Choice(([8], [16])).holds([8])
    assert not Choice(([8], [16])).holds([9])


def test_values_that_do_not_go_together_are_refused(config: ExperimentConfig) -> None:
    with pytest.raises(ConfigError, match="weight_decay runs on backend: torch alone"):
        with_values(config, {"embedding.backend": "fbgemm", "embedding.weight_decay": 0.1})


def test_paths_stay_as_they_are(config: ExperimentConfig) -> None:
    assert Path(with_values(config, {}).data.interactions).is_absolute()
    assert with_values(config, {}) == config


def test_a_whole_section_can_be_chosen() -> None:
    choices = [{"kind": "none"}, {"kind": "contrastive", "views": "row", "weight": 0.5}]
    base = ranker("mlp")
    space = space_of(base, {"training": {"self_supervision": choices}}, "t")
    assert space == {"training.self_supervision": Choice(tuple(choices))}
    chosen = with_values(base, {"training.self_supervision": choices[1]})
    assert chosen.training.self_supervision.weight == 0.5
    assert not space["training.self_supervision"].holds(values_of(base, space))
    with pytest.raises(ConfigError, match=r"unknown key .*viws"):
        space_of(base, {"training.self_supervision": [{"viws": "row"}]}, "t")
    with pytest.raises(ConfigError, match="of a mlp has no key 'training'"):
        space_of(base, {"training": [{"epochs": 3}]}, "t")
