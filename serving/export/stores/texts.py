"""Vectors as text: `[0.25,-1.5]`, shortest digits that are read back as the same float32."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


def vector_texts(vectors: pa.FixedSizeListArray) -> pa.Array:
    """Return each of (n,) vectors of float32 as text."""
    width = vectors.type.list_size
    words = vectors.flatten().cast(pa.string())
    ends = pa.array(np.arange(0, len(words) + 1, max(width, 1)), pa.int32())
    joined = pc.binary_join(pa.ListArray.from_arrays(ends, words), ",")
    return pc.binary_join_element_wise("[", joined, "]", "")
