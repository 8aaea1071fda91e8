"""The loss of a batch of sessions, question by question, each history encoded by itself."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor

from recsys.data.batch import FeatureBlock, FeatureLayout, History, Jagged, SessionBatch
from recsys.features.batches.sessions import SessionLoader
from recsys.features.dataset.dataset import Dataset
from recsys.features.dataset.sessions import cut_sessions
from recsys.models.attribute_heads import AttributeHead, AttributeHeads
from recsys.training.config.experiment import ExperimentConfig
from recsys.training.config.file import dump_config
from recsys.training.engine.ranks import World
from recsys.training.families.load import parse_config, without_foreign_keys
from recsys.training.families.session.objective import START_WEIGHT, SessionObjective, values_of
from recsys.training.families.session.task import build_session_model, loader_config

Config = Callable[..., ExperimentConfig]
TASKS = [{"feature": "brand", "weight": 0.4}, {"feature": "title", "weight": 1.5}]


@pytest.fixture(scope="module")
def config_of(config: ExperimentConfig) -> Config:
    """Small models of the world's sessions; keywords are of the training, `session` of its part."""

    def changed(
        session: dict[str, Any] | None = None, *, repeats: bool = False, **training: Any
    ) -> ExperimentConfig:
        raw = yaml.safe_load(dump_config(config))
        inside = {"num_blocks": 1, "num_heads": 2, "dropout": 0.0}
        raw["model"] = {"kind": "session", "dim": 16, "history_length": 6, "time_gaps": True}
        raw["model"] |= {"transformer": inside, "dropout": 0.0, "temperature": 0.2}
        raw["model"]["repeats"] = repeats
        quick = {"batch_size": 32, "precision": "float32", "uniform_negatives": 20}
        raw["training"] = {**quick, "metric": "ndcg_at_10", **training, "session": session or {}}
        return parse_config(without_foreign_keys(raw), source="shop.yaml")

    return changed


def loader_of(config: ExperimentConfig, data: Dataset) -> SessionLoader:
    return SessionLoader(data, cut_sessions(data, config.sessions), loader_config(config))


def objective_of(
    config: ExperimentConfig, data: Dataset, world: World | None = None
) -> SessionObjective:
    """The objective of a model and heads that are not as they began."""
    world = World() if world is None else world
    model = build_session_model(config, data, world)
    objective = SessionObjective(model, data, config.training, world, world.device)
    torch.manual_seed(3)
    model.embedding.table.weight.mul_(10)
    if model.repeat is not None:
        torch.nn.init.normal_(model.repeat.weight)
        torch.nn.init.normal_(model.repeat.bias)
    for one in objective.head.parameters() if objective.head is not None else ():
        if one.requires_grad:
            torch.nn.init.normal_(one.data, std=0.5)
    return objective


@dataclass(frozen=True)
class Question:
    """A query, the item that it should find, its weight, and the items of its session so far."""

    query: Tensor
    wanted: int
    weight: float
    taken: set[int]


def questions(objective: SessionObjective, batch: SessionBatch) -> tuple[list[Question], Tensor]:
    """Return all questions of a batch, each history encoded by itself, and the item vectors."""
    model, history = objective.model, batch.history
    items = model.encode_items(batch.items)
    offsets = history.items.offsets.tolist()
    asked = []
    for number, step in enumerate(batch.asks.tolist()):
        row = max(n for n, start in enumerate(offsets[:-1]) if start <= step)
        seen = torch.arange(offsets[row], step + 1)
        asked.append((row, seen, int(batch.positive[number]), float(batch.weight[number])))
    for row, (start, stop) in enumerate(pairwise(offsets)):
        if start < stop:
            nothing = torch.zeros(0, dtype=torch.int64)
            asked.append((row, nothing, int(history.items.values[start]), 0.1))
    found = []
    for row, seen, wanted, weight in asked:
        taken = Jagged(history.items.values[seen], torch.tensor([0, len(seen)]))
        past = History(taken, history.features.take(seen), history.gap[seen])
        query = model.encode_queries(batch.users.take(torch.tensor([row])), items, past)[0]
        found.append(Question(query, wanted, weight, set(taken.values.tolist())))
    return found, items


def scores_of(one: Question, items: Tensor) -> list[float]:
    if len(one.query) == items.shape[1]:
        return (items @ one.query / 0.2).tolist()
    scores = (items @ one.query[:-1] / 0.2).tolist()
    gain = float(one.query[-1]) / 0.2
    return [score + gain * (n in one.taken) for n, score in enumerate(scores)]


