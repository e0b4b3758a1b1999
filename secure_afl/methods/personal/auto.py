"""The best of several ways, by rows that the client kept out."""

from secure_afl.analytic.rows import ClientData
from secure_afl.methods.method import Own
from secure_afl.methods.personal.personal import PERSONAL, Personal, halves
from secure_afl.methods.personal.prior import OwnPrior

# Fewer kept-out rows than this cannot tell ways apart.
FEWEST_KEPT = 30


@PERSONAL.register
class Auto(Personal):
    """Chooses among the candidates by accuracy on one half of the kept-out rows.

    The other half is for the report. Of equals the first stays: the global model, then the
    client's own prior. Below 30 kept-out rows it takes the prior.
    """

    name = "auto"
    summary = "the best of none, prior and proximal, on rows that the client kept out"
    wants_ridge = True
    has_alpha = True
    chooses = True

    def make(self, data: ClientData, kept: ClientData | None) -> Own:
        """Make the candidates' models, and return the one of the most hits."""
        settings = self.task, self.model, self.ridge, self.summed, self.alpha
        if kept is None or len(kept) < FEWEST_KEPT:
            return OwnPrior(*settings).make(data, None)
        half, _ = halves(kept)
        candidates = [way(*settings).make(data, None) for way in _candidates()]
        hits = [own.model.accuracy(half.features, half.labels) for own in candidates]
        return candidates[hits.index(max(hits))]


def _candidates() -> list[type[Personal]]:
    """List the ways to choose among: the global model first, then by name."""
    found = [way for way in PERSONAL.values() if way.candidate]
    return sorted(found, key=lambda way: (way.name != "none", way.name))
