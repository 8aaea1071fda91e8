"""The task of a model of sessions: what it trains, that it resumes, learns, and what it refuses."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from recsys.core.errors import ConfigError, NumericalError
from recsys.core.events import Event, StepDone
from recsys.data.batch import SessionBatch
from recsys.features.dataset.dataset import Dataset, prepare
from recsys.features.dataset.queries import Queries
from recsys.features.dataset.session_queries import build_session_queries
from recsys.features.dataset.sessions import Sessions, cut_sessions
from recsys.features.dataset.split import TEST, VALIDATION
from recsys.features.world.world import RetailWorld
from recsys.models.session import SessionTransformer
from recsys.training.config.experiment import ExperimentConfig
from recsys.training.config.file import dump_config
from recsys.training.engine.checkpoint import Checkpoints
from recsys.training.engine.loop import Task, fit
from recsys.training.engine.ranks import World
from recsys.training.evaluation.evaluate import ranking_metrics
from recsys.training.families.load import load_config, parse_config, without_foreign_keys
from recsys.training.families.retrieval.validation import rank_with
from recsys.training.families.session.config import SessionExperiment
from recsys.training.families.session.task import build_session_model, loader_config, session_task

Raw = dict[str, Any]
Config = Callable[..., ExperimentConfig]
TASKS = [{"feature": "brand"}, {"feature": "title", "weight": 0.2}]
SMALL = {
    "kind": "session",
    "dim": 16,
    "history_length": 6,
    "time_gaps": True,
    "transformer": {"num_blocks": 1, "num_heads": 2},
}


@pytest.fixture(scope="module")
def raw_config(config: ExperimentConfig) -> Raw:
    """A small model of the world's sessions, as a file would have it."""
    raw = yaml.safe_load(dump_config(config))
    training = {"batch_size": 64, "epochs": 2, "precision": "float32", "metric": "ndcg_at_10"}
    raw |= {"model": dict(SMALL), "training": {**training, "session": {}}}
    raw["embedding"] |= {"backend": "torch"}
    return without_foreign_keys(raw)


@pytest.fixture(scope="module")
def config_of(raw_config: Raw) -> Config:
    """Configurations with some training keys replaced; `session` is of their own part."""

    def changed(session: Raw | None = None, **training: Any) -> ExperimentConfig:
        merged = {**raw_config["training"], **training, "session": session or {}}
        return parse_config({**raw_config, "training": merged}, source="shop.yaml")

    return changed


@pytest.fixture(scope="module")
def sessions(config_of: Config, dataset: Dataset) -> Sessions:
    return cut_sessions(dataset, config_of().sessions)


def queries_of(data: Dataset, sessions: Sessions, part: int, **changes: Any) -> Queries:
    settings = {"per": "user", "history_length": 6, "filter_seen": True, "limit": 200, "seed": 0}
    return build_session_queries(data, sessions, part, **{**settings, **changes})


@pytest.fixture(scope="module")
def task_of(config_of: Config, dataset: Dataset, sessions: Sessions) -> Callable[..., Any]:
    validation = queries_of(dataset, sessions, VALIDATION)

    def made(*arguments: Any, **training: Any) -> Task[SessionBatch]:
        config = config_of(*arguments, **training)
        return session_task(config, dataset, sessions, validation, World())

    return made


@pytest.mark.parametrize("learnt", [False, True])
@pytest.mark.parametrize("tasks", [[], TASKS])
def test_every_parameter_is_in_one_group(
    task_of: Callable[..., Any], tasks: list[Raw], learnt: bool
) -> None:
    task = task_of({"attributes": tasks, "learn_task_weights": learnt}, weight_decay=0.3)
    trained = task.trained
    groups = trained.optimizer.param_groups
    grouped = [id(one) for group in groups for one in group["params"]]
    assert len(grouped) == len(set(grouped))
    of_model = {id(one) for one in trained.model.parameters()}
    of_heads = {id(one) for one in trained.head.parameters()} if tasks else set()
    assert len(of_heads) == (5 if tasks else 0)
    fixed = set() if learnt or not tasks else {id(trained.head.log_variance)}
    assert set(grouped) == (of_model | of_heads) - fixed
    assert (trained.head is None) is (not tasks)
    decayed = {id(one) for group in groups if group["weight_decay"] for one in group["params"]}
    assert decayed == {id(one) for one in trained.model.parameters() if one.ndim >= 2}


def test_tasks_weigh_what_they_are_given_unless_weights_are_learnt(
    task_of: Callable[..., Any],
) -> None:
    heads = task_of({"attributes": TASKS}).trained.head
    assert (-heads.log_variance).exp().tolist() == pytest.approx([1.0, 0.5, 0.2])
    assert not heads.log_variance.requires_grad


