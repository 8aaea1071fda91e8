"""Values of any type to stable 64-bit hashes, vectorised over Arrow buffers.

Strings: MurmurHash3_x86_32 (Appleby) of the UTF-8 bytes under two seeds, which is the pair that
ONNX Runtime's `com.microsoft::MurmurHash3` computes too. Integers and booleans: splitmix64.
The same value has the same hash on every machine and version; a test holds literal values.
Null, and an id that training never saw, have values of their own.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

NULL_HASH = np.int64(0x6E756C6C6E756C6C)
"""The value of null (and of an empty list)."""
UNKNOWN_HASH = np.int64(0x756E6B6E6F776E21)
"""The value of an id without a training row."""

_SEEDS = (0x9747B28C, 0x3C6EF372)
_32_BITS = 0xFFFFFFFF
_FEW = 16
"""Strings up to which a loop in Python is quicker than NumPy, which is asked 60 times a call."""
_LONG = 256
"""Bytes from which a string is hashed alone, in C: the loops here turn once for four bytes."""
_CHUNK_ROWS = 1 << 16
_BLOCK = 1 << 14


def hash_values(values: pa.Array | pa.ChunkedArray) -> NDArray[np.int64]:
    """Return (N,) int64 hashes of strings, integers or booleans; null becomes `NULL_HASH`."""
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    if pa.types.is_dictionary(values.type):
        return _hash_dictionary(values)
    if pa.types.is_null(values.type):
        return np.full(len(values), NULL_HASH)
    if pa.types.is_boolean(values.type):
        values = values.cast(pa.int8())
    if pa.types.is_integer(values.type):
        return _hash_integers(values)
    if pa.types.is_string(values.type) or pa.types.is_large_string(values.type):
        return _hash_dictionary(pc.dictionary_encode(values))
    raise TypeError(f"only strings, integers and booleans are hashed, got {values.type}")


def _hash_integers(values: pa.Array) -> NDArray[np.int64]:
    whole = np.asarray(values.fill_null(0) if values.null_count else values)
    if whole.dtype != np.uint64:
        whole = whole.astype(np.int64, copy=False).view(np.uint64)
    hashes = splitmix64(whole).view(np.int64)
    if values.null_count:
        hashes[np.asarray(values.is_null())] = NULL_HASH
    return hashes


def _hash_dictionary(values: pa.DictionaryArray) -> NDArray[np.int64]:
    """Hash each distinct value once."""
    entries = values.dictionary
    if pa.types.is_string(entries.type) or pa.types.is_large_string(entries.type):
        table = murmur3_64(entries)
    else:
        table = hash_values(entries)
    codes = np.asarray(values.indices.fill_null(len(table)))
    return np.append(table, NULL_HASH)[codes]


def splitmix64(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return the splitmix64 output for each counter value, (N,) uint64."""
    out = np.empty(len(values), np.uint64)
    scratch = np.empty(_BLOCK, np.uint64)
    for start in range(0, len(values), _BLOCK):  # blocks that stay in the cache
        z = out[start : start + _BLOCK]
        shifted = scratch[: len(z)]
        np.add(values[start : start + _BLOCK], np.uint64(0x9E3779B97F4A7C15), out=z)
        for bits, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            np.right_shift(z, np.uint64(bits), out=shifted)
            np.bitwise_xor(z, shifted, out=z)
            np.multiply(z, np.uint64(factor), out=z)
        np.right_shift(z, np.uint64(31), out=shifted)
        np.bitwise_xor(z, shifted, out=z)
    return out


def murmur3_64(strings: pa.Array) -> NDArray[np.int64]:
    """Return two seeded 32-bit hashes side by side, (N,) int64, of a string array without nulls."""
    if len(strings) <= _FEW:
        halves = [_hash_of_text(one) for one in strings.to_pylist()]
        return np.array(halves, np.uint64).view(np.int64)
    strings = strings.cast(pa.large_string())
    is_long = pc.greater_equal(pc.binary_length(strings), _LONG)
    if pc.any(is_long).as_py():
        out = np.empty(len(strings), np.int64)
        at = np.asarray(is_long)
        out[at] = np.array(
            [_hash_of_text(one) for one in strings.filter(is_long).to_pylist()], np.uint64
        ).view(np.int64)
        out[~at] = murmur3_64(strings.filter(pc.invert(is_long)))
        return out
    out = np.empty(len(strings), np.uint64)
    for start in range(0, len(strings), _CHUNK_ROWS):
        chunk = strings.slice(start, _CHUNK_ROWS)
        low, high = _murmur3(chunk, _SEEDS).astype(np.uint64)
        out[start : start + len(chunk)] = low | (high << np.uint64(32))
    return out.view(np.int64)


