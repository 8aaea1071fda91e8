"""All kinds of features, by the name that a configuration gives them.

To add one: a file next to this one, a line here, and a test in `tests/features/kinds`.
"""

from recsys.features.kinds.categorical import CategoricalFeature
from recsys.features.kinds.count import CountFeature
from recsys.features.kinds.cross import CrossFeature
from recsys.features.kinds.derived import DerivedFeature
from recsys.features.kinds.elapsed import ElapsedFeature
from recsys.features.kinds.feature import Feature
from recsys.features.kinds.history import HistoryFeature
from recsys.features.kinds.multi_categorical import MultiCategoricalFeature
from recsys.features.kinds.numeric import NumericFeature
from recsys.features.kinds.rate import RateFeature
from recsys.features.kinds.text import TextFeature
from recsys.features.kinds.timestamp import TimestampFeature
from recsys.features.kinds.vector import VectorFeature
from recsys.features.kinds.window import WindowFeature

KINDS: dict[str, type[Feature] | type[DerivedFeature]] = {
    "categorical": CategoricalFeature,
    "multi_categorical": MultiCategoricalFeature,
    "text": TextFeature,
    "numeric": NumericFeature,
    "vector": VectorFeature,
    "timestamp": TimestampFeature,
    "history": HistoryFeature,
    "count": CountFeature,
    "elapsed": ElapsedFeature,
    "cross": CrossFeature,
    "rate": RateFeature,
    "window": WindowFeature,
}


def column_kinds() -> list[type[Feature]]:
    """Return the kinds that are columns, in the order in which they propose themselves."""
    kinds = [kind for kind in KINDS.values() if issubclass(kind, Feature)]
    return sorted(kinds, key=lambda kind: kind.proposal_order)
