"""Self-supervision of sessions: each loss as a loop has it, one call of the table, runs resume."""

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from torch import Tensor
from torch.nn import functional as F

from recsys.core.errors import ConfigError
from recsys.core.events import Event, StepDone
from recsys.data.batch import History, Jagged, SessionBatch
from recsys.features.batches.sessions import SessionLoader
from recsys.features.dataset.dataset import Dataset
from recsys.features.dataset.sessions import cut_sessions
from recsys.models.session import Encoded, SessionTransformer
from recsys.sampling.session_views import View, augmented, hidden
from recsys.training.config.experiment import ExperimentConfig
from recsys.training.config.file import dump_config
from recsys.training.engine.checkpoint import Checkpoints
from recsys.training.engine.loop import Task, fit
from recsys.training.engine.ranks import World
from recsys.training.families.family import Given, Job
from recsys.training.families.load import parse_config, without_foreign_keys
from recsys.training.families.registry import family_of
from recsys.training.families.session.objective import SessionObjective
from recsys.training.families.session.self_supervision import (
    SelfSupervisionHead,
    SessionRegulariser,
    session_regulariser,
)
from recsys.training.families.session.task import build_session_model, loader_config

ITEMS = {"masked_items": {"weight": 0.7, "share": 0.3}}
ATTRIBUTES = {"masked_attributes": {"weight": 0.4, "share": 0.5, "features": ["brand", "title"]}}
CONTRAST = {"contrastive": {"weight": 0.9, "temperature": 0.3}}
EVERYTHING = {**ITEMS, **ATTRIBUTES, **CONTRAST}
Config = Callable[..., ExperimentConfig]


@pytest.fixture(scope="module")
def config_of(config: ExperimentConfig) -> Config:
    """Configurations of a small model of the world's sessions; the keyword is its settings."""

    def changed(self_supervision: dict[str, Any], **training: Any) -> ExperimentConfig:
        raw = yaml.safe_load(dump_config(config))
        sizes = {"num_blocks": 2, "num_heads": 2}
        raw["model"] = {"kind": "session", "dim": 16, "history_length": 6, "time_gaps": True}
        raw["model"]["transformer"] = sizes
        raw["training"] = {"loss": "full_softmax", "batch_size": 64, "epochs": 1}
        raw["training"] |= {"precision": "float32", "metric": "ndcg_at_10", **training}
        raw["training"]["session"] = {"self_supervision": self_supervision}
        return parse_config(without_foreign_keys(raw), source="shop.yaml")

    return changed


def objective_of(config: ExperimentConfig, data: Dataset) -> Any:
    model = build_session_model(config, data, World())
    return SessionObjective(model, data, config.training, World(), torch.device("cpu"))


def first_batch(config: ExperimentConfig, data: Dataset) -> SessionBatch:
    return SessionLoader(data, cut_sessions(data, config.sessions), loader_config(config)).batch(
        0, 0
    )


def at_rest(config: ExperimentConfig, data: Dataset) -> SessionObjective:
    """The objective of a model without dropout whose head is not as it began."""
    objective: SessionObjective = objective_of(config, data)
    assert objective.head is not None
    objective.model.eval()
    torch.manual_seed(3)
    for one in objective.head.parameters():
        torch.nn.init.normal_(one.data, std=0.5) if one.ndim > 1 else one.data.normal_()
    return objective


def regulariser_of(objective: SessionObjective) -> SessionRegulariser:
    assert objective.regulariser is not None
    return objective.regulariser


def head_of(objective: SessionObjective) -> SelfSupervisionHead:
    return regulariser_of(objective).head


def one_by_one(
    model: SessionTransformer,
    batch: SessionBatch,
    encoded: Encoded,
    view: View,
    mask: Tensor,
    users: list[int] | None,
) -> list[Tensor]:
    """Return the states of each session of the view, encoded alone; with users from both sides."""
    found = []
    seen = view.of(batch.history)
    for number, (a, b) in enumerate(pairwise(view.steps.offsets.tolist())):
        items = Jagged(seen.items.values[a:b], torch.tensor([0, b - a]))
        alone = History(items, seen.features.take(torch.arange(a, b)), seen.gap[a:b])
        states = model.encode_view(
            encoded.items,
            encoded.events[view.steps.values[a:b]],
            alone,
            (view.hidden[a:b], mask),
            users_BX=None if users is None else encoded.users[users[number]][None],
            causal=users is None,
        )
        found.append(states)
    return found


