"""A log that `recsys init` refuses, as `recsys check` would: all of it is of one item."""

from recsys.core.errors import DataError
from recsys.features.propose.roles import Roles


def refuse_one_item(roles: Roles) -> None:
    """Refuse a log in which there is nothing to choose from.

    Raises:
        DataError: all rows are of one item.
    """
    log = roles.log
    if roles.item and log.complete and log.columns[roles.item].distinct == 1:
        raise DataError(
            "the interactions are all of one item",
            file=log.given,
            column=roles.item,
            remedy="at least two are needed to choose from",
        )
