"""A configuration is one of its model's family: no more keys, and a word on those of others."""

from typing import Any

import pytest
import yaml

from recsys.core.errors import ConfigError
from recsys.models.rankers import RANKERS
from recsys.models.registry import MODELS
from recsys.plain.registry import PLAIN
from recsys.training.config.experiment import ExperimentConfig
from recsys.training.config.file import dump_config
from recsys.training.families.load import parse_config, without_foreign_keys
from recsys.training.families.pipeline.config import PipelineExperiment
from recsys.training.families.plain.config import PlainExperiment
from recsys.training.families.ranker.config import RankerExperiment
from recsys.training.families.registry import FAMILIES, FAMILY_OF_KIND, family_of
from recsys.training.families.session.config import SessionExperiment
from recsys.training.families.two_tower.config import TwoTowerExperiment

Raw = dict[str, Any]
CLASSES = {
    "two_tower": TwoTowerExperiment,
    "session": SessionExperiment,
    **dict.fromkeys(tuple(RANKERS), RankerExperiment),
    **dict.fromkeys(tuple(PLAIN), PlainExperiment),
    "pipeline": PipelineExperiment,
}


def raw_of(kind: str, **sections: Any) -> Raw:
    """Return a smallest configuration with a model of this kind."""
    raw: Raw = {
        "data": {"interactions": "log.parquet"},
        "schema": {
            "interactions": {"user": "user", "item": "item"},
            "features": [{"name": "item", "table": "items", "kind": "categorical"}],
        },
        "model": {"kind": kind},
    }
    if CLASSES[kind] is RankerExperiment:
        raw["schema"]["interactions"]["label"] = {"column": "label"}
    if kind == "pipeline":
        raw["model"]["sources"] = [{"model": {"kind": "ease"}}]
    if kind == "session_items":
        raw["evaluation"] = {"filter_seen": False}
    for name, section in sections.items():
        is_more = isinstance(section, dict) and isinstance(raw.get(name), dict)
        raw[name] = {**raw[name], **section} if is_more else section
    return raw


def parsed(kind: str, **sections: Any) -> ExperimentConfig:
    return parse_config(raw_of(kind, **sections), source="shop.yaml")


