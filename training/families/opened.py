"""A trained model opened again: its bundle verified, its data read as its encoder knows them."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from recsys.features.bundle.files import read_items
from recsys.features.bundle.model_bundle import ModelBundle
from recsys.features.dataset.dataset import Dataset, encoded, parted
from recsys.features.tables.checked import Tables, read_tables

LOG = logging.getLogger(__name__)
RECOUNTED = "recounted"
"""Fact of a manifest; see `OpenedModel.recounted`."""


@dataclass(frozen=True)
class OpenedModel(ModelBundle):
    """A verified bundle with the configuration of its training, of its family's class."""

    config: Any

    def rows_in(self, data: Dataset) -> NDArray[np.int64]:
        """Return the row in `data` that each item of the model's catalogue has, -1: none."""
        items = read_items(self.bundle).column(self.schema.item_key).combine_chunks()
        return rows_of(items, _ids(data))

    def own_rows(self, data: Dataset) -> NDArray[np.int64]:
        """Return the row of the model's catalogue that each item of `data` has, -1: none."""
        items = read_items(self.bundle).column(self.schema.item_key).combine_chunks()
        return rows_of(_ids(data), items)

    def data(self) -> Dataset:
        """Return the data that the configuration names, as the model's encoder sees them.

        Raises:
            NotFoundError: they are no longer where they were.
        """
        tables = self.tables()
        if tables.fingerprint != self.fingerprint:
            LOG.warning(
                "the data are not those the model was trained on; rows may be in other parts"
            )
        return self.encoded(tables)

    @property
    def recounted(self) -> Mapping[str, Any] | None:
        """Of counts that were taken anew: which "rows" of the data, "until" when; None: none."""
        found: Mapping[str, Any] | None = self.bundle.manifest["facts"].get(RECOUNTED)
        return found

    @property
    def fingerprint(self) -> str:
        """A hash of the data that the model was trained on."""
        return str(self.bundle.manifest["facts"]["data_fingerprint"])

    def tables(self, *, fixed: bool = True) -> Tables:
        """Return the tables that the configuration names, checked.

        fixed: its policies are those of the training and cannot be set, so no message says to.

        Raises:
            NotFoundError: they are no longer where they were.
            DataError: a table is not as declared.
        """
        config = self.config
        return read_tables(
            self.schema,
            config.data,
            config.policies,
            split_column=config.split.column,
            trained=fixed,
            to_part=True,
        )

    def encoded(self, tables: Tables) -> Dataset:
        """Return `tables`, parted as the configuration says, as the model's encoder sees them."""
        tables, part, cold = parted(self.schema, tables, self.config.split)
        return encoded(self.schema, tables, part, self.encoder, cold)


def _ids(data: Dataset) -> pa.Array:
    return data.tables.items.column(data.schema.item_key).combine_chunks()


def rows_of(ids: pa.Array, others: pa.Array) -> NDArray[np.int64]:
    """Return the place of each id among `others`, -1: none."""
    return np.asarray(pc.fill_null(pc.index_in(ids, value_set=others), -1)).astype(np.int64)