def several_of(batch: SessionBatch) -> list[int]:
    return [n for n, size in enumerate(batch.history.lengths().tolist()) if size > 1]


def steps_of(batch: SessionBatch, sessions: list[int]) -> Jagged:
    every = torch.arange(len(batch.history.gap))
    return Jagged(every, batch.history.items.offsets).take(torch.tensor(sessions))


def slow_masked(
    objective: SessionObjective, data: Dataset, batch: SessionBatch, encoded: Encoded
) -> tuple[Tensor, Tensor]:
    """Return the losses of masked items and attributes, a question at a time."""
    model, head, several = objective.model, head_of(objective), several_of(batch)
    settings = regulariser_of(objective).settings
    asked = (settings.masked_items, settings.masked_attributes)
    steps = steps_of(batch, several)
    luck = torch.rand(len(steps.values))
    every = torch.ones(len(several))
    chosen = [hidden(steps, every * one.share, luck) for one in asked]
    larger = max((one.weight > 0, one.share, n) for n, one in enumerate(asked))[2]
    states = torch.cat(
        one_by_one(model, batch, encoded, View(steps, chosen[larger]), head.mask, several)
    )
    brands = data.items.single[
        :, [n for n, _ in data.encoder.layout("items").single].index("brand")
    ]
    words = data.items.multi[0]
    of_item, of_attribute = [], [[], []]
    for place, step in enumerate(steps.values.tolist()):
        slot = int(batch.history.items.values[step])
        row = int(batch.item_rows[slot])
        if chosen[0][place] and head.of_items is not None:
            query = model.queries_of(head.of_items(states[place])[None])
            logits = query @ encoded.items.T / model.temperature
            of_item.append(F.cross_entropy(logits, torch.tensor([slot])))
        if chosen[1][place]:
            bag = words.values[words.offsets[row] : words.offsets[row + 1]]
            pairs = ((brands, brands[row][None]), (words.values, bag))
            for one, losses, (values, wanted) in zip(
                head.of_attributes, of_attribute, pairs, strict=False
            ):
                logs = one.classes(states[place]).log_softmax(0)
                classes = torch.searchsorted(values.unique(), wanted.unique())
                losses.append(-logs[classes].mean())
    attributes = [torch.stack(losses).mean() for losses in of_attribute if losses]
    none = torch.zeros(())
    return (
        torch.stack(of_item).mean() if of_item else none,
        torch.stack(attributes).sum() if attributes and len(head.of_attributes) else none,
    )


def slow_contrast(
    objective: SessionObjective, data: Dataset, batch: SessionBatch, encoded: Encoded
) -> Tensor:
    """Return the loss of two views of each session, a pair at a time."""
    settings, several = regulariser_of(objective).settings.contrastive, several_of(batch)
    steps = steps_of(batch, several + several)
    view = augmented(steps, crop=settings.crop, mask=settings.mask, reorder=settings.reorder)
    states = one_by_one(objective.model, batch, encoded, view, head_of(objective).mask, None)
    last = [F.normalize(one[-1], dim=0) for one in states]
    windows = torch.searchsorted(batch.history.items.offsets, batch.asks, right=True) - 1
    user = {
        window: int(data.tables.events.user_row[event])
        for window, event in zip(windows.tolist(), batch.examples.tolist(), strict=True)
    }
    losses, count = [], len(several)
    for a in range(count):
        others = [b for b in range(count) if b == a or user[several[b]] != user[several[a]]]
        logits = torch.stack([last[a] @ last[count + b] for b in others]) / settings.temperature
        losses.append(F.cross_entropy(logits, torch.tensor(others.index(a))))
    return torch.stack(losses).mean()


SAMPLED = {"loss": "sampled_softmax", "uniform_negatives": 20}


