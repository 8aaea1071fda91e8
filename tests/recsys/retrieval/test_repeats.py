"""Items that a session holds already: what they gain, in the loss and in the search."""

import itertools

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from recsys.data.batch import Jagged
from recsys.losses.next_item import full_softmax, sampled_softmax, softmax_with_repeats
from recsys.retrieval.repeats import distinct, earlier_items, repeat_gains


def rows(*lists: list[int]) -> Jagged:
    lengths = torch.tensor([0, *(len(one) for one in lists)])
    values = [value for one in lists for value in one]
    return Jagged(torch.tensor(values, dtype=torch.int64), lengths.cumsum(0))


def as_lists(jagged: Jagged) -> list[list[int]]:
    offsets = jagged.offsets.tolist()
    return [jagged.values[a:b].tolist() for a, b in itertools.pairwise(offsets)]


def test_what_was_taken_up_to_each_step_by_hand() -> None:
    history = rows([5, 3, 5, 9], [], [2, 2])
    asks = torch.tensor([0, 1, 2, 3, 4, 5])
    assert as_lists(earlier_items(history, asks)) == [[5], [3, 5], [3, 5], [3, 5, 9], [2], [2]]
    assert as_lists(earlier_items(history, asks[[1, 5]])) == [[3, 5], [2]]
    assert as_lists(earlier_items(rows([], []), asks[:0])) == []
    assert as_lists(distinct(rows([4, 1, 4], [], [0]))) == [[1, 4], [], [0]]


def logits_by_hand(
    queries: Tensor, items: Tensor, gain: Tensor, taken: Jagged, excluded: Jagged | None = None
) -> Tensor:
    """Score every item of every query, one by one."""
    scores = queries @ items.T
    for query, own in enumerate(as_lists(taken)):
        for item in set(own):
            scores[query, item] = scores[query, item] + gain[query]
    for query, hidden in enumerate([] if excluded is None else as_lists(excluded)):
        scores[query, hidden] = -torch.inf
    return scores


def test_every_distinct_item_of_a_history_gains() -> None:
    found = repeat_gains(rows([5, 3, 5], [], [2]), torch.tensor([0.5, 9.0, -1.0]))
    assert as_lists(found) == [[3, 5], [], [2]]
    assert found.weights is not None
    assert found.weights.tolist() == [0.5, 0.5, -1.0]


TAKEN = ([0, 2], [], [1, 4], [3], [0, 1, 2, 3, 4, 5])


def world(seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor, Jagged]:
    generator = torch.Generator().manual_seed(seed)
    items = torch.randn(6, 3, generator=generator, dtype=torch.float32)
    queries, gain = torch.randn(5, 3, generator=generator), torch.randn(5, generator=generator)
    return queries, items, torch.tensor([2, 1, 0, 3, 5]), gain * 2, rows(*TAKEN)


def test_the_loss_is_the_softmax_of_the_scores_with_their_gains() -> None:
    queries, items, positive, gain, taken = world()
    inputs = [one.clone().requires_grad_() for one in (queries, items, gain)]
    loss = softmax_with_repeats(inputs[0], inputs[1], positive, inputs[2], taken, torch.zeros(6))
    twins = [one.clone().requires_grad_() for one in (queries, items, gain)]
    logits = logits_by_hand(twins[0], twins[1], twins[2], taken)
    wanted = F.cross_entropy(logits, positive, reduction="none")
    torch.testing.assert_close(loss, wanted)
    weights = torch.tensor([1.0, 2.0, 0.5, 3.0, 1.0])
    (loss * weights).sum().backward()
    (wanted * weights).sum().backward()
    for one, twin in zip(inputs, twins, strict=True):
        assert one.grad is not None
        torch.testing.assert_close(one.grad, twin.grad)


def test_without_gain_it_is_the_plain_softmax() -> None:
    queries, items, positive, gain, taken = world(1)
    loss = softmax_with_repeats(queries, items, positive, gain * 0, taken, torch.zeros(6))
    torch.testing.assert_close(loss, full_softmax(queries, items, positive))
    nothing = rows([], [], [], [], [])
    loss = softmax_with_repeats(queries, items, positive, gain, nothing, torch.full((4,), -0.7))
    wanted = sampled_softmax(queries, items, positive, torch.full((4,), -0.7))
    torch.testing.assert_close(loss, wanted)


@pytest.mark.parametrize("num_candidates", [0, 3, 6])
def test_own_items_count_once_and_for_sure_however_candidates_are_drawn(
    num_candidates: int,
) -> None:
    queries, items, positive, gain, taken = world(2)
    log_inclusion = torch.linspace(-2, -0.1, 6)[:num_candidates]
    loss = softmax_with_repeats(queries, items, positive, gain, taken, log_inclusion)
    scores = logits_by_hand(queries, items, gain, taken)
    for query, own in enumerate(TAKEN):
        total = scores[query, positive[query]].exp()
        for item in range(6):
            if item == positive[query]:
                continue
            if item in own:
                total = total + scores[query, item].exp()
            elif item < num_candidates:
                total = total + (scores[query, item] - log_inclusion[item]).exp()
        torch.testing.assert_close(loss[query], total.log() - scores[query, positive[query]])


def test_large_scores_neither_overflow_nor_vanish() -> None:
    queries, items, positive, gain, taken = world(3)
    for sign in (1, -1):
        found = softmax_with_repeats(
            queries * 200, items, positive, gain * 0 + sign * 300, taken, torch.zeros(6)
        )
        logits = logits_by_hand(queries * 200, items, gain * 0 + sign * 300, taken)
        wanted = F.cross_entropy(logits, positive, reduction="none")
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-3)
