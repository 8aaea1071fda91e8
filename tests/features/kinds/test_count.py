"""Counts: how many rows came before."""

import numpy as np
import pytest

from recsys.features.encoding.past import Pasts
from recsys.features.encoding.scaling import Scaler
from recsys.features.kinds.count import CountFeature

CASE = {"base": {"name": "f", "kind": "count", "of": "item"}, "values": {}}
ITEMS = np.array([0, 1, 0, 2, 0, 2, 0])


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"of": "user"}, [None, 1, 1, 2, None, 1, 1]),
        ({"of": "user", "rows": "all"}, [None, 1, 1, 3, None, 1, 2]),
        ({"of": "item"}, [None, None, 2, None, 1, None, 3]),
    ],
)
def test_rows_before_each_row(
    options: dict[str, str], expected: list[float | None], pasts: Pasts
) -> None:
    feature = CountFeature.model_validate({"name": "f", **options})
    fitted = feature.fit(pasts, np.arange(7), ITEMS)
    known = np.array([value for value in expected if value is not None], np.float64)
    assert fitted == Scaler.fit("log1p", known)
    plain = Scaler("standardise", 0.0, 1.0, 0.0, 100.0)
    block = feature.reader(None, None, {"f": plain})(pasts, np.arange(7), ITEMS)  # type: ignore[arg-type]
    assert block.dense.tolist() == [[value or 0, float(value is None)] for value in expected]
