"""What was tried on two-towers: each against a slow reference, and on cases worked out by hand."""

import math

import numpy as np
import pytest
import torch
from loss_methods.concepts import concept_loss, most_common, named
from loss_methods.prototypes import Prototypes
from loss_methods.snr import anchors, compared
from loss_methods.weighted import cosines, incidence, weighted_softmax_loss
from torch import Tensor
from torch.nn import functional as F

from recsys.data.batch import Jagged
from recsys.losses.retrieval import Pairs, softmax_loss


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def jagged(*rows: list[int]) -> Jagged:
    lengths = np.array([len(row) for row in rows])
    return Jagged.of_lengths(np.array([value for row in rows for value in row]), lengths)


def test_the_product_is_the_signal_to_noise_distance() -> None:
    query, candidate = draw(5, 6), 3 * draw(7, 6, seed=1) + 2
    found = 1 - 2 * (anchors(query) @ compared(candidate).T).numpy()
    for q, row in zip(query.numpy(), found, strict=True):
        expected = [np.var(c - q) / np.var(q) for c in candidate.numpy()]
        np.testing.assert_allclose(row, expected, rtol=1e-4)


def test_the_distance_of_a_noisy_signal_by_hand() -> None:
    anchor = torch.tensor([[1.0, -1.0, 1.0, -1.0]])  # variance 1
    other = torch.tensor([[4.0, 2.0, 3.0, 1.0]])  # noise 3, 3, 2, 2: variance 1 / 4
    assert 1 - 2 * float(anchors(anchor) @ compared(other).T) == pytest.approx(0.25)


def case() -> tuple[Tensor, Tensor, Pairs, Jagged, Tensor, Tensor]:
    pairs = Pairs(torch.tensor([0, 0, 2]), torch.tensor([1, 4, 0]), torch.tensor([1.0, 0.5, 2.0]))
    excluded = jagged([1, 4], [3], [0, 2])
    weight = draw(3, 6, seed=4).abs().clamp(max=1)
    return draw(3, 4), draw(6, 4, seed=1), pairs, excluded, weight, -draw(6, seed=3).abs()


def test_the_weighted_softmax_is_its_definition() -> None:
    query, candidate, pairs, excluded, weight, log_probability = case()
    losses = []
    asked = zip(pairs.asks.tolist(), pairs.positive.tolist(), strict=True)
    for pair, (asks, own) in enumerate(asked):
        out = set(excluded.take(torch.tensor([asks])).values.tolist()) - {own}
        scores = {c: float(query[asks] @ candidate[c]) for c in range(6) if c not in out}
        total = sum(
            math.exp(s) / (1 if c == own else math.exp(float(log_probability[c])))
            for c, s in scores.items()
        )
        share = {c: 1.0 if c == own else float(weight[pair, c]) for c in scores}
        terms = [share[c] * (math.log(total) - s) for c, s in scores.items()]
        losses.append(sum(terms) / sum(share.values()))
    expected = np.average(losses, weights=pairs.weight.numpy())
    found = weighted_softmax_loss(query, candidate, pairs, excluded, weight, log_probability)
    assert float(found) == pytest.approx(expected, rel=1e-5)


def test_without_similar_items_it_is_the_sampled_softmax() -> None:
    query, candidate, pairs, excluded, weight, log_probability = case()
    found = weighted_softmax_loss(
        query, candidate, pairs, excluded, torch.zeros_like(weight), log_probability
    )
    plain = softmax_loss(query, candidate, pairs, excluded, log_probability)
    assert float(found) == pytest.approx(float(plain), rel=1e-5)


def test_cosines_by_hand() -> None:
    members = incidence(jagged([7, 9], [9], [5]))  # columns 5, 7, 9
    found = cosines(members, np.array([1, 1, 1], np.float32), 2)
    expected = torch.tensor([[1, 0.5, 0], [0.5, 1, 0], [0, 0, 1]])
    torch.testing.assert_close(found.float(), expected, atol=1e-3, rtol=0)
    weighted = cosines(members, np.array([1, 0, 1], np.float32), 1)
    assert float(weighted[0, 1]) == pytest.approx(1)


def test_named_dimensions_sum_to_their_part_of_a_score() -> None:
    query, item = named(draw(4, 5), 3), named(draw(6, 5, seed=1), 3)
    parts = query[:, None, :3] * item[None, :, :3]
    assert bool((parts >= 0).all())
    assert bool((item[:, 3:] < 0).any())
    torch.testing.assert_close(item.norm(dim=1), torch.ones(6))
    torch.testing.assert_close(parts.sum(2) + query[:, 3:] @ item[:, 3:].T, query @ item.T)


def test_concepts_are_the_most_common_attributes() -> None:
    declared = most_common(jagged([30, 20], [20], [], [30, 20, 10]), 2)
    assert declared.tolist() == [[1, 1], [1, 0], [0, 0], [1, 1]]  # 20, then 30
    logits = torch.tensor([[0.0, math.log(3)]])
    expected = (math.log(2) - math.log(0.25)) / 2
    assert float(concept_loss(logits, torch.tensor([[1.0, 0.0]]))) == pytest.approx(expected)


def test_prototypes_of_two_bundles_answer_what_is_far() -> None:
    first, second = torch.tensor([1.0, 0.0, 0.0]), torch.tensor([0.0, 1.0, 0.0])
    bundle = torch.cat([first + 0.05 * draw(90, 3), second + 0.05 * draw(30, 3, seed=1)])
    found = Prototypes.fit(F.normalize(bundle, dim=1), 2, 20.0)
    order = found.directions[:, 0].argsort(descending=True)
    torch.testing.assert_close(
        found.directions[order], torch.stack([first, second]), atol=0.05, rtol=0
    )
    torch.testing.assert_close(
        found.log_weight[order].exp(), torch.tensor([0.75, 0.25]), atol=0.01, rtol=0
    )
    far = F.normalize(torch.tensor([[1.0, 0.2, 2.0]]), dim=1)
    answered = found.answer(torch.cat([first[None], far]), 0.01, 1.0)
    torch.testing.assert_close(answered[0], first)  # near: as it was
    share = (found.log_weight + 20 * far @ found.directions.T).softmax(1)
    torch.testing.assert_close(answered[1:], F.normalize(share @ found.directions, dim=1))


def test_the_density_is_its_definition() -> None:
    unit = F.normalize(draw(40, 3), dim=1)
    found = Prototypes.fit(unit, 3, 5.0)
    weight, directions = found.log_weight.exp().numpy(), found.directions.numpy()
    expected = [np.log(sum(weight * np.exp(5 * directions @ q))) for q in unit.numpy()]
    np.testing.assert_allclose(found.density(unit).numpy(), expected, rtol=1e-4)
    assert float(found.log_weight.exp().sum()) == pytest.approx(1, rel=1e-5)
