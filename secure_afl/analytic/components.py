"""Principal components of a table's columns, from the summed Gram matrix."""

from dataclasses import dataclass

import numpy as np

from secure_afl.analytic.describe import Summary
from secure_afl.analytic.quantise import Floats
from secure_afl.errors import ConfigError

MOST_SHOWN = 10


@dataclass(frozen=True, eq=False)
class Components:
    """Principal components, the largest first.

    Attributes:
        names: of the k columns.
        values: eigenvalues, (k,): of the correlations, or in squared own units.
        shares: of the variance, (k,).
        loadings: unit vectors over the columns, (k, shown); the greatest entry is positive.
        errors: standard deviation of the noise in each value, (k,); None without noise.
    """

    names: tuple[str, ...]
    values: Floats
    shares: Floats
    loadings: Floats
    errors: Floats | None

    def __repr__(self) -> str:
        return f"<Components of {len(self.names)} columns>"


def principal(summary: Summary, *, standardise: bool = True, shown: int = MOST_SHOWN) -> Components:
    """Find the principal components of the columns that correlations are of.

    Args:
        standardise: columns are divided by their deviations, else left in own units.
        shown: how many components' loadings are returned.

    Raises:
        ConfigError: no column varies, in more than a few rows.
    """
    place = summary.correlated
    if not len(place):
        raise ConfigError(
            "no column of this sum varies in enough rows; components need one at least. Give more "
            "rows"
        )
    covariance = summary.covariance[np.ix_(place, place)]
    scale = 1 / np.sqrt(covariance.diagonal()) if standardise else summary.unit[place]
    matrix = covariance * np.outer(scale, scale)
    if not standardise:
        matrix *= summary.total / (summary.total - 1)
    values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
    values, vectors = values[::-1], vectors[:, ::-1]
    greatest = np.abs(vectors).argmax(axis=0)
    vectors = vectors * np.sign(vectors[greatest, np.arange(len(values))])
    return Components(
        tuple(summary.names[p] for p in place),
        values,
        values / matrix.trace(),
        vectors[:, : min(shown, len(values))],
        _errors(summary, values, vectors, scale, standardise=standardise),
    )


def _errors(
    summary: Summary, values: Floats, vectors: Floats, scale: Floats, *, standardise: bool
) -> Floats | None:
    """Return the noise's standard deviation in each eigenvalue, to first order.

    With a = v·scale, an eigenvalue moves by ΣM_kl δV_kl, where M = aaᵀ, less λv²/V on the diagonal
    where the scales are estimated too; and N·δV_kl = E_kl − m_k q_l − m_l q_k + (m_k m_l − V_kl)e.
    """
    noise = summary.noise
    if noise is None:
        return None
    place, classes = summary.correlated, len(summary.classes)
    covariance, m = summary.covariance[np.ix_(place, place)], summary.level[place]
    cross = noise.cross / summary.label_scale
    rows = noise.counts / summary.label_scale**2
    found = []
    for value, vector in zip(values, vectors.T, strict=True):
        weights = np.outer(vector * scale, vector * scale)
        if standardise:
            weights -= np.diag(value * vector**2 / covariance.diagonal())
        diagonal = (weights.diagonal() ** 2).sum()
        upper = 2 * ((weights**2).sum() - diagonal)
        moved = weights @ m
        count = m @ moved - (weights * covariance).sum()
        variance = diagonal * noise.diagonal**2 + upper * noise.upper**2
        variance += classes * (4 * cross**2 * (moved @ moved) + rows**2 * count**2)
        found.append(np.sqrt(variance) / summary.total)
    return np.array(found)
