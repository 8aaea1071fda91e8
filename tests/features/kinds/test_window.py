"""Numbers of windows: what each option changes; values by hand are in `relations`."""

import numpy as np
import pyarrow as pa

WHERE = [{"column": "click", "at_least": 1}]
CASE = {
    "base": {"name": "f", "kind": "window", "of": "interactions", "by": "item"},
    "values": {
        "column": ["", "renamed"],
        "of": ["interactions", "orders"],
        "value": ["", "click", "user"],
        "window": [None, "30m", "2h"],
        "where": [[], WHERE],
    },
}


def test_null_has_an_indicator_and_requests_bring_a_number(encode: object) -> None:
    layout, encoded, types = encode(  # type: ignore[operator]
        CASE["base"], pa.array([0.0, 3.0, None])
    )
    assert layout.dense == ("f", "f.null")
    assert encoded.dense[1].tolist() == [0, 0, 1]
    np.testing.assert_allclose(encoded.dense[0], [-1, 1, 0], atol=1e-6)
    assert types == {"f": pa.float64()}