@torch.no_grad()
@pytest.mark.parametrize(
    "settings",
    [
        ITEMS,
        ATTRIBUTES,
        CONTRAST,
        {**ITEMS, **ATTRIBUTES},
        {**ATTRIBUTES, "masked_items": {"weight": 0.7, "share": 0.7}},
        {"masked_items": {"weight": 0.7, "share": 0.2}, "masked_attributes": {"share": 0.7}},
        {**CONTRAST, "masked_items": {"weight": 0.2}},
        EVERYTHING,
    ],
    ids=lambda settings: "+".join(settings),
)
def test_the_loss_is_that_of_each_session_and_step_alone(
    config_of: Config, dataset: Dataset, settings: dict[str, Any]
) -> None:
    # The loop over items knows the full softmax alone; where none are asked for, rows differ.
    config = config_of(settings, **({} if "masked_items" in settings else SAMPLED))
    objective, batch = at_rest(config, dataset), first_batch(config, dataset)
    encoded = objective.model(batch)
    torch.manual_seed(5)
    found = regulariser_of(objective)(batch, encoded, objective._next_item)
    torch.manual_seed(5)
    expected = torch.zeros(())
    if set(settings) & {"masked_items", "masked_attributes"}:
        items, attributes = slow_masked(objective, dataset, batch, encoded)
        asked = regulariser_of(objective).settings
        expected = asked.masked_items.weight * items
        expected = expected + asked.masked_attributes.weight * attributes
        assert float(expected) > 0
    if "contrastive" in settings:
        weight = settings["contrastive"]["weight"]
        expected = expected + weight * slow_contrast(objective, dataset, batch, encoded)
    assert float(found) == pytest.approx(float(expected), rel=1e-4)


@torch.no_grad()
def test_it_stands_beside_the_other_losses(config_of: Config, dataset: Dataset) -> None:
    """With a sampled loss and tasks of the next item, which keep their heads."""
    config = config_of(EVERYTHING, **SAMPLED)
    session = config.training.session.model_copy(
        update={"attributes": ({"feature": "brand", "weight": 0.5},)}
    )
    raw = yaml.safe_load(dump_config(config))
    raw["training"]["session"]["attributes"] = list(session.attributes)
    config = parse_config(raw, source="shop.yaml")
    objective, batch = at_rest(config, dataset), first_batch(config, dataset)
    encoded = objective.model(batch)
    torch.manual_seed(5)
    beside = regulariser_of(objective)(batch, encoded, objective._next_item)
    torch.manual_seed(5)
    whole = objective(batch)
    assert objective.head is not None
    assert objective.attributes is not None
    trained = {id(one) for one in objective.head.parameters()}
    assert {id(one) for one in objective.attributes.parameters()} < trained
    assert {id(one) for one in head_of(objective).parameters()} < trained
    objective.regulariser = None
    torch.testing.assert_close(whole, objective(batch) + beside)


@pytest.mark.parametrize("settings", [ITEMS, ATTRIBUTES, CONTRAST, EVERYTHING])
def test_the_table_is_called_once_and_everything_learns(
    config_of: Config, dataset: Dataset, settings: dict[str, Any]
) -> None:
    config = config_of(settings)
    objective, batch = objective_of(config, dataset), first_batch(config, dataset)
    table, calls = objective.model.embedding.table, []
    before = table.weight.detach().clone()

    class Counted:
        def __getattr__(self, name: str) -> Any:
            return getattr(table, name)

        def __call__(self, *arguments: Any) -> Any:
            calls.append(len(arguments[0]))
            return table(*arguments)

    objective.model.embedding.table = Counted()
    encoded = objective.model(batch)
    regulariser_of(objective)(batch, encoded, objective._next_item).backward()
    assert len(calls) == 1
    assert float((table.weight.detach() - before).abs().max()) > 0
    # Items learn from what stands around them, not only as answers.
    named = [*objective.head.named_parameters(), *objective.model.candidate.named_parameters()]
    for name, parameter in named:
        assert parameter.grad is not None, name
        assert float(parameter.grad.abs().max()) > 0, name


def test_what_only_the_training_needs_is_not_in_the_model(
    config_of: Config, dataset: Dataset
) -> None:
    with_it, without = (
        objective_of(config_of(EVERYTHING), dataset),
        objective_of(config_of({}), dataset),
    )
    ours, plain = with_it.model.state_dict(), without.model.state_dict()
    assert list(ours) == list(plain)
    assert all(torch.equal(ours[name], plain[name]) for name in ours)
    assert without.head is None
    of_items = head_of(with_it).of_items
    assert of_items is not None
    assert torch.equal(of_items.weight, torch.eye(16))  # a state asks for itself at first
    unused = {**CONTRAST, "masked_attributes": {"features": ["brand"]}}
    assert len(head_of(objective_of(config_of(unused), dataset)).state_dict()) == 1