def next_item_by_hand(
    objective: SessionObjective, batch: SessionBatch, kind: str, corrected: bool
) -> float:
    """Return the mean loss; what a session holds is among its candidates for sure."""
    asked, items = questions(objective, batch)
    losses = []
    for one in asked:
        logits, item = scores_of(one, items), one.wanted
        held = one.taken if objective.model.repeat is not None else set()
        others = [
            c for c in range(len(items)) if c != item and (c < batch.num_candidates or c in held)
        ]
        if kind == "full_softmax":
            losses.append(-float(torch.tensor(logits).log_softmax(0)[item]))
        elif kind == "sampled_softmax":
            logged = batch.log_inclusion.tolist()
            q = [1.0 if c in held or not corrected else math.exp(logged[c]) for c in others]
            powers = [math.exp(logits[c] - logits[item]) for c in others]
            losses.append(math.log1p(sum(p / one for p, one in zip(powers, q, strict=True))))
        else:
            share = len(others) / 119
            power = share * (0.75 * (1 - 1 / share) + 1 / share)
            total = power * math.log1p(math.exp(-logits[item]))
            total += sum(math.log1p(math.exp(logits[c])) for c in others)
            losses.append(total / (len(others) + 1))
    weights = [one.weight for one in asked]
    return sum(w * one for w, one in zip(weights, losses, strict=True)) / sum(weights)


@pytest.mark.parametrize(
    ("kind", "corrected", "repeats"),
    [
        ("full_softmax", True, False),
        ("full_softmax", False, True),
        ("sampled_softmax", True, False),
        ("sampled_softmax", False, False),
        ("sampled_softmax", True, True),
        ("gbce", True, False),
    ],
)
@torch.no_grad()
def test_the_loss_is_that_of_each_question_alone(
    config_of: Config, dataset: Dataset, kind: str, corrected: bool, repeats: bool
) -> None:
    config = config_of(loss=kind, logq_correction=corrected, repeats=repeats)
    objective, batch = objective_of(config, dataset), loader_of(config, dataset).batch(0, 0)
    batch = replace(batch, weight=torch.rand(len(batch)) + 0.5)
    assert dataset.num_items == 120
    assert objective.head is None
    found = float(objective(batch))
    assert found == pytest.approx(next_item_by_hand(objective, batch, kind, corrected), rel=1e-4)


@torch.no_grad()
def test_a_session_without_a_step_asks_nothing(config_of: Config, dataset: Dataset) -> None:
    config = config_of()
    objective, batch = objective_of(config, dataset), loader_of(config, dataset).batch(0, 0)
    offsets = batch.history.items.offsets
    longer = Jagged(batch.history.items.values, torch.cat([offsets[:1], offsets, offsets[-1:]]))
    ends = torch.tensor([0, *range(len(batch.users)), 0])
    padded = replace(
        batch, users=batch.users.take(ends), history=replace(batch.history, items=longer)
    )
    torch.testing.assert_close(objective(padded), objective(batch))


def classes_by_hand(data: Dataset, feature: str) -> tuple[list[list[int]], int]:
    """Return the numbers of each item's distinct values, and how many there are."""
    layout = data.encoder.layout("items")
    if feature == "title":
        bags, starts = data.items.multi[0].values.tolist(), data.items.multi[0].offsets.tolist()
        rows = [bags[a:b] for a, b in pairwise(starts)]
    else:
        column = [name for name, _ in layout.single].index(feature)
        rows = [[value] for value in data.items.single[:, column].tolist()]
    number = {value: n for n, value in enumerate(sorted({v for row in rows for v in row}))}
    return [[number[v] for v in sorted(set(row))] for row in rows], len(number)


@pytest.mark.parametrize("learnt", [False, True])
@torch.no_grad()
def test_attributes_of_the_next_item_are_asked_of_the_same_states(
    config_of: Config, dataset: Dataset, learnt: bool
) -> None:
    config = config_of({"attributes": TASKS, "learn_task_weights": learnt}, loss="full_softmax")
    objective, batch = objective_of(config, dataset), loader_of(config, dataset).batch(0, 0)
    found = float(objective(batch))
    heads = objective.head
    assert isinstance(heads, AttributeHeads)
    asked, _ = questions(objective, batch)
    wanted, weights = [one.wanted for one in asked], [one.weight for one in asked]
    encoded = objective.model(batch)
    states = torch.cat([encoded.states, encoded.starts])
    losses = [next_item_by_hand(objective, batch, "full_softmax", True)]
    for head, task in zip(heads.heads, TASKS, strict=True):
        assert isinstance(head, AttributeHead)
        classes, count = classes_by_hand(dataset, str(task["feature"]))
        assert head.classes.out_features == count
        rows = [classes[int(batch.item_rows[item])] for item in wanted]
        logs = head.classes(states).log_softmax(1)
        each = [-float(one[row].mean()) for one, row in zip(logs, rows, strict=True)]
        losses.append(sum(w * e for w, e in zip(weights, each, strict=True)) / sum(weights))
    variances = heads.log_variance.tolist()
    if not learnt:
        assert [math.exp(-v) for v in variances] == pytest.approx([1, 0.4, 1.5])
    expected = sum(math.exp(-v) * one for v, one in zip(variances, losses, strict=True))
    expected += sum(variances) / 2 * learnt
    assert found == pytest.approx(expected, rel=1e-4)
    names = ("next_item", *(str(task["feature"]) for task in TASKS))
    parts = {f"loss/{n}": one for n, one in zip(names, losses, strict=True)}
    if learnt:
        parts |= {f"weight/{n}": math.exp(-v) for n, v in zip(names, variances, strict=True)}
    assert objective.parts() == pytest.approx(parts, rel=1e-4)


