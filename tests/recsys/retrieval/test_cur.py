"""All scores from those of some anchors: exact where the rank allows, else near."""

import numpy as np
import pytest
import scipy.linalg
import torch

from recsys.retrieval.cur import anchor_items, cur_vectors
from recsys.retrieval.topk import exact_topk


def of_rank(rank: int, users: int = 60, items: int = 40, noise: float = 0.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(rank)
    low = torch.randn(users, rank, generator=generator) @ torch.randn(
        rank, items, generator=generator
    )
    return low + noise * torch.randn(users, items, generator=generator)


@pytest.mark.parametrize("anchors", [5, 9])
def test_scores_of_other_users_are_exact_where_the_rank_is_small(anchors: int) -> None:
    scores = of_rank(5)
    known, others = scores[:40], scores[40:]
    for rows in (torch.arange(anchors), anchor_items(known, anchors)):
        guessed = others[:, rows] @ cur_vectors(known, rows).T
        torch.testing.assert_close(guessed, others, atol=1e-3, rtol=1e-3)


def test_too_few_anchors_cannot_tell_and_the_anchors_own_scores_stay() -> None:
    scores = of_rank(12)
    known, others = scores[:40], scores[40:]
    rows = torch.arange(6)
    guessed = others[:, rows] @ cur_vectors(known, rows).T
    assert float((guessed - others).square().mean()) > 0.1 * float(others.square().mean())
    torch.testing.assert_close(guessed[:, rows], others[:, rows], atol=1e-4, rtol=1e-4)


def test_it_is_numpys_pseudo_inverse() -> None:
    scores, rows = of_rank(12, noise=0.3), torch.tensor([3, 17, 2])
    matrix = scores.double().numpy()
    expected = np.linalg.pinv(matrix[:, rows]) @ matrix
    np.testing.assert_allclose(cur_vectors(scores, rows).numpy(), expected.T, atol=1e-5)


def test_small_singular_values_are_left_out_where_asked() -> None:
    scores = of_rank(3, noise=0.01)
    rows = torch.arange(10)
    kept = [
        torch.linalg.matrix_rank(cur_vectors(scores, rows, smallest=one), rtol=1e-4)
        for one in (1e-6, 0.05)
    ]
    assert kept == [10, 3]


def test_anchors_are_the_pivots_of_qr() -> None:
    scores = of_rank(20, noise=0.1)
    pivots = scipy.linalg.qr(scores.double().numpy(), pivoting=True, mode="r")[1]
    assert anchor_items(scores, 12).tolist() == pivots[:12].tolist()
    assert len(anchor_items(of_rank(4), 10)) == 4  # the rank


def test_an_index_finds_the_best_by_anchor_scores() -> None:
    scores = of_rank(6, noise=0.05)
    known, others = scores[:50], scores[50:]
    rows = anchor_items(known, 8)
    found = exact_topk(others[:, rows], cur_vectors(known, rows), 5)[1]
    wanted = others.topk(5, dim=1).indices
    assert float((wanted.unsqueeze(2) == found.unsqueeze(1)).any(2).float().mean()) > 0.9


def test_what_cannot_be_is_refused() -> None:
    scores = of_rank(3)
    for num in (0, 41):
        with pytest.raises(
            ValueError, match=rf"from 1 to 40 anchor items of \(60, 40\), got {num}"
        ):
            anchor_items(scores, num)
    for wrong in ([], [-1], [40]):
        with pytest.raises(ValueError, match="anchors are rows of 40 items, got"):
            cur_vectors(scores, torch.tensor(wrong, dtype=torch.int64))
