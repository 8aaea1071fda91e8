"""The embedding map of the report: items as dots in the plane, named when pointed at.

Written as SVG by hand, because every dot carries its item's title. Names are above it as HTML,
so that they are as large on a narrow page, which has space for few.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import NDArray

MAX_ITEMS = 1500
"""More would take t-SNE seconds and the page megabytes; the most popular items are drawn."""
MAX_GROUPS = 10
_WIDTH, _HEIGHT, _MARGIN = 960, 620, 24


@dataclass(frozen=True)
class _Space:
    """How many names a page has space for, and the size of one, in units of the picture."""

    most: int
    width: float
    height: float


# One line of a name in 850 pixels or more; two lines in 358, of 44 % of the width.
_WIDE, _NARROW = _Space(14, 215, 34), _Space(5, 0.44 * _WIDTH, 90)


@dataclass(frozen=True)
class _Name:
    """Where the name of a dot goes: to the left or the right, on which pages."""

    left: bool
    wide: bool
    narrow: bool

    @property
    def css(self) -> str:
        """The classes of its element."""
        page = "" if self.wide and self.narrow else " wide-page" if self.wide else " narrow-page"
        return f"name {'left' if self.left else 'right'}{page}"


@dataclass(frozen=True)
class Map:
    """The map as HTML, its legend as (group, CSS class, items), the largest first, a caption."""

    html: str
    legend: tuple[tuple[str, str, int], ...]
    caption: str


def embedding_map(
    vectors: NDArray[np.float32],
    titles: Sequence[str],
    groups: Sequence[str] | None,
    counts: NDArray[np.int64],
) -> Map | None:
    """Return the map of the items, None where there are too few to draw.

    Args:
        vectors: (n_items, E); rows that are not finite are left out.
        titles: n_items titles, not yet escaped.
        groups: n_items groups, or None.
        counts: (n_items,) interactions of each item; decides which are drawn and named.
    """
    usable = np.flatnonzero(np.isfinite(vectors).all(1))
    if len(usable) < 10:
        return None
    rows = np.sort(usable[np.argsort(-counts[usable], kind="stable")[:MAX_ITEMS]])
    places, method = _plane(vectors[rows].astype(np.float64))
    x, y = _on_page(places)
    shown = [groups[row] for row in rows] if groups is not None else [""] * len(rows)
    largest = [name for name, _ in Counter(shown).most_common(MAX_GROUPS)]
    style = {name: f"group-{number}" for number, name in enumerate(largest)}
    dots = "\n".join(
        f'<circle class="{style.get(group, "group-other")}" cx="{x[i]:.1f}" cy="{y[i]:.1f}" '
        f'r="4"><title>{escape(_words(titles[row], group))}</title></circle>'
        for i, (row, group) in enumerate(zip(rows, shown, strict=True))
    )
    names = "\n".join(
        f'<span class="{name.css}" style="left:{100 * x[i] / _WIDTH:.1f}%;'
        f'top:{100 * y[i] / _HEIGHT:.1f}%">{escape(_short(titles[rows[i]]))}</span>'
        for i, name in _names(x, y, counts[rows]).items()
    )
    html = (
        f'<div class="map"><svg role="img" aria-label="Map of item embeddings" '
        f'viewBox="0 0 {_WIDTH} {_HEIGHT}">\n<g>{dots}</g></svg>\n{names}</div>'
    )
    part = "" if len(rows) == len(vectors) else f"the {len(rows):,} most popular of "
    caption = (
        f"{part}{len(vectors):,} items, {vectors.shape[1]} dimensions brought to 2 by {method}"
    )
    return Map(html, _legend(shown, style) if groups is not None else (), caption)


def _legend(shown: Sequence[str], style: dict[str, str]) -> tuple[tuple[str, str, int], ...]:
    sizes = Counter(shown)
    entries = [(name, css, sizes[name]) for name, css in style.items()]
    rest = len(shown) - sum(size for _, _, size in entries)
    if rest:
        entries.append((f"{len(sizes) - len(style)} more", "group-other", rest))
    return tuple(entries)


def _plane(vectors: NDArray[np.float64]) -> tuple[NDArray[np.float64], str]:
    """Return (n, 2) places and the method's name: t-SNE where it has enough to go by."""
    centred = vectors - vectors.mean(0)
    left, values, _ = np.linalg.svd(centred, full_matrices=False)
    planar = left[:, :2] * values[:2]
    if planar.shape[1] < 2:
        planar = np.column_stack([planar, np.zeros(len(planar))])
    if len(vectors) < 60 or vectors.shape[1] < 3 or values[0] == 0:
        return planar, "principal components"
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    # Fifty components hold nearly everything.
    reduced = left[:, :50] * values[:50]
    start = planar / planar[:, 0].std() * 1e-4
    mapper = TSNE(init=start, max_iter=400, perplexity=30, random_state=0)
    # One thread: the same picture every time, and a tenth of the processor time of two.
    with threadpool_limits(1):
        return mapper.fit_transform(reduced), "t-SNE"


def _on_page(places: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    low, high = places.min(0), places.max(0)
    unit = (places - low) / np.maximum(high - low, 1e-12)
    x = _MARGIN + unit[:, 0] * (_WIDTH - 2 * _MARGIN)
    return x, _MARGIN + (1 - unit[:, 1]) * (_HEIGHT - 2 * _MARGIN)


def _names(
    x: NDArray[np.float64], y: NDArray[np.float64], counts: NDArray[np.int64]
) -> dict[int, _Name]:
    """Return the dots that are named on either page."""
    wide, narrow = (_to_name(x, y, counts, space) for space in (_WIDE, _NARROW))
    return {i: _Name(_to_the_left(x[i]), i in wide, i in narrow) for i in sorted(wide | narrow)}


def _to_the_left(x: float) -> bool:
    return x > _WIDTH / 2


def _to_name(
    x: NDArray[np.float64], y: NDArray[np.float64], counts: NDArray[np.int64], space: _Space
) -> set[int]:
    """Return the most popular items whose names would not run into each other."""
    named: dict[int, float] = {}
    for i in np.argsort(-counts, kind="stable").tolist():
        start = x[i] - space.width if _to_the_left(x[i]) else x[i]
        if all(
            abs(start - other) > space.width or abs(y[i] - y[j]) > space.height
            for j, other in named.items()
        ):
            named[i] = start
        if len(named) == space.most:
            break
    return set(named)


def _words(title: str, group: str) -> str:
    return f"{title} ({group})" if group else title


def _short(title: str) -> str:
    return title if len(title) <= 26 else f"{title[:24]}..."