class Watch:
    """Notes the loss of every step; ends a training as a crash would, after `until` steps."""

    def __init__(self, until: int | None = None) -> None:
        self.until, self.losses = until, []  # type: ignore[var-annotated]

    def __call__(self, event: Event) -> None:
        if not isinstance(event, StepDone):
            return
        self.losses.append(event.loss)
        if event.global_step == self.until:
            raise KeyboardInterrupt


def bits(task: Task[Any]) -> dict[str, bytes]:
    table = task.trained.table
    state = {**task.trained.tensors(), "table": table.weight, **table.state}
    return {name: one.detach().numpy().tobytes() for name, one in state.items()}


@pytest.mark.parametrize("loss", ["sampled_softmax", "gbce", "full_softmax"])
def test_a_killed_run_ends_with_the_same_bits(
    task_of: Callable[..., Any], config_of: Config, tmp_path: Path, loss: str
) -> None:
    session = {
        "attributes": TASKS,
        "learn_task_weights": True,
        "positions": "random_prefix",
        "step_dropout": 0.2,
    }
    settings = {
        "loss": loss,
        "checkpoint_every": 2,
        "batch_size": 150,
        "id_dropout": 0.2,
        "learning_rate": 0.01,
    }
    training = config_of(session, **settings).training
    tasks = [task_of(session, **settings) for _ in range(3)]
    assert tasks[0].num_steps > 3
    start = bits(tasks[0])
    assert bits(tasks[1]) == start
    fit(tasks[0], training, Checkpoints(tmp_path / "whole"))
    with pytest.raises(KeyboardInterrupt):
        fit(tasks[1], training, Checkpoints(tmp_path / "cut"), (Watch(tasks[0].num_steps + 3),))
    fit(tasks[2], training, Checkpoints(tmp_path / "cut"))
    found = bits(tasks[0])
    assert bits(tasks[2]) == found
    assert all(found[name] != one for name, one in start.items())


def test_the_seed_draws_the_weights(config_of: Config, dataset: Dataset) -> None:
    one, again, other = (
        build_session_model(config_of(seed=seed), dataset, World()) for seed in (1, 1, 2)
    )
    for name, weight in one.state_dict().items():
        assert torch.equal(weight, again.state_dict()[name])
    assert not torch.equal(one.start, other.start)
    assert not torch.equal(one.embedding.table.weight, other.embedding.table.weight)
    assert torch.equal(one.embedding.table.weight, again.embedding.table.weight)
    assert one.user is not None
    assert one.event is not None
    assert one.gap is not None


def test_what_a_batch_is_made_of(config_of: Config) -> None:
    plain = loader_config(config_of())
    assert (plain.batch_size, plain.max_length, plain.seed) == (64, 6, 0)
    assert (plain.windows, plain.positions) == ("slide", "all")
    assert (plain.uniform_negatives, plain.frequent_negatives) == (512, 0)
    assert (plain.id_dropout, plain.event_dropout, plain.step_dropout) == (0.1, 0.1, 0.0)
    assert plain.batch_negatives
    assert not plain.whole_catalogue
    assert not plain.trained_only
    changes: list[tuple[Raw, Raw, Raw]] = [
        ({}, {"loss": "full_softmax"}, {"whole_catalogue": True}),
        ({}, {"loss": "gbce"}, {"batch_negatives": False}),
        ({"batch_negatives": False}, {}, {"batch_negatives": False}),
        ({}, {"negative_items": "trained"}, {"trained_only": True}),
        ({}, {"uniform_negatives": 7}, {"uniform_negatives": 7}),
        ({}, {"id_dropout": 0.4}, {"id_dropout": 0.4}),
        ({}, {"seed": 8}, {"seed": 8}),
        ({}, {"batch_size": 9}, {"batch_size": 9}),
        *(
            ({key: value}, {}, {key: value})
            for key, value in {
                "windows": "last",
                "positions": "last",
                "frequent_negatives": 5,
                "event_dropout": 0.7,
                "step_dropout": 0.6,
            }.items()
        ),
    ]
    for session, training, expected in changes:
        assert loader_config(config_of(session, **training)) == replace(plain, **expected)


def test_training_beats_the_untrained_model(
    task_of: Callable[..., Any], config_of: Config, tmp_path: Path
) -> None:
    settings = {"learning_rate": 0.01, "epochs": 3}
    task = task_of(**settings)
    before = task.validate()["recall_at_20"]
    watch = Watch()
    fit(task, config_of(**settings).training, Checkpoints(tmp_path), (watch,))
    assert task.validate()["recall_at_20"] > 1.3 * before
    count = task.num_steps
    assert sum(watch.losses[-count:]) < 0.9 * sum(watch.losses[:count])


