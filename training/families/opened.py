"""A trained model opened again: its bundle verified, its data read as its encoder knows them."""

import logging
from dataclasses import dataclass
from typing import Any

from recsys.features.bundle.model_bundle import ModelBundle
from recsys.features.dataset.dataset import Dataset, encoded, parted
from recsys.features.tables.checked import read_tables

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class OpenedModel(ModelBundle):
    """A verified bundle with the configuration of its training, of its family's class."""

    config: Any

    def data(self) -> Dataset:
        """Return the data that the configuration names, as the model's encoder sees them.

        Raises:
            NotFoundError: they are no longer where they were.
        """
        config, schema = self.config, self.schema
        # Evaluating and explaining a model set none of its policies, so none is reported.
        tables = read_tables(
            schema,
            config.data,
            config.policies,
            split_column=config.split.column,
            trained=True,
        )
        if tables.fingerprint != self.bundle.manifest["facts"]["data_fingerprint"]:
            LOG.warning(
                "the data are not those the model was trained on; rows may be in other parts"
            )
        tables, part, cold = parted(schema, tables, config.split)
        return encoded(schema, tables, part, self.encoder, cold)
