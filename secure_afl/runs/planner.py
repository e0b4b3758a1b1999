"""How many rows a run over tables needs, from declarations alone: no data are read."""

import math

import msgspec
import numpy as np

from protocols.identity import Identity
from protocols.layout import Layout
from protocols.network import Network
from protocols.protocol import Protocol, enrol, form_session, new_nonce
from secure_afl.analytic.coefficients import Family
from secure_afl.data.columns import Column, Columns
from secure_afl.errors import ConfigError
from secure_afl.federation.sums import sum_layout, this_noisy_sum
from secure_afl.federation.task import Declared, Terms, check_rows_enough, plan_task
from secure_afl.federation.warnings import ROWS_PER_DIMENSION, few_rows
from secure_afl.methods.logistic import Logistic
from secure_afl.methods.method import AnyMethod, Task
from secure_afl.runs.advice import warn_of_terms
from secure_afl.runs.choose import make_terms
from secure_afl.runs.config import RunConfig

# What is assumed of data that nobody has looked at: columns are spread evenly over their ranges,
# correlate with nothing, and explain a quarter of an outcome whose classes are equally frequent.
# A number that is predicted is spread evenly over its range, too.
SPREAD = 1 / 3
EXPLAINED = 0.25
_UNITS: dict[Family, str] = {
    "linear": "deviations of the outcome, a deviation of the column",
    "logistic": "log-odds, a deviation of the column",
}
# Larger vectors are not sent around to see what their upload is.
_MEASURED_BYTES = 1 << 19
_MEASURED_CLIENTS = 8


class Sight(msgspec.Struct, frozen=True):
    """What a set of coordinators could see, by the protocol's own declaration.

    Attributes:
        who: in words.
        meaning: one sentence.
        opens: `nothing`, the `sum`, or single sites' `vectors`.
        clients: sites that work with them, beside.
    """

    who: str
    meaning: str
    opens: str
    clients: int


class Plan(msgspec.Struct, frozen=True):
    """What a run over tables would be, by its declarations.

    Attributes:
        method, protocol: names.
        sites, rows, columns, classes: declared; rows of all sites together. Null classes: a number
            is predicted.
        bound: on each site's rows, or patients.
        receiver: who receives the sum, in words.
        sights: what coordinators could see, weakest first.
        warnings: those of a run like this.
        rows_for_membership: from so many rows on, an exact sum gives no warning of membership.
        sums: blind sums of a run; the most, where it ends once another would change nothing.
        ring_bits: of the sum; of several, here and below, of that with the largest vector.
        entries: integers in a site's vector.
        vector_bytes: of a site's vector, packed.
        upload_bytes: all that a site sends for a sum, measured with zeros among ≤ 8 sites; null for
            vectors too large to try.
        unit: of a coefficient, in words.
        sampling_error: standard error of a coefficient; null for too few rows.
        noise: standard deviation of the noise in one; 0 for exact sums.
        lost: noise is so large beside the columns' variance that no coefficient is left.
        rows_for_noise: from so many rows on, noise is no more than the sampling error.
        assumed: of the data, in words.
    """

    method: str
    protocol: str
    sites: int
    rows: int
    columns: int
    classes: int | None
    bound: int
    receiver: str
    sights: tuple[Sight, ...]
    warnings: tuple[str, ...]
    rows_for_membership: int | None
    sums: int
    ring_bits: int
    entries: int
    vector_bytes: int
    upload_bytes: int | None
    unit: str
    sampling_error: float | None
    noise: float
    lost: bool
    rows_for_noise: int | None
    assumed: str


class CoefficientNoise(msgspec.Struct, frozen=True):
    """Noise in a standardised coefficient, as a function of rows.

    Attributes:
        size: a, in rows: the standard deviation is a/N.
        floor: √(2d)·σ_G over a feature's variance, in rows: below twice as many rows, noise
            outweighs the columns.
    """

    size: float
    floor: float

    def at(self, rows: int) -> float:
        """Return the standard deviation at so many rows."""
        return self.size / rows

    def rows_needed(self, columns: int) -> int:
        """Return the rows at which noise is no more than the sampling error, and from there on.

        a/N ≤ √((1 − R²)/(N − d − 1)); and enough that the noise does not outweigh the columns.
        """
        left, a2 = 1 - EXPLAINED, self.size**2
        inner = a2**2 - 4 * left * a2 * (columns + 1)
        crossing = 0.0 if inner < 0 else (a2 + math.sqrt(inner)) / (2 * left)
        return math.ceil(max(crossing, 2 * self.floor, columns + 2) - 1e-9)


