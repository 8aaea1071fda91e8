"""A fitted plain model as named arrays, and back; safetensors keeps them.

A model is a dataclass of arrays, sparse matrices in rows (CSR), numbers, and tuples of such
dataclasses. An array has the name of its field; a matrix is three of them and its shape.
"""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load, save
from scipy import sparse

from recsys.core.errors import IntegrityError

M = TypeVar("M")
Arrays = dict[str, NDArray[Any]]
_MATRIX = ("data", "indices", "indptr", "shape")


def to_bytes(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """Return named arrays as safetensors bytes."""
    return save({name: np.ascontiguousarray(one) for name, one in arrays.items()})


def from_bytes(data: bytes) -> Arrays:
    """Return what `to_bytes` wrote."""
    return dict(load(data))


def arrays_of(model: Any) -> Arrays:
    """Return the fields of a fitted model as named arrays."""
    found: Arrays = {}
    for field in fields(model):
        found |= _parts(field.name, getattr(model, field.name))
    return found


def model_of(form: type[M], arrays: Mapping[str, NDArray[Any]], at: str = "") -> M:
    """Return the model of class `form` whose fields are in `arrays`.

    Args:
        form: a dataclass.
        arrays: what `arrays_of` gave; others among them are not looked at.
        at: what the names of its fields start with.

    Raises:
        IntegrityError: one is missing.
    """
    try:
        values = {
            name: _value(hint, arrays, f"{at}{name}")
            for name, hint in get_type_hints(form).items()
            if name in {field.name for field in fields(form)}  # type: ignore[arg-type]
        }
    except KeyError as error:
        raise IntegrityError(
            f"the weights are not those of a {form.__name__}: no {error}"
        ) from None
    return form(**values)


def _parts(name: str, value: Any) -> Arrays:
    """Return the arrays of one field."""
    if isinstance(value, np.ndarray):
        return {name: value}
    if isinstance(value, sparse.csr_array):
        shape = np.array(value.shape, np.int64)
        parts: tuple[NDArray[Any], ...] = (value.data, value.indices, value.indptr, shape)
        return {f"{name}.{part}": one for part, one in zip(_MATRIX, parts, strict=True)}
    if isinstance(value, tuple):
        found = {f"{name}.count": np.array([len(value)])}
        for number, one in enumerate(value):
            found |= {f"{name}.{number}.{key}": each for key, each in arrays_of(one).items()}
        return found
    return {name: np.array([value])}


def _value(hint: Any, arrays: Mapping[str, NDArray[Any]], name: str) -> Any:
    form = get_origin(hint) or hint
    if form is tuple:
        part = get_args(hint)[0]
        count = int(arrays[f"{name}.count"][0])
        return tuple(model_of(part, arrays, f"{name}.{number}.") for number in range(count))
    if form is sparse.csr_array:
        data, indices, indptr, shape = (arrays[f"{name}.{part}"] for part in _MATRIX)
        return sparse.csr_array((data, indices, indptr), shape=tuple(shape.tolist()))
    if is_dataclass(form) and isinstance(form, type):
        return model_of(form, arrays, f"{name}.")
    return form(arrays[name][0]) if form in (int, float) else arrays[name]
