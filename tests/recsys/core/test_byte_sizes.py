"""Sizes are read as people write them."""

import pytest

from recsys.core.byte_sizes import bytes_of, size_text


@pytest.mark.parametrize(
    ("text", "size"),
    [("200MiB", 200 * 2**20), ("1.5 GB", 1_500_000_000), ("7", 7), ("2kb", 2000), ("1KiB", 1024)],
)
def test_units(text: str, size: int) -> None:
    assert bytes_of(text) == size


@pytest.mark.parametrize("text", ["", "MiB", "-1", "1 TiB2", "1e9", "0", "0MiB", "nan"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="should be a size as 200MiB"):
        bytes_of(text)


def test_text() -> None:
    found = [size_text(size) for size in (12, 2048, 3.5 * 2**20, 5000 * 2**30)]
    assert found == ["12 B", "2.0 KiB", "3.5 MiB", "5,000.0 GiB"]