def coefficient_noise(columns: int, outcome: float, gram: float, cross: float) -> CoefficientNoise:
    """Return the noise in a standardised coefficient, of one class against the others or a number.

    With v = s²/d the variance of a feature, b the coefficients and e the noise of G and Q in units
    of rows of norm ≤ 1, N·δb_k = e_Q/(√v·s_y) − Σ_l e_kl b_l/v to first order. With one column that
    explains all of R² its variance is c·σ_Q²/v + R²·σ_G²/v², the most that there is.

    Args:
        columns: d.
        outcome: c: C for classes, 1/s_y² for a number in [−1, 1] of variance s_y².
        gram: σ_G, of the Gram matrix's diagonal.
        cross: σ_Q.
    """
    v = SPREAD / columns
    size = math.sqrt(outcome * cross**2 / v + EXPLAINED * (gram / v) ** 2)
    return CoefficientNoise(size, math.sqrt(2 * columns) * gram / v)


def sampling_error(rows: int, columns: int) -> float | None:
    """Return the standard error of a standardised coefficient; None for too few rows."""
    left = rows - columns - 1
    return math.sqrt((1 - EXPLAINED) / left) if left > 0 else None


def plan_run(
    config: RunConfig, sites: int, rows_each: int, columns: int, classes: int | None = None
) -> Plan:
    """Plan a run over tables.

    Args:
        config: of method, protocol and promise.
        sites: how many.
        rows_each: of each site.
        columns: d; an indicator is a column.
        classes: C, by default 2; None where a number is predicted.

    Raises:
        ConfigError: a method without a sum of statistics, classes for a number, a bound below the
            rows, too few rows, or what a run of these settings refuses.
    """
    terms = make_terms(config)
    method, protocol = terms.method, terms.protocol
    if not method.releases_statistics or method.images:
        raise ConfigError(
            f"a plan of --method {method.name}, whose sum has no coefficients; take afl, "
            "regression or logistic"
        )
    if method.numeric and classes is not None:
        raise ConfigError(
            f"--classes {classes} with --method {method.name}, which predicts a number; leave it "
            "out"
        )
    if not method.numeric and classes is None:
        classes = 2
    check_rows_enough(terms, sites * rows_each, columns)
    bound = _bound(config, rows_each)
    task = _task(terms, config, sites, bound, columns, classes)
    layout = _largest(method, task)
    rows, width = sites * rows_each, method.widest(task)
    noise = _noise(terms, task, sites)
    exact = terms.privacy is None
    warned = [] if protocol.hides_vectors else [f"Protocol '{protocol.name}' hides no vector."]
    warned += [*protocol.advice(sites), *warn_of_terms(terms, [bound] * sites)]
    warned += few_rows(rows, width, columns=True) if exact else []
    return Plan(
        method=method.name,
        protocol=protocol.name,
        sites=sites,
        rows=rows,
        columns=columns,
        classes=classes,
        bound=bound,
        receiver=protocol.receiver_title,
        sights=tuple(
            Sight(one.title, one.meaning, one.opens, one.clients) for one in protocol.coalitions()
        ),
        warnings=tuple(warned),
        rows_for_membership=ROWS_PER_DIMENSION * width if exact else None,
        sums=method.run_sums(task),
        ring_bits=layout.ring_bits,
        entries=layout.length,
        vector_bytes=layout.packed_bytes,
        upload_bytes=upload_bytes(protocol, layout, sites),
        unit=_UNITS[_family(method)],
        sampling_error=_error(method, rows, columns),
        noise=0.0 if noise is None else noise.at(rows),
        lost=noise is not None and rows < 2 * noise.floor,
        rows_for_noise=None if noise is None else noise.rows_needed(columns),
        assumed=assumed(numeric=method.numeric),
    )


