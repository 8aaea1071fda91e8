"""All public data sets by name. To add one: its entry in a file here, a line, a test."""

from collections.abc import Mapping

from recsys.features.public_data.amazon import AMAZON
from recsys.features.public_data.atomic import ATOMIC
from recsys.features.public_data.clicks import CLICKS
from recsys.features.public_data.data_set import DataSet
from recsys.features.public_data.movielens import MOVIELENS
from recsys.features.public_data.places import PLACES
from recsys.features.public_data.relational import RELATIONAL
from recsys.features.public_data.visits import VISITS

DATA_SETS: Mapping[str, DataSet] = {
    **MOVIELENS,
    **AMAZON,
    **CLICKS,
    **VISITS,
    **PLACES,
    **RELATIONAL,
    **ATOMIC,
}
