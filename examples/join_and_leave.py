"""Hospitals join and leave a model: one blind sum of those who change, and exact unlearning.

python examples/join_and_leave.py
"""

import numpy as np
from sklearn.datasets import load_digits

from secure_afl import AFL, Additive, ClientData, Federation
from secure_afl.errors import LedgerRefusal
from secure_afl.runs.change import Standing, change

digits = load_digits()
features, labels = digits.data.astype(np.float32), digits.target.astype(np.int64)
names = ("north", "south", "west", "east", "coast", "hills", "lakes", "woods", "plains")
sites = [ClientData(name, features[i:1500:9], labels[i:1500:9]) for i, name in enumerate(names)]


def accuracy(standing: Standing) -> float:
    """Score the model of a total on rows of nobody's."""
    return float((standing.model().predict(features[1500:]) == labels[1500:]).mean())


# Six hospitals make a model, and the receiver keeps the total.
federation = Federation(AFL(), Additive(), feature_bits=9)
before = Standing.of(federation.run(sites[:6], classes=[str(digit) for digit in range(10)]))
print(f"six hospitals: {accuracy(before):.1%}")

# One alone may not go: the old total less the new one would be its statistics.
try:
    change(before, Additive(), leaving=sites[:1])
except LedgerRefusal as refusal:
    print(f"refused: {refusal}")

# Three go and three come, in one sum of which nobody sees a part.
after = change(before, Additive(), joining=sites[6:], leaving=sites[:3])
print(f"three went, three came: {accuracy(after):.1%}")
for warning in after.warnings:
    print("warning:", warning)

# The model is the one that the six would have made without the others, to the last bit.
anew = Standing.of(federation.run(sites[3:], classes=[str(digit) for digit in range(10)]))
same = after.model().weights.tobytes() == anew.model().weights.tobytes()
print(f"equal to retraining, byte for byte: {same}")
