"""The training rows as plain models and memories count them."""

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from recsys.core.distinct import distinct, distinct_codes
from recsys.features.dataset.dataset import Dataset
from recsys.features.dataset.sessions import Sessions
from recsys.features.dataset.split import TRAIN
from recsys.plain.kind import Counted
from recsys.retrieval.follow import Matrix


def counted(data: Dataset, sessions: Sessions | None, *, attributes: bool = False) -> Counted:
    """Return the training rows of `data`.

    Args:
        data: the encoded log.
        sessions: how it is cut; None: a sequence is all of a user.
        attributes: whether those of the items are read as well.
    """
    events = data.tables.events
    rows = data.events_of((TRAIN,))
    sequence = events.user_row[rows].astype(np.int64)
    if sessions is not None:
        trained = sessions.only(data.part == TRAIN)
        rows = trained.order
        sequence = np.repeat(np.arange(len(trained)), trained.lengths())
    has_clock = data.schema.interactions.time is not None
    return Counted(
        user=events.user_row[rows],
        sequence=sequence,
        item=events.item_row[rows],
        time=events.time[rows] if has_clock else None,
        num_items=data.num_items,
        attributes=tuple(item_values(data)) if attributes else (),
    )


def item_values(data: Dataset) -> list[Matrix]:
    """Return which item has which value, (n_items, V) CSR of ones for each attribute.

    Attributes are the categorical and multi-categorical features of the items but their id.
    """
    layout = data.encoder.layout("items")
    single = [name for name, _ in layout.single]
    multi = [name for name, _ in layout.multi]
    found = []
    for feature in data.schema.features_of("items"):
        if not feature.is_category or data.schema.is_id(feature):
            continue
        if feature.name in single:
            hashes = data.items.single[:, single.index(feature.name)].numpy()
            found.append(_incidence(hashes, np.ones(len(hashes), np.int64)))
        else:
            values = data.items.multi[multi.index(feature.name)]
            found.append(_incidence(values.values.numpy(), values.lengths().numpy()))
    return found


def _incidence(values: NDArray[np.int64], lengths: NDArray[np.int64]) -> Matrix:
    known, code = distinct_codes(values)
    pairs = distinct(np.repeat(np.arange(len(lengths)), lengths) * len(known) + code)
    rows, columns = np.divmod(pairs, len(known))
    ones = np.ones(len(pairs), np.float32)
    return sparse.coo_array((ones, (rows, columns)), shape=(len(lengths), len(known))).tocsr()