def _hash_of_text(text: str) -> int:
    """Return `murmur3_64` of one text, an unsigned number."""
    data = text.encode()
    hashed = _murmur3_32_of if len(data) < _LONG else _murmur3_32_of_long
    low, high = (hashed(data, seed) for seed in _SEEDS)
    return low | high << 32


def _murmur3_32_of_long(data: bytes, seed: int) -> int:
    """Return what `murmur3_32` does of one text, in C."""
    from sklearn.utils import murmurhash3_32

    return int(murmurhash3_32(data, seed, positive=True))


def _murmur3_32_of(data: bytes, seed: int) -> int:
    """Return what `murmur3_32` does of one text, in Python's own numbers."""
    state = seed
    for start in range(0, len(data), 4):
        word = int.from_bytes(data[start : start + 4], "little") * 0xCC9E2D51 & _32_BITS
        state ^= ((word << 15 | word >> 17) & _32_BITS) * 0x1B873593 & _32_BITS
        if start + 4 <= len(data):  # the rest, shorter than a word, is not stirred
            state = (((state << 13 | state >> 19) & _32_BITS) * 5 + 0xE6546B64) & _32_BITS
    state ^= len(data)
    state = (state ^ state >> 16) * 0x85EBCA6B & _32_BITS
    state = (state ^ state >> 13) * 0xC2B2AE35 & _32_BITS
    return state ^ state >> 16


def murmur3_32(strings: pa.Array, seed: int) -> NDArray[np.uint32]:
    """Return MurmurHash3_x86_32 of the bytes of each string, (N,) uint32; a large_string array."""
    found: NDArray[np.uint32] = _murmur3(strings, (seed,))[0]
    return found


def _murmur3(strings: pa.Array, seeds: tuple[int, ...]) -> NDArray[np.uint32]:
    """Return the hashes under each of K seeds, (K, N)."""
    raw = np.frombuffer(strings.buffers()[1], np.int64)
    offsets = raw[strings.offset : strings.offset + len(strings) + 1]
    words = _words(strings.buffers()[2], int(offsets[0]), int(offsets[-1]))
    # Longest first, so that the rows which still have a block are always a prefix.
    blocks = np.diff(offsets) >> 2
    order = np.argsort(int(blocks.max(initial=0)) - blocks, kind="stable")
    blocks = blocks[order]
    starts = (offsets[:-1] - offsets[0])[order]
    sizes = np.diff(offsets)[order]
    state = np.repeat(np.array(seeds, np.uint32)[:, None], len(order), axis=1)
    for block in range(int(blocks[0]) if len(blocks) else 0):
        live = int(np.searchsorted(-blocks, -block))  # rows with more than `block` blocks
        mixed = state[:, :live] ^ _scramble(words[starts[:live] + 4 * block])
        state[:, :live] = _rotate(mixed, 13) * np.uint32(5) + np.uint32(0xE6546B64)
    rest = (sizes & 3).astype(np.uint32)
    tail = words[starts + 4 * blocks] & ((np.uint32(1) << (rest * np.uint32(8))) - np.uint32(1))
    state ^= _scramble(tail)
    state ^= sizes.astype(np.uint32)
    hashes = np.empty_like(state)
    hashes[:, order] = _finish(state)
    return hashes


def _words(data: pa.Buffer | None, start: int, stop: int) -> NDArray[np.uint32]:
    """Return the little-endian 32-bit word at every byte of data[start:stop], zeros behind it."""
    padded = np.zeros(stop - start + 4, np.uint8)
    if data is not None and stop > start:
        padded[:-4] = np.frombuffer(data, np.uint8)[start:stop]
    return np.ndarray((len(padded) - 3,), "<u4", padded, strides=(1,))


def _scramble(word: NDArray[np.uint32]) -> NDArray[np.uint32]:
    return _rotate(word * np.uint32(0xCC9E2D51), 15) * np.uint32(0x1B873593)


def _rotate(word: NDArray[np.uint32], bits: int) -> NDArray[np.uint32]:
    return (word << np.uint32(bits)) | (word >> np.uint32(32 - bits))


def _finish(state: NDArray[np.uint32]) -> NDArray[np.uint32]:
    state = (state ^ (state >> np.uint32(16))) * np.uint32(0x85EBCA6B)
    state = (state ^ (state >> np.uint32(13))) * np.uint32(0xC2B2AE35)
    return state ^ (state >> np.uint32(16))
