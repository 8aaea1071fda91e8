"""Encoded columns of rows, and behind them what is worked out from these."""

from recsys.data.batch import FeatureBlock
from recsys.features.encoding.crosses import Crosses
from recsys.features.encoding.encoder import FeatureEncoder
from recsys.features.encoding.label_features import LabelNumbers


class WholeRows:
    """Completes rows to the order of `FeatureEncoder.ranking_layout`."""

    def __init__(self, encoder: FeatureEncoder) -> None:
        """Get ready for rows of this encoder."""
        columns, schema = encoder.columns_layout(), encoder.schema
        self._crosses = Crosses(schema.derived_features, columns)
        self._memory = LabelNumbers(schema.label_features, columns, encoder.label_tables)

    def __call__(self, block: FeatureBlock) -> FeatureBlock:
        """Return N rows of users, context and items with their crosses and rates behind them."""
        return self._memory.beside(self._crosses.beside(block))
