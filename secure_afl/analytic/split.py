"""Which rows are kept out, or go into which half: all of one patient together."""

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from protocols.layout import Integers
from secure_afl.analytic.quantise import Quantiser
from secure_afl.analytic.rows import ClientData

# What rows of norm 1 are rounded to before they are hashed: far above the last bits of features,
# which may be others on another day.
_GRID = 1 << 10


def keep_out(data: ClientData, share: float, quantiser: Quantiser, key: bytes) -> NDArray[np.bool_]:
    """Say of each row whether it is kept out, (n,): about this share are.

    It goes by a keyed BLAKE2b hash of the patient, where rows say whose they are, or of the row.
    All rows of a patient, and equal rows, are on one side, and no row's side turns on another row.
    Whoever has the key and a row can tell its side.

    Args:
        share: 0 to 1.
        quantiser: how rows are brought to norm ≤ 1.
        key: at most 64 bytes.
    """
    limit = int(share * 2**64)
    rows = np.rint(quantiser.scaled(data.features) * _GRID).astype(np.int64)
    patients = data.patients or ("",) * len(data)
    found = np.empty(len(data), dtype=bool)
    for place, (row, patient) in enumerate(zip(rows, patients, strict=True)):
        what, person = (patient.encode(), b"patient") if patient else (row.data, b"row")
        hashed = hashlib.blake2b(what, digest_size=8, key=key, person=person)
        found[place] = int.from_bytes(hashed.digest()) < limit
    return found


def halves_by_patient(patients: Sequence[str]) -> tuple[Integers, Integers]:
    """Cut rows into two halves, places (n₁,) and (n₂,); rows of one patient stay together.

    Patients are shuffled once for all, so that the same rows are always cut alike.
    """
    names, clusters = np.unique(np.asarray(patients), return_inverse=True)
    order = np.random.default_rng(len(names)).permutation(len(names))
    first = np.isin(clusters, order[: (len(names) + 1) // 2])
    return np.flatnonzero(first), np.flatnonzero(~first)