@torch.no_grad()
def test_weights_of_zero_change_nothing(config_of: Config, dataset: Dataset) -> None:
    off = {name: {**of, "weight": 0} for name, of in EVERYTHING.items()}
    losses = []
    for settings in (off, {}):
        config = config_of(settings)
        objective, batch = objective_of(config, dataset), first_batch(config, dataset)
        assert objective.regulariser is None
        torch.manual_seed(1)
        losses.append(float(objective(batch)))
        losses.append(float(torch.rand(())))
    assert losses[:2] == losses[2:]


def short(batch: SessionBatch, lengths: list[int]) -> SessionBatch:
    """The batch with sessions cut to at most these lengths, and no more of them."""
    history, offsets = batch.history, batch.history.items.offsets.tolist()
    rows = [
        list(range(max(end - length, start), end))
        for (start, end), length in zip(pairwise(offsets), lengths, strict=False)
    ]
    steps = torch.tensor([step for row in rows for step in row])
    bounds = torch.tensor([0, *map(len, rows)]).cumsum(0)
    last = torch.searchsorted(batch.asks, torch.tensor([row[-1] for row in rows]))
    return replace(
        batch,
        users=batch.users.take(torch.arange(len(rows))),
        history=History(
            Jagged(history.items.values[steps], bounds),
            history.features.take(steps),
            history.gap[steps],
        ),
        asks=bounds[1:] - 1,
        positive=batch.positive[last],
        weight=batch.weight[last],
        examples=batch.examples[last],
    )


def test_sessions_of_one_step_take_no_part(config_of: Config, dataset: Dataset) -> None:
    config = config_of({**ITEMS, **CONTRAST})
    objective, batch = at_rest(config, dataset), first_batch(config, dataset)
    long = next(n for n, size in enumerate(batch.history.lengths().tolist()) if size > 1)

    @torch.no_grad()
    def loss(lengths: list[int]) -> float:
        some = short(batch, lengths)
        torch.manual_seed(9)
        encoded = objective.model(some)
        return float(regulariser_of(objective)(some, encoded, objective._next_item))

    assert loss([1] * 8) == 0
    alone = loss([1] * long + [2])
    assert alone > 0
    # One session has no other to be told from; what is masked of it is.
    assert loss([1] * long + [2] + [1] * 4) == pytest.approx(alone, rel=1e-5)
    total = objective(short(batch, [1] * 8))
    total.backward()
    assert bool(total.isfinite())


class Stop:
    """Ends a training as a crash would, after `step` steps."""

    def __init__(self, step: int) -> None:
        self.step = step

    def __call__(self, event: Event) -> None:
        if isinstance(event, StepDone) and event.global_step == self.step:
            raise KeyboardInterrupt


def job_of(config: ExperimentConfig) -> Job:
    return family_of(config).open(config, Given())


def bits(task: Task[Any]) -> dict[str, bytes]:
    table = task.trained.table
    state = {**task.trained.tensors(), "table": table.weight, **table.state}
    return {name: one.detach().numpy().tobytes() for name, one in state.items()}


def test_a_killed_run_ends_with_the_same_bits(config_of: Config, tmp_path: Path) -> None:
    config = config_of(EVERYTHING, checkpoint_every=4, learning_rate=0.01)
    job = job_of(config)
    tasks = [job.task() for _ in range(3)]
    start = bits(tasks[0])
    fit(tasks[0], config.training, Checkpoints(tmp_path / "whole"))
    with pytest.raises(KeyboardInterrupt):
        fit(tasks[1], config.training, Checkpoints(tmp_path / "cut"), (Stop(6),))
    fit(tasks[2], config.training, Checkpoints(tmp_path / "cut"))
    found = bits(tasks[0])
    assert bits(tasks[2]) == found
    heads = [name for name in found if name.startswith("head.")]
    assert len(heads) == 2 + 2 * 2
    assert all(found[name] != start[name] for name in heads)


