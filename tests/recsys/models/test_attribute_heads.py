"""Heads of attributes: the loss a class at a time, weights to where they belong."""

import math

import pytest
import torch
from torch import Tensor

from recsys.data.batch import Jagged
from recsys.models.attribute_heads import AttributeHead, AttributeHeads, classes_of

WANTED = Jagged(torch.tensor([0, 1, 3, 2, 0, 2, 3]), torch.tensor([0, 1, 3, 4, 7]))
"""Four questions: class 0; 1 and 3; 2; 0, 2 and 3."""


def head(dim: int = 3, num_classes: int = 4) -> AttributeHead:
    torch.manual_seed(2)
    made = AttributeHead(dim, num_classes)
    torch.nn.init.normal_(made.classes.weight)
    torch.nn.init.normal_(made.classes.bias)
    return made


def by_hand(made: AttributeHead, states: Tensor) -> Tensor:
    losses = []
    for number, state in enumerate(states):
        logits = [
            w @ state + b for w, b in zip(made.classes.weight, made.classes.bias, strict=True)
        ]
        below = sum(torch.exp(one) for one in logits)
        row = WANTED.values[WANTED.offsets[number] : WANTED.offsets[number + 1]].tolist()
        chances = [-torch.log(torch.exp(logits[one]) / below) for one in row]
        losses.append(sum(chances) / len(row))
    return torch.stack(losses)  # type: ignore[arg-type]


def test_the_loss_is_the_mean_over_what_is_wanted_with_its_gradients() -> None:
    results = []
    for way in (lambda made, states: made.loss(states, WANTED), by_hand):
        made = head()
        states = torch.randn(4, 3, requires_grad=True)
        losses = way(made, states)
        (losses * torch.tensor([1.0, -2.0, 0.5, 3.0])).sum().backward()
        results.append([losses.detach(), states.grad, *(p.grad for p in made.parameters())])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other)


def test_an_even_guess_costs_the_logarithm_of_the_classes() -> None:
    made = head()
    for parameter in made.parameters():
        torch.nn.init.zeros_(parameter)
    losses = made.loss(torch.randn(4, 3), WANTED).detach()
    torch.testing.assert_close(losses, torch.full((4,), math.log(4)))


def test_each_head_answers_for_its_own_attribute() -> None:
    torch.manual_seed(0)
    heads = AttributeHeads(3, {"brand.name": 4, "tags": 9}, {"tags": 2.0, "brand.name": 0.5}, False)
    wanted = {"tags": Jagged(WANTED.values + 5, WANTED.offsets), "brand.name": WANTED}
    states = torch.randn(4, 3)
    losses = heads.losses(states, wanted)
    assert list(losses) == ["brand.name", "tags"]
    for one, name in zip(heads.heads, losses, strict=True):
        assert isinstance(one, AttributeHead)
        torch.testing.assert_close(losses[name], one.loss(states, wanted[name]))
    assert [len(list(one.parameters())) for one in heads.heads] == [2, 2]


def test_losses_are_joined_by_their_weights() -> None:
    losses = {"a": torch.tensor(3.0), "b": torch.tensor(5.0)}
    weights = {"b": 0.5, "a": 2.0}
    fixed = AttributeHeads(3, {"a": 4, "b": 4}, weights, learn=False)
    assert float(fixed.joined(torch.tensor(7.0), losses)) == pytest.approx(7 + 2 * 3 + 0.5 * 5)
    assert not fixed.log_variance.requires_grad
    learnt = AttributeHeads(3, {"a": 4, "b": 4}, weights, learn=True)
    variances = [0.0, -math.log(2), -math.log(0.5)]
    expected = 7 + 2 * 3 + 0.5 * 5 + sum(variances) / 2
    assert float(learnt.joined(torch.tensor(7.0), losses).detach()) == pytest.approx(expected)


def test_learnt_weights_move_to_one_half_over_the_loss() -> None:
    """Where exp(-v) L + v / 2 is least, exp(-v) = 1 / (2 L): a sure answer counts more."""
    heads = AttributeHeads(3, {"a": 4, "b": 4}, {"a": 1.0, "b": 1.0}, learn=True)
    fixed = {"a": torch.tensor(0.2), "b": torch.tensor(4.0)}
    optimizer = torch.optim.SGD([heads.log_variance], lr=0.3)
    for _ in range(300):
        optimizer.zero_grad()
        heads.joined(torch.tensor(1.5), fixed).backward()
        optimizer.step()
    found = (-heads.log_variance.detach()).exp()
    torch.testing.assert_close(found, torch.tensor([1 / 3.0, 1 / 0.4, 1 / 8.0]), rtol=1e-3, atol=0)


def test_heads_learn_what_kind_comes_next() -> None:
    torch.manual_seed(0)
    made, truth = AttributeHead(5, 3), torch.randn(5, 3)
    optimizer = torch.optim.Adam(made.parameters(), lr=0.1)
    for _ in range(100):
        states = torch.randn(64, 5)
        wanted = Jagged((states @ truth).argmax(1), torch.arange(65))
        optimizer.zero_grad()
        made.loss(states, wanted).mean().backward()
        optimizer.step()
    states = torch.randn(500, 5)
    right = made.classes(states).argmax(1) == (states @ truth).argmax(1)
    assert float(right.float().mean()) > 0.9


def test_classes_are_numbered_and_stand_once_in_a_row() -> None:
    values = Jagged(torch.tensor([70, 70, -3, 900, -3, 70]), torch.tensor([0, 3, 3, 4, 6]))
    rows, count = classes_of(values)
    assert count == 3  # -3, 70, 900
    assert rows.offsets.tolist() == [0, 2, 2, 3, 5]
    assert rows.values.tolist() == [0, 1, 2, 0, 1]
