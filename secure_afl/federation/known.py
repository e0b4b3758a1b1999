"""What a ledger knows a client's rows again by."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from secure_afl.analytic.rows import ClientData
from secure_afl.privacy.ledger.alike import Alike

# Of rows that seldom agree among themselves, so many may agree with others all the same.
_SLACK = 2

Digest = Callable[[NDArray[np.floating]], tuple[bytes, ...]]


class KnownBy(NamedTuple):
    """Digests of a client's rows, as `Ledger.authorise` takes them.

    Attributes:
        rows: of features, of which one that is met is enough.
        alike: of a table's rows and of its patients.
    """

    rows: tuple[bytes, ...] = ()
    alike: tuple[Alike, ...] = ()


def known_by(data: ClientData, digest: Digest) -> KnownBy:
    """Return what these rows are known again by: features, or marks of a table's rows.

    A kind of marks of which most rows have another's tells nobody anything, and is left out.

    Args:
        digest: `Ledger.row_digests`.
    """
    if data.marks is None:
        return KnownBy(digest(data.features))
    # Of no use to clients without tables.
    from secure_afl.data.tables.marks import patient_marks

    kinds = []
    for kind in range(data.marks.shape[1]):
        marks = data.marks[:, kind]
        alone, share = _agreement(marks, data.patients)
        if alone >= 0.5:
            kinds.append(Alike(digest(marks), share, _SLACK))
    if data.patients is not None:
        kinds.append(Alike(digest(patient_marks(data.patients)), what="patients"))
    return KnownBy(alike=tuple(kinds))


def _agreement(marks: NDArray[np.float32], patients: Sequence[str] | None) -> tuple[float, float]:
    """Return the share of rows that agree with no other patient's, and of pairs that agree."""
    _, code = np.unique(marks, axis=0, return_inverse=True)
    if patients is not None:
        _, whose = np.unique(np.array(patients), return_inverse=True)
        code = np.unique(np.stack([code.ravel(), whose.ravel()], axis=1), axis=0)[:, 0]
    counts = np.unique(code, return_counts=True)[1].astype(np.float64)
    rows = counts.sum()
    pairs = float((counts * (counts - 1)).sum() / (rows * (rows - 1))) if rows > 1 else 0.0
    return float((counts == 1).sum() / rows), pairs