def test_several_processes_are_refused(config_of: Config, dataset: Dataset) -> None:
    model, ranks = build_session_model(config_of({}), dataset, World()), replace(World(), size=2)

    def made(settings: dict[str, Any]) -> SessionRegulariser | None:
        asked = config_of(settings).training.session.self_supervision
        classes = {"brand": (Jagged(torch.zeros(1), torch.arange(2)), 1)}
        rows = dataset.tables.events.user_row
        return session_regulariser(asked, model, classes.__getitem__, rows, ranks)

    with pytest.raises(ConfigError, match=r"self_supervision looks at .* and 2 processes hold"):
        made(CONTRAST)
    assert made({}) is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"masked_attributes": {"weight": 1.0}}, "asks for no feature: name some"),
        (
            {"masked_attributes": {"weight": 1.0, "features": ["brand", "brand"]}},
            "features names 'brand' twice",
        ),
        (
            {"masked_attributes": {"weight": 1.0, "features": ["item_id"]}},
            r"training\.session\.self_supervision\.masked_attributes\.features: 'item_id' is no "
            "categorical.*there are title, department",
        ),
        ({"masked_attributes": {"features": ["price"]}}, "features: 'price' is no categorical"),
        ({"masked_items": {"share": 0.0}}, r"masked_items\.share: Input should be greater than 0"),
        ({"masked_items": {"share": 1.0}}, r"masked_items\.share: Input should be less than 1"),
        ({"masked_items": {"weight": -1.0}}, r"masked_items\.weight: .*greater than or equal to 0"),
        ({"masked_item": {}}, r"unknown key .*masked_item' \(did you mean 'masked_items'\?\)"),
        (
            {"contrastive": {"weight": 1.0, "crop": 1.0, "mask": 0.0, "reorder": 0.0}},
            "both views are the session itself: switch one on",
        ),
        ({"contrastive": {"crop": 0.0}}, r"contrastive\.crop: Input should be greater than 0"),
    ],
)
def test_settings_that_mean_nothing_are_refused(
    config_of: Config, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        config_of(settings)


def test_only_sessions_have_it(config: ExperimentConfig) -> None:
    raw = yaml.safe_load(dump_config(config))
    raw["training"]["session"] = {"self_supervision": CONTRAST}
    with pytest.raises(ConfigError, match=r"training\.session is for models of sessions"):
        parse_config(raw, source="shop.yaml")


def test_what_lies_between_two_items_is_learnt_from_both(tmp_path: Path) -> None:
    """Users took a, then the item of the pair (a, c), then c: one side leaves three to guess."""
    pairs = np.tile(np.arange(9), 30)
    trios = np.stack([100 + pairs // 3, pairs, 200 + pairs % 3], axis=1)
    # The last three of six are what is asked for: in training, validation and test.
    log = {"user": np.repeat(np.arange(len(trios)), 6), "at": np.tile(np.arange(6), len(trios))}
    log["item"] = np.concatenate([trios, trios], axis=1).ravel()
    pq.write_table(pa.table(log), tmp_path / "log.parquet")
    raw = {
        "data": {"interactions": str(tmp_path / "log.parquet")},
        "schema": {
            "interactions": {"user": "user", "item": "item", "order": "at"},
            "features": [{"name": "item", "table": "items", "kind": "categorical"}],
        },
        "split": {"kind": "leave_one_out"},
        "model": {
            "kind": "session",
            "dim": 16,
            "history_length": 4,
            "dropout": 0,
            "repeats": False,
        },
        "evaluation": {"filter_seen": False},
        "embedding": {"num_rows": 1024, "dim": 16, "learning_rate": 0.05},
        "training": {
            "loss": "full_softmax",
            "batch_size": 90,
            "id_dropout": 0.0,
            "learning_rate": 0.01,
            "session": {"self_supervision": {"masked_items": {"weight": 1.0, "share": 0.4}}},
        },
    }
    config = parse_config(raw, source="log.yaml")
    task = job_of(config).task()
    optimizer, objective = task.trained.optimizer, task.loss
    assert isinstance(objective, SessionObjective)
    for epoch in range(40):
        for batch in task.batches(epoch, 0):
            optimizer.zero_grad()
            encoded = objective.model(batch)
            regulariser_of(objective)(batch, encoded, objective._next_item).backward()
            optimizer.step()
    objective.model.eval()
    batch = next(iter(task.batches(0, 0)))
    assert (batch.history.lengths() == 3).all()
    middle = torch.arange(3 * len(batch.history)) % 3 == 1
    encoded, head = objective.model(batch), head_of(objective)
    states = objective.model.encode_view(
        encoded.items, encoded.events, batch.history, (middle, head.mask), causal=False
    )
    assert head.of_items is not None
    scores = objective.model.queries_of(head.of_items(states[middle])) @ encoded.items.T
    share = (scores.argmax(1) == batch.history.items.values[middle]).float().mean()
    assert float(share) > 0.95