def refusal(kind: str, **sections: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parsed(kind, **sections)
    return str(caught.value).splitlines()


def test_every_kind_of_model_belongs_to_one_family() -> None:
    assert CLASSES.keys() == MODELS.keys()
    assert sorted(kind for family in FAMILIES for kind in family.kinds) == sorted(MODELS)
    assert len({family.plural for family in FAMILIES}) == len(FAMILIES)
    for kind, family in FAMILY_OF_KIND.items():
        assert family.experiment is CLASSES[kind]
        assert family_of(parsed(kind)) is family


@pytest.mark.parametrize("kind", CLASSES)
def test_what_is_written_has_the_keys_of_the_family_alone_and_reads_the_same(kind: str) -> None:
    config = parsed(kind)
    assert type(config) is CLASSES[kind]
    shown = yaml.safe_load(dump_config(config))
    assert parse_config(shown, source="shop.yaml") == config
    assert without_foreign_keys(shown) == shown
    for section in ("training", "evaluation", "split", "tracking"):
        assert shown[section].keys() == type(getattr(config, section)).model_fields.keys()
    assert ("label_smoothing" in shown["training"]) == (CLASSES[kind] is RankerExperiment)
    learns_lists = CLASSES[kind] in (TwoTowerExperiment, SessionExperiment)
    assert ("loss" in shown["training"]) == learns_lists
    assert ("examples" in shown["training"]) == (kind == "two_tower")
    assert ("session" in shown["training"]) == (kind == "session")
    assert ("sessions" in shown) == (kind == "session" or CLASSES[kind] is PlainExperiment)
    learns = kind not in (*PLAIN, "pipeline")
    assert ("embedding" in shown) == ("warm_start" in shown) == learns
    assert list(shown)[-2:] == ["cache", "tune"]  # how a run goes stands below what is trained


def test_without_a_kind_the_model_is_a_two_tower() -> None:
    raw = raw_of("two_tower", training={"epochs": 3})
    del raw["model"]
    assert parse_config(raw, source="t") == parsed("two_tower", training={"epochs": 3})
    assert parse_config({**raw, "model": {"dim": 8}}, source="t").model.kind == "two_tower"


FOREIGN: list[tuple[str, Raw, str]] = [
    (
        "two_tower",
        {"training": {"label_smoothing": 0.1}},
        "training.label_smoothing is for rankers",
    ),
    ("two_tower", {"training": {"negative_rate": 0.1}}, "training.negative_rate is for rankers"),
    ("two_tower", {"evaluation": {"rankers": []}}, "evaluation.rankers is for rankers"),
    ("two_tower", {"data": {"stream": True}}, "data.stream is for rankers"),
    ("two_tower", {"model": {"time_gaps": True}}, "model.time_gaps is for models of sessions"),
    ("two_tower", {"model": {"heads": 2}}, "model.heads is for rankers"),
    ("session", {"model": {"interests": 2}}, "model.interests is for two-towers"),
    ("session", {"model": {"smoothing": {"rounds": 1}}}, "model.smoothing is for two-towers"),
    ("session", {"training": {"label_smoothing": 0.1}}, "training.label_smoothing is for rankers"),
    ("session", {"training": {"positives": 4}}, "training.positives is for two-towers"),
    (
        "dcn",
        {"training": {"loss": "bce"}},
        "training.loss is for two-towers and models of sessions",
    ),
    ("dcn", {"training": {"examples": "rows"}}, "training.examples is for two-towers"),
    ("dcn", {"training": {"hard_negatives": {"count": 2}}}, "training.hard_negatives is for two-t"),
    ("dcn", {"training": {"uniform_negatives": 2}}, "training.uniform_negatives is for two-towers"),
    ("dcn", {"evaluation": {"ks": [5]}}, "evaluation.ks is for two-towers, models of sessions, pl"),
    (
        "dcn",
        {"evaluation": {"queries": "events"}},
        "evaluation.queries is for models of sessions and plain models",
    ),
    ("dcn", {"sessions": {}}, "sessions is for models of sessions and plain models"),
    ("ease", {"training": {"epochs": 3}}, "training.epochs is for two-towers, models of sessions"),
    ("ease", {"embedding": {"dim": 4}}, "embedding is for two-towers, models of sessions and rank"),
    ("ease", {"model": {"rank": 3}}, "model.rank is for model.kind: gf_cf and cheby_cf"),
    ("markov", {"model": {"dim": 8}}, "model.dim is for two-towers and models of sessions"),
    ("ease", {"warm_start": "runs/x"}, "warm_start is for two-towers, models of sessions and ran"),
    ("dcn", {"index": {"kind": "exact"}}, "index is for two-towers and models of sessions"),
    (
        "dcn",
        {"split": {"cold_items": {"share": 0.1}}},
        "split.cold_items is for two-towers, models of",
    ),
    ("dcn", {"split": {"join_validation": True}}, "split.join_validation is for two-towers, mode"),
    ("dcn", {"model": {"heads": 2}}, "model.heads is for model.kind: autoint"),
    ("fm", {"model": {"hidden": [8]}}, "model.hidden is for model.kind: autoint, dcn, mlp, fin"),
    ("logistic", {"model": {"dim": 8}}, "model.dim is for two-towers and models of sessions"),
]


@pytest.mark.parametrize(("kind", "sections", "said"), FOREIGN, ids=lambda one: str(one)[:40])
def test_a_key_of_another_family_is_told_whose_it_is(kind: str, sections: Raw, said: str) -> None:
    (line,) = refusal(kind, **sections)
    assert line.startswith(f"shop.yaml: {said}")
    assert line.endswith(f"; model.kind is {kind}: leave it out")


@pytest.mark.parametrize(
    ("kind", "sections", "said"),
    [
        (
            "dcn",
            {"calibration": "logistic"},
            "calibration: logistic is for two-towers, and model.kind is dcn: Input should be "
            "'none', 'temperature', 'beta' or 'isotonic'",
        ),
        (
            "two_tower",
            {"calibration": "temperature"},
            "calibration: temperature is for rankers, and model.kind is two_tower: Input should be "
            "'none', 'logistic' or 'isotonic'",
        ),
        (
            "session",
            {"training": {"loss": {"kind": "metric", "margin": 0.3}}},
            "training.loss: metric is for two-towers, and model.kind is session: choose one of "
            "'sampled_softmax', 'full_softmax', 'gbce'",
        ),
        (
            "dcn",
            {"training": {"self_supervision": {"views": "query"}}},
            "training.self_supervision.views: query is for two-towers, and model.kind is dcn: "
            "Input should be 'item' or 'row'",
        ),
        (
            "two_tower",
            {"training": {"epochs": "3"}},
            "training.epochs: Input should be a valid integer (got '3')",
        ),
    ],
)
def test_a_value_of_another_family_is_told_whose_it_is(kind: str, sections: Raw, said: str) -> None:
    assert refusal(kind, **sections) == [f"shop.yaml: {said}"]


def test_what_no_family_knows_is_told_the_nearest_place() -> None:
    assert refusal("dcn", epochs=3, training={"batchsize": 4}, model={"crosslayers": 2}) == [
        "shop.yaml: unknown key 'model.crosslayers' (did you mean 'cross_layers'?)",
        "shop.yaml: unknown key 'training.batchsize' (did you mean 'batch_size'?)",
        "shop.yaml: unknown key 'epochs': 'epochs' is a key of training: write training.epochs",
    ]
    assert refusal("two_tower", model={"kind": "towtower"}) == [
        "shop.yaml: model: kind 'towtower' is none of 'two_tower', 'session', 'autoint', 'dcn', "
        "'mlp', 'finalmlp', 'masknet', 'shared_bottom', 'mmoe', 'fm', 'logistic', 'popularity', "
        "'item_knn', 'ease', 'gf_cf', 'cheby_cf', 'ials', 'session_items', 'markov', 'v_sknn', "
        "'attributes', 'pipeline' (did you mean 'two_tower'?)"
    ]
    assert refusal("dcn", evaluation={"rankers": ["dnc"]}) == [
        "shop.yaml: evaluation.rankers.0: 'dnc' is none of autoint, dcn, mlp, finalmlp, masknet, "
        "shared_bottom, mmoe, fm, logistic, lightgbm (did you mean 'dcn'?) (got 'dnc')"
    ]


def test_a_calibration_is_of_scores_without_a_memory() -> None:
    (line,) = refusal("two_tower", calibration="logistic", model={"memory": "pairs"})
    assert "calibration is of the scores of the towers" in line
    assert parsed("two_tower", model={"memory": "pairs"}).model.memory.weight == "auto"
    assert parsed("two_tower", calibration="logistic").model.memory.kind == "none"


def test_a_ranker_is_decided_by_its_auc() -> None:
    assert parsed("fm").training.metric == "auc"
    assert refusal("fm", training={"metric": "log_loss"}) == [
        "shop.yaml: training.metric: 'log_loss' is not computed; there is auc"
    ]


def test_a_log_of_positive_rows_has_no_label_and_no_derived_features() -> None:
    roles = {"user": "user", "item": "item", "time": {"column": "at", "unit": "s"}}
    features = [{"name": "item", "table": "items", "kind": "categorical"}]
    labelled = {"interactions": {**roles, "label": {"column": "x"}}, "features": features}
    for kind in ("two_tower", "session", "ease"):
        (line,) = refusal(kind, schema=labelled)
        assert f"model.kind: {kind} learns from interactions and does not use schema" in line
        past = [*features, {"name": "n", "kind": "count", "of": "item"}]
        (line,) = refusal(kind, schema={"interactions": roles, "features": past})
        assert f"feature 'n': kind: count is for rankers, and model.kind is {kind}" in line


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize("other", ["two_tower", "session", "dcn"])
def test_a_configuration_whose_kind_was_changed_loses_the_keys_of_the_old_one(
    kind: str, other: str
) -> None:
    raw = yaml.safe_load(dump_config(parsed(kind, training={"seed": 7}, split={"test": 0.3})))
    changed = {**raw, "model": {**raw["model"], "kind": other}}
    changed["schema"] = raw_of(other)["schema"]
    changed["training"].pop("metric")
    if FAMILY_OF_KIND[kind] is not FAMILY_OF_KIND[other]:
        with pytest.raises(ConfigError, match=f"model.kind is {other}: (leave it out|Input)"):
            parse_config(changed, source="shop.yaml")
    config = parse_config(without_foreign_keys(changed), source="shop.yaml")
    assert type(config) is CLASSES[other]
    assert (config.training.seed, config.split.test) == (7, 0.3)
    changed["training"]["sead"] = 3
    with pytest.raises(ConfigError, match=r"unknown key 'training\.sead'"):
        parse_config(without_foreign_keys(changed), source="shop.yaml")


def test_a_kind_has_its_own_table_where_none_is_given() -> None:
    learning = ("optimizer", "learning_rate", "weight_decay")

    def table(kind: str, **given: Any) -> tuple[Any, ...]:
        embedding = parsed(kind, embedding=given).embedding
        return tuple(getattr(embedding, name) for name in learning)

    assert table("mlp") == ("adam", 0.001, 0.03)
    assert table("fm") == ("row_wise_adagrad", 0.1, 1e-5)
    assert table("logistic") == ("row_wise_adagrad", 0.1, 0.0)
    assert table("fm", weight_decay=0.5) == ("row_wise_adagrad", 0.1, 0.5)
    assert table("fm", optimizer="adam") == ("adam", 0.001, 1e-5)


def test_rankers_are_compared_at_their_own_settings_of_the_table() -> None:
    own = parsed("mlp", embedding={"num_rows": 77, "dim": 3, "weight_decay": 0.5})
    assert isinstance(own, RankerExperiment)
    fm = own.compared_with("fm")
    assert fm.model.kind == "fm"
    assert fm.embedding == parsed("fm", embedding={"num_rows": 77, "dim": 3}).embedding
    assert own.compared_with("dcn").embedding == own.embedding
    named = {"backend": "fbgemm", "optimizer": "row_wise_adagrad", "weight_decay": 0}
    settled = parsed("logistic", embedding=named)
    assert isinstance(settled, RankerExperiment)
    other = settled.compared_with("mlp").embedding
    assert (other.optimizer, other.backend) == ("adam", "auto")
    back = fm.compared_with("mlp").embedding
    assert back == parsed("mlp", embedding={"num_rows": 77, "dim": 3}).embedding


def test_a_ranker_that_is_compared_takes_a_kernel_that_has_its_optimizer() -> None:
    """FBGEMM has no Adam: that it runs the model's table says nothing of the other's."""
    asked = parsed("logistic")
    assert isinstance(asked, RankerExperiment)
    table = asked.embedding.model_copy(update={"backend": "fbgemm"})
    settled = asked.model_copy(update={"embedding": table})
    assert settled.compared_with("mlp").embedding.backend == "auto"
