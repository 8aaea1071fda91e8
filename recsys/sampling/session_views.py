"""Other views of sessions, for self-supervised regularisation: cut, hidden in part, reordered.

Hidden as in Sun et al., "BERT4Rec", CIKM 2019, https://arxiv.org/abs/1904.06690, section 3.6;
cropped, masked and reordered as in Xie et al., "Contrastive Learning for Sequential
Recommendation", ICDE 2022, https://arxiv.org/abs/2010.14395, section III-C. Shares of a session
are rounded to whole steps and never to nothing, as most sessions are short.

Every function but `augmented` is one of numbers that were drawn before: the `luck` arguments,
uniform over [0, 1).

Shape letters: N sessions, V steps in all.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from recsys.data.batch import History, Jagged


@dataclass(frozen=True)
class View:
    """N sessions seen otherwise.

    steps: N rows of step numbers, in the order in which they are seen. hidden (V,) bool: whether
    it is unseen what happened at each of them.
    """

    steps: Jagged
    hidden: Tensor

    def of(self, history: History) -> History:
        """Return the steps of `history` as they are seen, hidden ones with what they hide.

        The gap of a step is that to the step before it where that is still before it, 0 at the
        first, else not known.
        """
        steps_V = self.steps.values
        follows_V = torch.zeros_like(self.hidden)
        follows_V[1:] = steps_V[1:] == steps_V[:-1] + 1
        own_V = history.gap[steps_V]
        gap_V = torch.where(follows_V, own_V, torch.nan)
        first_V = _position(self.steps) == 0
        gap_V = torch.where(first_V & ~own_V.isnan(), 0.0, gap_V)
        items = Jagged(history.items.values[steps_V], self.steps.offsets)
        return History(items, history.features.take(steps_V), gap_V)


def hidden(steps: Jagged, share_N: Tensor, luck_V: Tensor) -> Tensor:
    """Choose a share of each session's steps, (V,) bool.

    One step at least, unless the share is 0, and never all of them. What is chosen of a share is
    chosen of every larger one.
    """
    lengths_N = steps.lengths()
    count_N = (share_N * lengths_N).round().long().clamp(min=1)
    count_N = torch.where(share_N > 0, count_N.minimum(lengths_N - 1), 0)
    rank_V = torch.empty_like(steps.values)
    rank_V[_by_luck(steps, luck_V)] = _position(steps)
    return rank_V < count_N[_session(steps)]


def cropped(steps: Jagged, share_N: Tensor, luck_N: Tensor) -> Jagged:
    """Keep a share of each session's steps, one at least, side by side."""
    lengths_N = steps.lengths()
    kept_N = (share_N * lengths_N).round().long().clamp(min=1).minimum(lengths_N)
    start_N = (luck_N * (lengths_N - kept_N + 1)).long()
    place_V, session_V = _position(steps), _session(steps)
    start_V = start_N[session_V]
    stays_V = (place_V >= start_V) & (place_V < start_V + kept_N[session_V])
    offsets = torch.zeros_like(steps.offsets)
    torch.cumsum(kept_N, 0, out=offsets[1:])
    return Jagged(steps.values[stays_V], offsets)


def reordered(steps: Jagged, share_N: Tensor, luck_N: Tensor, luck_V: Tensor) -> Jagged:
    """Shuffle a share of each session's steps side by side.

    Two steps at least where there are two, unless the share is 0.
    """
    lengths_N = steps.lengths()
    count_N = (share_N * lengths_N).round().long().clamp(min=2)
    count_N = torch.where(share_N > 0, count_N, 0)
    start_N = (luck_N * (lengths_N - count_N + 1)).long()
    place_V, session_V = _position(steps), _session(steps)
    start_V = start_N[session_V]
    within_V = (place_V >= start_V) & (place_V < start_V + count_N[session_V])
    lucky_V = _by_luck(steps, luck_V)
    order_V = torch.arange(len(steps.values), device=place_V.device)
    order_V[within_V] = lucky_V[within_V[lucky_V]]
    return Jagged(steps.values[order_V], steps.offsets)


def augmented(steps: Jagged, *, crop: float, mask: float, reorder: float) -> View:
    """Return a view of each session: cropped, masked or reordered, each with the same odds.

    Draws from torch's own generator. A share that would change nothing is not drawn: `crop` 1,
    `mask` 0, `reorder` 0; one of them must be another.

    Args:
        steps: N rows of step numbers.
        crop: share of the steps that a cropped view keeps.
        mask: share of the steps that a masked view hides.
        reorder: share of the steps that a reordered view has shuffled.
    """
    device, count = steps.offsets.device, len(steps)
    off = (1.0, 0.0, 0.0)
    usable = [n for n, share in enumerate((crop, mask, reorder)) if share != off[n]]
    way_N = torch.tensor(usable)[torch.randint(len(usable), (count,))].to(device)
    crop_N, mask_N, reorder_N = (
        torch.where(way_N == n, share, off[n]) for n, share in enumerate((crop, mask, reorder))
    )
    luck_N, luck_V = (torch.rand(size).to(device) for size in (count, len(steps.values)))
    shuffled = reordered(steps, reorder_N, luck_N, luck_V)
    hidden_V = hidden(steps, mask_N, luck_V)
    # A session goes one of the ways alone: what is cropped is neither hidden nor shuffled.
    places = Jagged(torch.arange(len(luck_V), device=device), steps.offsets)
    kept = cropped(places, crop_N, luck_N)
    return View(Jagged(shuffled.values[kept.values], kept.offsets), hidden_V[kept.values])


def _session(steps: Jagged) -> Tensor:
    """Return the session of each step, (V,) int64."""
    return torch.repeat_interleave(
        torch.arange(len(steps), device=steps.offsets.device),
        steps.lengths(),
        output_size=len(steps.values),
    )


def _position(steps: Jagged) -> Tensor:
    """Return how many steps of its session are before each step, (V,) int64."""
    every = torch.arange(len(steps.values), device=steps.offsets.device)
    return every - steps.offsets[:-1][_session(steps)]


def _by_luck(steps: Jagged, luck_V: Tensor) -> Tensor:
    """Return the places 0..V-1 session by session, in each by their luck."""
    lucky_V = luck_V.argsort()
    return lucky_V[_session(steps)[lucky_V].argsort(stable=True)]
