"""Errors about requests name where they are: the file, the column as it is there, the row."""

import numpy as np
import pyarrow as pa
import pytest

from recsys.core.errors import DataError, Row
from recsys.features.requests.origin import RequestOrigin


def test_rows_are_counted_from_the_first_of_the_file() -> None:
    """The requests at hand are rows 11 to 13 of the file."""
    error = RequestOrigin("r.parquet", 10).error("bad", "history", 2, remedy="mend it")
    assert str(error) == "r.parquet row 13, column 'history': bad; mend it"


def test_what_is_encoded_inside_is_named_as_in_the_requests() -> None:
    """Steps 0, 1 and 2 are of the requests 0, 0 and 1; the third step is wrong."""
    origin = RequestOrigin("r.parquet", 10)
    with (
        pytest.raises(DataError) as raised,
        origin.named({"price": "history_price"}, np.array([0, 0, 1])),
    ):
        raise DataError("bad", column="price", rows=[Row("", 3)], remedy="mend it")
    assert str(raised.value) == "r.parquet row 12, column 'history_price': bad; mend it"


def test_what_arrow_refuses_is_said_of_the_columns_that_were_read() -> None:
    """Arrow knows no column; the candidates are named."""
    names = {"price": "history_price", "brand": "history_brand"}
    with (
        pytest.raises(DataError, match=r"r: column 'history_price' or 'history_brand': .*; give"),
        RequestOrigin("r").named(names, np.zeros(0, np.int64)),
    ):
        pa.array(["x"]).cast(pa.int64())
