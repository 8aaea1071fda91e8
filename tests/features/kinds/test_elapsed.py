"""Elapsed times: seconds since the latest earlier row."""

import numpy as np
import pytest

from recsys.features.encoding.past import Pasts
from recsys.features.encoding.scaling import Scaler
from recsys.features.kinds.elapsed import ElapsedFeature

CASE = {"base": {"name": "f", "kind": "elapsed", "of": "item"}, "values": {}}
ITEMS = np.array([0, 1, 0, 2, 0, 2, 0])


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"of": "user"}, [None, 10, 10, 30, None, 35, 60]),
        ({"of": "user", "rows": "positives"}, [None, 10, 10, 30, None, 35, 95]),
        ({"of": "item"}, [None, None, 5, None, 5, None, 90]),
    ],
)
def test_seconds_before_each_row(
    options: dict[str, str], expected: list[float | None], pasts: Pasts
) -> None:
    feature = ElapsedFeature.model_validate({"name": "f", **options})
    plain = Scaler("standardise", 0.0, 1.0, 0.0, 100.0)
    block = feature.reader(None, None, {"f": plain})(pasts, np.arange(7), ITEMS)  # type: ignore[arg-type]
    assert block.dense.tolist() == [[value or 0, float(value is None)] for value in expected]
