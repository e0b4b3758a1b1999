"""Arrays as people have them: lists, frames, tensors, and numbers of other lengths.

What means the same is converted. What does not, as a masked array whose mask would be lost, is
refused.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from secure_afl.data.mapping import composed
from secure_afl.data.npz import whole_labels
from secure_afl.errors import DataError


def as_features(value: Any, where: str) -> NDArray[np.floating]:
    """Return rows of numbers as floats; floats of at most 64 bits are returned as they are.

    Args:
        value: an array, a tensor, a frame or nested lists.
        where: what errors begin with.

    Raises:
        DataError: a masked array, rows of different lengths, or what is no number.
    """
    array = _as_array(value, where, "features")
    if array.dtype.kind in "biu":
        # Up to 16 bits fit into float32 exactly, up to 53 into float64.
        return array.astype(np.float32 if array.dtype.itemsize <= 2 else np.float64)
    if array.dtype.kind != "f":
        raise DataError(f"{where}: features are {array.dtype}, wanted numbers; convert them")
    return array


def as_labels(value: Any, where: str) -> NDArray[Any]:
    """Return labels as int64, or as words in Unicode's composed form.

    Raises:
        DataError: a masked array, or labels that are neither whole numbers nor words.
    """
    array = _as_array(value, where, "labels")
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.dtype.kind == "O" and all(isinstance(label, str) for label in array.flat):
        array = array.astype(str)
    if array.dtype.kind == "S":
        array = np.char.decode(array, "utf-8")
    if array.dtype.kind == "U" and array.ndim == 1:
        return np.array([composed(str(word)) for word in array])
    if array.dtype.kind == "i" and array.ndim == 1:
        # Below 0 they are out of range, which is said where the classes are known.
        return array.astype(np.int64, copy=False)
    return whole_labels(where, array)


def _as_array(value: Any, where: str, what: str) -> NDArray[Any]:
    if hasattr(value, "detach"):
        # A tensor of torch, which may be on another device or in a graph.
        value = value.detach().cpu()
    if hasattr(value, "to_numpy"):
        value = value.to_numpy()
    if isinstance(value, np.ma.MaskedArray):
        raise DataError(
            f"{where}: {what} are a masked array, and what is under the mask would count; leave "
            "those rows out, or fill them: array.filled(0)"
        )
    if type(value) in (np.ndarray, np.memmap):
        array: NDArray[Any] = value
        return array
    try:
        return np.asarray(value)
    except (ValueError, TypeError, OverflowError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise DataError(
            f"{where}: {what} of type {type(value).__name__} are no array ({reason[:200]}); give "
            "all rows one length, or convert them to a NumPy array"
        ) from None
