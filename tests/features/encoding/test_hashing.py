"""Value hashes: equal to the reference implementations, and frozen."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.utils import murmurhash3_32

from recsys.features.encoding.hashing import (
    NULL_HASH,
    hash_values,
    murmur3_32,
    murmur3_64,
    splitmix64,
)


@given(st.lists(st.text(max_size=40), max_size=60), st.integers(0, 2**32 - 1), st.integers(0, 5))
def test_murmur_equals_the_reference(texts: list[str], seed: int, skip: int) -> None:
    texts = [text.encode("utf-8", "ignore").decode() for text in texts]
    strings = pa.array(texts, pa.large_string()).slice(skip)
    expected = [murmurhash3_32(text, seed=seed, positive=True) for text in texts[skip:]]
    assert murmur3_32(strings, seed).tolist() == expected


@pytest.mark.parametrize("num_short", [0, 3, 40])
def test_long_texts_hash_as_the_reference_and_change_no_other(num_short: int) -> None:
    texts = [f"w{number}" for number in range(num_short)]
    texts[1:1] = ["x" * size for size in (255, 256, 257, 5_000)] + ["\u00e9" * 150_000]
    seeds = (0x9747B28C, 0x3C6EF372)
    halves = [[murmurhash3_32(text, seed=seed, positive=True) for seed in seeds] for text in texts]
    expected = np.array([low | high << 32 for low, high in halves], np.uint64).view(np.int64)
    assert murmur3_64(pa.array(texts)).tolist() == expected.tolist()
    assert hash_values(pa.array(texts)).tolist() == expected.tolist()


def splitmix_by_hand(value: int) -> int:
    mask = 2**64 - 1
    z = (value + 0x9E3779B97F4A7C15) & mask
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    return z ^ (z >> 31)


def test_splitmix_equals_the_reference_over_block_borders() -> None:
    values = np.random.default_rng(0).integers(0, 2**64, 40_000, dtype=np.uint64)
    assert splitmix64(values).tolist() == [splitmix_by_hand(int(value)) for value in values]


def test_hashes_are_frozen() -> None:
    assert hash_values(pa.array(["", "a", "drama", "日本語"])).tolist() == [
        4383941924062937640,
        -5035514153559613786,
        -3147323559740696866,
        3397846374902080629,
    ]
    assert hash_values(pa.array([0, 1, -1, 2**53 + 1])).tolist() == [
        -2152535657050944081,
        -7995527694508729151,
        -1956407806741107680,
        386430782533759031,
    ]
    assert hash_values(pa.array([None, "a"])).tolist()[0] == int(NULL_HASH) == 7959387129412676716


@pytest.mark.parametrize("kind", [pa.int8(), pa.int32(), pa.int64(), pa.uint64(), pa.uint16()])
def test_an_integer_hashes_the_same_at_any_width(kind: pa.DataType) -> None:
    values = pa.array([0, 1, 100, None], kind)
    assert hash_values(values).tolist() == hash_values(pa.array([0, 1, 100, None])).tolist()


def test_ids_beyond_2_to_53_stay_apart() -> None:
    near = [2**53, 2**53 + 1, 2**63 + 1, 2**63 + 2]
    assert len(set(hash_values(pa.array(near, pa.uint64())).tolist())) == 4


def test_encodings_of_one_column_agree() -> None:
    plain = pa.array(["b", None, "a", "b"])
    expected = hash_values(plain).tolist()
    assert hash_values(plain.dictionary_encode()).tolist() == expected
    assert hash_values(pa.chunked_array([plain[:1], plain[1:]])).tolist() == expected
    assert hash_values(pa.concat_arrays([pa.array(["x"]), plain])[1:]).tolist() == expected
    assert hash_values(plain.cast(pa.large_string())).tolist() == expected


def test_other_types_are_refused() -> None:
    with pytest.raises(TypeError, match="got double"):
        hash_values(pa.array([1.5]))


def test_a_few_texts_have_the_hashes_that_they_have_among_many() -> None:
    rng = np.random.default_rng(0)
    letters = np.array(list("abc é漢😀"))
    texts = ["".join(letters[rng.integers(0, 7, size)]) for size in rng.integers(0, 40, 500)]
    many = murmur3_64(pa.array(texts))
    few = [murmur3_64(pa.array(texts[start : start + 5])) for start in range(0, 500, 5)]
    np.testing.assert_array_equal(many, np.concatenate(few))
