"""The rows that embeddings are compared on: Frappe, MovieLens-1M, and clicks with a known truth."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from _loaned import loaned
from embedding_methods.planted import draw_clicks
from torch import Tensor

from recsys.data.batch import FeatureBlock, FeatureLayout, Jagged
from recsys.features.encoding.hashing import hash_values

SINGLE = ("user_id", "movie_id", "year", "gender", "age", "occupation", "zip_code")
"""Fields of MovieLens-1M with one value a row."""
PARTS = ("train", "validation", "test")


@dataclass(frozen=True)
class Rows:
    """Encoded rows of one part of a split with their labels (N,) float32."""

    features: FeatureBlock
    label: Tensor

    def __len__(self) -> int:
        return len(self.label)

    def take(self, rows: Tensor) -> "Rows":
        """Return these rows (M,) int64."""
        return Rows(self.features.take(rows), self.label[rows])


@dataclass(frozen=True)
class StudyData:
    """A data set: rows by part, and the L2 of the table that its size wants.

    best_auc: test AUC of the probabilities that drew the labels; None: nobody knows them.
    """

    layout: FeatureLayout
    parts: dict[str, Rows]
    weight_decay: float
    best_auc: float | None = None

    def training_values(self) -> dict[str, Tensor]:
        """Return the distinct value hashes of each feature in the training rows."""
        block = self.parts["train"].features
        columns = [*block.single.unbind(1), *(jagged.values for jagged in block.multi)]
        names = [name for name, _ in self.layout.features]
        return {n: torch.unique(c) for n, c in zip(names, columns, strict=True)}


def read_joined() -> pa.Table:
    """Return the AutoInt authors' split of MovieLens-1M with the attributes of users and movies."""
    folder = loaned("ml-1m")
    table = pq.read_table(folder / "autoint_split.parquet")
    for key, columns in (
        ("movie_id", ["movie_id", "genres", "year"]),
        ("user_id", ["user_id", "gender", "age", "occupation", "zip_code"]),
    ):
        name = "movies.parquet" if key == "movie_id" else "users.parquet"
        other = pq.read_table(folder / name, columns=columns)
        found = pc.index_in(table[key], other[key].combine_chunks())
        for column in columns[1:]:
            table = table.append_column(column, other[column].take(found))
    return table


def _single(columns: dict[str, pa.ChunkedArray]) -> tuple[FeatureLayout, Tensor]:
    """Return a layout of features with one value a row, and the hashes (N, F)."""
    layout = FeatureLayout(tuple((name, 1) for name in columns), (), ())
    return layout, torch.tensor(np.stack([hash_values(one) for one in columns.values()], axis=1))


def _by_part(rows: Rows, split: np.ndarray) -> dict[str, Rows]:
    return {part: rows.take(torch.tensor(np.flatnonzero(split == part))) for part in PARTS}


def _ml1m(_rows: int) -> StudyData:
    table = read_joined()
    layout, single = _single({name: table[name] for name in SINGLE})
    lists = pc.split_pattern(table["genres"].combine_chunks(), "|")
    offsets = torch.tensor(np.asarray(lists.offsets), dtype=torch.int64)
    genres = Jagged(torch.tensor(hash_values(lists.flatten())), offsets)
    label = torch.tensor(table["label"].to_numpy(), dtype=torch.float32)
    features = FeatureBlock(single, (genres,), torch.zeros(len(label), 0))
    split = np.asarray(table["split"]).astype(str)
    parts = _by_part(Rows(features, label), np.where(split == "valid", "validation", split))
    layout = FeatureLayout(layout.single, (("genres", 1),), ())
    return StudyData(layout, parts, weight_decay=0.01)


def _frappe(_rows: int) -> StudyData:
    table = pq.read_table(loaned("frappe") / "frappe.parquet")
    names = [name for name in table.schema.names if name not in ("label", "split")]
    layout, single = _single({name: table[name] for name in names})
    label = torch.tensor(table["label"].to_numpy(), dtype=torch.float32)
    rows = Rows(FeatureBlock(single, (), torch.zeros(len(label), 0)), label)
    return StudyData(layout, _by_part(rows, np.asarray(table["split"])), weight_decay=0.05)


def _planted(num_rows: int) -> StudyData:
    clicks = draw_clicks(np.random.default_rng(0), num_rows)
    layout, single = _single({n: pa.chunked_array([v]) for n, v in clicks.values.items()})
    label = torch.tensor(clicks.label, dtype=torch.float32)
    rows = Rows(FeatureBlock(single, (), torch.zeros(num_rows, 0)), label)
    tenth = np.arange(num_rows) % 10
    split = np.where(tenth == 8, PARTS[1], np.where(tenth == 9, PARTS[2], PARTS[0]))
    parts = _by_part(rows, split)
    best = clicks.auc(split == PARTS[2])
    return StudyData(layout, parts, weight_decay=min(0.1, 1e4 / len(parts["train"])), best_auc=best)


DATA: dict[str, Callable[[int], StudyData]] = {
    "frappe": _frappe,
    "ml1m": _ml1m,
    "planted": _planted,
}
"""By name; each takes the number of rows to draw, where rows are drawn."""


@cache
def study_data(name: str, num_rows: int) -> StudyData:
    """Return a data set; `num_rows` of `planted`, the others are as long as they are."""
    return DATA[name](num_rows)
