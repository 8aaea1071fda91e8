"""Two augmented views of encoded rows, for self-supervised regularisation.

Yao et al., "Self-supervised Learning for Large-scale Item Recommendations", CIKM 2021,
https://arxiv.org/abs/2007.12865, section 3.2, in two stages. Masking: a set of features reads a
default value in one view, the complement of the set in the other. Dropout: single values of
multi-valued features are left out. The set is random (RFM) or a seed feature with those that know
most about it (CFM), so that a view cannot be guessed from what was left of the same thing. As in
the paper all rows of a batch share one set: were it drawn a row, a view's visible features alone
would say which other view is its complement, and nothing had to be learnt of their values.

Features are numbered single-valued, multi-valued, then dense: `feature_names`. A dense feature is
its columns up to the null indicator (`recsys.embeddings.fields.dense_features`).

Shape letters: N rows, F features, T values of a multi-valued feature.

    mask_F = random_mask(len(feature_names(layout)))
    views = dropped(two_views(block, mask_F, layout), 0.2)   # 2N rows: first views, second views
"""

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys.data.batch import FeatureBlock, FeatureLayout, Jagged
from recsys.embeddings.fields import dense_features
from recsys.embeddings.hashing import mix

MASK_HASH = 0x6D61736B6D61736B
"""The value of a masked feature; each feature learns its meaning."""
_BINS = 16
"""Categories that a number is cut into where categories are wanted."""
_NULL_BIN = -1
_SIDES: tuple[Literal["left"], Literal["right"]] = ("left", "right")


def feature_names(layout: FeatureLayout) -> tuple[str, ...]:
    """Return the features that a mask has a column for, in its order."""
    dense = dense_features(layout.dense)
    return tuple(name for name, _ in layout.features) + tuple(name for name, _ in dense)


def masked(block: FeatureBlock, mask_NF: Tensor, layout: FeatureLayout) -> FeatureBlock:
    """Return the block with the features of `mask_NF` masked; the others stay as they are.

    A masked single-valued feature reads `MASK_HASH`, a multi-valued one a bag of that one value;
    the numbers of a dense one are 0 and its null indicator is 1.

    Args:
        block: N rows.
        mask_NF: (N, F) bool, columns as `feature_names`.
        layout: of the block.

    Raises:
        ValueError: the mask is not (N, F).
    """
    want = (len(block), len(feature_names(layout)))
    if tuple(mask_NF.shape) != want:
        raise ValueError(f"a mask of {tuple(mask_NF.shape)} for rows and features {want}")
    num_single, num_multi = block.single.shape[1], len(block.multi)
    single_NF, multi_NF, dense_NF = mask_NF.split(
        [num_single, num_multi, want[1] - num_single - num_multi], dim=1
    )
    multi = zip(block.multi, multi_NF.unbind(1), strict=True)
    return FeatureBlock(
        block.single.masked_fill(single_NF, MASK_HASH),
        tuple(_masked_bags(jagged, mask_N) for jagged, mask_N in multi),
        _masked_numbers(block.dense, dense_NF, layout),
    )


def fully_masked(layout: FeatureLayout, num_rows: int) -> FeatureBlock:
    """Return `num_rows` rows without information: every feature of `layout` is masked."""
    bag = Jagged(torch.full((num_rows,), MASK_HASH), torch.arange(num_rows + 1))
    null = torch.tensor([float(column.endswith(".null")) for column in layout.dense])
    return FeatureBlock(
        torch.full((num_rows, len(layout.single)), MASK_HASH),
        (bag,) * len(layout.multi),
        null.repeat(num_rows, 1),
    )


def two_views(block: FeatureBlock, mask_F: Tensor, layout: FeatureLayout) -> FeatureBlock:
    """Return 2N rows: all with the features of `mask_F` (F,) bool masked, then with the others.

    Every feature of a row is masked in exactly one of its two views, n and N + n.
    """
    count = len(block)
    twice = block.take(torch.arange(count, device=block.single.device).repeat(2))
    both_2F = torch.stack([mask_F, ~mask_F]).to(block.single.device)
    return masked(twice, both_2F.repeat_interleave(count, dim=0), layout)


def dropped(block: FeatureBlock, probability: float) -> FeatureBlock:
    """Return the block with each value of its multi-valued features left out at `probability`.

    Draws from torch's own generator. A row keeps at least one value of a feature, and is
    as it was where it has one alone.
    """
    if not probability:
        return block
    multi = tuple(_thinned(jagged, probability) for jagged in block.multi)
    return FeatureBlock(block.single, multi, block.dense)


def feature_dropout(block: FeatureBlock, probability: float, layout: FeatureLayout) -> FeatureBlock:
    """Return the block with each feature of each row masked at `probability`, drawn a row.

    Draws from torch's own generator. A row keeps at least one feature.
    """
    luck_NF = torch.rand(len(block), len(feature_names(layout)))
    kept_NF = (luck_NF >= probability) | (luck_NF == luck_NF.amax(1, keepdim=True))
    return masked(block, ~kept_NF.to(block.single.device), layout)