def test_nothing_is_learnt_from_noise(raw_config: Raw, tmp_path: Path) -> None:
    """Where choices are random, each next item is found as often as by chance."""
    world = RetailWorld.create(seed=5, users=300, items=200, events=6_000, noise=True)
    files = world.write(tmp_path / "noise")
    path = files.folder / "recsys.yaml"
    path.write_text(world.config_text(files))
    own = load_config(path)
    raw = {**raw_config, "data": own.data.model_dump(), "schema": own.schema_.model_dump()}
    raw["model"] = {**SMALL, "history_length": 20}
    raw["schema"]["interactions"].pop("session")  # a user is a session
    config = parse_config(raw, source="noise.yaml")
    data = prepare(config.schema_, config.data, config.policies, config.split)
    sessions = cut_sessions(data, config.sessions)
    asked = {
        part: queries_of(data, sessions, part, per="event", filter_seen=False, history_length=20)
        for part in (VALIDATION, TEST)
    }
    task = session_task(config, data, sessions, asked[VALIDATION], World())
    fit(task, config.training, Checkpoints(tmp_path / "checkpoints"))
    model = task.trained.model
    assert isinstance(model, SessionTransformer)
    top = rank_with(model, data, asked[TEST], 20, filter_seen=False)
    recall = ranking_metrics(top, asked[TEST].relevant, (20,))["recall_at_20"]
    assert len(recall) == 200
    assert abs(recall.mean() - 20 / 200) < 4 * (0.1 * 0.9 / len(recall)) ** 0.5


@pytest.mark.parametrize("side", ["items", "none"])
def test_a_number_that_is_not_finite_is_traced_to_rows_and_feature(
    task_of: Callable[..., Any], dataset: Dataset, tmp_path: Path, config_of: Config, side: str
) -> None:
    task = task_of()
    if side == "none":
        task.trained.table.weight[:, 0] = torch.nan
        found = r"the embedding table holds values that are not finite"
        with pytest.raises(NumericalError, match=rf"are rows \d+(, \d+)*; {found}"):
            fit(task, config_of().training, Checkpoints(tmp_path))
        return
    price = dataset.encoder.layout("items").dense.index("price")
    before = dataset.items.dense[:, price].clone()
    dataset.items.dense[:, price] = torch.nan
    try:
        found = r"first interactions are rows \d+(, \d+){4}; not finite in the data: price;"
        with pytest.raises(NumericalError, match=found):
            fit(task, config_of().training, Checkpoints(tmp_path))
    finally:
        dataset.items.dense[:, price] = before


def test_a_bad_row_of_users_or_events_is_named_by_its_side(
    task_of: Callable[..., Any], dataset: Dataset
) -> None:
    task = task_of()
    batch = next(iter(task.batches(0, 0)))
    rows = dataset.tables.events.row[batch.examples[:5].numpy()] + 1
    said = task.describe(batch)
    expected = f"its first interactions are rows {', '.join(map(str, rows.tolist()))}"
    assert said == f"{expected}; all inputs are finite"


TWO_TOWER, RANKER = {"model": {"kind": "two_tower"}}, {"model": {"kind": "dcn"}}


def part(**training: Any) -> Raw:
    return {"training": training}


def session(**settings: Any) -> Raw:
    return part(session=settings)


def masked(*features: str) -> Raw:
    return session(
        self_supervision={"masked_attributes": {"weight": 1.0, "features": list(features)}}
    )


