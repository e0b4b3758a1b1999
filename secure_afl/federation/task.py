"""The task of a federation, planned from declarations: bounds, bits, cohort and noise."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

import msgspec

from protocols.errors import WouldOverflow
from protocols.layout import RING_BITS
from protocols.protocol import Protocol
from secure_afl.analytic.patients import PatientGroups, known_patients
from secure_afl.analytic.quantise import MAX_BITS, Quantiser, RowMode
from secure_afl.analytic.rows import ClientData
from secure_afl.analytic.scales import open_columns
from secure_afl.analytic.statistics import MAX_CLIENT_ROWS
from secure_afl.data.columns import Columns
from secure_afl.errors import ConfigError
from secure_afl.federation.sums import calibrated, sum_layout
from secure_afl.methods.method import AnyMethod, Task
from secure_afl.methods.scaled import Scaled
from secure_afl.privacy.mechanism import Mechanism, Privacy

# Fewer bits than this cost accuracy, which a wider ring does not.
LEAST_DEFAULT_BITS = 8
SAME_SET_BELOW = 50


@dataclass(frozen=True)
class Terms:
    """The terms that a federation agrees on before anybody looks at data.

    Attributes:
        method: what is learned.
        protocol: who sees what while it is summed.
        privacy: what the run promises; None adds no noise.
    """

    method: AnyMethod
    protocol: Protocol
    privacy: Privacy | None = None

    @property
    def by_patient(self) -> bool:
        """Whether patients are what the promise hides."""
        return self.privacy is not None and self.privacy.unit == "patient"

    def units(self, name: str, rows: int, patients: Sequence[str] | None) -> int:
        """Count what a client's bound is of: rows, or patients where these are hidden.

        Args:
            name: of the client.
            rows: their number.
            patients: whose each row is.

        Raises:
            DataError: rows do not say whose they are, and patients are hidden.
        """
        return len(PatientGroups.of(known_patients(name, patients))) if self.by_patient else rows

    def default_cohort(self, clients: int) -> int:
        """Return a majority; of noise shares nine tenths, for each that may miss costs accuracy.

        It is no less than two beyond those who may work with a coordinator, nor than the method
        needs.
        """
        least = max(self.protocol.colluders(clients) + 2, self.method.least_cohort)
        if self.privacy is None or self.privacy.placement == "central":
            return max(least, majority(clients))
        return max(least, clients - clients // 10)

    def keeps_same_set(self, clients: int) -> bool:
        """Say whether later sums keep to the first one's clients where nobody has decided.

        Without noise two sums show whoever is in one of them only, and among few clients one more
        or less is easily arranged; among many, one that vanishes should not end a run.
        """
        return self.method.sums > 1 and self.privacy is None and clients < SAME_SET_BELOW

    def colluders(self, clients: int, min_cohort: int, corrupt: int) -> int:
        """Return how many clients' shares of the noise an attacker may know."""
        if not self.protocol.hides_vectors:
            # Who sees single vectors has one share of noise in each, as if all others had told.
            return min_cohort - 1
        return max(1, corrupt, self.protocol.colluders(clients))

    def declared_rows(self, clients: Sequence[ClientData], max_rows: int | None) -> list[int]:
        """Return the public bound that each client declares on its rows, or on its patients.

        Raises:
            ConfigError: a bound out of 1..2^29, or none where their number is private.
        """
        if max_rows is not None:
            if not 1 <= max_rows <= MAX_CLIENT_ROWS:
                raise ConfigError(
                    f"max_rows is {max_rows}, allowed: 1..{MAX_CLIENT_ROWS}; pass another "
                    "--max-rows"
                )
            return [int(max_rows)] * len(clients)
        privacy = self.privacy
        if privacy is not None and not privacy.rows_are_public:
            raise ConfigError(
                "no public bound on a client's rows, whose number privacy hides, or patients (unit "
                f"{privacy.unit}, {privacy.neighbours}); pass --max-rows"
            )
        return [1 << (len(data) - 1).bit_length() for data in clients]


@dataclass(frozen=True)
class Declared:
    """All parties' declarations about a federation's data, and how rows become integers.

    Attributes:
        dim: features of a row, d.
        classes: names of the C classes.
        max_rows: each client's name and its bound on its rows.
        backbone: digest of what made the features, 32 bytes.
        min_cohort, corrupt: of the sessions.
        feature_bits: rows become integers of norm ≤ 2^bits; None finds them.
        row_mode, clip: how rows are brought to norm ≤ 1, see `Quantiser`.
        columns: what the features are, where rows are those of a table.
    """

    dim: int
    classes: tuple[str, ...]
    max_rows: tuple[tuple[str, int], ...]
    backbone: bytes
    min_cohort: int
    corrupt: int = 0
    feature_bits: int | None = None
    row_mode: RowMode = "normalise"
    clip: float = 1.0
    columns: Columns | None = None


