"""Weights of one model for another one that reads other features or more lookups of them.

A column of an embedded row has a name: a feature, the number of its lookup, the place within a
row of the table; or a dense column. A weight that runs over the embedded row keeps, for every
name that both models have, what it was; weights of new columns start at 0, so the new model
begins with the predictions of the old one, as far as the features that were dropped allow, and
learns the rest.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from recsys.core.errors import ConfigError
from recsys.data.batch import FeatureLayout
from recsys.embeddings.growth import carried_features
from recsys.embeddings.plan import EmbeddingPlan
from recsys.models.kind import Axes


def transferred(
    old: EmbeddingPlan,
    new: EmbeddingPlan,
    axes: Axes,
    tensors: Mapping[str, Tensor],
    like: Mapping[str, Tensor],
    may_begin: frozenset[str] = frozenset(),
) -> dict[str, Tensor]:
    """Return `tensors` of the old model, shaped as `like` of the new one.

    may_begin: names that the old model may lack; these are as in `like`.

    Raises:
        ConfigError: a weight has another shape for another reason than the features.
    """
    known = carried_features(old, new)
    columns = [
        _sources(before, after, old.dim, known)
        for before, after in zip(old.layouts, new.layouts, strict=True)
    ]
    widths = [old.width(side) for side in range(len(old.layouts))]
    found = {}
    for name, wanted in like.items():
        begins = name in may_begin and name not in tensors
        tensor = wanted if begins else tensors.get(name, torch.zeros(0))
        for axis, side in axes.get(name, ()):
            tensor = _along(tensor, axis, columns[side], widths[side])
        if tensor.shape != wanted.shape:
            raise ConfigError(
                f"warm_start: the earlier model's '{name}' is {tuple(tensor.shape)}, this one's "
                f"{tuple(wanted.shape)}: keep the sizes under 'model', or train without warm_start"
            )
        found[name] = tensor
    return found


def _along(tensor: Tensor, axis: int, source: Tensor, width: int) -> Tensor:
    """Return `tensor` with columns `source` in place of the first `width` along `axis`."""
    if tensor.ndim <= axis or tensor.shape[axis] < width:
        return tensor
    own = torch.arange(width, tensor.shape[axis])
    index = torch.cat([source, own])
    chosen = tensor.index_select(axis, index.clamp(min=0))
    shape = [1] * tensor.ndim
    shape[axis] = -1
    return chosen * (index >= 0).to(tensor.dtype).view(shape)


def _sources(old: FeatureLayout, new: FeatureLayout, dim: int, known: frozenset[str]) -> Tensor:
    """Return, for each column of the new row, which one of the old row it was, -1 for none."""
    places = {name: place for place, name in enumerate(_names(old, dim, known))}
    names = _names(new, dim, known)
    found = [-1 if name is None else places.get(name, -1) for name in names]
    return torch.tensor(found, dtype=torch.int64)


def _names(
    layout: FeatureLayout, dim: int, known: frozenset[str]
) -> list[tuple[str, int, int] | None]:
    """Name every column of the embedded row; None for a feature outside `known`."""
    names: list[tuple[str, int, int] | None] = []
    for feature, multiplicity in layout.features:
        for lookup in range(multiplicity):
            for place in range(dim):
                names.append((feature, lookup, place) if feature in known else None)
    return [*names, *((dense, -1, 0) for dense in layout.dense)]
