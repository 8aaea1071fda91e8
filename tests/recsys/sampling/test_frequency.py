"""Streaming frequencies: the paper's sums by hand, and that they find and follow what is true."""

import math

import pytest
import torch

from recsys.sampling.frequency import StreamingFrequency


def stream(frequency: StreamingFrequency, probability: torch.Tensor, steps: int) -> None:
    items = torch.arange(len(probability))
    for _ in range(steps):
        frequency.update(items[torch.rand(len(items)) < probability])


def estimated(frequency: StreamingFrequency, count: int) -> torch.Tensor:
    return frequency.log_probability(torch.arange(count)).exp()


def test_gaps_are_averaged_as_the_paper_says() -> None:
    frequency = StreamingFrequency(1 << 20, num_hashes=1, rate=0.5)
    for batch in ([3], [], [3, 5], [3], [], [], [3]):
        frequency.update(torch.tensor(batch, dtype=torch.int64))
    # Item 3 came at steps 1, 3, 4 and 7. Its first gap stands, then every one counts 1 / 2.
    gap = 1.0
    for one in (2.0, 1.0, 3.0):
        gap = 0.5 * gap + 0.5 * one
    found = frequency.log_probability(torch.tensor([3, 5, 9]))
    # Item 5 came once, at step 3; item 9 never, so not before step 8.
    assert found.tolist() == pytest.approx([-math.log(gap), -math.log(3), -math.log(8)])


def test_the_first_gaps_weigh_alike() -> None:
    frequency = StreamingFrequency(1 << 20, num_hashes=1, rate=0.01)
    came = (2, 3, 9, 10, 30)
    for step in range(1, 31):
        frequency.update(torch.tensor([7] if step in came else [], dtype=torch.int64))
    mean = 30 / 5  # of the gaps 2, 1, 6, 1 and 20
    assert float(frequency.log_probability(torch.tensor([7]))) == pytest.approx(-math.log(mean))


def test_estimates_converge_to_the_truth_and_follow_a_change() -> None:
    truth = torch.logspace(0, -1.5, 60)
    frequency = StreamingFrequency(1 << 14, rate=0.02)
    stream(frequency, truth, 3000)
    # A gap's deviation is about its mean, and the mean is over some 2 / rate = 100 gaps.
    before = (estimated(frequency, 60) / truth).log()
    assert before.abs().max() < 0.45
    assert before.abs().mean() < 0.12
    changed = truth.flip(0)
    stream(frequency, changed, 5000)
    after = (estimated(frequency, 60) / changed).log()
    assert after.abs().max() < 0.45
    assert after.abs().mean() < 0.12


def test_several_hashes_undo_what_sharing_a_bucket_does() -> None:
    truth = torch.full((200,), 0.02)
    truth[:20] = 0.5
    errors = {}
    for num_hashes in (1, 4):
        frequency = StreamingFrequency(256, num_hashes=num_hashes, rate=0.02)
        stream(frequency, truth, 2500)
        errors[num_hashes] = float((estimated(frequency, 200)[20:] / truth[20:]).log().mean())
    assert errors[1] > 3 * abs(errors[4])  # shared with another item, gaps are too short
    assert abs(errors[4]) < 0.12


def test_items_of_a_batch_that_share_a_bucket_hit_it_once() -> None:
    frequency = StreamingFrequency(1)
    for _ in range(10):
        frequency.update(torch.arange(5))
    assert frequency.log_probability(torch.arange(5)).tolist() == [0.0] * 5


def test_its_state_is_all_of_it() -> None:
    truth = torch.linspace(0.05, 0.9, 30)
    whole = StreamingFrequency(120)
    stream(whole, truth, 50)
    copy = StreamingFrequency(120)
    copy.load_state_dict(whole.state_dict())
    later = [torch.arange(30)[torch.rand(30) < truth] for _ in range(20)]
    for batch in later:
        whole.update(batch)
        copy.update(batch)
    assert torch.equal(estimated(whole, 30), estimated(copy, 30))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_buckets": 0}, "4 hashes of 0 buckets: both at least 1"),
        ({"num_buckets": 8, "num_hashes": 0}, "0 hashes of 8 buckets"),
        ({"num_buckets": 8, "rate": 0.0}, "above 0 and at most 1, got 0.0"),
    ],
)
def test_bad_sizes_are_named(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        StreamingFrequency(**settings)  # type: ignore[arg-type]