def majority(clients: int) -> int:
    """Return the default minimum cohort: more than half, and two at least."""
    return max(2, clients // 2 + 1)


def check_cohort(method: AnyMethod, clients: int, min_cohort: int) -> None:
    """Raise ConfigError for fewer clients, or a smaller cohort, than a method's sums may be of."""
    least = method.least_cohort
    if clients < least or min_cohort < least:
        raise ConfigError(
            f"{clients} clients, minimum cohort {min_cohort}; with --scale federated allowed: "
            f"≥ {least} each, for of two sites each would read the other's exponents off the ranges"
        )


def check_rows_enough(terms: Terms, rows: int, features: int) -> None:
    """Raise ConfigError for so few rows in an exact sum that no model follows from it.

    Args:
        rows: of all clients together, or the most that they declare.
    """
    least = terms.method.least_rows(features)
    if terms.privacy is None and rows < least:
        raise ConfigError(
            f"{rows} rows at most in the sum, for {features} columns; with --method "
            f"{terms.method.name} allowed: ≥ {least}. Give more rows, or leave columns out"
        )


def plan_task(terms: Terms, declared: Declared, run: bytes | None = None) -> Task:
    """Plan the task, with the most bits that the ring holds and the noise calibrated.

    The ring is the narrowest.

    Args:
        run: 16 bytes that tell the run from all others; by default random ones.

    Raises:
        ConfigError: no ring holds the rows, no noise keeps the promise, clients or rows are too few
            for the method or the minimum cohort, or columns lack a range and the method finds none.
    """
    if terms.method.least_cohort > 2:
        check_cohort(terms.method, len(declared.max_rows), declared.min_cohort)
    if open_columns(declared.columns) and not isinstance(terms.method, Scaled):
        raise ConfigError(
            f"column {open_columns(declared.columns)[0].name!r} has no range, and the method finds "
            "none; declare one, or learn by scaled(method)"
        )
    check_rows_enough(terms, sum(bound for _, bound in declared.max_rows), declared.dim)
    run = secrets.token_bytes(16) if run is None else run

    def task(bits: int) -> Task:
        quantiser = Quantiser(bits, declared.row_mode, declared.clip)
        bounds = [bound for _, bound in declared.max_rows]
        exact = Task(
            feature_dim=declared.dim,
            classes=declared.classes,
            quantiser=quantiser,
            total_rows=sum(bounds),
            client_rows=max(bounds),
            clients=len(bounds),
            backbone=declared.backbone,
            run=run,
            columns=declared.columns,
        )
        return exact if terms.privacy is None else _with_noise(exact, terms.privacy)

    def _with_noise(exact: Task, privacy: Privacy) -> Task:
        clients = len(declared.max_rows)
        if declared.min_cohort > clients:
            raise ConfigError(
                f"minimum cohort {declared.min_cohort} of {clients} clients; allowed: ≤ {clients}. "
                "Enrol more clients, or lower --min-cohort"
            )
        mechanism = Mechanism(
            privacy,
            rounds=terms.method.planned_sums(privacy, exact.total_rows, exact.client_rows),
            clients=clients,
            dropouts=clients - declared.min_cohort,
            colluders=terms.colluders(clients, declared.min_cohort, declared.corrupt),
        )
        return calibrated(terms.method, msgspec.structs.replace(exact, mechanism=mechanism))

    if declared.feature_bits is not None:
        return task(declared.feature_bits)
    if terms.privacy is not None or terms.method.fine_rows:
        # The noise needs a wider ring anyway, and rounding should not add to it; nor to the error
        # of a coefficient.
        return task(MAX_BITS)
    for ring in RING_BITS:
        for bits in range(MAX_BITS, LEAST_DEFAULT_BITS - 1, -1):
            if _ring_bits(terms.method, task(bits)) <= ring:
                return task(bits)
    rows = sum(bound for _, bound in declared.max_rows)
    raise ConfigError(f"no ring holds {rows} rows; declare fewer with --max-rows")


def _ring_bits(method: AnyMethod, task: Task) -> float:
    """Return the widest ring of the sums that the method foresees; infinite if none holds one."""
    try:
        layouts = [sum_layout(method, public) for public in method.foreseen(task)]
    except WouldOverflow:
        return inf
    return max(layout.ring_bits for layout in layouts if layout is not None)
