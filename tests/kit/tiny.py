"""Small attacks on what a session releases, to try the suite with."""

from typing import Any

import numpy as np

from attacks.attack import Attack, Known, Measure, Picture, Truth
from attacks.measures.metrics import membership, membership_at_chance, roc, share
from attacks.views.run import RunView
from protocols.layout import Integers
from secure_afl.analytic.quantise import Floats
from secure_afl.analytic.statistics import Statistics


def released(view: RunView) -> Statistics | None:
    """The sum that a member of the coalition received, if it is one of statistics."""
    last = view.rounds[-1]
    names = {block.name for block in last.session.layout.blocks}
    if last.released is None or "counts" not in names:
        return None
    return Statistics.unpack(last.released.total, last.session.layout)


class Counts(Attack[Integers]):
    """Reads the class counts off the released sum.

    They are entries of it: the formula is n_c.
    """

    name = "counts"
    wants = "a released sum of statistics"

    def claim(self, view: RunView, known: Known, rng: np.random.Generator) -> Integers | None:
        found = released(view)
        return None if found is None else found.counts

    def judge(
        self, claim: Integers | None, truth: Truth, confidence: float = 0.95
    ) -> list[Measure]:
        labels = np.concatenate([data.labels for data in truth.clients.values()])
        if claim is None:
            return [share(0, 0, 0.0, confidence=confidence, metric="exact counts")]
        right = int((claim == np.bincount(labels, minlength=len(claim))).sum())
        return [share(right, len(claim), 0.0, confidence=confidence, metric="exact counts")]


class Leverage(Attack[Floats]):
    """Scores candidates by their leverage fᵀ(G + λI)⁻¹f in the released sum, less that without
    them, as rows of the sum have less than others in proportion to their norm.
    """

    name = "leverage"
    wants = "a released sum of statistics"
    assumes = ("candidate rows",)

    def claim(self, view: RunView, known: Known, rng: np.random.Generator) -> Floats | None:
        found = released(view)
        if found is None or known.candidates is None:
            return None
        task = view.publics[0].task
        gram, _ = found.floats(task.quantiser)
        rows = task.quantiser.scaled(known.candidates)
        solved = np.linalg.solve(gram + 1e-4 * np.eye(len(gram)), rows.T).T
        scores: Floats = -np.einsum("ij,ij->i", rows, solved)
        return scores

    def judge(self, claim: Floats | None, truth: Truth, confidence: float = 0.95) -> list[Measure]:
        if claim is None or truth.members is None:
            return membership_at_chance(confidence)
        return membership(claim, truth.members, confidence)

    def roc(self, claim: Floats | None, truth: Truth) -> tuple[Floats, Floats] | None:
        return None if claim is None or truth.members is None else roc(claim, truth.members)


class MeanPicture(Attack[Floats]):
    """Shows the mean of the pixels of the rows of a class, Q_c / n_c, for pixels as features."""

    name = "mean-picture"
    wants = "a released sum of statistics of pixels"
    assumes = ("the shape of the images",)

    def claim(self, view: RunView, known: Known, rng: np.random.Generator) -> Floats | None:
        found = released(view)
        side = None if found is None else int(np.sqrt(len(found.gram)))
        if found is None or side is None or side * side != len(found.gram):
            return None
        mean = found.cross / np.maximum(found.counts, 1)
        scaled: Floats = mean.T.reshape(-1, side, side, 1) / mean.max()
        return scaled

    def judge(self, claim: Floats | None, truth: Truth, confidence: float = 0.95) -> list[Measure]:
        chance = 0.0
        if claim is None:
            return [Measure("correlation", chance, -1.0, 1.0, chance, 1.0, 0, confidence)]
        found = [
            float(np.corrcoef(true.ravel(), rebuilt.ravel())[0, 1])
            for _, true, rebuilt in self.pictures(claim, truth)
        ]
        value = float(np.mean(found))
        return [Measure("correlation", value, -np.inf, np.inf, chance, 1.0, len(found), confidence)]

    def pictures(self, claim: Floats | None, truth: Truth) -> list[Picture]:
        if claim is None:
            return []
        pictures = []
        for name, data in list(truth.clients.items())[:3]:
            label = int(data.labels[0])
            pictures.append(Picture(f"{name}, class {label}", truth.images[name][0], claim[label]))
        return pictures


class Drawing(Attack[float]):
    """Draws a number, which says what seed its cell had."""

    name = "drawing"
    wants = "nothing"

    def claim(self, view: RunView, known: Known, rng: np.random.Generator) -> float:
        return float(rng.random())

    def judge(self, claim: float | None, truth: Truth, confidence: float = 0.95) -> list[Measure]:
        assert claim is not None
        return [Measure("drawn", claim, 0.0, 1.0, 0.5, 1.0, 1, confidence)]


class Stumbling(Attack[Any]):
    """Raises an error where there is a sum."""

    name = "stumbling"
    wants = "a released sum of statistics"

    def claim(self, view: RunView, known: Known, rng: np.random.Generator) -> Any:
        if released(view) is not None:
            raise ZeroDivisionError("stumbled")

    def judge(self, claim: Any, truth: Truth, confidence: float = 0.95) -> list[Measure]:
        return [Measure("nothing", 0.0, 0.0, 1.0, 0.0, 1.0, 0, confidence)]


TINY: dict[str, type[Attack[Any]]] = {
    attack.name: attack for attack in (Counts, Leverage, MeanPicture)
}
