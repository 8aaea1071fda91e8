"""Sizes in bytes as people write them."""

import re

_UNITS = {"": 1, "B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9}
_UNITS |= {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?([A-Za-z]*)")


def bytes_of(text: str) -> int:
    """Return the bytes of "200MiB", "1.5 GB" or "1048576".

    Raises:
        ValueError: it is no such size, or nothing.
    """
    found = _SIZE.fullmatch(text.strip())
    units = {name.lower(): value for name, value in _UNITS.items()}
    if found is None or found[2].lower() not in units or float(found[1]) == 0:
        raise ValueError(f"should be a size as 200MiB or 1.5GB, got '{text}'")
    return int(float(found[1]) * units[found[2].lower()])


def size_text(size: float) -> str:
    """Return bytes as people read them."""
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:,.1f} GiB"