def random_mask(num_features: int) -> Tensor:
    """Draw half of the features, (F,) bool with floor(F / 2) of them (RFM)."""
    return torch.randperm(num_features) < num_features // 2


def correlated_masks(information_FF: NDArray[np.float64]) -> Tensor:
    """Return (F, F) bool: row s are the features masked with seed s (CFM), of which draw a row.

    They are the seed and the floor(F / 2) features with the most information about it, but never
    all: at least one feature is left for either view.

    Args:
        information_FF: (F, F), how much information each feature has about each, as
            `recsys.metrics.information.excess_information`; that about itself is not read.

    Raises:
        ValueError: there are not two features.
    """
    count = len(information_FF)
    if count < 2:
        raise ValueError(f"one view shows what the other hides, so 2 features or more, not {count}")
    # Rounded, so that ties fall to the first features on every machine.
    others_FF = information_FF.round(9)
    np.fill_diagonal(others_FF, np.inf)
    order_FF = np.argsort(-others_FF, axis=1, kind="stable")
    members = order_FF[:, : 1 + min(count // 2, count - 2)]
    masks_FF = np.zeros((count, count), bool)
    np.put_along_axis(masks_FF, members, True, axis=1)
    return torch.from_numpy(masks_FF)


def categories(block: FeatureBlock, layout: FeatureLayout) -> list[NDArray[np.int64]]:
    """Return what each row holds of each feature as one category, F arrays (N,) int64.

    A multi-valued feature counts by its set of values, whatever their order. A number falls into
    one of 16 bins of equal counts, null into one of its own; of a vector the first four numbers
    are cut at their medians.
    """
    found = list(np.ascontiguousarray(block.single.cpu().numpy().T))
    found += [_sets(jagged) for jagged in block.multi]
    dense, start = block.dense.cpu().numpy(), 0
    for _, width in dense_features(layout.dense):
        numbers, null = dense[:, start : start + width - 1], dense[:, start + width - 1] > 0
        found.append(np.where(null, _NULL_BIN, _binned(numbers[:, :4], null)))
        start += width
    return found


def _masked_bags(jagged: Jagged, mask_N: Tensor) -> Jagged:
    """Give the rows of `mask_N` a bag of one value: the row after the last one."""
    one = jagged.values.new_full((1,), MASK_HASH)
    weights = None
    if jagged.weights is not None:
        weights = torch.cat([jagged.weights, jagged.weights.new_ones(1)])
    offsets = torch.cat([jagged.offsets, jagged.offsets[-1:] + 1])
    longer = Jagged(torch.cat([jagged.values, one]), offsets, weights)
    own = torch.arange(len(jagged), device=mask_N.device)
    return longer.take(torch.where(mask_N, len(jagged), own))


def _masked_numbers(dense: Tensor, mask_NF: Tensor, layout: FeatureLayout) -> Tensor:
    widths = [width for _, width in dense_features(layout.dense)]
    if not widths:
        return dense
    hidden = mask_NF.repeat_interleave(torch.tensor(widths, device=mask_NF.device), dim=1)
    null = [float(column.endswith(".null")) for column in layout.dense]
    return torch.where(hidden, torch.tensor(null, device=dense.device), dense)


def _thinned(jagged: Jagged, probability: float) -> Jagged:
    """Leave out values, but not a row's luckiest."""
    count, lengths = len(jagged), jagged.lengths()
    row_T = torch.repeat_interleave(
        torch.arange(count, device=lengths.device), lengths, output_size=len(jagged.values)
    )
    luck_T = torch.rand(len(jagged.values)).to(lengths.device)
    most_N = luck_T.new_zeros(count).scatter_reduce(0, row_T, luck_T, "amax")
    kept_T = (luck_T >= probability) | (luck_T == most_N[row_T])
    offsets = torch.zeros_like(jagged.offsets)
    torch.cumsum(torch.bincount(row_T[kept_T], minlength=count), 0, out=offsets[1:])
    weights = None if jagged.weights is None else jagged.weights[kept_T]
    return Jagged(jagged.values[kept_T], offsets, weights)


def _sets(jagged: Jagged) -> NDArray[np.int64]:
    """Return a hash of each row's values that is the same in every order: the sum of theirs."""
    totals = torch.zeros(len(jagged.values) + 1, dtype=torch.int64)
    torch.cumsum(mix(jagged.values.cpu()), 0, out=totals[1:])  # modulo 2^64, as differences are
    ends = totals[jagged.offsets.cpu()]
    return (ends[1:] - ends[:-1]).numpy()


def _binned(numbers: NDArray[np.float32], null: NDArray[np.bool_]) -> NDArray[np.int64]:
    width = numbers.shape[1]
    count = _BINS if width == 1 else 2
    codes = np.zeros(len(numbers), np.int64)
    if null.all():
        return codes
    for column in range(width):
        known = numbers[~null, column]
        edges = np.quantile(known, np.arange(1, count) / count)
        # A value that many rows share may be an edge: it is distinguished from those on either
        # side.
        below, upto = (np.searchsorted(edges, numbers[:, column], side) for side in _SIDES)
        codes = codes * (2 * count - 1) + below + upto
    return codes
