"""An attack in one file: the largest class, read off released counts.

It shows that an attack is added by adding a file.
"""

import numpy as np

from attacks.attack import ATTACKS, Attack, Known, Measure, Truth
from attacks.measures.metrics import share
from attacks.views.run import RunView


@ATTACKS.register
class ToyLargestClass(Attack[int]):
    """Names the largest class.

    It is where the released counts n_c are greatest.
    """

    name = "toy-largest-class"
    wants = "a released sum with counts"

    def claim(self, view: RunView, known: Known, rng: np.random.Generator) -> int | None:
        released = view.rounds[-1].released if view.rounds else None
        if released is None:
            return None
        counts = view.rounds[-1].session.layout.split(released.total).get("counts")
        return None if counts is None else int(counts.argmax())

    def judge(self, claim: int | None, truth: Truth, confidence: float = 0.95) -> list[Measure]:
        labels = np.concatenate([data.labels for data in truth.clients.values()])
        counts = np.bincount(labels)
        right = claim is not None and counts[claim] == counts.max()
        metric, trials = "largest class", 0 if claim is None else 1
        chance = 1 / len(counts)
        return [share(int(right), trials, chance, confidence=confidence, metric=metric)]