@torch.no_grad()
def test_a_loss_of_one_part_is_not_told_apart_and_self_supervision_is_one_more(
    config_of: Config, dataset: Dataset
) -> None:
    config = config_of({}, loss="full_softmax")
    objective, batch = objective_of(config, dataset), loader_of(config, dataset).batch(0, 0)
    assert objective.parts() == {}
    objective(batch)
    assert objective.parts() == {}
    beside = {"self_supervision": {"masked_items": {"weight": 0.5}}}
    config = config_of(beside, loss="full_softmax")
    objective, batch = objective_of(config, dataset), loader_of(config, dataset).batch(0, 0)
    found, parts = float(objective(batch)), objective.parts()
    assert set(parts) == {"loss/next_item", "loss/self_supervision"}
    assert sum(parts.values()) == pytest.approx(found, rel=1e-5)
    assert min(parts.values()) > 0


@dataclass(frozen=True)
class Half(World):
    """One of two ranks in this process, who is told what the other one has."""

    vectors: Tensor | None = None
    weight: float = 0.0

    def gather(self, rows: Tensor, count: int) -> Tensor:
        assert self.vectors is not None
        assert len(self.vectors) == count
        return self.vectors

    def sum(self, *values: float) -> list[float]:
        assert len(values) == 1
        return [self.weight]


@pytest.mark.parametrize("kind", ["full_softmax", "sampled_softmax"])
@torch.no_grad()
def test_the_shares_of_two_ranks_are_the_whole(
    config_of: Config, dataset: Dataset, kind: str
) -> None:
    config = config_of({"attributes": TASKS}, loss=kind, id_dropout=0.0)
    loader = loader_of(config, dataset)
    whole = loader.batch(0, 0)
    total = float(whole.weight.sum()) + START_WEIGHT * len(whole.history)
    alone = objective_of(config, dataset)
    vectors = alone.model.encode_items(whole.items)
    shares = []
    for rank in (0, 1):
        world = Half(rank=rank, size=2, vectors=vectors, weight=total)
        objective = SessionObjective(
            alone.model, dataset, config.training, world, torch.device("cpu")
        )
        assert objective.head is not None
        assert alone.head is not None
        objective.head.load_state_dict(alone.head.state_dict())
        shares.append(objective(loader.batch(0, 0, rank=rank, world=2)))
    torch.testing.assert_close(shares[0] + shares[1], alone(whole), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["full_softmax", "sampled_softmax", "gbce"])
@pytest.mark.parametrize("positions", ["all", "last", "random_prefix"])
def test_the_loss_falls_and_stays_finite(
    config_of: Config, dataset: Dataset, kind: str, positions: str
) -> None:
    session = {"attributes": TASKS, "learn_task_weights": True, "positions": positions}
    config = config_of(session, loss=kind)
    objective, batch = objective_of(config, dataset), loader_of(config, dataset).batch(0, 0)
    assert objective.head is not None
    parameters = [*objective.model.parameters(), *objective.head.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=0.01)
    losses = []
    for _ in range(15):
        loss = objective(batch)
        optimizer.zero_grad()
        loss.backward()
        for name, one in [*objective.model.named_parameters(), *objective.head.named_parameters()]:
            assert one.grad is not None, name
            assert torch.isfinite(one.grad).all(), name
        optimizer.step()
        losses.append(float(loss.detach()))
    assert all(math.isfinite(one) for one in losses)
    assert losses[-1] < 0.8 * losses[0]


def test_half_precision_is_coarse_and_no_more(config_of: Config, dataset: Dataset) -> None:
    found = []
    for precision in ("float32", "bfloat16"):
        config = config_of({"attributes": TASKS}, precision=precision)
        batch = loader_of(config, dataset).batch(0, 0)
        found.append(float(objective_of(config, dataset)(batch).detach()))
    assert 0 < abs(found[1] - found[0]) < 0.02 * found[0]


def test_the_values_of_a_feature_are_found_by_its_name() -> None:
    layout = FeatureLayout((("maker", 1), ("shape", 3)), (("tags", 1), ("words", 2)), ("price",))
    tags = Jagged(torch.tensor([5, 6, 7]), torch.tensor([0, 1, 3]))
    words = Jagged(torch.tensor([8, 9, 8]), torch.tensor([0, 2, 3]))
    block = FeatureBlock(torch.tensor([[1, 2], [3, 4]]), (tags, words), torch.zeros(2, 1))
    assert values_of(block, layout, "words") is words
    assert values_of(block, layout, "tags") is tags
    shapes = values_of(block, layout, "shape")
    assert shapes.values.tolist() == [2, 4]
    assert shapes.offsets.tolist() == [0, 1, 2]
