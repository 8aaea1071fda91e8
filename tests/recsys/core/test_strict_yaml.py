"""YAML as configurations have it; what could mean two things is refused with its line."""

import random
from contextlib import suppress

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from recsys.core.errors import ConfigError
from recsys.core.strict_yaml import read_yaml

LAUGHS = "\n".join(
    ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9)]
)
REFUSED = {
    "a key twice": (
        "a: 1\nb:\n  c: 2\n  d: 1\n  c: 3\n",
        r"x\.yaml: line 5: the key 'c' stands in line 3",
    ),
    "a circle": ("a: &a [1, *a]\n", "line 1: an alias leads back to where it is used"),
    "many laughs": (LAUGHS, "more than 200,000 values"),
    "a number as a key": ("2: a\n", "line 1: the key 2 is no text: write '2' in quotes"),
    "a truth as a key": ("a:\n  on: 1\n", "line 2: the key on is no text: write 'on' in quotes"),
    "a list as a key": ("? [a, b]\n: 1\n", "line 1: a key that is a list or a mapping"),
    "a zero byte": ("a: b\nc: d\0\n", r"line 2 holds the invisible sign U\+0000: remove it"),
    "a sign that turns text": ("a: b\u202ec\n", r"the invisible sign U\+202E"),
    "deep": ("[" * 150 + "]" * 150, "more than 100 levels deep"),
    "very deep": ("[" * 100_000 + "]" * 100_000, "levels deep"),
    "an object": ("a: !!python/object/apply:os.system [ls]\n", "not valid YAML"),
    "two documents": ("a: 1\n---\nb: 1\n", "not valid YAML"),
    "half a list": ("a: [1\n", "not valid YAML"),
    "latin-1": (
        b"a: 1\nb: caf\xe9\n",
        r"line 2 is not UTF-8 at b'\\xe9\\n': save the file as UTF-8",
    ),
    "large": ("a: " + "x" * 10_000_001, "10,000,004 bytes are too many"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_is_named_with_its_line(name: str) -> None:
    text, message = REFUSED[name]
    with pytest.raises(ConfigError, match=message):
        read_yaml(text, source="x.yaml")


def test_values_are_what_people_mean() -> None:
    text = "\ufeffa: 1e-3\nb: 2024-05-31\nc: &c [1, yes]\nd: *c\ne: {<<: {f: 1}, g: 007}\n".encode()
    assert read_yaml(text, source="x") == {
        "a": 0.001,
        "b": "2024-05-31",
        "c": [1, True],
        "d": [1, True],
        "e": {"f": 1, "g": 7},
    }
    assert read_yaml("", source="x") is None


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text("ab: -#é\"'"),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abc", min_size=1), inner),
    max_leaves=20,
)


@given(VALUES)
def test_what_is_written_is_read(value: object) -> None:
    assert read_yaml(yaml.safe_dump(value, allow_unicode=True), source="x") == value


def test_garbage_is_a_value_or_one_error() -> None:
    rng, seed = random.Random(0), "a: {b: [1, 2]}\nc: &x\n  - d: *x\n  - 'e'\n"
    for _ in range(2000):
        data = bytearray(seed.encode())
        for _ in range(rng.randrange(1, 6)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        with suppress(ConfigError):  # any other error is one of ours
            read_yaml(bytes(data), source="x")
