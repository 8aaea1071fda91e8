"""Parts of YAML written as text, because a person is to read the comments in them."""

import json
import re
from collections.abc import Mapping, Sequence

import yaml

from recsys.core.visible import on_one_line

_PLAIN = re.compile(r"^[A-Za-z_./][\w./ -]*$")


def flow(value: object) -> str:
    """Return a value in YAML's flow style: `{column: rating, at_least: 4}`."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(entry(str(key), one) for key, one in value.items()) + "}"
    if isinstance(value, tuple):
        return "[" + ", ".join(flow(one) for one in value) + "]"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, str):
        plain = _PLAIN.match(value) and value == value.strip() and yaml.safe_load(value) == value
        return value if plain else on_one_line(json.dumps(value, ensure_ascii=False))
    return json.dumps(value)


def entry(key: str, value: object) -> str:
    """Return `key: value`."""
    return f"{flow(key)}: {flow(value)}"


def section(name: str, lines: Sequence[str], comment: str = "") -> str:
    """Return a section of the document with its lines indented."""
    head = f"{name}:   # {comment}" if comment else f"{name}:"
    return "\n".join([head, *(f"  {line}" for line in lines)])