def assumed(*, numeric: bool) -> str:
    """Say what a plan assumes of data that nobody has looked at."""
    outcome = "the target spread likewise" if numeric else "classes equally frequent"
    return (
        f"columns spread evenly over their ranges and uncorrelated; {outcome}; a quarter of the "
        f"outcome explained (R² = {EXPLAINED:g})"
    )


def _largest(method: AnyMethod, task: Task) -> Layout:
    """Return the layout of a run's largest sum."""
    layouts = [sum_layout(method, public) for public in method.foreseen(task)]
    return max((found for found in layouts if found is not None), key=lambda one: one.packed_bytes)


def _error(method: AnyMethod, rows: int, columns: int) -> float | None:
    """Return the sampling error of a coefficient in the unit that the method's have.

    With p of equally frequent classes E[p(1 − p)] is (1 − R²)/4, which a log-odds' error goes by.
    """
    linear = sampling_error(rows, columns)
    if linear is None or _family(method) == "linear":
        return linear
    return 2 * linear / (1 - EXPLAINED)


def _family(method: AnyMethod) -> Family:
    return "logistic" if isinstance(method.learner, Logistic) else "linear"


def upload_bytes(protocol: Protocol, layout: Layout, sites: int) -> int | None:
    """Return all that one site sends, from a session of zeros among a few sites.

    None for vectors too large to try.
    """
    if layout.packed_bytes > _MEASURED_BYTES:
        return None
    names = [f"site_{at}" for at in range(min(sites, _MEASURED_CLIENTS))]
    nonce = new_nonce()
    enrolments = enrol(protocol, {name: Identity.generate(name) for name in names}, nonce)
    members = [enrolment.member for enrolment in enrolments.values()]
    least = max(2, protocol.colluders(len(names)) + 2)
    session = form_session(protocol, members, nonce, layout, min_cohort=least)
    zeros = np.zeros(layout.length, dtype=np.int64)
    parties = [
        protocol.client(session, enrolment, lambda _: zeros)
        if name in names
        else protocol.coordinator(session, enrolment)
        for name, enrolment in enrolments.items()
    ]
    network = Network(parties)
    network.run()
    return max(network.sent_bytes[name] for name in names)


def _bound(config: RunConfig, rows_each: int) -> int:
    """Return the bound on each site's rows that a run would have."""
    if config.max_rows is None:
        return 1 << (rows_each - 1).bit_length()
    if config.max_rows < rows_each and config.unit != "patient":
        raise ConfigError(
            f"--max-rows {config.max_rows} with {rows_each} rows a site; allowed: ≥ {rows_each}"
        )
    return config.max_rows


def _task(
    terms: Terms, config: RunConfig, sites: int, bound: int, columns: int, classes: int | None
) -> Task:
    """Plan the task as a run does."""
    least = config.min_cohort or terms.default_cohort(sites)
    if not config.corrupt + 2 <= least <= sites:
        raise ConfigError(
            f"minimum cohort {least} of {sites} sites; allowed: {config.corrupt + 2} to {sites}"
        )
    names = ("y",) if classes is None else tuple(f"class {at}" for at in range(classes))
    declared = Declared(
        dim=columns,
        classes=names,
        max_rows=tuple((f"site {at}", bound) for at in range(sites)),
        backbone=bytes(32),
        min_cohort=least,
        corrupt=config.corrupt,
        feature_bits=config.feature_bits,
        row_mode="columns",
        columns=Columns(
            tuple(Column.over(f"x{at}", -1, 1) for at in range(columns)),
            Column.over("y", -1, 1) if classes is None else None,
        ),
    )
    return plan_task(terms, declared, bytes(16))


def _noise(terms: Terms, task: Task, sites: int) -> CoefficientNoise | None:
    """Return the noise in a coefficient when all sites add their shares; None without noise."""
    mechanism = task.mechanism
    if mechanism is None:
        return None
    noisy = this_noisy_sum(terms.method, terms.method.begin(task))
    more = mechanism.surplus(sites)
    stds = {name: std * more for name, std in noisy.scaled_stds.items()}
    outcome = 1 / SPREAD if terms.method.numeric else float(len(task.classes))
    return coefficient_noise(task.feature_dim, outcome, stds["gram_diagonal"], stds["cross"])
