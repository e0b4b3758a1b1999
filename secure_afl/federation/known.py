"""What a ledger knows a client's rows again by."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from secure_afl.analytic.rows import ClientData
from secure_afl.privacy.ledger.alike import Alike

# Of rows that seldom agree among themselves, so many may agree with others all the same.
_SLACK = 2

# Of fewer kinds of rows, all may be there equally often by chance.
_MANY = 20

# Share of rows from which on it is said that a ledger does not know them again.
MUCH_LOST = 0.5

Digest = Callable[[NDArray[np.floating]], tuple[bytes, ...]]


class KnownBy(NamedTuple):
    """Digests of a client's rows, as `Ledger.authorise` takes them.

    Attributes:
        rows: of features, of which one that is met is enough.
        alike: of a table's rows and of its patients.
        lost: share of rows that nothing here tells from others of the same table, 0 to 1.
    """

    rows: tuple[bytes, ...] = ()
    alike: tuple[Alike, ...] = ()
    lost: float = 0.0


def known_by(data: ClientData, digest: Digest) -> KnownBy:
    """Return what these rows are known again by: features, or marks of a table's rows.

    Args:
        digest: `Ledger.row_digests`.
    """
    if data.marks is None:
        return KnownBy(digest(data.features))
    # Of no use to clients without tables.
    from secure_afl.data.tables.marks import WHOLE, patient_marks

    whose = np.arange(len(data))
    if data.people is not None:
        whose = np.unique(np.array(data.people), return_inverse=True)[1]
    kinds, told = [], np.zeros(len(data), dtype=np.bool_)
    for kind in range(data.marks.shape[1]):
        marks = data.marks[:, kind]
        alone, pairs = _alone(marks, whose)
        # Of a part of the columns, or beside ids, a few rows that agree are no sign of old data.
        pairs += kind >= WHOLE or data.patients is not None
        kinds.append(Alike(digest(marks), digest(marks[alone]), len(alone), pairs, _SLACK))
        told |= alone
    if data.patients is not None:
        patients = digest(patient_marks(data.patients))
        kinds.append(Alike(patients, patients, len(patients), what="patients"))
        told |= np.array([name != "" for name in data.patients])
    return KnownBy(alike=tuple(kinds), lost=float(1 - told.mean()))


def _alone(marks: NDArray[np.float32], whose: NDArray[np.int64]) -> tuple[NDArray[np.bool_], int]:
    """Say which rows agree with no other patient's, (n,), and how many marks two patients have.

    A table that has each row several times is taken for one that has it once.
    """
    # 48 bits of a mark are enough to count by.
    numbers = marks[:, 0].astype(np.float64) * 2**24 + marks[:, 1]
    code = np.unique(numbers, return_inverse=True)[1].astype(np.int64)
    counts = np.bincount(np.unique(code * (whose.max() + 1) + whose) // (whose.max() + 1))
    if len(counts) >= _MANY:
        counts //= np.gcd.reduce(counts)
    return (counts == 1)[code], int((counts == 2).sum())