FOR_SESSIONS = "is for models of sessions; model.kind is two_tower: leave it out"
AND_PLAIN = FOR_SESSIONS.replace(";", " and plain models;")
NOT_FOR_SESSIONS = "is for two-towers; model.kind is session: leave it out"
REFUSED: list[tuple[str, Raw, str]] = [
    (
        "gbce",
        {**TWO_TOWER, **part(loss="gbce")},
        "training.loss: gbce is for models of sessions, and model.kind is two_tower: choose one of "
        "'sampled_softmax', 'full_softmax', 'bce', 'bpr', 'cosine_contrastive', 'metric'",
    ),
    (
        "events",
        {**TWO_TOWER, "evaluation": {"queries": "events"}},
        f"evaluation.queries {AND_PLAIN}",
    ),
    (
        "inactivity",
        {**TWO_TOWER, "sessions": {"inactivity_minutes": 30}},
        f"sessions {AND_PLAIN}",
    ),
    (
        "training.session",
        {**TWO_TOWER, **session(step_dropout=0.1)},
        f"training.session {FOR_SESSIONS}",
    ),
    (
        "ranker",
        {**RANKER, **part(negatives=1, session={"windows": "last"}, metric="auc")},
        "training.session is for models of sessions; model.kind is dcn: leave it out",
    ),
    (
        "loss",
        part(loss="bpr"),
        "training.loss: bpr is for two-towers, and model.kind is session: choose one of "
        "'sampled_softmax', 'full_softmax', 'gbce'",
    ),
    (
        "frequent",
        part(loss="gbce", session={"frequent_negatives": 3}),
        "training.session.frequent_negatives: gbce is about negatives that are drawn uniformly: "
        "set training.uniform_negatives instead",
    ),
    (
        "gbce without negatives",
        part(loss="gbce", uniform_negatives=0),
        "training.loss: gbce has no negatives: set training.uniform_negatives",
    ),
    (
        "softmax without negatives",
        part(uniform_negatives=0, session={"batch_negatives": False}),
        "training.loss: sampled_softmax has no negatives: set training.uniform_negatives",
    ),
    (
        "repeats",
        {"model": {**SMALL, "repeats": True}, **part(loss="gbce")},
        "model.repeats: true is for a softmax: set training.loss: sampled_softmax or full_softmax",
    ),
    (
        "calibration",
        {"calibration": "isotonic"},
        "calibration is for two-towers and rankers; model.kind is session: leave it out",
    ),
    ("examples", part(examples="users"), f"training.examples {NOT_FOR_SESSIONS}"),
    ("mask_taken", part(mask_taken=True), f"training.mask_taken {NOT_FOR_SESSIONS}"),
    ("cached", part(cached_negatives=1), f"training.cached_negatives {NOT_FOR_SESSIONS}"),
    ("hard", part(hard_negatives={"count": 1}), f"training.hard_negatives {NOT_FOR_SESSIONS}"),
    (
        "streaming",
        part(logq_correction="streaming"),
        "training.logq_correction: streaming is for two-towers, and model.kind is session: Input "
        "should be a valid boolean",
    ),
    (
        "self_supervision",
        part(self_supervision={"kind": "contrastive"}),
        "training.self_supervision is for two-towers and rankers; model.kind is session: leave it "
        "out",
    ),
    (
        "twice",
        session(attributes=[{"feature": "brand"}, {"feature": "brand", "weight": 1.0}]),
        "attributes: two tasks ask for 'brand'",
    ),
    *(
        (
            f"attribute {name}",
            session(attributes=[{"feature": "brand"}, {"feature": name}]),
            f"training.session.attributes: '{name}' is no categorical, multi_categorical or text "
            "feature of the items other than their id; there are title, department, category, "
            "subcategory, brand",
        )
        for name in ("price", "item_id", "region", "colour")
    ),
    (
        "masked attribute",
        masked("brand", "price"),
        "training.session.self_supervision.masked_attributes.features: 'price' is no categorical",
    ),
]


def merged(raw: Raw, changes: Raw) -> Raw:
    """Return `raw` with sections replaced, of the training single keys."""
    training = {**raw["training"], **changes.get("training", {})}
    return {**raw, **changes, "training": training}


@pytest.mark.parametrize(
    ("changes", "message"), [one[1:] for one in REFUSED], ids=[one[0] for one in REFUSED]
)
def test_what_does_not_go_together_is_refused(raw_config: Raw, changes: Raw, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        parse_config(merged(raw_config, changes), source="shop.yaml")


def test_gaps_need_a_clock(raw_config: Raw) -> None:
    schema = {**raw_config["schema"]}
    schema["interactions"] = {**schema["interactions"], "time": None, "order": "timestamp"}
    raw = {**raw_config, "schema": schema, "split": {"kind": "leave_one_out"}}
    with pytest.raises(ConfigError, match=r"model\.time_gaps needs schema\.interactions\.time: .*"):
        parse_config(raw, source="shop.yaml")
    raw["model"] = {**SMALL, "time_gaps": False}
    assert isinstance(parse_config(raw, source="shop.yaml"), SessionExperiment)


def test_items_of_an_id_alone_have_no_attribute(raw_config: Raw) -> None:
    features = [one for one in raw_config["schema"]["features"] if one["name"] == "item_id"]
    raw = merged(raw_config, session(attributes=[{"feature": "brand"}]))
    raw["schema"] = {**raw["schema"], "features": features}
    with pytest.raises(ConfigError, match=r"other than their id$"):
        parse_config(raw, source="shop.yaml")


@pytest.mark.parametrize(
    "changes",
    [
        part(uniform_negatives=0),
        part(uniform_negatives=0, session={"batch_negatives": False, "frequent_negatives": 2}),
        part(uniform_negatives=0, session={"batch_negatives": False}, loss="full_softmax"),
        part(uniform_negatives=2, session={"batch_negatives": False, "frequent_negatives": 2}),
        part(uniform_negatives=1, session={"batch_negatives": False}, loss="gbce"),
        part(logq_correction=False),
        {"evaluation": {"queries": "events"}},
        session(attributes=[{"feature": "title"}]),
        masked("title"),
    ],
)
def test_what_goes_together_is_taken(raw_config: Raw, changes: Raw) -> None:
    assert isinstance(
        parse_config(merged(raw_config, changes), source="shop.yaml"), SessionExperiment
    )
